"""What do files of normals, depth and albedo hold, whatever their format?"""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from splatir.codecs.exr import read_exr_channels
from splatir.codecs.ldr import read_ldr
from splatir.maths.colour import linear_from_srgb

MapKind = Literal["normal", "depth", "albedo"]

# Tried in this order: estimators write a picture for the eye beside the numbers.
MAP_EXTENSIONS = (".npz", ".npy", ".exr", ".png")
# EXR channels that hold a kind, the first that are all there.
_CHANNELS: dict[MapKind, tuple[tuple[str, ...], ...]] = {
    "normal": (("normal.X", "normal.Y", "normal.Z"), ("X", "Y", "Z"), ("R", "G", "B")),
    "depth": (("depth",), ("depth.Z",), ("Z",), ("V",), ("Y",), ("R",)),
    "albedo": (("albedo.R", "albedo.G", "albedo.B"), ("R", "G", "B")),
}
# Vectors shorter than this are no normals: the middle grey that marks the background.
_MIN_LENGTH = 0.5
# The median length of normals may differ from 1 by this; of values in [0, 1] it differs by more.
_LENGTH_TOLERANCE = 0.1


@dataclass(frozen=True)
class StoredMap:
    """One map as its file has it.

    Attributes:
        values: Normals (unit), depth (as stored) or albedo (linear).
        is_known: Where the file says something.
    """

    values: Float[Tensor, "height width c"]
    is_known: Bool[Tensor, "height width 1"]


def read_map(path: Path, kind: MapKind) -> StoredMap:
    """Read a map; formats and conventions are in docs/data.md.

    Args:
        path: A .npz, .npy, .exr or .png file.
        kind: What it shows.

    Raises:
        ValueError: Not readable, or not a map of this kind.
    """
    if path.suffix == ".png":
        stored, is_known = _read_png(path, kind)
    elif path.suffix == ".exr":
        stored, is_known = _read_exr(path, kind)
    else:
        stored, is_known = _read_numpy(path, kind)
    values = torch.from_numpy(np.ascontiguousarray(stored, dtype=np.float32))
    if values.ndim == 2:
        values = values[..., None]
    expected = 1 if kind == "depth" else 3
    if values.ndim != 3 or values.shape[2] != expected:
        raise ValueError(
            f"{path} has shape {tuple(values.shape)}; a map of {kind} is [height, width, "
            f"{expected}]. Is it another kind of map?"
        )
    known = torch.from_numpy(is_known)[..., None] & values.isfinite().all(-1, keepdim=True)
    return _checked(path, kind, torch.where(known, values, 0.0), known)


def _checked(path: Path, kind: MapKind, values: Tensor, known: Tensor) -> StoredMap:
    if kind == "depth":
        return StoredMap(values, known & (values > 0.0))
    if kind == "albedo":
        return StoredMap(values.clamp_min(0.0), known)
    length = values.norm(dim=-1, keepdim=True)
    known = known & (length > _MIN_LENGTH)
    if bool(known.any()):
        median = float(length[known].median())
        if abs(median - 1.0) > _LENGTH_TOLERANCE:
            raise ValueError(
                f"the vectors in {path} have a median length of {median:.2f}, not 1. Float files "
                "hold normals from -1 to 1; only PNG files hold 0.5 + 0.5 n."
            )
    return StoredMap(values / length.clamp_min(_MIN_LENGTH), known)


def _read_png(path: Path, kind: MapKind) -> tuple[np.ndarray, np.ndarray]:
    samples = read_ldr(path)
    has_alpha = samples.shape[-1] in (2, 4)
    top = float(np.iinfo(samples.dtype).max)
    colour = samples[..., :-1] if has_alpha else samples
    known = samples[..., -1] > top / 2 if has_alpha else np.ones(samples.shape[:2], bool)
    if kind == "depth":
        if (colour != colour[..., :1]).any():
            raise ValueError(
                f"{path} has colours: a picture of depth, not depth. Give grey PNG files (16 bit), "
                ".exr or .npy."
            )
        return colour[..., 0].astype(np.float32), known
    values = colour.astype(np.float32) / top
    if kind == "albedo":
        grey = values.shape[-1] == 1
        values = np.repeat(values, 3, axis=-1) if grey else values
        return linear_from_srgb(torch.from_numpy(values)).numpy(), known
    return 2.0 * values - 1.0, known


def _read_exr(path: Path, kind: MapKind) -> tuple[np.ndarray, np.ndarray]:
    planes = read_exr_channels(path)
    names = next((names for names in _CHANNELS[kind] if set(names) <= set(planes)), None)
    if names is None:
        wanted = " or ".join(", ".join(names) for names in _CHANNELS[kind])
        raise ValueError(f"{path} has channels {sorted(planes)}; {kind} is in {wanted}.")
    values = np.stack([planes[name] for name in names], axis=-1)
    if "A" not in planes:
        return values, np.ones(values.shape[:2], bool)
    alpha = planes["A"]
    # EXR's plain colours are multiplied by alpha; named layers are not.
    if kind == "albedo" and names[0] == "R":
        values = values / np.maximum(alpha, 1e-6)[..., None]
    return values, alpha > 0.5


def _read_numpy(path: Path, kind: MapKind) -> tuple[np.ndarray, np.ndarray]:
    alpha = None
    try:
        with path.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                values = loaded
            elif kind in loaded:
                values, alpha = loaded[kind], loaded.get("alpha")
            else:
                raise ValueError(f"it holds {sorted(loaded.files)}, no '{kind}'")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"cannot read {path} as a map of {kind}: {error}.") from error
    if values.ndim < 2 or values.dtype.kind not in "fui":
        raise ValueError(
            f"{path} holds {values.dtype} of shape {values.shape}; a map is an array of numbers "
            "[height, width, channels]."
        )
    if alpha is None:
        return values, np.ones(values.shape[:2], bool)
    return values, alpha.reshape(values.shape[:2]) > 0.5
