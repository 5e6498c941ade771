"""Cameras learned in training: found, held near the given ones, without the scene's own motion."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from splatir.data.dataset import Dataset, View
from splatir.data.images import Photo
from splatir.maths.frames import invert_rigid
from splatir.optim.densification import DensificationSettings
from splatir.optim.losses import LossWeights
from splatir.optim.parameters import LearningRates, group
from splatir.raster.selection import rasterizer
from splatir.render.radiance import render_radiance
from splatir.scene.camera import Camera
from splatir.scene.corrections import corrected_camera, gauge_directions
from splatir.scene.gaussians import GaussianModel
from splatir.storage.checkpoint import CheckpointError
from splatir.train.settings import TrainSettings
from splatir.train.stages import RadianceStage, stages_of
from splatir.train.state import TrainState, check_contents
from splatir.train.step import StepContext, train_step
from tests.scenes import axis_camera

EXTENT = 2.0


def textured_model() -> GaussianModel:
    generator = torch.Generator().manual_seed(5)
    means = torch.rand(200, 3, generator=generator) - 0.5
    params = {
        "means": 1.6 * means,
        "quats": torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(200, 1),
        "scales": torch.full((200, 3), -2.4),
        "opacities": torch.full((200,), 2.0),
        "sh0": 2.0 * (torch.rand(200, 1, 3, generator=generator) - 0.5),
        "shN": torch.zeros(200, 0, 3),
    }
    return GaussianModel(params, "ellipsoid")


def cameras_around(num: int = 6) -> list[Camera]:
    cameras = []
    for i in range(num):
        angle = torch.tensor(6.2832 * i / num)
        forward = torch.stack([-angle.cos(), -angle.sin(), torch.tensor(0.0)])
        right = torch.stack([-angle.sin(), angle.cos(), torch.tensor(0.0)])
        T_world_camera = torch.eye(4)
        T_world_camera[:3, 0] = right
        T_world_camera[:3, 1] = torch.linalg.cross(forward, right)
        T_world_camera[:3, 2] = forward
        T_world_camera[:3, 3] = -2.5 * forward
        K = axis_camera(40, 36, 50.0).K
        cameras.append(Camera(K, invert_rigid(T_world_camera), 40, 36))
    return cameras


def stage_context(rates: LearningRates, cameras: list[Camera], steps: int) -> StepContext:
    settings = TrainSettings(
        stages=("radiance",),
        steps=steps,
        densify=DensificationSettings(strategy="none"),
        loss=LossWeights(normal=0.0),
    )
    stage = stages_of(settings)[0]
    assert isinstance(stage, RadianceStage)
    backend = rasterizer("auto", torch.device("cpu"))
    gauge = gauge_directions(cameras, EXTENT).float()
    return StepContext(
        stage, backend, rates, EXTENT, "black", False, None, 0, distance=None, gauge=gauge
    )


def test_training_finds_disturbed_cameras_and_leaves_the_scene_where_it_is() -> None:
    """Half a degree of turning about the view axis shows at the picture's edge alone."""
    model, given = textured_model(), cameras_around()
    generator = torch.Generator().manual_seed(1)
    true = torch.zeros(6, 7)
    true[:, :3] = 0.012 * torch.randn(6, 3, generator=generator)
    still = dict.fromkeys(("means", "means_final"), 1e-12)
    rates = LearningRates(
        **still, quats=0.0, scales=0.0, opacities=0.0, sh0=0.0, cameras=1.5e-3, cameras_final=1e-4
    )
    photos = []
    backend = rasterizer("auto", torch.device("cpu"))
    for camera, correction in zip(given, true, strict=True):
        with torch.no_grad():
            view = corrected_camera(camera, correction, EXTENT)
            rgb = render_radiance(model, view, backend, torch.zeros(3)).rgb_srgb
        photos.append(Photo(rgb.clamp(0.0, 1.0), None, "srgb", 8))
    state = TrainState.start(model, False, rates, EXTENT, num_corrections=6)
    assert state.corrections is not None
    context = stage_context(rates, given, 150)
    reports = []
    for step in range(150):
        i = step % 6
        camera = corrected_camera(given[i], state.corrections[i].detach(), EXTENT)
        reports.append(train_step(state, context, camera, photos[i], i))
    assert min(report.psnr for report in reports[-6:]) > max(r.psnr for r in reports[:6])
    assert group(state.optimizer, "cameras")["lr"] < 1.1e-4
    assert context.gauge is not None
    flat = state.corrections.detach().flatten()
    assert float((context.gauge.mT @ flat).abs().max()) < 1e-5
    # What shows: a turn, or a shift across it of as much as the scene is away.
    position = torch.stack([c.position_world for c in given])

    def seen(values: torch.Tensor) -> torch.Tensor:
        centre = torch.linalg.cross(values[:, :3], -position) - EXTENT * values[:, 3:6]
        forward = torch.stack([c.forward_world for c in given])
        return centre - (centre * forward).sum(-1, keepdim=True) * forward

    common = context.gauge @ (context.gauge.mT @ true.flatten())
    wanted = seen(true - common.view_as(true))
    left = seen(state.corrections.detach()) - wanted
    assert float(left.norm(dim=-1).mean()) < 0.5 * float(wanted.norm(dim=-1).mean())


def test_prior_brings_back_a_camera_of_which_the_photo_says_nothing() -> None:
    model, given = textured_model(), cameras_around()
    with torch.no_grad():
        model.params["opacities"].fill_(-20.0)
    rates = LearningRates(cameras=1e-3, cameras_final=1e-3)
    state = TrainState.start(model, False, rates, EXTENT, num_corrections=6)
    assert state.corrections is not None
    with torch.no_grad():
        state.corrections[2, 0] = 0.01
    context = replace(stage_context(rates, given, 40), gauge=None)
    photo = Photo(torch.zeros(36, 40, 3), None, "srgb", 8)
    for _ in range(40):
        camera = corrected_camera(given[2], state.corrections[2].detach(), EXTENT)
        train_step(state, context, camera, photo, 2)
    assert abs(float(state.corrections.detach()[2, 0])) < 2e-3


def test_a_state_keeps_its_corrections_and_refuses_others(tmp_path: Path) -> None:
    state = TrainState.start(textured_model(), False, LearningRates(), 1.0, num_corrections=3)
    assert state.corrections is not None
    with torch.no_grad():
        state.corrections.add_(torch.randn(3, 7, generator=torch.Generator().manual_seed(1)))
    again = TrainState.from_plain(state.to_plain(), LearningRates(), 1.0, torch.device("cpu"))
    assert again.corrections is not None
    assert torch.equal(again.corrections, state.corrections)
    plain = {**state.to_plain(), "corrections": torch.zeros(3, 6)}
    with pytest.raises(CheckpointError, match=r"corrections have shape \(3, 6\)"):
        check_contents({"state": plain, "S_world_input": torch.eye(4)}, tmp_path)


def test_a_dataset_takes_corrections_of_its_own_views_alone() -> None:
    views = tuple(View(f"{i}", c, Path(f"{i}.png")) for i, c in enumerate(cameras_around()))
    dataset = Dataset(
        Path("capture"), "colmap", views[:5], views[5:], None, torch.eye(4).double(), True
    )
    corrections = torch.zeros(5, 7)
    corrections[1, 3] = 0.1
    found = dataset.with_corrections(corrections)
    moved = found.train[1].camera.position_world - views[1].camera.position_world
    torch.testing.assert_close(moved, torch.tensor([0.1 * dataset.extent, 0.0, 0.0]))
    assert found.test == dataset.test
    with pytest.raises(ValueError, match="5 training views: it has changed"):
        dataset.with_corrections(torch.zeros(4, 7))
