"""What lights a scene: environment maps, spherical harmonics, point and directional lights.

Lights are values: differentiable in their tensors, linear Rec. 709 radiance, world frame. An
environment map is latitude-longitude, row 0 at +Z: docs/conventions.md.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class EnvironmentLight:
    """Light from infinitely far, as a map.

    Attributes:
        radiance: Linear, not negative.
    """

    radiance: Float[Tensor, "height width 3"]


@dataclass(frozen=True)
class SphericalHarmonicLight:
    """Light from infinitely far, in the real spherical harmonics of `maths.spherical_harmonics`.

    Attributes:
        coefficients: Radiance; negative values of their sum count as 0.
    """

    coefficients: Float[Tensor, "k 3"]


@dataclass(frozen=True)
class PointLight:
    """A light at one place that shines equally everywhere; its irradiance falls with distance^2.

    Attributes:
        position: World, scene units.
        intensity: Irradiance that a surface facing the light has at distance 1.
    """

    position: Float[Tensor, " 3"]
    intensity: Float[Tensor, " 3"]


@dataclass(frozen=True)
class DirectionalLight:
    """Parallel light, such as the sun's.

    Attributes:
        direction: Towards the light, unit.
        irradiance: Of a surface that faces the light.
    """

    direction: Float[Tensor, " 3"]
    irradiance: Float[Tensor, " 3"]


@dataclass(frozen=True)
class LightSum:
    """Several lights at once.

    Attributes:
        lights: Any kinds, also none.
    """

    lights: tuple["Light", ...]


Light = EnvironmentLight | SphericalHarmonicLight | PointLight | DirectionalLight | LightSum


def environment_directions(
    height: int, width: int, like: Tensor | None = None
) -> Float[Tensor, "height width 3"]:
    """Unit world directions of the texel centres of a map.

    Args:
        height: Rows, from +Z down.
        width: Columns; the image's centre looks at +X, a quarter of the width at +Y.
        like: Gives dtype and device; float32 on the CPU if None.
    """
    options = {} if like is None else {"dtype": like.dtype, "device": like.device}
    theta = math.pi * (torch.arange(height, **options) + 0.5) / height
    phi = 2.0 * math.pi * (0.5 - (torch.arange(width, **options) + 0.5) / width)
    sin, cos = theta.sin()[:, None], theta.cos()[:, None]
    x, y = sin * phi.cos(), sin * phi.sin()
    return torch.stack([x, y, cos.expand_as(x)], dim=-1)


def environment_coordinates(
    directions: Float[Tensor, "*batch 3"],
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Map coordinates (u, v) in [0, 1] of unit directions; inverse of `environment_directions`."""
    x, y, z = directions.unbind(-1)
    u = 0.5 - torch.atan2(y, x) / (2.0 * math.pi)
    v = torch.acos(z.clamp(-1.0, 1.0)) / math.pi
    return u, v


def texel_solid_angles(height: int, width: int, like: Tensor | None = None) -> Float[Tensor, "h"]:
    """Solid angle of one texel of each row, steradians, exact; all texels sum to 4 pi.

    Args:
        height: Rows.
        width: Columns.
        like: Gives dtype and device; float32 on the CPU if None.
    """
    edges = torch.linspace(0.0, math.pi, height + 1, dtype=torch.float64).cos()
    angles = (2.0 * math.pi / width) * (edges[:-1] - edges[1:])
    return angles.float() if like is None else angles.to(like)
