"""What is wrong with the photos of a capture, looked at before a training on them?"""

from splatir.data.cache import PhotoSource
from splatir.data.dataset import Dataset
from splatir.data.images import mask_polarity_warning

# Masks whose polarity is looked at.
_CHECKED_MASKS = 4


def mask_warnings(dataset: Dataset, photos: PhotoSource) -> list[str]:
    """What a few masks look like, before a training on the wrong side of them.

    Args:
        dataset: Says which photos have masks.
        photos: Of its training views.
    """
    masked = [i for i, view in enumerate(dataset.train) if view.mask_path is not None]
    found = []
    for index in masked[:: max(1, len(masked) // _CHECKED_MASKS)][:_CHECKED_MASKS]:
        alpha = photos[index].alpha
        warning = None if alpha is None else mask_polarity_warning(alpha)
        if warning is not None:
            found.append(f"{dataset.train[index].mask_path}: {warning} (--invert-masks)")
    return found[:1]


def decode_all(photos: PhotoSource) -> None:
    """Decode every photo: a broken one should be known before the training that it would spoil.

    Args:
        photos: Of any views.
    """
    for index in range(len(photos)):
        photos.prefetch(min(index + 1, len(photos) - 1))
        _ = photos[index]
