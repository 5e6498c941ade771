"""How are OpenEXR images (scene-linear, half or float, optional alpha) read and written?"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import OpenEXR
from jaxtyping import Float32

from splatir.codecs.atomic import atomic_path

EXR_MAGIC = b"\x76\x2f\x31\x01"
_HALF_MAX = 65504.0
_RED, _GREEN, _BLUE = ("R", "r", "red"), ("G", "g", "green"), ("B", "b", "blue")


@dataclass(frozen=True)
class ExrImage:
    """Pixels of an EXR file as stored.

    Attributes:
        rgb: Scene-linear, not clipped. Multiplied by alpha where there is one (EXR's convention).
        alpha: Coverage, or None where the file has no alpha channel.
    """

    rgb: Float32[np.ndarray, "h w 3"]
    alpha: Float32[np.ndarray, "h w 1"] | None


def read_exr(path: Path) -> ExrImage:
    """Read the colour and alpha of an EXR file's first part.

    Channels R, G, B (each alone or packed), of one unnamed or named layer, or luminance Y alone;
    A is optional. Values are returned as stored, infinities and NaN included.

    Raises:
        ValueError: Missing or truncated file, not EXR, deep data, subsampled or no colour channels.
    """
    return _assemble(path, _read_planes(path))


def read_exr_channels(path: Path) -> dict[str, Float32[np.ndarray, "h w"]]:
    """Read all channels of an EXR file's first part, by name; the inverse of writing them.

    Raises:
        ValueError: Missing or truncated file, not EXR, deep or subsampled data.
    """
    planes = _read_planes(path)
    _check_flat(path, list(planes.values()))
    return {name: plane.astype(np.float32) for name, plane in planes.items()}


def _read_planes(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise ValueError(f"no image file {path}. Restore it or remove its view from the data set.")
    with path.open("rb") as stream:
        magic = stream.read(4)
    if magic != EXR_MAGIC:
        raise ValueError(f"{path} is not an OpenEXR file: it begins with {magic!r}.")
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            return {name: np.asarray(c.pixels) for name, c in file.channels().items()}
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        raise ValueError(
            f"cannot read {path}: {error}. Expected a complete EXR file; copy or export it again."
        ) from error


def _check_flat(path: Path, planes: list[np.ndarray]) -> None:
    shapes = {plane.shape for plane in planes}
    if len(shapes) > 1 or len(planes[0].shape) != 2:
        raise ValueError(
            f"{path} has channels of sizes {sorted(shapes)}: chroma-subsampled or deep data. "
            "Export it as flat RGB."
        )


def _assemble(path: Path, planes: dict[str, np.ndarray]) -> ExrImage:
    """Pick colour and alpha from planes named "R" or "layer.R"."""
    layers = sorted({name.rpartition(".")[0] for name in planes})
    for layer in layers:
        prefix = f"{layer}." if layer else ""
        colour = [
            next((planes[prefix + n] for n in names if prefix + n in planes), None)
            for names in (_RED, _GREEN, _BLUE)
        ]
        luminance = planes.get(prefix + "Y")
        if prefix + "RY" in planes:
            raise ValueError(f"{path} holds luminance and chroma (Y, RY, BY). Export it as RGB.")
        if all(plane is None for plane in colour) and luminance is not None:
            colour = [luminance] * 3
        found = [plane for plane in colour if plane is not None]
        if len(found) < 3:
            continue
        alpha = planes.get(prefix + "A")
        _check_flat(path, found + ([] if alpha is None else [alpha]))
        return ExrImage(
            rgb=np.stack(found, axis=-1).astype(np.float32),
            alpha=None if alpha is None else alpha[..., None].astype(np.float32),
        )
    raise ValueError(f"{path} has no R, G, B or Y channels, only {sorted(planes)}.")


def write_exr(
    path: Path,
    rgb: Float32[np.ndarray, "h w 3"],
    alpha: Float32[np.ndarray, "h w 1"] | None = None,
    half: bool = False,
) -> None:
    """Write a ZIP-compressed EXR file; the file appears only when it is complete.

    Args:
        path: File to make or replace.
        rgb: Scene-linear values, multiplied by `alpha` if that is given.
        alpha: Coverage in [0, 1].
        half: Store 16-bit floats (11 significant bits, finite values beyond +-65,504 become that).
    """
    planes = {"R": rgb[..., 0], "G": rgb[..., 1], "B": rgb[..., 2]}
    if alpha is not None:
        planes["A"] = alpha[..., 0]
    write_exr_channels(path, planes, half)


def write_exr_channels(
    path: Path, planes: dict[str, Float32[np.ndarray, "h w"]], half: bool = False
) -> None:
    """Write named channels, such as "albedo.R" or "Z"; the file appears only when complete.

    Args:
        path: File to make or replace.
        planes: Channel name to values, all of one size.
        half: Store 16-bit floats; finite values beyond +-65,504 become that.

    Raises:
        ValueError: No channels, no pixels or channels of several sizes.
        OSError: The file cannot be written, for instance because the disk is full.
    """
    sizes = {plane.shape for plane in planes.values()}
    if len(sizes) != 1 or 0 in next(iter(sizes)):
        raise ValueError(f"{path}: EXR channels must share one size above zero, got {sizes}.")
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    stored = {
        name: np.ascontiguousarray(_to_half(plane) if half else plane.astype(np.float32))
        for name, plane in planes.items()
    }
    with atomic_path(path) as temporary:
        try:
            with OpenEXR.File(header, stored) as file:
                file.write(str(temporary))
        except RuntimeError as error:
            raise OSError(f"cannot write {path}: {error}") from error


def _to_half(plane: np.ndarray) -> np.ndarray:
    """Round to half floats; infinities stay, finite overflow is clamped."""
    clamped = np.where(np.isfinite(plane), np.clip(plane, -_HALF_MAX, _HALF_MAX), plane)
    return clamped.astype(np.float16)
