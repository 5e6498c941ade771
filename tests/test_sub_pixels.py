"""Samples within the pixels of a true G-buffer, for benchmarks with supersampling."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.true_surface import SubPixels, TrueView, sub_pixels
from splatir.data.dataset import View
from splatir.maths.safe import safe_normalise
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.surface_samples import model_from_samples
from splatir.shade.surface import SurfacePoints
from tests.captures import look_at
from tests.solids import sphere

RADIUS, DISTANCE, SIZE, FOCAL = 0.8, 3.0, 24, 30.0


def camera() -> Camera:
    K = torch.tensor([[FOCAL, 0.0, SIZE / 2], [0.0, FOCAL, SIZE / 2], [0.0, 0.0, 1.0]])
    return Camera(K, look_at(torch.tensor([DISTANCE, 0.0, 0.0]), torch.zeros(3)), SIZE, SIZE)


def on_ball(positions: Tensor) -> SurfacePoints:
    """What lies there, brighter towards +Y."""
    normals = safe_normalise(positions)
    grey = (0.5 + 0.4 * normals[:, 1:2]).expand(-1, 3)
    ones = torch.ones(len(positions), 1)
    views = safe_normalise(camera().position_world - positions)
    return SurfacePoints(positions, normals, views, grey, 0.4 * ones, 0.2 * ones)


def hits(of: Camera) -> tuple[Tensor, Tensor]:
    """Where pixel centres see the ball, and which do."""
    steps = (torch.arange(of.width) + 0.5 - of.K[0, 2]) / of.K[0, 0]
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    rays = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ of.T_camera_world[:3, :3]
    rays, start = safe_normalise(rays), of.position_world
    along = -(rays * start).sum(-1)
    inside = RADIUS**2 - (start @ start - along**2)
    return start + (along - inside.clamp_min(0.0).sqrt())[..., None] * rays, inside > 0.0


def true_ball() -> TrueView:
    positions, mask = hits(camera())
    points = on_ball(positions[mask])
    grazing = (points.normals * points.views).sum(-1) < 0.5
    view = View("r_0", camera(), Path("r_0.png"))
    return TrueView(view, mask, points, points.normals, ~grazing)


def gaussian_ball(brightness: float = 1.0) -> GaussianModel:
    samples = sphere(RADIUS, 8000, roughness=0.4, metallic=0.2)
    samples = replace(samples, albedo=brightness * on_ball(samples.positions).albedo)
    return model_from_samples(samples, "ellipsoid", 0)


def known(points: SurfacePoints) -> list[Tensor]:
    """All fields that a true surface has."""
    return [value for value in vars(points).values() if value is not None]


def depths(points: SurfacePoints) -> Tensor:
    T = camera().T_camera_world
    return points.positions @ T[2, :3, None] + T[2, 3]


def test_one_sample_is_the_pixel() -> None:
    true = true_ball()
    found = sub_pixels(true, gaussian_ball(), 1)
    values = torch.rand(int(true.mask.sum()), 3)
    assert torch.equal(found.mean(values), values)
    assert found.points is true.points


def test_means_are_the_true_pixels_though_the_gaussians_are_wrong() -> None:
    true = true_ball()
    found = sub_pixels(true, gaussian_ball(0.8), 3)
    assert len(found.points.albedo) == 9 * int(true.mask.sum())
    for key in ("albedo", "roughness", "metallic"):
        wanted = getattr(true.points, key)
        assert (found.mean(getattr(found.points, key)) - wanted)[true.is_inner].abs().max() < 1e-4
    assert (found.mean(depths(found.points)) - depths(true.points))[
        true.is_inner
    ].abs().max() < 1e-4
    normals = safe_normalise(found.mean(found.points.normals))
    assert (normals * true.points.normals).sum(-1)[true.is_inner].min() > 0.9999


def test_samples_tell_what_a_pixel_does_not() -> None:
    true = true_ball()
    found = sub_pixels(true, gaussian_ball(), 3)
    inner = true.is_inner[found.pixels]

    def wrong(samples: SubPixels, points: SurfacePoints) -> tuple[Tensor, ...]:
        positions, _ = hits(samples.camera)
        wanted = on_ball(positions[samples.mask])
        return tuple(
            (getattr(points, key) - getattr(wanted, key))[inner].norm(dim=-1).mean()
            for key in ("positions", "normals", "albedo")
        )

    repeated = SurfacePoints(*(value[found.pixels] for value in known(true.points)))
    for finer, pixel in zip(wrong(found, found.points), wrong(found, repeated), strict=True):
        assert finer < 0.5 * pixel


def test_points_of_uncovered_samples_are_finite() -> None:
    true = true_ball()
    found = sub_pixels(true, gaussian_ball(), 3)
    assert float(found.coverage.min()) > 0.0
    for value in known(found.points):
        assert value.isfinite().all()
