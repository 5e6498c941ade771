"""Gains of training photos: told from colours, kept apart from the model, and checked in files."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from splatir.data.dataset import View
from splatir.data.images import Photo
from splatir.maths.colour import linear_from_srgb, srgb_from_linear
from splatir.optim.densification import DensificationSettings
from splatir.optim.parameters import LearningRates
from splatir.raster.selection import rasterizer
from splatir.render.radiance import render_radiance
from splatir.scene.gaussians import GaussianModel
from splatir.scene.initialise import InitialisationSettings, SeedPoints, model_from_points
from splatir.storage.checkpoint import CheckpointError
from splatir.train.first_exposures import first_log_gains
from splatir.train.settings import TrainSettings
from splatir.train.stages import RadianceStage, stages_of
from splatir.train.state import TrainState, check_contents
from splatir.train.step import StepContext, train_step
from tests.scenes import axis_camera


def grey_model() -> GaussianModel:
    generator = torch.Generator().manual_seed(0)
    positions = torch.rand(60, 3, generator=generator) - 0.5 + torch.tensor([0.0, 0.0, 2.0])
    points = SeedPoints(
        positions,
        torch.full_like(positions, 0.4),
        torch.zeros_like(positions),
        torch.zeros(60, dtype=torch.bool),
    )
    return model_from_points(points, "ellipsoid", InitialisationSettings(sh_degree=0), seed=0)


def test_exposures_of_photos_are_told_from_their_colours() -> None:
    """One view, photographed at a half and at twice its brightness: the model takes the mean."""
    model = grey_model()
    camera = axis_camera(24, 20)
    rates = LearningRates(exposures=0.05, scales=0.0, opacities=0.0, quats=0.0)
    state = TrainState.start(model, False, rates, 1.0, torch.zeros(2, 3))
    settings = TrainSettings(
        stages=("radiance",), steps=200, densify=DensificationSettings(strategy="none")
    )
    stage = stages_of(settings)[0]
    assert isinstance(stage, RadianceStage)
    context = StepContext(
        stage, rasterizer("reference", torch.device("cpu")), rates, 1.0, "black", False, None, 0
    )
    with torch.no_grad():
        shown = render_radiance(model, camera, context.rasterizer, torch.zeros(3)).rgb_srgb
    shown = linear_from_srgb(shown)
    photos = [
        Photo(srgb_from_linear(shown * gain).clamp(0, 1), None, "srgb", 8) for gain in (0.5, 2.0)
    ]
    for step in range(200):
        train_step(state, context, camera, photos[step % 2], step % 2)
    assert state.exposures is not None
    gains = state.exposures.detach().exp()
    torch.testing.assert_close(gains[1] / gains[0], torch.full((3,), 4.0), rtol=0.1, atol=0.0)
    torch.testing.assert_close(gains.prod(dim=0), torch.ones(3), rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("is_object", [False, True])
def test_descent_leaves_exposures_alone_once_an_object_has_judged_them(is_object: bool) -> None:
    model, camera, rates = grey_model(), axis_camera(24, 20), LearningRates()
    state = TrainState.start(model, False, rates, 1.0, torch.zeros(2, 3))
    settings = TrainSettings(
        stages=("radiance",), steps=8, densify=DensificationSettings(strategy="none")
    )
    stage = stages_of(settings)[0]
    assert isinstance(stage, RadianceStage)
    assert [step for step in range(8) if stage.judges_exposures(step)] == [2, 4]
    backend = rasterizer("reference", torch.device("cpu"))
    context = StepContext(
        *(stage, backend, rates, 1.0, "black", False, None, 0), is_object=is_object
    )
    photo = Photo(torch.full((20, 24, 3), 0.3), torch.ones(20, 24, 1), "srgb", 8)
    assert state.exposures is not None
    moved = []
    for step in range(4):
        before = state.exposures.detach().clone()
        train_step(state, context, camera, photo, step % 2)
        moved.append(bool((state.exposures != before).any()))
    assert moved == [True, True, not is_object, not is_object]


def test_photos_start_with_the_exposure_that_their_camera_noted() -> None:
    """Twice the time is twice the light; a photo that says nothing starts at the mean."""
    view = View("photo", axis_camera(8, 6), Path("photo.jpg"))
    views = [replace(view, exposure=exposure) for exposure in (0.01, 0.02, None)]
    gains = first_log_gains(views)
    torch.testing.assert_close(gains[1] - gains[0], torch.full((3,), 2.0).log())
    torch.testing.assert_close(gains[0] + gains[1], torch.zeros(3))
    assert torch.equal(gains[2], torch.zeros(3))
    assert torch.equal(first_log_gains([view, view]), torch.zeros(2, 3))


def test_a_state_keeps_its_exposures(tmp_path: Path) -> None:
    state = TrainState.start(grey_model(), False, LearningRates(), 1.0, torch.zeros(3, 3))
    assert state.exposures is not None
    with torch.no_grad():
        state.exposures.add_(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))
    again = TrainState.from_plain(state.to_plain(), LearningRates(), 1.0, torch.device("cpu"))
    assert again.exposures is not None
    assert torch.equal(again.exposures, state.exposures)
    check_contents({"state": state.to_plain(), "S_world_input": torch.eye(4)}, tmp_path)


def test_exposures_of_another_shape_are_refused(tmp_path: Path) -> None:
    state = TrainState.start(grey_model(), False, LearningRates(), 1.0, torch.zeros(3, 3))
    plain = {**state.to_plain(), "exposures": torch.zeros(3, 4)}
    with pytest.raises(CheckpointError, match=r"exposures have shape \(3, 4\)"):
        check_contents({"state": plain, "S_world_input": torch.eye(4)}, tmp_path)
