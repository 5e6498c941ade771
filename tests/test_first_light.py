"""The light that shadows point to: direction, brightness, and what happens if nothing is seen."""

import math

import pytest
import torch

from splatir.optim.first_light import light_from_radiance
from splatir.scene.lights import EnvironmentLight, environment_directions
from splatir.shade.split_sum import SplitSum
from splatir.transport.lit import CellLight, diffuse_ratio
from splatir.transport.scene import SceneTransport
from tests.test_transport_lit import ball, joined, plate


def scene_with_shadows() -> SceneTransport:
    """A ground with a plate above it and a ball: most directions cast a shadow of their own."""
    return SceneTransport.of(joined(plate(2.0, -1.0, 0.12), plate(0.5, 1.5, 0.12), ball(800)))


def radiance_under(
    scene: SceneTransport, light: EnvironmentLight, albedo: torch.Tensor
) -> torch.Tensor:
    """What matt surfaces send out, without light between them."""
    cells = CellLight.of((light,), scene.visibility.cells)
    arriving = SplitSum(light).irradiance(scene.visibility.normals) * diffuse_ratio(scene, cells)
    return albedo * arriving / math.pi


def test_a_sun_is_found_where_it_stands_though_paint_is_unknown() -> None:
    scene = scene_with_shadows()
    map_ = torch.full((16, 32, 3), 0.3)
    map_[4, 20] = 30.0
    count = len(scene.positions)
    paint = 0.2 + 0.7 * torch.rand(count, 1, generator=torch.Generator().manual_seed(0))
    radiance = radiance_under(scene, EnvironmentLight(map_), paint.expand(-1, 3))
    guess, weights = torch.full((count, 3), 0.55), torch.ones(count)
    found = light_from_radiance(scene.visibility, radiance, guess, weights, 16).radiance
    directions = environment_directions(16, 32)
    brightest = directions.flatten(0, 1)[found.mean(-1).argmax()]
    # A cell of 256 is 13 degrees wide, a texel 11.
    assert float((brightest * directions[4, 20]).sum()) > math.cos(math.radians(15.0))
    assert float(found.max()) > 5.0 * float(found.mean())


def test_a_uniform_sky_comes_back_with_its_brightness() -> None:
    scene = scene_with_shadows()
    count = len(scene.positions)
    albedo = torch.full((count, 3), 0.6)
    light = EnvironmentLight(torch.full((16, 32, 3), 0.8))
    radiance = radiance_under(scene, light, albedo)
    found = light_from_radiance(scene.visibility, radiance, albedo, torch.ones(count), 8).radiance
    assert found.shape == (8, 16, 3)
    assert torch.equal(found[..., 0], found[..., 2])
    assert float(found.mean()) == pytest.approx(0.8, rel=0.1)


@pytest.mark.parametrize("brightness", [0.0, 1e-4])
def test_black_surfaces_leave_a_dark_light_that_can_still_be_learnt(brightness: float) -> None:
    scene = SceneTransport.of(plate(0.5, 0.0, 0.2), 64)
    count = len(scene.positions)
    radiance = torch.full((count, 3), brightness)
    found = light_from_radiance(
        scene.visibility, radiance, torch.full((count, 3), 0.5), torch.ones(count), 8
    ).radiance
    assert bool(found.isfinite().all()) and float(found.min()) > 0.0 and float(found.max()) < 0.1


def test_weightless_surfaces_say_nothing() -> None:
    scene = SceneTransport.of(plate(0.5, 0.0, 0.2), 64)
    count = len(scene.positions)
    found = light_from_radiance(
        scene.visibility, torch.ones(count, 3), torch.ones(count, 3), torch.zeros(count), 8
    ).radiance
    assert bool(found.isfinite().all()) and float(found.min()) > 0.0
