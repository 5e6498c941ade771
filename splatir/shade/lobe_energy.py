"""How much of white light does each lobe reflect, by view angle and roughness?

With the light constant, the specular lobe reflects F0 A + B: the two numbers of the split-sum
approximation (Karis 2013) and of the white-furnace test alike.
"""

import functools

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.sampling import sample_vndf
from splatir.shade.brdf import (
    Masking,
    ShadingSettings,
    alpha_from_roughness,
    smith_correlated,
    smith_g1,
)

# Nodes of the table in each direction, from 0 to 1 inclusive.
_NODES = 64
# Midpoints of height and of the half turn that integrate one node.
_HEIGHTS, _TURNS = 64, 8
# Cosine-weighted means of (1 - c)^5, c (1 - c)^5 and c^2 (1 - c)^5 over the hemisphere.
_GRAZING = (1.0 / 21.0, 1.0 / 84.0, 1.0 / 252.0)


def split_sum_terms(
    n_dot_v: Float[Tensor, "*batch 1"],
    roughness: Float[Tensor, "*batch 1"],
    masking: Masking = "separable",
) -> tuple[Float[Tensor, "*batch 1"], Float[Tensor, "*batch 1"]]:
    """A and B of the white-light specular reflectance F0 A + B.

    Bilinear in a table of 64 x 64 nodes that is computed once a process, within 0.003 of the
    integral; differentiable in both arguments.

    Args:
        n_dot_v: Cosine of normal and view direction; clamped to [0, 1].
        roughness: Perceptual; clamped to [0, 1].
        masking: Smith variant of the lobe.
    """
    table = split_sum_table(n_dot_v, masking)
    row, row_share = _cell(roughness, _roughness_nodes(table))
    column, column_share = _cell(n_dot_v, _cosine_nodes(table))
    upper = torch.lerp(table[row, column], table[row, column + 1], column_share)
    lower = torch.lerp(table[row + 1, column], table[row + 1, column + 1], column_share)
    a, b = torch.lerp(upper, lower, row_share).unbind(-1)
    return a[..., None], b[..., None]


def split_sum_table(
    like: Tensor, masking: Masking = "separable"
) -> Float[Tensor, "roughness n_dot_v 2"]:
    """A and B at nodes uniform in roughness and in the square root of n.v, both from 0 to 1.

    Args:
        like: Gives dtype and device.
        masking: Smith variant of the lobe.
    """
    return _table_on(masking, like.dtype, like.device)


def _cell(values: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the lower node and how far to the next one."""
    values = values.clamp(0.0, 1.0)
    above = torch.searchsorted(nodes, values.detach().contiguous(), right=True)
    below = (above - 1).clamp(0, _NODES - 2)
    share = (values - nodes[below]) / (nodes[below + 1] - nodes[below])
    return below[..., 0], share


def _roughness_nodes(like: Tensor) -> Tensor:
    return torch.linspace(0.0, 1.0, _NODES, dtype=like.dtype, device=like.device)


def _cosine_nodes(like: Tensor) -> Tensor:
    """Denser where the view grazes: narrow lobes lose their energy there."""
    return _roughness_nodes(like).square()


@functools.cache
def _table_on(masking: Masking, dtype: torch.dtype, device: torch.device) -> Tensor:
    return _table(masking).to(device, dtype)


@functools.cache
def _table(masking: Masking) -> Float[Tensor, "roughness n_dot_v 2"]:
    """A and B at the nodes, float64, on the CPU."""
    like = torch.empty(0, dtype=torch.float64)
    cosines = _cosine_nodes(like)
    rows = [torch.stack(integrate_lobe(cosines, r, masking), -1) for r in _roughness_nodes(like)]
    return torch.stack(rows)


def integrate_lobe(
    n_dot_v: Float[Tensor, " n"], roughness: Float[Tensor, ""], masking: Masking = "separable"
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """A and B by quadrature over the visible normals: means of (1 - Fc) w and Fc w.

    w = G2(l, v) / G1(v) is what a visible normal reflects and Fc = (1 - v.h)^5; the map from the
    unit square to visible normals (Heitz 2018) is smooth, so midpoints do.

    Args:
        n_dot_v: Cosines, 0 to 1.
        roughness: Perceptual, 0 to 1.
        masking: Smith variant.
    """
    # Squared heights resolve the lobe's tail; the other half turn is the mirror image.
    height = _midpoints(_HEIGHTS, n_dot_v)
    pairs = torch.cartesian_prod(height, 0.5 * _midpoints(_TURNS, n_dot_v) - 0.25)
    uniforms = torch.stack([1.0 - pairs[:, 0].square(), pairs[:, 1]], dim=-1)[:, None]
    density = (2.0 * pairs[:, :1]) / (2.0 * height).mean()
    uniforms = uniforms.expand(-1, len(n_dot_v), -1)
    sine = (1.0 - n_dot_v.square()).clamp_min(0.0).sqrt()
    views = torch.stack([sine, torch.zeros_like(sine), n_dot_v], dim=-1).expand(
        *uniforms.shape[:2], 3
    )
    alpha = alpha_from_roughness(roughness).expand(len(uniforms), len(n_dot_v))
    half = sample_vndf(views, alpha[..., None], uniforms)
    v_dot_h = (views * half).sum(-1)
    n_dot_l = (2.0 * v_dot_h * half[..., 2] - n_dot_v).clamp_min(0.0)
    if masking == "correlated":
        floor = n_dot_v.clamp_min(1e-6)
        shadowing = smith_correlated(n_dot_l, floor, alpha) * 4.0 * n_dot_l * floor
        weight = shadowing / smith_g1(floor, alpha)
    else:
        weight = smith_g1(n_dot_l, alpha)
    fresnel = (1.0 - v_dot_h).clamp(0.0, 1.0) ** 5
    weight = weight * density
    return ((1.0 - fresnel) * weight).mean(0), (fresnel * weight).mean(0)


def _midpoints(count: int, like: Tensor) -> Tensor:
    return (torch.arange(count, dtype=like.dtype, device=like.device) + 0.5) / count


def directional_albedo(
    n_dot_v: Float[Tensor, " n"],
    roughness: Float[Tensor, ""],
    reflectance: float = 1.0,
    settings: ShadingSettings = ShadingSettings(),
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Shares of white light that the diffuse and the specular lobe reflect towards the viewer.

    Args:
        n_dot_v: Cosines of normal and view direction, 0 to 1.
        roughness: Perceptual, 0 to 1.
        reflectance: F0 of the specular lobe; the diffuse lobe's albedo is 1.
        settings: Variants of the lobes.
    """
    a, b = integrate_lobe(n_dot_v, roughness, settings.masking)
    specular = reflectance * a + b
    if settings.diffuse == "lambert":
        return torch.ones_like(n_dot_v), specular
    return disney_albedo(n_dot_v, roughness), specular


def disney_albedo(
    n_dot_v: Float[Tensor, "*#batch"], roughness: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*batch"]:
    """Share of white light that the Disney diffuse lobe of albedo 1 reflects towards the viewer.

    In closed form: v.h occurs squared, 2 (v.h)^2 = 1 + v.l, so that the cosine-weighted mean of
    `brdf.disney_factor` is a polynomial in n.v and roughness. Differentiable in both.

    Args:
        n_dot_v: Cosine of normal and view direction, 0 to 1.
        roughness: Perceptual.
    """
    view = (1.0 - n_dot_v) ** 5
    base = (1.0 - 0.5 * _GRAZING[0]) * (1.0 - 0.5 * view)
    once = _GRAZING[0] + n_dot_v * _GRAZING[1]
    once = once + view * (1.0 - _GRAZING[0] + n_dot_v * (2.0 / 3.0 - _GRAZING[1]))
    squared = n_dot_v.square()
    twice = _GRAZING[0] + 2.0 * n_dot_v * _GRAZING[1] + squared * _GRAZING[2]
    twice = view * (twice + 0.5 * (1.0 - squared) * (_GRAZING[0] - _GRAZING[2]))
    return base + roughness * once + roughness.square() * twice


def mean_disney_albedo(roughness: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The same over all views, weighted by their cosine; differentiable.

    Args:
        roughness: Perceptual.
    """
    plain, first, second = _GRAZING
    base = (1.0 - 0.5 * plain) ** 2
    once = plain * (2.0 - plain) + first * (4.0 / 3.0 - first)
    twice = plain**2 + 2.0 * first**2 + second**2 + 0.5 * (plain - second) ** 2
    return base + roughness * (once + roughness * twice)
