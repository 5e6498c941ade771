"""The true surface of a scene: its G-buffer, Gaussians that render it, samples within pixels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor
from torch.nn.functional import avg_pool2d

from splatir.data.dataset import View
from splatir.evaluate.truth import protocol_of, true_buffers
from splatir.maths.colour import srgb_from_linear
from splatir.maths.safe import safe_normalise
from splatir.raster.contract import RasterOptions
from splatir.raster.selection import rasterizer
from splatir.render.buffers import PictureOptions
from splatir.render.gbuffer import MIN_COVERAGE
from splatir.render.geometry import camera_rays
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.normals import normal_axes
from splatir.scene.surface_samples import SurfaceSamples, model_from_samples
from splatir.shade.surface import SurfacePoints

# Pixels whose depths differ by more than this (standard deviation) mix two surfaces.
_MAX_SPREAD = 0.03
_MIN_COSINE = 0.08
# Widths of the Gaussians in mean distances to their six neighbours.
_WIDTH = 0.8
_MATERIALS = "albedo", "roughness", "metallic"
# Of the fit: steps, rates (of positions in widths of a Gaussian), and what transparency costs.
_STEPS = 800
_RATES = {"means": 0.006, "scales": 0.001, "opacities": 0.03}
_TRANSPARENCY = 0.01
# At the end of the fit rates have fallen by this part.
_DECAY = 0.95
# Pixels along a side of the window whose inner pixels say how far depths of the others are off.
_WINDOW = 5


@dataclass(frozen=True)
class TrueView:
    """A test view and the surface points of its foreground pixels.

    Attributes:
        view: With its camera.
        mask: Foreground.
        points: Of these pixels.
        geo_normals: Likewise.
        is_inner: Whether one surface alone fills the pixel.
    """

    view: View
    mask: Tensor
    points: SurfacePoints
    geo_normals: Tensor
    is_inner: Tensor


def true_view(root: Path, view: View) -> TrueView:
    """Read the truth about a test view.

    Args:
        root: Of the scene.
        view: Of its test set.
    """
    found = true_buffers(root, protocol_of(root), view)
    camera = view.camera

    def tensor(values: object) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32)

    mask = tensor(found.alpha) > 0.5
    positions = _positions(camera, tensor(found.depth)[..., None])
    views = safe_normalise(camera.position_world - positions)
    with np.load(root / "gt" / f"{Path(view.name).name}.npz") as stored:
        spread = tensor(stored["depth_std"])
    return TrueView(
        view,
        mask,
        SurfacePoints(
            positions[mask],
            safe_normalise(tensor(found.normals))[mask],
            views[mask],
            tensor(found.albedo)[mask],
            tensor(found.roughness)[mask][:, None],
            tensor(found.metallic)[mask][:, None],
        ),
        safe_normalise(tensor(found.geo_normals))[mask],
        (spread < _MAX_SPREAD)[mask],
    )


def _positions(camera: Camera, depth: Tensor) -> Tensor:
    T = camera.T_world_camera
    return (camera_rays(camera) * depth) @ T[:3, :3].mT + T[:3, 3]


def sampled_gaussians(views: list[TrueView], count: int) -> GaussianModel:
    """About so many Gaussians, evenly spread over what the views see.

    Args:
        views: That see all of the surface that counts.
        count: Of Gaussians, about.
    """
    kept = [v.is_inner & _faces(v) for v in views]
    fields = {
        name: torch.cat([getattr(v.points, name)[k] for v, k in zip(views, kept, strict=True)])
        for name in ("positions", "normals", "albedo", "roughness", "metallic")
    }
    sides = torch.cat([v.geo_normals[k] for v, k in zip(views, kept, strict=True)])
    order = torch.randperm(len(sides), generator=torch.Generator().manual_seed(0))
    low, high, chosen = 1e-4, 1.0, order
    for _ in range(20):
        cell = (low * high) ** 0.5
        chosen = order[_one_per_cell(fields["positions"][order], sides[order], cell)]
        low, high = (cell, high) if len(chosen) > count else (low, cell)
    points = fields["positions"][chosen].numpy()
    spacing = torch.from_numpy(KDTree(points).query(points, 7)[0][:, 1:].mean(1)).float()
    samples = SurfaceSamples(
        fields["positions"][chosen],
        fields["normals"][chosen],
        _WIDTH * spacing,
        torch.full_like(spacing, 0.95),
        fields["albedo"][chosen],
        fields["roughness"][chosen, 0],
        fields["metallic"][chosen, 0],
    )
    return model_from_samples(samples, "ellipsoid", 0)


def _faces(view: TrueView) -> Tensor:
    return (view.geo_normals * view.points.views).sum(-1) > _MIN_COSINE


def _one_per_cell(positions: Tensor, sides: Tensor, cell: float) -> Tensor:
    """Index of the first point in each cube of this side, sides of a thin sheet apart."""
    keys = torch.cat([(positions / cell).floor(), (0.8 * sides).round()], dim=-1)
    _, inverse = torch.unique(keys, dim=0, return_inverse=True)
    first = torch.full((int(inverse.max()) + 1,), len(keys))
    return first.scatter_reduce(0, inverse, torch.arange(len(keys)), "amin")


def fit_to_views(model: GaussianModel, views: list[TrueView]) -> None:
    """Move and narrow Gaussians until they render the true G-buffers, outlines too.

    Normals and materials stay those of the true surface where each was sampled. Trained Gaussians
    fit outlines because photographs made them; sampled ones reach over the outlines of the surface
    in front, and a pixel there would composite what belongs to another surface. No picture of a
    scene under any light is looked at.

    Args:
        model: Changed in place.
        views: Whose G-buffers it is to render.
    """
    backend = rasterizer("auto", torch.device("cpu"))
    middle, width = model.means.detach().mean(0), float(model.scales.detach()[:, :2].mean())

    def shown(normals: Tensor, albedo: Tensor, positions: Tensor) -> Tensor:
        return torch.cat([normals, srgb_from_linear(albedo), (positions - middle) / width], -1)

    with torch.no_grad():
        features = shown(normal_axes(model.gaussians), model.material("albedo"), model.means)
    targets = []
    for view in views:
        points = view.points
        target = features.new_zeros(*view.mask.shape, features.shape[1])
        target[view.mask] = shown(points.normals, points.albedo, points.positions)
        targets.append(target)
    scales = {"means": width, "scales": 1.0, "opacities": 1.0}
    optimizer = torch.optim.Adam(
        [{"params": [model.params[key]], "lr": rate * scales[key]} for key, rate in _RATES.items()]
    )
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1.0 - _DECAY, _STEPS)
    order = torch.Generator().manual_seed(0)
    for _ in range(_STEPS):
        chosen = int(torch.randint(len(views), (1,), generator=order))
        view, target = views[chosen], targets[chosen]
        coverage = view.mask[..., None].float()
        raster = backend.rasterize(
            model.gaussians, view.view.camera, features, None, RasterOptions()
        )
        wrong = (raster.features - target * raster.alpha).abs() * coverage
        loss = wrong.mean() + (raster.alpha - coverage).abs().mean()
        loss = loss + _TRANSPARENCY * (1.0 - model.opacities).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@dataclass(frozen=True)
class SubPixels:
    """Surface points at samples within the foreground pixels of a view.

    Attributes:
        camera: Whose pixels the samples are.
        options: How Gaussians are rasterised in them.
        mask: Which of its pixels.
        points: Of these.
        geo_normals: Likewise.
        pixels: Foreground pixel of the view that each lies in.
        coverage: Its weight among the samples of its pixel.
    """

    camera: Camera
    options: RasterOptions
    mask: Tensor
    points: SurfacePoints
    geo_normals: Tensor
    pixels: Tensor
    coverage: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """Means over the samples of each foreground pixel.

        Args:
            values: A row for each sample.
        """
        weighted = torch.cat([values * self.coverage, self.coverage], dim=-1)
        sums = weighted.new_zeros(int(self.pixels.max()) + 1, weighted.shape[1])
        sums.index_add_(0, self.pixels, weighted)
        return sums[:, :-1] / sums[:, -1:]


@torch.no_grad()
def sub_pixels(view: TrueView, model: GaussianModel, factor: int) -> SubPixels:
    """Samples of a view's true surface.

    The true G-buffer has one value per pixel. How surfaces differ within it is taken from Gaussians
    that were fitted to all views; then the samples of each pixel are moved so that their mean is
    the true value. Where surfaces mix, depths move as those of the pixels nearby.

    Args:
        view: Its truth.
        model: What `fit_to_views` returned, Gaussians with materials.
        factor: Samples along each side of a pixel; with 1 they are the pixels.
    """
    camera, points = view.view.camera, view.points
    count = len(points.normals)
    finer, options = PictureOptions(factor).finer(camera, RasterOptions())
    if factor == 1:
        every, ones = torch.arange(count), torch.ones(count, 1)
        return SubPixels(finer, options, view.mask, points, view.geo_normals, every, ones)
    materials = [model.material(key).view(len(model.means), -1) for key in _MATERIALS]
    features = torch.cat([normal_axes(model.gaussians), *materials, model.means], dim=-1)
    backend = rasterizer("auto", torch.device("cpu"))
    raster = backend.rasterize(model.gaussians, finer, features, None, options)
    found = raster.features / raster.alpha.clamp_min(MIN_COVERAGE)

    def means(values: Tensor) -> Tensor:
        coverage = _pooled(raster.alpha, factor).clamp_min(MIN_COVERAGE)
        return _pooled(values * raster.alpha, factor) / coverage

    def spread(values: Tensor) -> Tensor:
        return values.repeat_interleave(factor, 0).repeat_interleave(factor, 1)

    found = torch.where(raster.alpha > MIN_COVERAGE, found, spread(means(found)))
    normals, surface, positions = found.split([3, found.shape[-1] - 6, 3], dim=-1)
    normals = safe_normalise(normals)

    def picture(values: Tensor) -> Tensor:
        filled = values.new_zeros(*view.mask.shape, values.shape[-1])
        filled[view.mask] = values
        return filled

    wrong_normals = picture(points.normals) - safe_normalise(means(normals))
    true_surface = torch.cat([getattr(points, key) for key in _MATERIALS], dim=-1)
    surface = surface + spread(picture(true_surface) - means(surface))
    T = camera.T_camera_world
    depth = positions @ T[2, :3, None] + T[2, 3]
    inner = picture(view.is_inner[:, None].float())
    wrong_depths = inner * (picture(points.positions @ T[2, :3, None] + T[2, 3]) - means(depth))
    nearby = _windowed(wrong_depths) / _windowed(inner).clamp_min(MIN_COVERAGE)
    depth = depth + spread(torch.where(inner > 0.0, wrong_depths, nearby))

    mask = spread(view.mask)
    where = _positions(finer, depth)[mask]
    pixels = spread(picture(torch.arange(count)[:, None]))[mask][:, 0]
    coverage = raster.alpha[mask].clamp_min(MIN_COVERAGE)
    moved = SurfacePoints(
        where,
        safe_normalise(normals + spread(wrong_normals))[mask],
        safe_normalise(camera.position_world - where),
        *surface[mask].clamp(0.0, 1.0).split([3, 1, 1], dim=-1),
    )
    return SubPixels(finer, options, mask, moved, view.geo_normals[pixels], pixels, coverage)


def _pooled(values: Tensor, factor: int) -> Tensor:
    return avg_pool2d(values.permute(2, 0, 1), factor).permute(1, 2, 0)


def _windowed(values: Tensor) -> Tensor:
    planes = values.permute(2, 0, 1)
    return avg_pool2d(planes, _WINDOW, stride=1, padding=_WINDOW // 2).permute(1, 2, 0)
