"""The true surface of a scene: its G-buffer, and Gaussians that render it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from splatir.data.dataset import View
from splatir.evaluate.truth import protocol_of, true_buffers
from splatir.maths.colour import srgb_from_linear
from splatir.maths.safe import safe_normalise
from splatir.raster.contract import RasterOptions
from splatir.raster.selection import rasterizer
from splatir.render.geometry import camera_rays
from splatir.scene.gaussians import GaussianModel
from splatir.scene.normals import normal_axes
from splatir.scene.surface_samples import SurfaceSamples, model_from_samples
from splatir.shade.surface import SurfacePoints

# Pixels whose depths differ by more than this (standard deviation) mix two surfaces.
_MAX_SPREAD = 0.03
_MIN_COSINE = 0.08
# Widths of the Gaussians in mean distances to their six neighbours.
_WIDTH = 0.8
# Of the fit: steps, rates (of positions in widths of a Gaussian), and what transparency costs.
_STEPS = 800
_RATES = {"means": 0.006, "scales": 0.001, "opacities": 0.03}
_TRANSPARENCY = 0.01
# At the end of the fit rates have fallen by this part.
_DECAY = 0.95


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
    depth = tensor(found.depth)
    T = camera.T_world_camera
    positions = (camera_rays(camera) * depth[..., None]) @ T[:3, :3].mT + T[:3, 3]
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
