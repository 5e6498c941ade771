"""Which pixels of a capture show its light, and what do they show together?"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from splatir.data.cache import PhotoSource
from splatir.data.dataset import Dataset
from splatir.optim.seen_light import SeenLight, SeenPixels, gather_seen_light, pixels_beyond
from splatir.train.object_photos import ObjectPhotos

# Pixels within so many of the object show some of it.
_RIM = 2
# Coverage below which a pixel shows nothing of the object.
_UNCOVERED = 0.01
# Photos whose background spreads less than this (sRGB) were cut out: it shows nothing.
_BLANK = 0.01


def seen_light(
    dataset: Dataset, photos: PhotoSource, height: int, is_separated: bool = False
) -> SeenLight | None:
    """What the photos show of the light beyond the object, or None where they show nothing.

    Only pixels that a mask excludes count: what a file's own alpha excludes was cut out.

    Args:
        dataset: Views, in the order of the photos.
        photos: Pixels of the training views.
        height: Rows of the map.
        is_separated: Alpha comes from masks that the training made.
    """
    views = list(_views(dataset, photos, is_separated))
    if not views or not any(len(view.radiance) for view in views):
        return None
    spread = torch.cat([view.radiance for view in views]).std(dim=0).max()
    if float(spread) < _BLANK:
        return None
    return gather_seen_light(views, height)


def _views(dataset: Dataset, photos: PhotoSource, is_separated: bool) -> Iterator[SeenPixels]:
    for index, view in enumerate(dataset.train):
        if view.mask_path is None and not is_separated:
            continue
        photo = photos[index]
        if photo.alpha is not None:
            white = photos.white(index) if isinstance(photos, ObjectPhotos) else 1.0
            yield pixels_beyond(view.camera, photo, _is_beyond(photo.alpha), white)


def _is_beyond(alpha: Float[Tensor, "h w 1"]) -> Bool[Tensor, "h w"]:
    """Pixels that are well away from the object."""
    size = 2 * _RIM + 1
    return functional.max_pool2d(alpha[None, ..., 0], size, 1, _RIM)[0] < _UNCOVERED
