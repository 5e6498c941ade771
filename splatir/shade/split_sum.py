"""Fast shading: the light is convolved with each lobe beforehand, then looked up per point.

Split-sum approximation, Karis 2013: specular = (F0 A + B) PF(R', roughness), where PF is the light
convolved with a GGX lobe around R' and A, B integrate the BRDF under white light. R' leans from the
mirror direction to the normal as rough lobes do (Lagarde and de Rousiers 2014, 4.9.3). The Lambert
part is exact: albedo (1 - metallic) E(n) / pi.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.safe import safe_normalise
from splatir.scene.lights import EnvironmentLight
from splatir.shade.brdf import f0
from splatir.shade.lobe_energy import split_sum_terms
from splatir.shade.native_split_sum import can_shade_natively, shade_natively
from splatir.shade.prefilter import PrefilteredLight, prefilter
from splatir.shade.surface import Shading, SurfacePoints


class SplitSum:
    """Split-sum shading under an environment light; no visibility."""

    def __init__(self, light: EnvironmentLight) -> None:
        """Prefilter the light.

        Args:
            light: Differentiable through its map.
        """
        self._light = prefilter(light)

    def shade(self, points: SurfacePoints) -> Shading:
        """Reflected radiance of points; differentiable in them and in the light.

        Native for float32 on the CPU where the library is built, else torch.

        Args:
            points: Surface.
        """
        if can_shade_natively(points, self._light):
            return shade_natively(points, self._light)
        return shade_torch(points, self._light)


def shade_torch(points: SurfacePoints, light: PrefilteredLight) -> Shading:
    """`SplitSum.shade` in plain torch: any device and floating dtype, the reference.

    Args:
        points: Surface.
        light: Prefiltered.
    """
    n_dot_v = (points.normals * points.views).sum(-1, keepdim=True).clamp(1e-4, 1.0)
    irradiance = light.irradiance_at(points.normals)
    diffuse = points.albedo * (1.0 - points.metallic) * irradiance / math.pi
    a, b = split_sum_terms(n_dot_v, points.roughness)
    prefiltered = light.specular_at(_dominant_direction(points, n_dot_v), points.roughness)
    specular = (f0(points.albedo, points.metallic) * a + b) * prefiltered
    return Shading(diffuse, specular)


def _dominant_direction(
    points: SurfacePoints, n_dot_v: Float[Tensor, "p 1"]
) -> Float[Tensor, "p 3"]:
    mirror = 2.0 * n_dot_v * points.normals - points.views
    alpha = points.roughness.square()
    share = (1.0 - alpha) * ((1.0 - alpha).clamp_min(1e-6).sqrt() + alpha)
    return safe_normalise(torch.lerp(points.normals, mirror, share))
