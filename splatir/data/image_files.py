"""Where are the files of a view, and how many pixels do they hold? Headers only, no decoding."""

from pathlib import Path

import OpenEXR
from PIL import Image

from splatir.codecs.raw import RAW_EXTENSIONS, is_raw, raw_size

# Tried in this order where a file is named without its extension or with another one.
IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".JPG", ".JPEG", ".PNG", ".exr", ".hdr", ".webp",
                    ".tif", ".tiff", ".bmp", *RAW_EXTENSIONS)  # fmt: skip


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of the stored pixels; an EXIF rotation is not applied (nor does COLMAP).

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not an image that can be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no image file {path}.")
    try:
        if path.suffix.lower() == ".exr":
            return _exr_size(path)
        if path.suffix.lower() == ".hdr":
            return _radiance_size(path)
        if is_raw(path):
            return raw_size(path)
        with Image.open(path) as image:
            return image.size
    except (OSError, RuntimeError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path} cannot be read as an image ({error}). Replace or remove the file."
        ) from error


def chosen_folder(root: Path, name: str, flag: str) -> Path:
    """The folder below `root` that a setting names.

    Args:
        root: The data folder.
        name: Value of the setting.
        flag: Its flag, for the message.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    folder = root / name
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}, which {flag} names. Give one that exists.")
    return folder


def find_image(folder: Path, name: str) -> Path | None:
    """The file called `name` below `folder`, else one of the same stem with another extension."""
    path = folder / name
    if path.is_file():
        return path
    known = path.suffix in IMAGE_EXTENSIONS
    stem = path.with_suffix("") if known else path
    candidates = (stem.with_name(stem.name + extension) for extension in IMAGE_EXTENSIONS)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def find_mask(folder: Path, name: str) -> Path | None:
    """The mask of image `name`: COLMAP's `name.png`, or the same stem with any LDR extension."""
    colmap_name = folder / f"{name}.png"
    mask = colmap_name if colmap_name.is_file() else find_image(folder, name)
    return None if mask is None or is_linear(mask) else mask


def is_linear(path: Path) -> bool:
    """Whether a file holds linear light by its kind: EXR, Radiance, RAW."""
    return path.suffix.lower() in (".exr", ".hdr") or is_raw(path)


def has_alpha_channel(path: Path) -> bool:
    """Whether the file's header announces transparency; False for a file that cannot be read."""
    if is_linear(path):
        return path.suffix.lower() == ".exr" and _exr_has_alpha(path)
    try:
        with Image.open(path) as image:
            return image.has_transparency_data
    except (OSError, SyntaxError, ValueError):
        return False


def is_transparent(path: Path) -> bool:
    """Whether any pixel is not opaque. Decodes the file if its header says it has alpha.

    An unreadable file is not transparent: whoever decodes it next says what is wrong.
    """
    if not has_alpha_channel(path) or path.suffix.lower() == ".exr":
        return has_alpha_channel(path)
    try:
        with Image.open(path) as image:
            lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
    except (OSError, SyntaxError, ValueError):
        return False
    return isinstance(lowest, int | float) and lowest < 255


def safe_name(name: str) -> str:
    """An image's path without drive, root, "." and "..", so that it can name an output file."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(parts)


def _exr_header(path: Path) -> dict:
    with OpenEXR.File(str(path), header_only=True) as file:
        return dict(file.header())


def _exr_size(path: Path) -> tuple[int, int]:
    low, high = _exr_header(path)["dataWindow"]
    return int(high[0] - low[0] + 1), int(high[1] - low[1] + 1)


def _exr_has_alpha(path: Path) -> bool:
    try:
        channels = _exr_header(path)["channels"]
    except (OSError, RuntimeError):
        return False
    return any(channel.name.split(".")[-1] == "A" for channel in channels)


def _radiance_size(path: Path) -> tuple[int, int]:
    """Size from the line `-Y height +X width` that ends a Radiance header."""
    with path.open("rb") as file:
        for line in file.read(4096).splitlines():
            words = line.split()
            if len(words) == 4 and words[0] in (b"-Y", b"+Y") and words[2] in (b"-X", b"+X"):
                return int(words[3]), int(words[1])
    raise ValueError("no resolution line in its Radiance header")
