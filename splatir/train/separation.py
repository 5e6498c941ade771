"""How is the object of a trained capture told from what stands around it?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from splatir.data.cache import PhotoSource
from splatir.data.dataset import Dataset, SparsePoints
from splatir.maths.frames import transform_points
from splatir.maths.two_regions import without_dust
from splatir.raster.contract import RasterBackend, RasterOptions
from splatir.render.occupancy import Occupancy
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.region import Region, find_region, parse_region
from splatir.train.outlines import outlined_masks
from splatir.train.settings import TrainSettings

# Coverage by the object at which a pixel is outside of it and at which it is inside: Gaussians of a
# whole capture are soft.
_OUTSIDE, _INSIDE = 0.25, 0.75
# The object is looked for in a region larger by this than the one that was found.
_SEARCH = 1.3
# Occupancy of what is inside or next to a shape.
_NEAR = 0.25
# Largest part of Gaussians' sizes that counts as surface: a few large ones are fog.
_SIZE_QUANTILE = 0.9


@dataclass(frozen=True)
class Separation:
    """An object and the rest of its capture.

    Attributes:
        region: That the object was looked for in.
        shape: What the masks have in common.
        thing: Its Gaussians, as the whole capture's training left them.
        surroundings: All others, radiance only.
        masks: Coverage by the object in each training view, 255 for all.
    """

    region: Region
    shape: Occupancy
    thing: GaussianModel
    surroundings: GaussianModel
    masks: list[UInt8[Tensor, "h w"]]


@torch.no_grad()
def separate(
    model: GaussianModel,
    dataset: Dataset,
    cameras: Sequence[Camera],
    photos: PhotoSource,
    settings: TrainSettings,
    backend: RasterBackend,
    options: RasterOptions,
) -> Separation:
    """Find the object and mark it in every training view.

    A region says roughly where it is, photos say where it ends, and what is mostly seen within the
    masks is the object.

    Args:
        model: Radiance of the whole capture.
        dataset: Capture.
        cameras: Of the training views, as refined, on the model's device.
        photos: Of the same views.
        settings: `roi` (not "none") and `seed` count.
        backend: Rasteriser.
        options: As in training.

    Raises:
        ValueError: Nothing of the model is in the region, or all of it.
    """
    region = region_of(model, dataset, cameras, settings.roi, settings.seed)
    # What the user gave holds the object; what was found holds most of it.
    search = region.enlarged(_SEARCH) if settings.roi == "auto" else region
    # On a table photos take away what is too much, but hardly add what is missing: a sphere about
    # sparse points ends before plain parts do.
    is_object = (region if region.support is None else search).contains(model.means)
    if not bool(is_object.any()):
        raise ValueError(
            "no object was found where the cameras look. Say where it is with --roi x,y,z,radius "
            "(in the capture's own frame), or train radiance alone with --roi none."
        )
    if bool(is_object.all()):
        raise ValueError(
            "everything that was trained lies in the region of interest, so nothing is around the "
            "object. Give a smaller --roi, or train radiance alone with --roi none."
        )
    masks = [object_mask(model, is_object, camera, backend, options) for camera in cameras]
    if not any(bool((mask > 0).any()) for mask in masks):
        raise ValueError(
            "no photo shows what is in the region of interest. Give another --roi, or --roi none."
        )
    pictures = [photos[index].rgb_srgb for index in range(len(photos))]
    points = None if dataset.points is None else dataset.points.positions
    rough = [mask / 255.0 for mask in masks]
    found = outlined_masks(cameras, pictures, rough, region, search, points)
    is_object = mostly_within(model, cameras, found.masks, backend, options)
    # Nobody sees what is buried.
    is_object |= (found.shape.at(model.means.cpu()) > 0.5).to(is_object)
    thing, rest = (
        GaussianModel({k: v.detach()[part] for k, v in model.params.items()}, model.primitive)
        for part in (is_object, ~is_object)
    )
    sharp = [(255.0 * mask + 0.5).byte() for mask in found.masks]
    return Separation(region, found.shape, thing, rest, sharp)


def mostly_within(
    model: GaussianModel,
    cameras: Sequence[Camera],
    masks: Sequence[Float[Tensor, "h w"]],
    backend: RasterBackend,
    options: RasterOptions,
) -> Bool[Tensor, " n"]:
    """Gaussians of which more is seen within masks than outside.

    What a Gaussian gives to a sum of pixels is the derivative of that sum by its feature.

    Args:
        model: All Gaussians.
        cameras: Views, on the model's device.
        masks: Of each, in [0, 1].
        backend: Rasteriser.
        options: As in training.
    """
    with torch.no_grad():
        gaussians = model.gaussians
    balance = torch.zeros_like(model.means[:, :1]).requires_grad_()
    with torch.enable_grad():
        for camera, mask in zip(cameras, masks, strict=True):
            seen = backend.rasterize(gaussians, camera, balance, options=options).features[..., 0]
            (seen * (2.0 * mask.to(seen) - 1.0)).sum().backward()
    assert balance.grad is not None
    return balance.grad[:, 0] > 0.0


def region_of(
    model: GaussianModel, dataset: Dataset, cameras: Sequence[Camera], roi: str, seed: int
) -> Region:
    """The region that the settings name, or the one that is found."""
    if roi != "auto":
        return parse_region(roi, dataset.S_world_input)
    sizes = model.scales.detach().sort(dim=-1).values[:, 1:].prod(-1)
    areas = 2.0 * torch.pi * sizes.clamp_max(float(sizes.quantile(_SIZE_QUANTILE)))
    points = None if dataset.points is None else dataset.points.positions
    weights = (areas * model.opacities.detach()).cpu()
    return find_region(
        [camera.to("cpu") for camera in cameras], points, model.means.detach().cpu(), weights, seed
    )


@torch.no_grad()
def object_mask(
    model: GaussianModel,
    is_object: Bool[Tensor, " n"],
    camera: Camera,
    backend: RasterBackend,
    options: RasterOptions = RasterOptions(),
) -> UInt8[Tensor, "h w"]:
    """Where a view shows some of the Gaussians, before all others; 255 for wholly.

    Args:
        model: All Gaussians.
        is_object: Those that count.
        camera: View, on the model's device.
        backend: Rasteriser.
        options: As in training.
    """
    flags = is_object.to(model.means)[:, None]
    covered = backend.rasterize(model.gaussians, camera, flags, options=options).features[..., 0]
    sharp = ((covered - _OUTSIDE) / (_INSIDE - _OUTSIDE)).clamp(0.0, 1.0)
    return (255.0 * without_dust(sharp.cpu()) + 0.5).byte()


def displacement(
    calibrated: Sequence[Camera], corrected: Sequence[Camera], region: Region
) -> float:
    """By how many pixels corrections move the object in its photos; root of the mean square.

    Args:
        calibrated: Cameras as they were given, on any device.
        corrected: The same, as refined.
        region: That holds the object.
    """
    axes = region.radius * torch.cat([torch.eye(3), -torch.eye(3)])
    points = region.centre.cpu() + axes
    squares = []
    for before, after in zip(calibrated, corrected, strict=True):
        moved = _pixels(after, points) - _pixels(before, points)
        squares.append(moved.square().sum(-1).mean())
    return float(torch.stack(squares).mean().sqrt())


def _pixels(camera: Camera, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 2"]:
    camera = camera.to("cpu")
    seen = transform_points(camera.T_camera_world, points) @ camera.K.mT
    return seen[:, :2] / seen[:, 2:]


def object_dataset(dataset: Dataset, shape: Occupancy) -> Dataset:
    """The capture as one of the object alone: its sparse points, and no background.

    Args:
        dataset: Whole capture.
        shape: Of the object.
    """
    points = dataset.points
    if points is not None:
        inside = shape.at(points.positions) > _NEAR
        points = SparsePoints(points.positions[inside], points.colours_srgb[inside])
        if not bool(inside.any()):
            points = None
    return replace(dataset, has_background=False, points=points)
