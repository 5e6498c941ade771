"""How do 8- and 16-bit image files (PNG, JPEG, TIFF, WebP) become arrays without losing bits?"""

import sys
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, ImageFile, UnidentifiedImageError

# Modes whose 8-bit samples are already what we return.
_PLAIN_MODES = ("L", "LA", "RGB", "RGBA")
_READ_ERRORS = (
    OSError,
    SyntaxError,  # Pillow's word for a broken PNG
    ValueError,
    EOFError,
    UnidentifiedImageError,
    Image.DecompressionBombError,
)


def read_ldr(path: Path) -> UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]:
    """Decode an integer image file, exactly.

    Palette and bilevel images are expanded, CMYK and YCbCr converted to RGB. EXIF orientation is
    not applied: camera models are calibrated on the pixels as stored. The one format that loses
    bits is 16-bit grey with alpha, which comes as its upper 8 bits.

    Args:
        path: A file that Pillow can open.

    Returns:
        Encoded samples with 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, straight alpha) channels;
        uint16 for 16-bit files, otherwise uint8.

    Raises:
        ValueError: Missing, unreadable or truncated file, or samples that are neither 8 nor 16 bit.
    """
    if not path.is_file():
        raise ValueError(f"no image file {path}. Restore it or remove its view from the data set.")
    try:
        with Image.open(path) as image:
            if _is_deep_colour(image):
                high = np.asarray(image)
                return high.astype(np.uint16) << 8 | _low_bytes(path)
            pixels = _decode(image)
    except _READ_ERRORS as error:
        raise ValueError(
            f"cannot read image {path}: {error}. "
            "Expected a complete PNG, JPEG, TIFF or WebP file; copy or export it again."
        ) from error
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _decode(image: Image.Image) -> np.ndarray:
    """Samples of an image whose mode holds all its bits."""
    if image.mode in _PLAIN_MODES and "transparency" not in image.info:
        return np.asarray(image)
    if image.mode.startswith("I"):
        samples = np.asarray(image)
        if samples.min() < 0 or samples.max() > 65535:
            raise ValueError("32-bit integer samples; expected 8 or 16 bit")
        return samples.astype(np.uint16)
    if image.mode in ("F", "LAB", "HSV"):
        raise ValueError(f"samples of kind '{image.mode}'; store float images as EXR")
    if "transparency" in image.info or image.mode in ("PA", "RGBa", "La"):
        return np.asarray(image.convert("RGBA"))
    return np.asarray(image.convert("L" if image.mode == "1" else "RGB"))


def _raw_modes(image: Image.Image) -> list[str]:
    """Names of the packed sample layouts in the file, such as "RGB;16B"."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    args = [tile.args if isinstance(tile.args, tuple) else (tile.args,) for tile in tiles]
    return [str(arg[0]) for arg in args if arg]


def _is_deep_colour(image: Image.Image) -> bool:
    """Whether the file has 16-bit RGB or RGBA samples, of which Pillow keeps the upper 8 bits."""
    raw = _raw_modes(image)
    return (
        bool(raw)
        and all(mode.partition(";")[0] == image.mode for mode in raw)
        and all(mode.partition(";")[2] in ("16B", "16L", "16N") for mode in raw)
    )


def _low_bytes(path: Path) -> UInt8[np.ndarray, "h w c"]:
    """Lower 8 bits of 16-bit RGB(A) samples.

    Pillow has no 16-bit RGB mode and unpacks only the upper byte of each sample. Unpacked once
    more with the opposite byte order, the "upper" byte is the lower one: exact, and without
    another image library. If Pillow ever reads such files in full, `_is_deep_colour` no longer
    matches.
    """
    native = "L" if sys.byteorder == "little" else "B"
    with Image.open(path) as image:
        assert isinstance(image, ImageFile.ImageFile)
        swapped = []
        for tile, mode in zip(image.tile, _raw_modes(image), strict=True):
            samples, _, order = mode.partition(";16")
            opposite = "L" if (native if order == "N" else order) == "B" else "B"
            raw = f"{samples};16{opposite}"
            args = (raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw
            swapped.append(tile._replace(args=args))
        image.tile = swapped
        return np.asarray(image)
