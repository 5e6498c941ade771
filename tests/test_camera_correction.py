"""Corrections of cameras: what they do, which gradient they get, and what they leave alone."""

import math

import pytest
import torch

from splatir.raster.selection import rasterizer
from splatir.render.camera_gradient import CameraCorrection
from splatir.render.radiance import render_radiance
from splatir.scene.camera import Camera
from splatir.scene.corrections import (
    NUM_CORRECTIONS,
    corrected_camera,
    gauge_directions,
    remove_gauge,
)
from splatir.scene.gaussians import GaussianModel
from tests.scenes import axis_camera


def test_a_correction_turns_moves_and_magnifies() -> None:
    camera = axis_camera(40, 30)
    angle = 0.01
    correction = torch.tensor([0.0, angle, 0.0, 0.1, 0.0, 0.0, math.log(1.1)])
    new = corrected_camera(camera, correction, extent=2.0)
    torch.testing.assert_close(new.position_world, torch.tensor([0.2, 0.0, 0.0]))
    # About +y (down): +z turns towards +x.
    forward = torch.tensor([math.sin(angle), 0.0, math.cos(angle)])
    torch.testing.assert_close(new.forward_world, forward, atol=1e-6, rtol=0.0)
    torch.testing.assert_close(new.K[:2, :2], 1.1 * camera.K[:2, :2])
    torch.testing.assert_close(new.K[:, 2], camera.K[:, 2])


def soft_model() -> GaussianModel:
    """A few wide, coloured, view-dependent Gaussians, whose picture is smooth in the camera."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    means = 0.4 * draw(12, 3) + torch.tensor([0.0, 0.0, 3.0], dtype=torch.float64)
    params = {
        "means": means,
        "quats": draw(12, 4),
        "scales": torch.log(0.15 + 0.2 * torch.rand(12, 3, generator=generator).double()),
        "opacities": draw(12) - 1.0,
        "sh0": 0.5 * draw(12, 1, 3),
        "shN": 0.3 * draw(12, 8, 3),
    }
    return GaussianModel(params, "ellipsoid")


@pytest.mark.parametrize("index", range(NUM_CORRECTIONS))
def test_gradient_of_a_correction_is_that_of_the_picture(index: int) -> None:
    """Against a difference of two rendered pictures, for each of the seven numbers."""
    model, extent = soft_model(), 1.7
    backend = rasterizer("reference", torch.device("cpu"))
    camera = axis_camera(48, 40, 60.0).to(dtype=torch.float64)
    weights = torch.randn(40, 48, 3, generator=torch.Generator().manual_seed(1)).double()
    weights = torch.nn.functional.avg_pool2d(weights.permute(2, 0, 1), 9, 1, 4).permute(1, 2, 0)
    start = 1e-3 * torch.randn(7, generator=torch.Generator().manual_seed(2)).double()

    def picture_sum(values: torch.Tensor, tie: CameraCorrection | None) -> torch.Tensor:
        view = corrected_camera(camera, values.detach(), extent)
        image = render_radiance(model, view, backend, torch.ones(3).double(), correction=tie)
        return (image.rgb_srgb * weights).sum()

    values = start.clone().requires_grad_()
    loss = picture_sum(values, CameraCorrection(values, extent))
    (gradient,) = torch.autograd.grad(loss, values)
    step = torch.zeros(7, dtype=torch.float64)
    # So small that no pixel crosses the cut of a splat meanwhile.
    step[index] = 1e-7
    with torch.no_grad():
        difference = picture_sum(start + step, None) - picture_sum(start - step, None)
    expected = float(difference) / 2e-7
    # Turning is of first order in the correction; the focal length leaves out that projection
    # flattens splats beyond the picture's edge.
    tolerance = 0.08 if index == 6 else 1e-5 if index > 2 else 0.01
    assert float(gradient[index]) == pytest.approx(expected, rel=tolerance)


def test_a_tie_changes_no_picture_and_no_other_gradient() -> None:
    model = soft_model()
    for value in model.params.values():
        value.requires_grad_()
    backend = rasterizer("reference", torch.device("cpu"))
    camera = axis_camera(24, 20, 30.0).to(dtype=torch.float64)
    values = torch.zeros(7, dtype=torch.float64, requires_grad=True)
    results = []
    for tie in (None, CameraCorrection(values, 1.0)):
        image = render_radiance(model, camera, backend, correction=tie, with_surface=True)
        gradients = torch.autograd.grad(image.rgb_srgb.square().sum(), list(model.params.values()))
        results.append((image.rgb_srgb, gradients))
    assert torch.equal(results[0][0], results[1][0])
    for plain, tied in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(tied, plain)


def ring_cameras(num: int = 5) -> list[Camera]:
    cameras = []
    for i in range(num):
        angle = torch.tensor(2 * math.pi * i / num)
        T = torch.eye(4)
        R = torch.tensor(
            [
                [angle.cos(), 0.0, angle.sin()],
                [0.0, 1.0, 0.0],
                [-angle.sin(), 0.0, angle.cos()],
            ]
        )
        T[:3, :3] = R
        T[:3, 3] = torch.tensor([0.1 * i, 0.3, 2.0])
        cameras.append(Camera(axis_camera(40, 30).K, T, 40, 30))
    return cameras


def test_gauge_holds_motions_of_the_whole_scene_and_nothing_else() -> None:
    """All cameras turned about a point, moved and grown together: none of it may remain."""
    cameras, extent = ring_cameras(), 2.5
    gauge = gauge_directions(cameras, extent)
    assert gauge.shape == (35, 7)
    torch.testing.assert_close(gauge.mT @ gauge, torch.eye(7).double())
    positions = torch.stack([c.position_world for c in cameras]).double()
    turn, shift = torch.tensor([0.2, -0.1, 0.4]).double(), torch.tensor([1.0, 2.0, -1.0]).double()
    common = torch.zeros(5, 7, dtype=torch.float64)
    common[:, :3] = turn
    moved = torch.linalg.cross(turn.expand_as(positions), positions) + shift + 0.3 * positions
    common[:, 3:6] = moved / extent
    remove_gauge(common, gauge)
    torch.testing.assert_close(common, torch.zeros_like(common), atol=1e-6, rtol=0.0)
    focal = torch.zeros(5, 7, dtype=torch.float64)
    focal[:, 6] = 0.1
    kept = focal.clone()
    remove_gauge(kept, gauge)
    torch.testing.assert_close(kept, focal)
