"""How does a training go on with the object of a capture alone?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from splatir.data.cache import PhotoSource
from splatir.data.dataset import Dataset
from splatir.raster.contract import RasterBackend, RasterOptions
from splatir.render.radiance import render_radiance
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.region import describe_region
from splatir.train.initialise import initial_model
from splatir.train.object_exposures import object_log_gains
from splatir.train.object_photos import ObjectPhotos, read_masks, write_masks
from splatir.train.separation import displacement, object_dataset, separate
from splatir.train.settings import TrainSettings
from splatir.train.state import TrainState

# Corrections of cameras that move the object by less, in pixels, are what photos cannot tell.
_CALIBRATED = 0.5
# Likewise exposures of so small a spread of log gains.
_EQUALLY_EXPOSED = 0.05


@dataclass(frozen=True)
class CaptureInputs:
    """What a training works on.

    Attributes:
        dataset: Whole capture.
        photos: Of its training views.
        calibrated: Their cameras as given, on the training device.
        cameras: The same, as refined.
        masks: Folder of the object's masks.
    """

    dataset: Dataset
    photos: PhotoSource
    calibrated: Sequence[Camera]
    cameras: Sequence[Camera]
    masks: Path


def photos_of_object(
    state: TrainState, inputs: CaptureInputs, settings: TrainSettings, rasterizer: RasterBackend
) -> ObjectPhotos:
    """The photos with the masks that a training wrote before it was stopped.

    Args:
        state: After the object was told apart.
        inputs: Of the training.
        settings: Likewise.
        rasterizer: Backend.

    Raises:
        FileNotFoundError: A mask is gone.
        ValueError: A mask is broken.
    """
    assert state.surroundings is not None
    masks = read_masks(inputs.masks, inputs.dataset.train)
    behind = _behind(state.surroundings, inputs.cameras, state, settings, rasterizer)
    return ObjectPhotos(inputs.photos, masks, behind, state.exposures)


def tell_object_apart(
    state: TrainState,
    inputs: CaptureInputs,
    settings: TrainSettings,
    rasterizer: RasterBackend,
) -> tuple[TrainState, ObjectPhotos]:
    """The state at the start of the object's own radiance stage, and photos of it alone.

    Writes the masks, and says where the object is.

    Args:
        state: At the end of the surroundings stage.
        inputs: What was trained on.
        settings: Of the training.
        rasterizer: Backend.

    Raises:
        ValueError: There is no object, as `separate` says.
    """
    dataset, cameras = inputs.dataset, inputs.cameras
    options = RasterOptions(antialiased=settings.uses_antialiasing)
    found = separate(state.model, dataset, cameras, inputs.photos, settings, rasterizer, options)
    write_masks(inputs.masks, dataset.train, found.masks)
    where = describe_region(found.region, dataset.S_world_input)
    tqdm.write(f"object within --roi {where}, masks in {inputs.masks}")
    if displacement(inputs.calibrated, cameras, found.region) < _CALIBRATED:
        state.corrections, cameras = None, inputs.calibrated
    device: torch.device = state.model.means.device
    rest = found.surroundings.to(device)
    behind = _behind(rest, cameras, state, settings, rasterizer)
    if state.exposures is not None:
        marked = ObjectPhotos(inputs.photos, found.masks, behind, None)
        thing = found.thing.to(device)
        log_gains = object_log_gains(thing, cameras, marked.__getitem__, rasterizer)
        state.exposures.data.copy_(log_gains)
        if float(log_gains.std()) < _EQUALLY_EXPOSED:
            state.exposures = None
    photos = ObjectPhotos(inputs.photos, found.masks, behind, state.exposures)
    views = zip(dataset.train, cameras, strict=True)
    train = tuple(replace(view, camera=camera.to("cpu")) for view, camera in views)
    alone = replace(object_dataset(dataset, found.shape), train=train)
    model = initial_model(alone, photos.with_larger_masks(), settings).to(device)
    return state.separate(model, rest, settings.rates, dataset.extent), photos


@torch.no_grad()
def _behind(
    surroundings: GaussianModel,
    cameras: Sequence[Camera],
    state: TrainState,
    settings: TrainSettings,
    rasterizer: RasterBackend,
) -> list[UInt8[Tensor, "h w 3"]]:
    """What each view shows without the object, sRGB."""
    options = RasterOptions(antialiased=settings.uses_antialiasing)
    background = None if state.background is None else state.background.detach()
    pictures = []
    for camera in cameras:
        image = render_radiance(surroundings, camera, rasterizer, background, options=options)
        pictures.append((255.0 * image.rgb_srgb.clamp(0.0, 1.0) + 0.5).to(torch.uint8).cpu())
    return pictures
