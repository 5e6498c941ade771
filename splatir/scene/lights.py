"""What lights a scene: environment maps, spherical harmonics, point and directional lights.

Lights are values: differentiable in their tensors, linear Rec. 709 radiance, world frame. An
environment map is latitude-longitude, row 0 at +Z: docs/conventions.md.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from splatir.maths.spherical_harmonics import degree_of, evaluate_basis

# Squared sine below which a direction is a pole: a ten-thousandth of a texel of a 1k map.
_POLE = 1e-13


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


SimpleLight = EnvironmentLight | SphericalHarmonicLight | PointLight | DirectionalLight
Light = SimpleLight | LightSum
LightT = TypeVar("LightT", bound="Light")


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
    """Map coordinates (u, v) in [0, 1] of unit directions; inverse of `environment_directions`.

    Differentiable but for the jump of u from 0 to 1 where the map's sides meet, at -X; at the poles
    themselves the gradient is 0.
    """
    x, y, z = directions.unbind(-1)
    squared = x.square() + y.square()
    # At a pole every longitude is right, and none has a gradient.
    is_pole = squared < _POLE
    longitude = torch.atan2(y.masked_fill(is_pole, 0.0), x.masked_fill(is_pole, 1.0))
    sine = squared.masked_fill(is_pole, 1.0).sqrt().masked_fill(is_pole, 0.0)
    u = 0.5 - longitude / (2.0 * math.pi)
    return u, torch.atan2(sine, z) / math.pi


def texel_solid_angles(height: int, width: int, like: Tensor | None = None) -> Float[Tensor, " h"]:
    """Solid angle of one texel of each row, steradians, exact; all texels sum to 4 pi.

    Args:
        height: Rows.
        width: Columns.
        like: Gives dtype and device; float32 on the CPU if None.
    """
    edges = torch.linspace(0.0, math.pi, height + 1, dtype=torch.float64).cos()
    angles = (2.0 * math.pi / width) * (edges[:-1] - edges[1:])
    return angles.float() if like is None else angles.to(like)


def environment_radiance(
    radiance: Float[Tensor, "height width c"], directions: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch c"]:
    """Value of a map in world directions, bilinear between texel centres.

    Columns wrap around, and beyond the first and the last row the map goes on at the other side of
    the pole, so that radiance is continuous. Differentiable in the map and in the directions.

    Args:
        radiance: Environment map, any number of channels.
        directions: Unit.
    """
    height, width, channels = radiance.shape
    u, v = environment_coordinates(directions)
    x, y = u * width - 0.5, v * height - 0.5
    left, top = x.detach().floor(), y.detach().floor()
    x_share, y_share = (x - left)[..., None], (y - top)[..., None]
    rows = torch.stack([top, top + 1.0], dim=-1).long()
    is_over_pole = (rows < 0) | (rows >= height)
    columns = torch.stack([left, left + 1.0], dim=-1).long()
    columns = columns[..., None, :] + is_over_pole[..., :, None] * (width // 2)
    indices = rows.clamp(0, height - 1)[..., :, None] * width + columns % width
    # Embedding's backward adds in a fixed order on the CPU, plain indexing's does not.
    texels = functional.embedding(indices, radiance.reshape(-1, channels))
    upper, lower = torch.lerp(texels[..., 0, :], texels[..., 1, :], x_share[..., None, :]).unbind(
        -2
    )
    return torch.lerp(upper, lower, y_share)


def environment_from_sh(
    light: SphericalHarmonicLight, height: int = 64, width: int = 128
) -> EnvironmentLight:
    """The map of a spherical-harmonic light; negative values become 0.

    Args:
        light: Differentiable.
        height: Rows; 64 hold degree 4 to 0.1 %.
        width: Columns.
    """
    directions = environment_directions(height, width, light.coefficients)
    basis = evaluate_basis(directions, degree_of(light.coefficients.shape[0]))
    return EnvironmentLight((basis @ light.coefficients).clamp_min(0.0))


def flatten_light(light: Light) -> tuple[SimpleLight, ...]:
    """The lights of a sum, of sums within it, or the one light itself."""
    if isinstance(light, LightSum):
        return tuple(simple for part in light.lights for simple in flatten_light(part))
    return (light,)


def scale_light(light: LightT, factor: float | Float[Tensor, ""] | Float[Tensor, " 3"]) -> LightT:
    """The same light, brighter or tinted by a factor.

    Args:
        light: Any kind.
        factor: Not negative; one number or one per colour channel.
    """
    scaled: Light
    if isinstance(light, LightSum):
        scaled = LightSum(tuple(scale_light(part, factor) for part in light.lights))
    else:
        name = _STRENGTH[type(light)]
        scaled = replace(light, **{name: getattr(light, name) * factor})
    return cast(LightT, scaled)


def check_light(light: Light) -> None:
    """Refuse lights that no shader can use; for the edges of the program, it reads every value.

    Args:
        light: Any kind.

    Raises:
        ValueError: Wrong shapes, NaN or infinities, negative strength, or no direction.
    """
    for simple in flatten_light(light):
        kind, name = type(simple).__name__, _STRENGTH[type(simple)]
        for field in fields(simple):
            value = getattr(simple, field.name)
            if not value.isfinite().all():
                raise ValueError(f"{kind}.{field.name} has NaN or infinite values; mend its file.")
            _check_shape(f"{kind}.{field.name}", value)
        strength = getattr(simple, name)
        if not isinstance(simple, SphericalHarmonicLight) and bool((strength < 0.0).any()):
            raise ValueError(
                f"{kind}.{name} must not be negative, got {strength.min():.3g}; clamp it at 0."
            )
        if isinstance(simple, DirectionalLight) and abs(simple.direction.norm() - 1.0) > 1e-3:
            raise ValueError(
                f"DirectionalLight.direction must be unit, got {simple.direction.tolist()}; "
                "normalise it."
            )


_STRENGTH = {
    EnvironmentLight: "radiance",
    SphericalHarmonicLight: "coefficients",
    PointLight: "intensity",
    DirectionalLight: "irradiance",
}


def _check_shape(name: str, value: Tensor) -> None:
    shape = tuple(value.shape)
    if name == "EnvironmentLight.radiance":
        expected, fits = "[height, width, 3]", len(shape) == 3 and shape[2] == 3 and 0 not in shape
    elif name == "SphericalHarmonicLight.coefficients":
        expected, fits = "[(degree + 1)^2, 3]", len(shape) == 2 and shape[1] == 3
        if fits:
            degree_of(shape[0])
    else:
        expected, fits = "[3]", shape == (3,)
    if not fits:
        raise ValueError(f"{name} must have shape {expected}, got {list(shape)}.")
