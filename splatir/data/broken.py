"""Which photographs cannot be decoded, and may a training go on without them?"""

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from splatir.data.capture import listed
from splatir.data.dataset import Dataset, View
from splatir.data.images import Photo, read_photo_file
from splatir.data.sharpness import are_blurred, sharpness
from splatir.data.small_picture import grey_of, small_picture

# With more than this share broken, something else is wrong than single files.
_MAX_BROKEN = 0.25
# Longer side of the pictures whose sharpness is compared, pixels.
_COMPARED_SIZE = 1000


@dataclass(frozen=True)
class BrokenPhoto:
    """A photograph that cannot be decoded.

    Attributes:
        name: Of the photograph.
        fault: Why.
    """

    name: str
    fault: str


def broken_warnings(root: Path, broken: Sequence[BrokenPhoto], num_photos: int) -> tuple[str, ...]:
    """What is to be said about photographs that are left out, one sentence each.

    Args:
        root: The capture, for the message.
        broken: Any number.
        num_photos: Of all, broken or not.

    Raises:
        ValueError: So many are broken that the capture should be copied again.
    """
    if len(broken) > _MAX_BROKEN * num_photos:
        raise ValueError(
            f"{len(broken)} of {num_photos} photographs of {root} cannot be read "
            f"({listed([photo.name for photo in broken])}). First: {broken[0].fault}"
        )
    return tuple(f"left out, as it cannot be read: {photo.name}. {photo.fault}" for photo in broken)


def without_broken(dataset: Dataset, num_threads: int = 2) -> Dataset:
    """A data set without the views whose image files cannot be decoded; blurred ones are named.

    Takes a tenth of a second per megapixel and thread.

    Args:
        dataset: Read from headers alone.
        num_threads: Photographs decoded at the same time.

    Returns:
        The data set, with a warning for each view that went and one for blurred training views.

    Raises:
        ValueError: Too many are broken, or fewer than two training views are left.
        ImportError: RAW files without rawpy.
    """
    views = (*dataset.train, *dataset.test)
    with ThreadPoolExecutor(num_threads) as pool:
        looks = list(pool.map(_look, views))
    broken = [
        BrokenPhoto(view.name, look)
        for view, look in zip(views, looks, strict=True)
        if isinstance(look, str)
    ]
    warnings = broken_warnings(dataset.root, broken, len(views))
    gone = {photo.name for photo in broken}
    train = tuple(view for view in dataset.train if view.name not in gone)
    if len(train) < 2:
        raise ValueError(
            f"only {len(train)} of {len(dataset.train)} training photographs of {dataset.root} can "
            f"be read; at least two are needed. {broken[0].fault}"
        )
    sharp = {
        v.name: look for v, look in zip(views, looks, strict=True) if not isinstance(look, str)
    }
    return dataclasses.replace(
        dataset,
        train=train,
        test=tuple(view for view in dataset.test if view.name not in gone),
        warnings=(*dataset.warnings, *warnings, *blur_warnings(sharp)),
    )


def blur_warnings(sharpnesses: Mapping[str, float]) -> tuple[str, ...]:
    """A sentence that names the blurred views, if there are any.

    Args:
        sharpnesses: By the names of the views.
    """
    flags = are_blurred(list(sharpnesses.values()))
    names = [name for name, flag in zip(sharpnesses, flags, strict=True) if flag]
    if not names:
        return ()
    return (
        f"{len(names)} of {len(sharpnesses)} photographs look blurred ({listed(names)}): far less "
        "sharp than the others. Results are sharper without them.",
    )


def photo_sharpness(photo: Photo) -> float:
    """Sharpness of a photo at the size at which photographs are compared.

    Args:
        photo: Of any size.
    """
    return sharpness(grey_of(small_picture(photo, _COMPARED_SIZE)))


def _look(view: View) -> float | str:
    """Sharpness of a view's file, or why it cannot be decoded."""
    try:
        return photo_sharpness(read_photo_file(view.image_path))
    except ValueError as error:
        return str(error)
