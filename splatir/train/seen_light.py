"""Which pixels of a capture show its light, and what do they show together?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from splatir.data.cache import PhotoSource
from splatir.data.dataset import Dataset
from splatir.optim.seen_light import (
    NearSurroundings,
    SeenLight,
    SeenPixels,
    gather_seen_light,
    pixels_beyond,
)
from splatir.raster.contract import RasterBackend
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.train.object_photos import ObjectPhotos

# Pixels within so many of the object show some of it.
_RIM = 2
# Coverage below which a pixel shows nothing of the object.
_UNCOVERED = 0.01
# Photos whose background spreads less than this (sRGB) were cut out: it shows nothing.
_BLANK = 0.01
# Coverage from which on a pixel has a depth.
_SOLID = 0.5


@dataclass(frozen=True)
class Around:
    """What a training knows of an object's surroundings.

    Attributes:
        surroundings: Their Gaussians.
        cameras: Of the training views, as refined, on the same device.
        centre: Of the object, world frame.
        rasterizer: Backend.
    """

    surroundings: GaussianModel
    cameras: Sequence[Camera]
    centre: Float[Tensor, " 3"]
    rasterizer: RasterBackend

    @torch.no_grad()
    def near(self, index: int) -> NearSurroundings:
        """Where the pixels of a view lie."""
        gaussians, camera = self.surroundings.gaussians, self.cameras[index]
        T = camera.T_camera_world.to(gaussians.means)
        depths = (gaussians.means @ T[2, :3] + T[2, 3])[:, None]
        raster = self.rasterizer.rasterize(gaussians, camera, depths)
        is_solid = raster.alpha > _SOLID
        depth = torch.where(is_solid, raster.features / raster.alpha.clamp_min(_SOLID), 0.0)
        return NearSurroundings(self.centre.cpu(), depth.cpu())


def seen_light(
    dataset: Dataset, photos: PhotoSource, height: int, around: Around | None = None
) -> SeenLight | None:
    """What the photos show of the light beyond the object, or None where they show nothing.

    Only pixels that a mask excludes count: what a file's own alpha excludes was cut out. It is
    taken for far away, or for as near as the surroundings were found to be, whichever makes the
    photos agree better.

    Args:
        dataset: Views, in the order of the photos.
        photos: Pixels of the training views.
        height: Rows of the map.
        around: What stands around the object, where the training told it apart; then every photo's
            alpha is a mask.
    """
    views = list(_views(dataset, photos, around, are_near=False))
    if not views or not any(len(view.radiance) for view in views):
        return None
    spread = torch.cat([view.radiance for view in views]).std(dim=0).max()
    if float(spread) < _BLANK:
        return None
    far = gather_seen_light(views, height)
    if around is None:
        return far
    near = gather_seen_light(_views(dataset, photos, around, are_near=True), height)
    return near if near.agreement > far.agreement else far


def _views(
    dataset: Dataset, photos: PhotoSource, around: Around | None, are_near: bool
) -> Iterator[SeenPixels]:
    for index, view in enumerate(dataset.train):
        if view.mask_path is None and around is None:
            continue
        photo = photos[index]
        if photo.alpha is None:
            continue
        white = photos.white(index) if isinstance(photos, ObjectPhotos) else 1.0
        camera = view.camera if around is None else around.cameras[index]
        near = around.near(index) if around is not None and are_near else None
        yield pixels_beyond(camera, photo, _is_beyond(photo.alpha), white, near)


def _is_beyond(alpha: Float[Tensor, "h w 1"]) -> Bool[Tensor, "h w"]:
    """Pixels that are well away from the object."""
    size = 2 * _RIM + 1
    return functional.max_pool2d(alpha[None, ..., 0], size, 1, _RIM)[0] < _UNCOVERED
