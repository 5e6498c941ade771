"""What does a photograph's EXIF header say about its exposure, its lens and how it was held?

Tags: CIPA DC-008 (Exif 2.32), sections 4.6.4 and 4.6.5.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from PIL import ExifTags, Image
from torch import Tensor

from splatir.codecs.raw import is_raw, read_raw_tags

# A full frame: 36 mm wide, to which FocalLengthIn35mmFilm refers.
_FULL_FRAME_WIDTH = 36.0


@dataclass(frozen=True)
class Exif:
    """The tags that are of use here.

    Attributes:
        orientation: EXIF code 1 to 8: how the stored pixels are to be turned for display.
        exposure: Time in seconds times ISO / 100 over the square of the f-number; what a pixel
            records of a radiance is proportional to it. None unless all three are known.
        focal_ratio: Focal length over the longer side of the image; None if unknown.
        device: Maker and model, "" if unknown.
    """

    orientation: int = 1
    exposure: float | None = None
    focal_ratio: float | None = None
    device: str = ""


def read_exif(path: Path) -> Exif:
    """Read the header; a file without one, or with a broken one, says nothing.

    Args:
        path: Image file.
    """
    if path.suffix.lower() in (".exr", ".hdr"):
        return Exif()
    try:
        if is_raw(path):
            tags = read_raw_tags(path)
        else:
            with Image.open(path) as image:
                header = image.getexif()
                tags = {**header, **header.get_ifd(ExifTags.IFD.Exif)}
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, Image.DecompressionBombError):
        return Exif()
    return exif_from_tags(tags)


def exif_from_tags(tags: dict[int, object]) -> Exif:
    """Interpret numbered tags of the main and the Exif directory together.

    Args:
        tags: Values by tag number, as Pillow gives them.
    """
    base = ExifTags.Base
    time = _positive(tags.get(base.ExposureTime))
    stop = _positive(tags.get(base.FNumber))
    iso = _positive(tags.get(base.ISOSpeedRatings))
    exposure = None
    if time is not None and stop is not None and iso is not None:
        exposure = time * iso / 100.0 / stop**2
    focal = _positive(tags.get(base.FocalLengthIn35mmFilm))
    turn = _positive(tags.get(base.Orientation))
    names = (str(tags.get(key, "")).strip("\0 ") for key in (base.Make, base.Model))
    return Exif(
        orientation=int(turn) if turn is not None and turn in range(1, 9) else 1,
        exposure=exposure,
        focal_ratio=None if focal is None else focal / _FULL_FRAME_WIDTH,
        device=" ".join(name for name in names if name),
    )


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height once turned for display.

    Args:
        size: Width and height as stored.
        orientation: EXIF code.
    """
    return (size[1], size[0]) if orientation >= 5 else size


def turned(pixels: Float[Tensor, "h w c"], orientation: int) -> Float[Tensor, "h2 w2 c"]:
    """Stored pixels, turned and mirrored for display (CIPA DC-008, 4.6.4 A, tag Orientation).

    Args:
        pixels: As stored.
        orientation: EXIF code; 1 changes nothing.
    """
    if orientation >= 5:
        pixels = pixels.transpose(0, 1)
    axes = {2: [1], 3: [0, 1], 4: [0], 6: [1], 7: [0, 1], 8: [0]}.get(orientation, [])
    return pixels.flip(axes).contiguous() if axes else pixels.contiguous()


def _positive(value: object) -> float | None:
    """A tag's number, or None for what is none; several values, as ISO may have, count as one."""
    if isinstance(value, tuple | list):
        value = value[0] if value else None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None
