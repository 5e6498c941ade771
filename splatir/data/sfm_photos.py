"""From photographs of any format to the small pictures that features are found on."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from splatir.data.exif import read_exif
from splatir.data.images import read_photo_file
from splatir.data.photo_folder import PhotoFolder
from splatir.data.sharpness import sharpness
from splatir.data.small_picture import grey_of, small_picture

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
