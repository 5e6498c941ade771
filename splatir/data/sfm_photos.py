"""From photographs of any format to the small pictures that features are found on."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from splatir.data.exif import read_exif
from splatir.data.images import Photo, read_photo_file
from splatir.data.photo_folder import PhotoFolder
from splatir.data.resample import area_average
from splatir.data.sharpness import sharpness
from splatir.maths.colour import srgb_from_linear

# Rec. 709 luma weights, for display values.
_LUMA = (0.2126, 0.7152, 0.0722)
# Linear photographs are scaled so that this part of their pixels is not brighter than white.
_WHITE_QUANTILE = 0.98
# What stands behind transparent pixels: in the middle, for weak edges with any object.
_BEHIND = 0.5
# Focal ratios that agree to this many digits come from one lens at one zoom.
_FOCAL_DIGITS = 2


@dataclass(frozen=True)
class CameraGroup:
    """What photographs share that one camera took: folder, size, device, zoom.

    Attributes:
        folder: Of the names.
        width: Of the files, pixels.
        height: Of the files.
        device: EXIF maker and model.
        focal_ratio: EXIF focal length over the longer side, None if unknown.
    """

    folder: str
    width: int
    height: int
    device: str
    focal_ratio: float | None


@dataclass(frozen=True)
class PreparedPhoto:
    """A photograph ready for feature detection.

    Attributes:
        name: Below the image folder.
        group: Its camera.
        width: Of the small picture, pixels.
        height: Of the small picture.
        sharpness: As `sharpness.sharpness` gives it.
    """

    name: str
    group: CameraGroup
    width: int
    height: int
    sharpness: float


def prepare_photos(
    photos: PhotoFolder, max_size: int, num_threads: int, write_to: Callable[[str], Path]
) -> Iterator[tuple[str, PreparedPhoto | None, str]]:
    """Write small pictures of all photographs.

    EXIF rotations are not applied, so that turned photographs share the camera of the others and
    the model holds for the stored pixels, as COLMAP's own do.

    Args:
        photos: The folder.
        max_size: Longer side of the pictures at most, pixels.
        num_threads: Photographs decoded at the same time.
        write_to: Where the picture of a name goes, as PNG.

    Yields:
        Name, the prepared photograph or None, and why it is broken.

    Raises:
        ImportError: A RAW file without rawpy.
    """

    def prepare(name: str) -> tuple[str, PreparedPhoto | None, str]:
        try:
            photo = read_photo_file(photos.path(name))
        except ValueError as error:
            return name, None, str(error)
        height, width = photo.rgb.shape[:2]
        picture = small_picture(photo, max_size)
        Image.fromarray(picture).save(write_to(name), compress_level=1)
        group = _group(photos, name, width, height)
        sharp = sharpness(grey_of(picture))
        return name, PreparedPhoto(name, group, picture.shape[1], picture.shape[0], sharp), ""

    with ThreadPoolExecutor(num_threads) as pool:
        yield from pool.map(prepare, photos.names)


def small_picture(photo: Photo, max_size: int) -> UInt8[np.ndarray, "h w 3"]:
    """Display values of a photo, shrunk, with what is transparent grey.

    Args:
        photo: As its file stores it.
        max_size: Longer side at most, pixels.
    """
    rgb = photo.rgb
    if photo.encoding == "linear":
        # torch.quantile refuses large tensors.
        white = float(np.quantile(rgb[::4, ::4].numpy(), _WHITE_QUANTILE))
        rgb = srgb_from_linear((rgb / max(white, 1e-12)).clamp(0.0, 1.0))
    if photo.alpha is not None:
        rgb = rgb * photo.alpha + _BEHIND * (1.0 - photo.alpha)
    height, width = rgb.shape[:2]
    factor = max(1.0, max(width, height) / max_size)
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    return (area_average(rgb, *size) * 255.0).round().clamp(0.0, 255.0).byte().numpy()


def grey_of(picture: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    """Luma in [0, 255].

    Args:
        picture: Display values.
    """
    return picture.astype(np.float32) @ np.asarray(_LUMA, np.float32)


def shared_cameras(photos: Sequence[PreparedPhoto]) -> list[list[PreparedPhoto]]:
    """The photographs of each camera.

    Args:
        photos: In any order.
    """
    groups: dict[CameraGroup, list[PreparedPhoto]] = {}
    for photo in photos:
        groups.setdefault(photo.group, []).append(photo)
    return list(groups.values())


def _group(photos: PhotoFolder, name: str, width: int, height: int) -> CameraGroup:
    exif = read_exif(photos.path(name))
    focal = None if exif.focal_ratio is None else round(exif.focal_ratio, _FOCAL_DIGITS)
    return CameraGroup(PurePosixPath(name).parent.as_posix(), width, height, exif.device, focal)
