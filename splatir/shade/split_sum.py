"""Fast shading: the light is convolved with each lobe beforehand, then looked up per point.

Split-sum approximation, Karis 2013: specular = (F0 A + B) PF(R', roughness), where PF is the light
convolved with a GGX lobe around R' and A, B integrate the BRDF under white light. R' leans from the
mirror direction to the normal as rough lobes do (Lagarde and de Rousiers 2014, 4.9.3). The Lambert
part is exact: albedo (1 - metallic) E(n) / pi. So is the Disney lobe, that times what it reflects
more (`shade.disney_light`), but for the resolution of its maps. The lobe of cloth is that times
what it reflects of white light, exact under a uniform light alone.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.safe import safe_normalise
from splatir.scene.lights import (
    DirectionalLight,
    Light,
    PointLight,
    SphericalHarmonicLight,
    environment_from_sh,
    flatten_light,
)
from splatir.shade.brdf import Masking, ShadingSettings, f0
from splatir.shade.cloth import sheen_albedo
from splatir.shade.disney_light import DisneyLight
from splatir.shade.lobe_energy import disney_albedo, split_sum_terms
from splatir.shade.native_split_sum import can_shade_natively, shade_natively
from splatir.shade.prefilter import PrefilteredLight, prefilter
from splatir.shade.punctual import shade_punctual
from splatir.shade.surface import Shading, SurfacePoints

_MIN_COSINE = 1e-4


@dataclass(frozen=True)
class _Environment:
    """An environment convolved with the lobes; `retro` where the diffuse one is Disney's."""

    prefiltered: PrefilteredLight
    retro: DisneyLight | None


class SplitSum:
    """Split-sum shading under any light, a `Shader`; no visibility.

    Environment maps and spherical harmonics are prefiltered, point and directional lights are
    exact, the parts of a sum are added.

    Attributes:
        settings: Variants of the BRDF.
    """

    def __init__(self, light: Light, settings: ShadingSettings = ShadingSettings()) -> None:
        """Prefilter the light.

        Args:
            light: Any kind; differentiable through its tensors.
            settings: Variants of the BRDF.
        """
        self.settings = settings
        self._environments: list[_Environment] = []
        self._punctual: list[PointLight | DirectionalLight] = []
        for simple in flatten_light(light):
            if isinstance(simple, PointLight | DirectionalLight):
                self._punctual.append(simple)
                continue
            if isinstance(simple, SphericalHarmonicLight):
                simple = environment_from_sh(simple)
            retro = DisneyLight.of(simple) if settings.diffuse == "disney" else None
            self._environments.append(_Environment(prefilter(simple), retro))

    def shade(self, points: SurfacePoints) -> Shading:
        """Reflected radiance of points; differentiable in them and in the light.

        Native for float32 on the CPU where the library is built, else torch.

        Args:
            points: Surface.
        """
        parts = [self._shade_environment(points, light) for light in self._environments]
        parts += [shade_punctual(points, light, self.settings) for light in self._punctual]
        if not parts:
            return Shading(torch.zeros_like(points.albedo), torch.zeros_like(points.albedo))
        total = parts[0]
        for part in parts[1:]:
            total = Shading(total.diffuse + part.diffuse, total.specular + part.specular)
        return total

    def irradiance(self, normals: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
        """Irradiance of surfaces from the environments alone; differentiable in the light.

        Args:
            normals: Unit.
        """
        total = torch.zeros_like(normals)
        for light in self._environments:
            total = total + light.prefiltered.irradiance_at(normals)
        return total

    def specular(self, points: SurfacePoints) -> Float[Tensor, "p 3"]:
        """Specular lobe of points under the environments alone; differentiable as `shade` is.

        Args:
            points: Surface.
        """
        total = torch.zeros_like(points.albedo)
        for light in self._environments:
            total = total + self._plain(points, light).specular
        return total

    def _plain(self, points: SurfacePoints, light: _Environment) -> Shading:
        """With Lambert's diffuse lobe."""
        masking = self.settings.masking
        if can_shade_natively(points, light.prefiltered):
            return shade_natively(points, light.prefiltered, masking=masking)
        return shade_torch(points, light.prefiltered, masking)

    def _shade_environment(self, points: SurfacePoints, light: _Environment) -> Shading:
        shading = self._plain(points, light)
        diffuse = shading.diffuse
        if light.retro is not None:
            diffuse = diffuse * light.retro.ratio(points.normals, points.views, points.roughness)
        if points.sheen is not None:
            diffuse = diffuse * sheen_albedo(_cosine_of_view(points), points.sheen)
        return Shading(diffuse, shading.specular)


def shade_torch(
    points: SurfacePoints, light: PrefilteredLight, masking: Masking = "separable"
) -> Shading:
    """Lambert and specular lobes in plain torch: any device and floating dtype, the reference.

    Args:
        points: Surface.
        light: Prefiltered.
        masking: Smith variant of the specular lobe.
    """
    n_dot_v = _cosine_of_view(points)
    irradiance = light.irradiance_at(points.normals)
    diffuse = points.albedo * (1.0 - points.metallic) * irradiance / math.pi
    prefiltered = light.specular_at(_dominant_direction(points, n_dot_v), points.roughness)
    return Shading(diffuse, specular_albedo(points, masking) * prefiltered)


def specular_albedo(points: SurfacePoints, masking: Masking = "separable") -> Float[Tensor, "p 3"]:
    """Share of uniform white light that the specular lobe reflects to the viewer, F0 A + B.

    Args:
        points: Surface; differentiable.
        masking: Smith variant of the lobe.
    """
    a, b = split_sum_terms(_cosine_of_view(points), points.roughness, masking)
    return f0(points.albedo, points.metallic) * a + b


def diffuse_albedo(
    points: SurfacePoints, settings: ShadingSettings = ShadingSettings()
) -> Float[Tensor, "p 3"]:
    """Share of uniform white light that the diffuse lobe reflects to the viewer.

    Args:
        points: Surface; differentiable.
        settings: Variants of the BRDF.
    """
    matt = points.albedo * (1.0 - points.metallic)
    n_dot_v = _cosine_of_view(points)
    if settings.diffuse == "disney":
        matt = matt * disney_albedo(n_dot_v, points.roughness)
    if points.sheen is not None:
        matt = matt * sheen_albedo(n_dot_v, points.sheen)
    return matt


def _cosine_of_view(points: SurfacePoints) -> Float[Tensor, "p 1"]:
    return (points.normals * points.views).sum(-1, keepdim=True).clamp(_MIN_COSINE, 1.0)


def _dominant_direction(
    points: SurfacePoints, n_dot_v: Float[Tensor, "p 1"]
) -> Float[Tensor, "p 3"]:
    mirror = 2.0 * n_dot_v * points.normals - points.views
    alpha = points.roughness.square()
    share = (1.0 - alpha) * ((1.0 - alpha).clamp_min(1e-6).sqrt() + alpha)
    return safe_normalise(torch.lerp(points.normals, mirror, share))
