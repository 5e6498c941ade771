"""What does an environment map show in a direction, and how does light look from a turned frame?"""

import math
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.spherical_harmonics import rotate_sh
from splatir.scene.lights import (
    EnvironmentLight,
    Light,
    LightSum,
    LightT,
    PointLight,
    SphericalHarmonicLight,
    environment_directions,
    environment_radiance,
)

# Rotations that move no texel of a map 10,000 wide by more than a hundredth count as exact.
_EXACT = 1e-5
# Samples along each side of a texel when a map is resampled.
_SUPERSAMPLING = 2


def sample_environment(
    light: EnvironmentLight, directions: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 3"]:
    """Radiance from unit directions, bilinear between texel centres, across the seam as well.

    Args:
        light: Map.
        directions: Unit, in the map's frame.
    """
    return environment_radiance(light.radiance, directions)


def rotate_light(light: LightT, R_new_old: Float[Tensor, "3 3"]) -> LightT:
    """The same light described in a turned frame: what came from d now comes from R d.

    Args:
        light: Any kind; maps as `rotate_environment` has them.
        R_new_old: Rotation from the old frame to the new one.

    Raises:
        ValueError: Not a rotation.
    """
    R = R_new_old.detach().double()
    is_rotation = torch.allclose(R @ R.mT, torch.eye(3).to(R), atol=1e-4) and R.det() > 0.0
    if not is_rotation:
        raise ValueError(f"a light is turned by a rotation matrix, got {R.tolist()}.")
    turned: Light
    if isinstance(light, LightSum):
        turned = LightSum(tuple(rotate_light(part, R_new_old) for part in light.lights))
    elif isinstance(light, EnvironmentLight):
        turned = rotate_environment(light, R_new_old)
    elif isinstance(light, SphericalHarmonicLight):
        rotation = R_new_old.to(light.coefficients)
        turned = SphericalHarmonicLight(rotate_sh(light.coefficients, rotation))
    elif isinstance(light, PointLight):
        turned = replace(light, position=R_new_old.to(light.position) @ light.position)
    else:
        turned = replace(light, direction=R_new_old.to(light.direction) @ light.direction)
    return cast(LightT, turned)


def rotate_environment(
    light: EnvironmentLight, R_new_old: Float[Tensor, "3 3"]
) -> EnvironmentLight:
    """The same light described in a turned frame, by a map of the same size.

    A turn about +Z shifts columns and keeps the power exactly; others resample.

    Args:
        light: Map in the old frame.
        R_new_old: Rotation from the old frame to the new one.
    """
    R = R_new_old.double().cpu()
    if float((R[2] - R.new_tensor([0.0, 0.0, 1.0])).abs().max()) < _EXACT:
        return _turned(light, math.atan2(float(R[1, 0]), float(R[0, 0])))
    height, width = light.radiance.shape[:2]
    fine = environment_directions(
        _SUPERSAMPLING * height, _SUPERSAMPLING * width, light.radiance[:0].double()
    )
    # Rows of directions in the new frame times R_new_old are directions in the old one.
    samples = sample_environment(light, (fine @ R.to(fine)).to(light.radiance))
    blocks = samples.reshape(height, _SUPERSAMPLING, width, _SUPERSAMPLING, 3)
    return EnvironmentLight(blocks.mean(dim=(1, 3)))


def rotation_about_z(degrees: float) -> Float[Tensor, "3 3"]:
    """Rotation matrix that turns +X towards +Y, float64."""
    sin, cos = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def _turned(light: EnvironmentLight, angle: float) -> EnvironmentLight:
    """Shift columns so that what was at +X is at `angle` towards +Y; +Y is to the left."""
    width = light.radiance.shape[1]
    shift = angle / (2.0 * math.pi) * width
    whole = round(shift)
    part = shift - whole
    if abs(part) < _EXACT * width:
        return EnvironmentLight(light.radiance.roll(-whole, dims=1) if whole else light.radiance)
    whole = math.floor(shift)
    near, far = light.radiance.roll(-whole, dims=1), light.radiance.roll(-whole - 1, dims=1)
    return EnvironmentLight(torch.lerp(near, far, shift - whole))
