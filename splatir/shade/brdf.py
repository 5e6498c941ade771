"""How does a surface reflect: the metallic-roughness BRDF, its samples and their densities.

GGX microfacets with Smith masking and Schlick's Fresnel term over a Lambert or Disney diffuse lobe.
The diffuse lobe is not reduced by the specular one, so both together can reflect a little more than
they receive: docs/shading.md has the white-furnace figures.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.safe import safe_normalise
from splatir.maths.sampling import cosine_pdf, local_frame, sample_cosine, sample_vndf
from splatir.settings import Settings
from splatir.shade.cloth import sheen_factor
from splatir.shade.surface import SurfacePoints

# Smallest GGX width whose peak float32 resolves; perceptual roughness 0.045.
MIN_ALPHA = 2e-3
# Normal reflectance of common dielectrics, refractive index 1.5.
DIELECTRIC_F0 = 0.04

Masking = Literal["separable", "correlated"]


@dataclass(frozen=True)
class ShadingSettings(Settings):
    """Which of the usual variants of the BRDF.

    Attributes:
        diffuse: Diffuse lobe: "disney" with its retro-reflection, or "lambert".
        masking: Smith masking and shadowing: "separable", or "correlated" in height.
    """

    diffuse: Literal["disney", "lambert"] = "disney"
    masking: Masking = "separable"


def alpha_from_roughness(roughness: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """GGX width of a perceptual roughness, its square; at least `MIN_ALPHA`, flat below."""
    return roughness.square().clamp_min(MIN_ALPHA)


def f0(
    albedo: Float[Tensor, "*batch 3"],
    metallic: Float[Tensor, "*batch 1"],
    dielectric: float = DIELECTRIC_F0,
) -> Float[Tensor, "*batch 3"]:
    """Specular reflectance at normal incidence: that of a dielectric blended to the base colour.

    Args:
        albedo: Base colour, linear, 0 to 1.
        metallic: 0 to 1.
        dielectric: Reflectance of a non-metal.
    """
    return dielectric + metallic * (albedo - dielectric)


def ggx_distribution(
    n_dot_h: Float[Tensor, "*#batch"], alpha: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*#batch"]:
    """GGX normal distribution D(h), Walter et al. 2007, eq. 33, per steradian.

    Args:
        n_dot_h: Cosine of normal and half vector; negative values give 0.
        alpha: GGX width.

    Returns:
        D; the integral of n_dot_h * D over the hemisphere is 1.
    """
    # As (1 - c)(1 + c), sin^2 keeps its digits near the peak, which alpha^2 may be as small as.
    sin_squared = (1.0 - n_dot_h) * (1.0 + n_dot_h)
    squared = alpha.square()
    denominator = n_dot_h.square() * squared + sin_squared.clamp_min(0.0)
    return (n_dot_h > 0.0) * squared / (math.pi * denominator.square())


def smith_g1(
    cosine: Float[Tensor, "*#batch"], alpha: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*#batch"]:
    """Smith masking of GGX, Walter et al. 2007, eq. 34, as 2 c / (c + sqrt(a^2 + (1 - a^2) c^2)).

    Args:
        cosine: Of normal and direction, at least 0.
        alpha: GGX width, above 0.
    """
    return 2.0 * cosine * _half_mask(cosine, alpha)


def _half_mask(cosine: Tensor, alpha: Tensor) -> Tensor:
    """G1 / (2 cosine), finite at the horizon."""
    return 1.0 / (cosine + _slant(cosine, alpha))


def _slant(cosine: Tensor, alpha: Tensor) -> Tensor:
    squared = alpha.square()
    return (squared + (1.0 - squared) * cosine.square()).sqrt()


def smith_separable(
    n_dot_l: Float[Tensor, "*#batch"],
    n_dot_v: Float[Tensor, "*#batch"],
    alpha: Float[Tensor, "*#batch"],
) -> Float[Tensor, "*#batch"]:
    """Masking times shadowing, each by itself, over 4 n.l n.v: G1(l) G1(v) / (4 n.l n.v).

    Args:
        n_dot_l: Cosine of normal and light direction, at least 0.
        n_dot_v: Cosine of normal and view direction, at least 0.
        alpha: GGX width, above 0.

    Returns:
        Finite also where a cosine is 0.
    """
    return _half_mask(n_dot_l, alpha) * _half_mask(n_dot_v, alpha)


def smith_correlated(
    n_dot_l: Float[Tensor, "*#batch"],
    n_dot_v: Float[Tensor, "*#batch"],
    alpha: Float[Tensor, "*#batch"],
) -> Float[Tensor, "*#batch"]:
    """Masking and shadowing correlated in height, over 4 n.l n.v; Heitz 2014, eq. 99.

    Args:
        n_dot_l: Cosine of normal and light direction, at least 0.
        n_dot_v: Cosine of normal and view direction, at least 0.
        alpha: GGX width, above 0.

    Returns:
        G2(l, v) / (4 n.l n.v); finite unless both cosines are 0, where it is 0.
    """
    sum_of_slants = n_dot_l * _slant(n_dot_v, alpha) + n_dot_v * _slant(n_dot_l, alpha)
    is_lit = sum_of_slants > 0.0
    return is_lit * 0.5 / sum_of_slants.masked_fill(~is_lit, 1.0)


_SMITH = {"separable": smith_separable, "correlated": smith_correlated}


def fresnel_schlick(
    reflectance: Float[Tensor, "*#batch 3"], v_dot_h: Float[Tensor, "*#batch 1"]
) -> Float[Tensor, "*#batch 3"]:
    """Fresnel reflectance F0 + (1 - F0) (1 - v.h)^5, Schlick 1994.

    Args:
        reflectance: F0, at normal incidence.
        v_dot_h: Cosine of view and half vector, 0 to 1.
    """
    return reflectance + (1.0 - reflectance) * (1.0 - v_dot_h) ** 5


def lambert_factor(n_dot_l: Float[Tensor, "*#batch"]) -> Float[Tensor, "*#batch"]:
    """Diffuse reflectance of white Lambert per steradian, without the cosine: 1 / pi."""
    return torch.full_like(n_dot_l, 1.0 / math.pi)


def disney_factor(
    n_dot_l: Float[Tensor, "*#batch"],
    n_dot_v: Float[Tensor, "*#batch"],
    v_dot_h: Float[Tensor, "*#batch"],
    roughness: Float[Tensor, "*#batch"],
) -> Float[Tensor, "*#batch"]:
    """Diffuse reflectance of white per steradian, Burley 2015, eq. 4, without the cosine.

    Args:
        n_dot_l: Cosine of normal and light direction, 0 to 1.
        n_dot_v: Cosine of normal and view direction, 0 to 1.
        v_dot_h: Cosine of view and half vector, 0 to 1.
        roughness: Perceptual.
    """
    light, view = (1.0 - n_dot_l) ** 5, (1.0 - n_dot_v) ** 5
    retro = 2.0 * roughness * v_dot_h.square()
    base = (1.0 - 0.5 * light) * (1.0 - 0.5 * view)
    return (base + retro * (light + view + light * view * (retro - 1.0))) / math.pi


def evaluate(
    points: SurfacePoints,
    directions: Float[Tensor, "*samples p 3"],
    settings: ShadingSettings = ShadingSettings(),
) -> tuple[Float[Tensor, "*samples p 3"], Float[Tensor, "*samples p 3"]]:
    """Diffuse and specular BRDF times the cosine, per steradian; differentiable in everything.

    Args:
        points: Surface; views below the horizon count as grazing.
        directions: Unit, world, towards the light; those below the horizon reflect nothing.
        settings: Variants of the lobes.
    """
    n_dot_l = (points.normals * directions).sum(-1, keepdim=True).clamp(0.0, 1.0)
    n_dot_v = (points.normals * points.views).sum(-1, keepdim=True).clamp(0.0, 1.0)
    half = safe_normalise(directions + points.views)
    n_dot_h = (points.normals * half).sum(-1, keepdim=True).clamp(0.0, 1.0)
    v_dot_h = (points.views * half).sum(-1, keepdim=True).clamp(0.0, 1.0)
    if settings.diffuse == "disney":
        factor = disney_factor(n_dot_l, n_dot_v, v_dot_h, points.roughness)
    else:
        factor = lambert_factor(n_dot_l)
    if points.sheen is not None:
        factor = factor * sheen_factor(n_dot_l, n_dot_v, points.sheen)
    diffuse = (1.0 - points.metallic) * points.albedo * (factor * n_dot_l)
    alpha = alpha_from_roughness(points.roughness)
    smith = _SMITH[settings.masking](n_dot_l, n_dot_v, alpha)
    fresnel = fresnel_schlick(f0(points.albedo, points.metallic), v_dot_h)
    specular = fresnel * (ggx_distribution(n_dot_h, alpha) * smith * n_dot_l)
    return diffuse, specular


@torch.no_grad()
def sample(
    points: SurfacePoints, uniforms: Float[Tensor, "*samples p 3"]
) -> Float[Tensor, "*samples p 3"]:
    """Directions towards the light: half after the cosine, half after the visible GGX normals.

    Not differentiable. Some of the second half fall below the horizon: they reflect nothing.

    Args:
        points: Surface.
        uniforms: In [0, 1); the last chooses the half, below 0.5 the cosine.
    """
    frame = local_frame(points.normals)
    views = (frame.mT @ points.views[..., None])[..., 0]
    views = safe_normalise(torch.cat([views[..., :2], views[..., 2:].clamp_min(1e-6)], dim=-1))
    views = views.expand(*uniforms.shape[:-1], 3)
    alpha = alpha_from_roughness(points.roughness).expand(*uniforms.shape[:-1], 1)
    half = sample_vndf(views, alpha, uniforms[..., :2])
    mirrored = 2.0 * (views * half).sum(-1, keepdim=True) * half - views
    local = torch.where(uniforms[..., 2:] < 0.5, sample_cosine(uniforms[..., :2]), mirrored)
    return safe_normalise((frame @ local[..., None])[..., 0])


@torch.no_grad()
def pdf(
    points: SurfacePoints, directions: Float[Tensor, "*samples p 3"]
) -> Float[Tensor, "*samples p"]:
    """Density of `sample` per steradian, as a constant: cosine / 2 pi + G1(v) D / (8 n.v).

    Args:
        points: Surface.
        directions: Unit, world. Below the horizon the density is not 0, as some samples fall there.
    """
    n_dot_l = (points.normals * directions).sum(-1)
    n_dot_v = (points.normals * points.views).sum(-1).clamp(0.0, 1.0)
    n_dot_h = (points.normals * safe_normalise(directions + points.views)).sum(-1).clamp(0.0, 1.0)
    alpha = alpha_from_roughness(points.roughness)[..., 0]
    visible = 0.5 * _half_mask(n_dot_v, alpha) * ggx_distribution(n_dot_h, alpha)
    return 0.5 * (cosine_pdf(n_dot_l) + visible)
