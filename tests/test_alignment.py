"""Scoring a held-out photo after its own camera and exposure were fitted: what that may repair."""

from pathlib import Path

import torch

from splatir.data.dataset import View
from splatir.data.images import Photo
from splatir.evaluate.alignment import align_view, fitted_log_gains, reduced_view
from splatir.evaluate.judge import Judge, ScoredScene
from splatir.maths.colour import exposed_over, exposed_srgb, linear_from_srgb, srgb_from_linear
from splatir.raster.selection import rasterizer
from splatir.render.radiance import render_radiance
from splatir.scene.corrections import corrected_camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.initialise import InitialisationSettings, SeedPoints, model_from_points
from tests.scenes import axis_camera


def textured_model() -> GaussianModel:
    generator = torch.Generator().manual_seed(5)
    positions = torch.rand(150, 3, generator=generator) * torch.tensor([2.0, 2.0, 1.0])
    points = SeedPoints(
        positions - torch.tensor([1.0, 1.0, -2.0]),
        0.1 + 0.6 * torch.rand(150, 3, generator=generator),
        torch.zeros(150, 3),
        torch.zeros(150, dtype=torch.bool),
    )
    model = model_from_points(points, "ellipsoid", InitialisationSettings(sh_degree=0), seed=0)
    with torch.no_grad():
        model.params["scales"].fill_(-2.3)
        model.params["opacities"].fill_(2.0)
    return model


def test_exposed_srgb_is_the_gain_in_linear_light() -> None:
    srgb = torch.linspace(0.0, 0.9, 50)[:, None].expand(50, 3)
    log_gains = torch.tensor([0.35, -0.35, 0.0])
    expected = srgb_from_linear(linear_from_srgb(srgb) * log_gains.exp())
    shown = exposed_srgb(srgb, log_gains)
    torch.testing.assert_close(shown, expected, atol=0.009, rtol=0.0)
    torch.testing.assert_close(shown[12:], expected[12:], atol=1e-4, rtol=0.0)
    half = exposed_srgb(0.5 * srgb, log_gains, torch.full((50, 1), 0.5))
    torch.testing.assert_close(half, 0.5 * shown)


def test_gains_are_found_beside_saturated_pixels() -> None:
    image = 0.1 + 0.8 * torch.rand(20, 30, 3, generator=torch.Generator().manual_seed(0))
    log_gains = torch.tensor([0.7, -0.5, 0.2])
    photo = exposed_srgb(image, log_gains).clamp(0.0, 1.0)
    assert bool((photo == 1.0).any())
    torch.testing.assert_close(fitted_log_gains(image, photo), log_gains, atol=1e-3, rtol=0.0)
    white = torch.ones_like(photo)
    assert torch.equal(fitted_log_gains(image, white), torch.zeros(3))


def test_alignment_finds_camera_and_exposure_and_is_reported_apart() -> None:
    """A photo half a degree and half a stop off scores low as calibrated, high when aligned."""
    model, extent = textured_model(), 1.0
    backend = rasterizer("auto", torch.device("cpu"))
    camera = axis_camera(64, 56, 70.0)
    offset = torch.tensor([0.006, -0.007, 0.004, 0.004, -0.003, 0.002, 0.0])
    with torch.no_grad():
        true_camera = corrected_camera(camera, offset, extent)
        rgb = render_radiance(model, true_camera, backend, torch.zeros(3)).rgb_srgb
    log_gains = torch.tensor([0.3, 0.35, 0.4])
    photo = Photo(exposed_srgb(rgb, log_gains).clamp(0.0, 1.0), None, "srgb", 8)
    view = View("photo", camera, Path("photo.png"))
    before = {key: value.detach().clone() for key, value in model.params.items()}
    fitted = align_view(model, view, photo, backend, None, extent)
    torch.testing.assert_close(fitted.log_gains, log_gains, atol=0.03, rtol=0.0)
    for key, value in model.params.items():
        assert torch.equal(value, before[key]) and value.grad is None
    scene = ScoredScene(model, None, None, backend, False, extent=extent)
    judge = Judge(scene, None)
    judge.look_at(view, photo, draw=True)
    scores = judge.scores()
    assert scores["psnr_full"] < 24.0
    assert scores["aligned_psnr_full"] > scores["psnr_full"] + 10.0
    assert scores["aligned_radiance_psnr_full"] == scores["aligned_psnr_full"]
    assert "fitted" in judge.rows[0].title


def test_large_photos_are_aligned_at_reduced_size() -> None:
    """The camera that comes back is of the photo's own size."""
    model, camera = textured_model(), axis_camera(600, 300, 640.0)
    photo = Photo(torch.rand(300, 600, 3), torch.ones(300, 600, 1), "srgb", 8)
    small, target, alpha = reduced_view(camera, photo)
    assert (small.width, small.height) == (512, 256) == (target.shape[1], target.shape[0])
    assert alpha is not None and alpha.shape == (256, 512)
    torch.testing.assert_close(small.K[0], camera.K[0] * 512 / 600)
    backend = rasterizer("auto", torch.device("cpu"))
    fitted = align_view(model, View("photo", camera, Path("photo.png")), photo, backend, None, 1.0)
    assert (fitted.camera.width, fitted.camera.height) == (600, 300)
    torch.testing.assert_close(fitted.camera.K, camera.K, rtol=0.1, atol=0.0)


def test_gains_of_a_photo_with_alpha_leave_its_white_background() -> None:
    model, camera = textured_model(), axis_camera(40, 36, 20.0)
    backend = rasterizer("auto", torch.device("cpu"))
    with torch.no_grad():
        image = render_radiance(model, camera, backend, torch.ones(3))
        gained = exposed_over(
            image.rgb_srgb, torch.full((3,), -0.4), image.raster.alpha, torch.ones(3)
        )
    assert float((1.0 - image.raster.alpha).max()) > 0.9
    torch.testing.assert_close(gained[0, 0], torch.ones(3))
    straight = (gained - (1.0 - image.raster.alpha)) / image.raster.alpha.clamp_min(1e-3)
    photo = Photo(straight.clamp(0.0, 1.0), image.raster.alpha, "srgb", 8)
    view = View("photo", camera, Path("photo.png"))
    fitted = align_view(model, view, photo, backend, None, 1.0)
    torch.testing.assert_close(fitted.log_gains, torch.full((3,), -0.4), atol=0.03, rtol=0.0)
    torch.testing.assert_close(
        fitted.camera.T_camera_world, camera.T_camera_world, atol=2e-3, rtol=0.0
    )


def test_views_are_not_aligned_where_nothing_of_photos_was_learned() -> None:
    model, camera = textured_model(), axis_camera(16, 12)
    photo = Photo(torch.rand(12, 16, 3), torch.ones(12, 16, 1), "srgb", 8)
    judge = Judge(
        ScoredScene(model, None, None, rasterizer("auto", torch.device("cpu")), False), None
    )
    judge.look_at(View("photo", camera, Path("photo.png")), photo, draw=False)
    assert not any(key.startswith("aligned") for key in judge.scores())
