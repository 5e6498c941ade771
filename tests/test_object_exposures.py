"""Exposures of photos, judged by the object that they show."""

import pytest
import torch

from splatir.data.images import Photo
from splatir.maths.colour import exposed_srgb
from splatir.optim.parameters import LearningRates
from splatir.raster.selection import rasterizer
from splatir.render.radiance import render_radiance
from splatir.train.object_exposures import judge_exposures, object_log_gains
from splatir.train.state import TrainState
from tests.test_outlines import cameras
from tests.test_separation import ball

BACKEND = rasterizer("auto", torch.device("cpu"))


@pytest.mark.parametrize("strength", [0.0, 0.35])
def test_gains_of_photos_are_found_though_no_camera_sees_all_sides(strength: float) -> None:
    thing = ball(0.1, (0.0, 0.0, 0.0), 0.4)
    generator = torch.Generator().manual_seed(0)
    paint = 0.3 * torch.rand(thing.num_gaussians, 1, 3, generator=generator)
    # One half is darker than the other: not to be mistaken for a darker photo.
    paint = paint - 0.6 * (thing.means[:, None, :1] > 0.0)
    thing.params["sh0"].data += paint
    views = cameras(12)
    true = strength * (2.0 * torch.rand(12, 1, generator=generator) - 1.0)
    true = (true - true.mean()).expand(12, 3)

    def photo_of(index: int) -> Photo:
        image = render_radiance(thing, views[index], BACKEND)
        alpha = image.raster.alpha
        straight = image.rgb_srgb / alpha.clamp_min(1e-4)
        return Photo(exposed_srgb(straight, true[index]).detach(), alpha.detach(), "srgb", 8)

    found = object_log_gains(thing, views, photo_of, BACKEND)
    torch.testing.assert_close(found, true, atol=0.03, rtol=0.0)


def test_a_photo_that_shows_nothing_of_the_object_keeps_its_exposure() -> None:
    thing = ball(0.1, (0.0, 0.0, 0.0), 0.4)
    views = cameras(4)

    def photo_of(index: int) -> Photo:
        alpha = torch.full((80, 96, 1), float(index != 2))
        return Photo(torch.full((80, 96, 3), 0.5), alpha, "srgb", 8)

    found = object_log_gains(thing, views, photo_of, BACKEND)
    torch.testing.assert_close(found, torch.zeros(4, 3))
    before = torch.zeros(4, 3)
    before[2] = 0.3
    kept = object_log_gains(thing, views, photo_of, BACKEND, before)
    # But for the mean of all, which is 0.
    torch.testing.assert_close(kept[2] - kept[0], torch.full((3,), 0.3))
    torch.testing.assert_close(kept.mean(0), torch.zeros(3))
    assert before[2, 0] == 0.3 and before[0, 0] == 0.0


def test_judged_exposures_replace_learned_ones_and_their_moments() -> None:
    thing = ball(0.1, (0.0, 0.0, 0.0), 0.4)
    views = cameras(4)
    state = TrainState.start(thing, False, LearningRates(), 1.0, torch.full((4, 3), 0.2))
    assert state.exposures is not None and state.learns_exposures
    state.exposures.sum().backward()
    state.optimizer.step()
    assert state.exposures in state.optimizer.state

    def photo_of(index: int) -> Photo:
        image = render_radiance(thing, views[index], BACKEND)
        bright = torch.full((3,), 0.4 * (index == 1))
        shown = exposed_srgb(image.rgb_srgb / image.raster.alpha.clamp_min(1e-4), bright)
        return Photo(shown.detach(), image.raster.alpha.detach(), "srgb", 8)

    judge_exposures(state, views, photo_of, BACKEND)
    expected = torch.tensor([-0.1, 0.3, -0.1, -0.1])[:, None].expand(4, 3)
    torch.testing.assert_close(state.exposures.detach(), expected, atol=0.03, rtol=0.0)
    assert state.exposures not in state.optimizer.state
