"""Environment maps in turned frames."""

import math

import pytest
import torch

from splatir.scene.environment_map import (
    rotate_environment,
    rotation_about_z,
    sample_environment,
)
from splatir.scene.lights import EnvironmentLight, environment_directions, texel_solid_angles

TILT = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64)


def smooth(height: int) -> EnvironmentLight:
    d = environment_directions(height, 2 * height)
    return EnvironmentLight(2.0 + d @ torch.tensor([[1.0, 0.2, 0], [0, 0.5, 0.3], [0.4, 0, 1]]))


def power(light: EnvironmentLight) -> torch.Tensor:
    height, width, _ = light.radiance.shape
    weights = texel_solid_angles(height, width)
    return (light.radiance * weights[:, None, None]).sum((0, 1))


def test_texel_centres_have_the_texels_values() -> None:
    light = EnvironmentLight(torch.rand(8, 16, 3, generator=torch.Generator().manual_seed(0)))
    directions = environment_directions(8, 16)
    assert torch.allclose(sample_environment(light, directions), light.radiance, atol=1e-5)


def test_the_seam_is_no_edge() -> None:
    light = smooth(16)
    near = torch.tensor([[-1.0, 1e-4, 0.0], [-1.0, -1e-4, 0.0]])
    a, b = sample_environment(light, near / near.norm(dim=-1, keepdim=True))
    assert torch.allclose(a, b, atol=1e-3)


def test_a_positive_turn_takes_what_was_at_x_to_y() -> None:
    radiance = torch.zeros(8, 16, 3)
    # The image's centre is +X, a quarter of the width +Y.
    radiance[4, 8] = 1.0
    turned = rotate_environment(EnvironmentLight(radiance), rotation_about_z(90.0))
    assert turned.radiance[4, 4].tolist() == [1.0] * 3
    assert turned.radiance.sum() == 3.0


@pytest.mark.parametrize("degrees", [13.0, -200.0, 359.9])
def test_turns_about_z_keep_the_power_of_a_single_bright_texel(degrees: float) -> None:
    radiance = torch.zeros(8, 16, 3)
    radiance[2, 0] = 1000.0
    light = EnvironmentLight(radiance)
    turned = rotate_environment(light, rotation_about_z(degrees))
    assert torch.allclose(power(turned), power(light), rtol=1e-5)


@pytest.mark.parametrize("R", [rotation_about_z(25.0), TILT, rotation_about_z(70.0) @ TILT])
def test_the_turned_map_shows_the_same_light(R: torch.Tensor) -> None:
    light = smooth(64)
    turned = rotate_environment(light, R)
    g = torch.Generator().manual_seed(1)
    directions = torch.nn.functional.normalize(torch.randn(200, 3, generator=g), dim=-1)
    expected = sample_environment(light, directions)
    found = sample_environment(turned, directions @ R.float().mT)
    assert torch.allclose(found, expected, atol=0.02)
    assert torch.allclose(power(turned), power(light), rtol=2e-3)


def test_no_turn_gives_the_very_map() -> None:
    light = smooth(8)
    assert torch.equal(rotate_environment(light, torch.eye(3)).radiance, light.radiance)
    full = rotation_about_z(360.0)
    assert math.isclose(float(full[0, 0]), 1.0)
    assert torch.equal(rotate_environment(light, full).radiance, light.radiance)
