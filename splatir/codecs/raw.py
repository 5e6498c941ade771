"""How do a camera's RAW files become linear light? Through rawpy, which is optional."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
from jaxtyping import UInt16
from PIL import ExifTags

RAW_EXTENSIONS = (".dng", ".nef", ".cr2", ".cr3", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw")


def is_raw(path: Path) -> bool:
    """Whether a file is named as RAW files are."""
    return path.suffix.lower() in RAW_EXTENSIONS


def read_raw(path: Path) -> UInt16[np.ndarray, "h w 3"]:
    """Develop a RAW file to linear Rec. 709: demosaiced, nothing brightened, not turned.

    White balance is the camera's daylight, whatever it chose itself, so that all photographs of one
    camera agree; exposure is as it was taken.

    Args:
        path: The file.

    Returns:
        Linear samples; 65535 is where the sensor saturates.

    Raises:
        ImportError: rawpy is not installed.
        ValueError: The file is missing or cannot be developed.
    """
    rawpy = _rawpy(path)
    _require_file(path)
    try:
        with rawpy.imread(str(path)) as raw:
            return raw.postprocess(
                gamma=(1, 1),
                output_bps=16,
                no_auto_bright=True,
                # 0: never scale by the brightest pixel of this one photograph.
                adjust_maximum_thr=0.0,
                use_camera_wb=False,
                output_color=rawpy.ColorSpace.sRGB,
                user_flip=0,
            )
    except rawpy.LibRawError as error:
        raise ValueError(f"cannot read image {path}: {_said(error)}. Copy it again.") from error


def raw_size(path: Path) -> tuple[int, int]:
    """Width and height of what `read_raw` gives, from the header.

    Raises:
        ImportError: rawpy is not installed.
        ValueError: Missing or not a RAW file.
    """
    rawpy = _rawpy(path)
    _require_file(path)
    try:
        with rawpy.RawPy() as raw:
            raw.open_file(str(path))
            return int(raw.sizes.width), int(raw.sizes.height)
    except rawpy.LibRawError as error:
        raise ValueError(f"{path} cannot be read as an image ({_said(error)}).") from error


def read_raw_tags(path: Path) -> dict[int, object]:
    """Exposure time, f-number and ISO by their EXIF tag numbers.

    Raises:
        ImportError: rawpy is not installed.
        ValueError: Not a RAW file.
    """
    rawpy = _rawpy(path)
    try:
        with rawpy.RawPy() as raw:
            raw.open_file(str(path))
            taken = raw.other
            return {
                ExifTags.Base.ExposureTime: taken.shutter_speed,
                ExifTags.Base.FNumber: taken.aperture,
                ExifTags.Base.ISOSpeedRatings: taken.iso_speed,
            }
    except rawpy.LibRawError as error:
        raise ValueError(f"{path} cannot be read as an image ({_said(error)}).") from error


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"no image file {path}. Restore it or remove its view from the data set.")


def _rawpy(path: Path) -> ModuleType:
    try:
        return importlib.import_module("rawpy")
    except ImportError as error:
        raise ImportError(
            f"{path} is a RAW file, which takes the rawpy package: pip install 'splatir[raw]'; "
            "or develop the photographs to 16-bit TIFF or PNG."
        ) from error


def _said(error: Exception) -> str:
    """LibRaw's words, which come as bytes."""
    said = error.args[0] if error.args else error
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said)
