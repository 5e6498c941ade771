"""What photos show of the light: where it is seen, how bright, and what it does to the start."""

import math
from dataclasses import replace

import pytest
import torch
from torch.autograd import gradcheck

from splatir.data.images import Photo
from splatir.maths.colour import srgb_from_linear
from splatir.optim.seen_light import (
    SeenPixels,
    gather_seen_light,
    pixels_beyond,
    seen_light_error,
)
from splatir.render.relighting import environment_background
from splatir.scene.camera import Camera
from splatir.scene.lights import EnvironmentLight, environment_directions
from tests.captures import look_at


def sky(height: int = 8) -> EnvironmentLight:
    """A smooth map below white: redder towards +X, brighter above."""
    x, _, z = environment_directions(height, 2 * height).unbind(-1)
    grey = 0.4 + 0.2 * z
    return EnvironmentLight(torch.stack([grey + 0.1 * x, grey, grey], dim=-1))


def everywhere(light: EnvironmentLight, white: float = math.inf) -> SeenPixels:
    """Each direction of a fine grid once, as a photo that ends at `white` shows it."""
    directions = environment_directions(64, 128).reshape(-1, 3)
    rows = directions.reshape(64, 128, 3)
    height = light.radiance.shape[0]
    radiance = light.radiance.repeat_interleave(64 // height, 0).repeat_interleave(64 // height, 1)
    radiance = radiance.reshape(-1, 3)
    assert rows.shape[0] == 64
    return SeenPixels(directions, radiance.clamp_max(white), radiance.amax(-1) >= white)


def camera(position: tuple[float, float, float]) -> Camera:
    K = torch.tensor([[40.0, 0.0, 32.0], [0.0, 40.0, 32.0], [0.0, 0.0, 1.0]])
    return Camera(K, look_at(torch.tensor(position), torch.zeros(3)), 64, 64)


def test_light_that_is_seen_all_around_is_known_exactly() -> None:
    seen = gather_seen_light([everywhere(sky())], 8)
    assert bool(seen.is_exact.all()) and seen.share == pytest.approx(1.0, abs=1e-3)
    torch.testing.assert_close(seen.radiance, sky().radiance, atol=1e-5, rtol=0.0)
    assert float(seen_light_error(sky(), seen)) < 1e-8


def test_a_photo_shows_the_light_behind_the_object_in_its_own_directions() -> None:
    light = sky(64)
    views = []
    for position in ((2.0, 0.1, 0.3), (-0.2, 2.0, -0.4)):
        here = camera(position)
        photo = srgb_from_linear(environment_background(light, here))
        is_beyond = torch.ones(64, 64, dtype=torch.bool)
        is_beyond[24:40, 24:40] = False
        photo[24:40, 24:40] = 0.0
        views.append(pixels_beyond(here, Photo(photo, None, "srgb", 8), is_beyond))
    seen = gather_seen_light(views, 16)
    known = seen.is_exact
    assert 0.05 < seen.share < 0.5
    true = light.radiance.reshape(16, 4, 32, 4, 3).mean(dim=(1, 3))
    torch.testing.assert_close(seen.radiance[known], true[known], atol=0.02, rtol=0.0)


def test_white_is_a_lower_bound() -> None:
    light = sky()
    light.radiance[2, 5] = 30.0
    seen = gather_seen_light([everywhere(light, white=1.0)], 8)
    assert bool(seen.is_bound[2, 5]) and int(seen.is_bound.sum()) == 1
    assert float(seen_light_error(light, seen)) < 1e-8
    dark = EnvironmentLight(light.radiance.clone())
    dark.radiance[2, 5] = 0.1
    assert float(seen_light_error(dark, seen)) > 1e-3


def test_what_cameras_disagree_about_is_less_certain() -> None:
    one, other = everywhere(sky()), everywhere(EnvironmentLight(3.0 * sky().radiance))
    alike = gather_seen_light([one, one], 8).certainty
    apart = gather_seen_light([one, other], 8).certainty
    assert float(apart.max()) < 0.7 * float(alike.min())


def test_texels_that_nobody_saw_are_free() -> None:
    whole = everywhere(sky())
    upper = whole.directions[:, 2] > 0.0
    part = SeenPixels(whole.directions[upper], whole.radiance[upper], whole.is_white[upper])
    seen = gather_seen_light([part], 8)
    assert seen.share == pytest.approx(0.5, abs=1e-3)
    light = EnvironmentLight(sky().radiance.clone())
    light.radiance[4:] = 7.0
    assert float(seen_light_error(light, seen)) < 1e-8


def test_the_error_has_the_gradient_of_differences() -> None:
    light = sky(4).radiance.double()
    seen = gather_seen_light([everywhere(EnvironmentLight(1.3 * sky(4).radiance))], 4)
    seen = replace(seen, radiance=seen.radiance.double(), certainty=seen.certainty.double())
    assert gradcheck(
        lambda map_: seen_light_error(EnvironmentLight(map_), seen), light.requires_grad_(True)
    )
