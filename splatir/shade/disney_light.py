"""How much more than Lambert's lobe does the Disney lobe reflect of an environment?

Burley's lobe sends light back to where it came from, so what it reflects depends on where the light
is. In it v.h occurs squared alone, and 2 (v.h)^2 = 1 + v.l: with FL = (1 - n.l)^5, FV = (1 - n.v)^5
and roughness r, pi times `brdf.disney_factor` is

    (1 - FL / 2) (1 - FV / 2) + r (1 + v.l) (FL + FV - FL FV) + r^2 (1 + v.l)^2 FL FV

The view leaves the integral over the light: what remains are moments of the light about a normal,
of the orders 0 and 1 in l under n.l, and 0, 1 and 2 under FL n.l. They are convolved beforehand.
"""

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.scene.lights import EnvironmentLight, environment_directions, texel_solid_angles
from splatir.shade.native_disney_light import can_reflect_natively, reflect_natively
from splatir.shade.prefilter import averaged_down, look_up, resampled

# Rows of the map of moments, and of the light that they are taken of: as many as it has, within
# these.
_MIN_HEIGHT, _MAX_HEIGHT = 16, 32
_MIN_COSINE = 1e-4


@dataclass(frozen=True)
class DisneyLight:
    """Moments of an environment about normals.

    Attributes:
        moments: For each colour 1, x, y, z under n.l, then 1, x, y, z, xx, yy, zz, 2 xy, 2 xz, 2 yz
            under FL n.l, as a map over the normals.
    """

    moments: Float[Tensor, "height width 42"]

    @classmethod
    def of(cls, light: EnvironmentLight) -> "DisneyLight":
        """Convolve a light; differentiable in it.

        Args:
            light: Any resolution.
        """
        small = averaged_down(light.radiance, _MAX_HEIGHT)
        height = max(len(small), _MIN_HEIGHT)
        radiance = resampled(small, height, 2 * height).reshape(-1, 1, 3)
        cosine, grazing, linear, quadratic = _kernels(height, radiance.dtype, radiance.device)
        under_cosine = cosine @ (radiance * linear[..., None]).flatten(1)
        under_grazing = grazing @ (radiance * quadratic[..., None]).flatten(1)
        moments = torch.cat([under_cosine, under_grazing], dim=-1)
        return cls(moments.view(height, 2 * height, -1))

    def ratio(
        self,
        normals: Float[Tensor, "p 3"],
        views: Float[Tensor, "p 3"],
        roughness: Float[Tensor, "p 1"],
    ) -> Float[Tensor, "p 3"]:
        """What the Disney lobe reflects over what Lambert's does; differentiable in all.

        Native for float32 on the CPU where the library is built, else torch.

        Args:
            normals: Unit.
            views: Unit directions towards the viewer.
            roughness: Perceptual.
        """
        if can_reflect_natively(self.moments, normals, views, roughness):
            return reflect_natively(self.moments, normals, views, roughness)
        return reflect_torch(self.moments, normals, views, roughness)


def reflect_torch(
    moments: Float[Tensor, "height width 42"],
    normals: Float[Tensor, "p 3"],
    views: Float[Tensor, "p 3"],
    roughness: Float[Tensor, "p 1"],
) -> Float[Tensor, "p 3"]:
    """`DisneyLight.ratio` in plain torch: any device and floating dtype, the reference.

    Args:
        moments: Of a `DisneyLight`.
        normals: Unit.
        views: Unit directions towards the viewer.
        roughness: Perceptual.
    """
    found = look_up(moments[None], normals, torch.zeros_like(roughness))
    under_cosine, under_grazing = found.unflatten(-1, (-1, 3)).split([4, 10], dim=1)
    x, y, z = views.unbind(-1)
    products = torch.stack([x * x, y * y, z * z, x * y, x * z, y * z], dim=-1)
    light, light_view = under_cosine[:, 0], _contracted(under_cosine[:, 1:], views)
    low, low_view = under_grazing[:, 0], _contracted(under_grazing[:, 1:4], views)
    low_twice = low + 2.0 * low_view + _contracted(under_grazing[:, 4:], products)
    cosines = (normals * views).sum(-1, keepdim=True).clamp(_MIN_COSINE, 1.0)
    grazing = (1.0 - cosines) ** 5
    reflected = (1.0 - 0.5 * grazing) * (light - 0.5 * low)
    once = grazing * (light + light_view) + (1.0 - grazing) * (low + low_view)
    reflected = reflected + roughness * once + roughness.square() * grazing * low_twice
    return reflected / light.clamp_min(torch.finfo(light.dtype).tiny)


def _contracted(moments: Float[Tensor, "p k 3"], factors: Float[Tensor, "p k"]) -> Tensor:
    return (moments * factors[..., None]).sum(1)


@functools.lru_cache(maxsize=8)
def _kernels(
    height: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights of texels under n.l and under FL n.l, and what their directions give each moment."""
    like = torch.zeros(0, dtype=dtype, device=device)
    directions = environment_directions(height, 2 * height, like).flatten(0, 1)
    x, y, z = directions.unbind(-1)
    linear = torch.stack([torch.ones_like(x), x, y, z], dim=-1)
    mixed = torch.stack([2.0 * x * y, 2.0 * x * z, 2.0 * y * z], dim=-1)
    quadratic = torch.cat([linear, directions.square(), mixed], dim=-1)
    cosines = (directions @ directions.mT).clamp(0.0, 1.0)
    angles = texel_solid_angles(height, 2 * height, like).repeat_interleave(2 * height)
    weights = cosines * angles
    return weights, weights * (1.0 - cosines) ** 5, linear, quadratic
