"""Checkpoints: versioned, written whole or not at all, read without running any code they hold.

The file is torch's zip container of `{"splatir_checkpoint": version, "contents": {...}}`, where the
contents are nested dicts, lists and tuples of tensors, numbers, strings, booleans and None.
"""

import pickle
import re
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splatir.codecs.atomic import atomic_file, remove_leftovers

VERSION = 1
_VERSION_KEY = "splatir_checkpoint"

# What torch's restricted unpickler raises on archives that torch.save did not write.
_LOAD_ERRORS = (
    pickle.UnpicklingError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
)
# What zipfile raises on directories and parts with wrong bytes in them.
_ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    OverflowError,
)


class CheckpointError(ValueError):
    """A file that is no usable checkpoint; the message says why."""


def save_checkpoint(path: Path, contents: dict[str, Any]) -> None:
    """Write a checkpoint; until it is complete on the disk, `path` keeps what it held.

    Tensors are stored detached and on the CPU, so a checkpoint opens on any machine. Files that
    killed writers left in the folder are removed: one folder has one writer at a time.

    Args:
        path: File to create or replace, by custom `checkpoint_path(folder, step)`.
        contents: Plain values only, as the file's first lines say. Keys are strings or integers.

    Raises:
        ValueError: A value of another type, named by its place.
        OSError: The file cannot be written; the previous one is unchanged.
    """
    record = {_VERSION_KEY: VERSION, "contents": _plain(contents, "contents")}
    if path.parent.is_dir():
        remove_leftovers(path.parent)
    with atomic_file(path) as stream:
        try:
            torch.save(record, stream)
        except RuntimeError as error:
            # torch reports a failed write as an unexpected position and keeps the cause inside.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read the contents of a checkpoint; all tensors are on the CPU.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: Truncated, damaged, not a checkpoint, or written by a newer version.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}.")
    _check_archive(path)
    try:
        record = torch.load(path, map_location="cpu", weights_only=True)
    except _LOAD_ERRORS as error:
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"{path} is no splatir checkpoint: it holds something other than plain tensors and "
            f"values, which is never loaded ({type(error).__name__}: {reason})."
        ) from error
    version = record.get(_VERSION_KEY) if isinstance(record, dict) else None
    if not isinstance(version, int) or "contents" not in record:
        raise CheckpointError(
            f"{path} is a torch file but no splatir checkpoint: the key '{_VERSION_KEY}' is "
            "missing. Was it written by another program?"
        )
    if version > VERSION:
        raise CheckpointError(
            f"{path} has checkpoint version {version}, this splatir reads up to {VERSION}. "
            "Update splatir to open it."
        )
    return record["contents"]


def checkpoint_path(folder: Path, step: int) -> Path:
    """Name of the checkpoint written after `step` steps."""
    return folder / f"step_{step:08d}.pt"


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a folder that can be loaded, or None if there is none.

    Newest means the highest step in the name, since copying a run changes times. One that cannot be
    read is passed over with a warning.

    Args:
        folder: Where `checkpoint_path` files lie; need not exist.
    """
    for path in sorted(folder.glob("*.pt"), key=_step, reverse=True):
        try:
            load_checkpoint(path)
        except (CheckpointError, OSError) as error:
            warnings.warn(f"skipped a checkpoint: {error}", stacklevel=2)
        else:
            return path
    return None


def _step(path: Path) -> tuple[int, str]:
    digits = re.findall(r"\d+", path.stem)
    return (int(digits[-1]) if digits else -1, path.name)


def _check_archive(path: Path) -> None:
    """Check the container and its checksums, which torch itself does not."""
    with path.open("rb") as stream:
        start = stream.read(4)
    if start != b"PK\x03\x04":
        size = path.stat().st_size
        what = "empty" if size == 0 else f"not a torch file (starts with {start!r}, {size} bytes)"
        raise CheckpointError(f"{path} is no splatir checkpoint: it is {what}.")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except _ARCHIVE_ERRORS as error:
        raise CheckpointError(
            f"{path} is truncated or damaged ({error}). Use an earlier checkpoint of the run."
        ) from error
    if damaged is not None:
        raise CheckpointError(
            f"{path} is damaged: the checksum of its part '{damaged}' is wrong. "
            "Use an earlier checkpoint of the run."
        )


def _plain(value: Any, place: str) -> Any:
    """Copy nested values, tensors detached on the CPU, or say which one is not plain."""
    if isinstance(value, Tensor):
        tensor = value.detach().cpu()
        # torch.save writes a view's whole storage.
        is_view = tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size()
        return tensor.clone() if is_view else tensor
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (list, tuple):
        return type(value)(_plain(item, f"{place}[{i}]") for i, item in enumerate(value))
    if isinstance(value, dict):
        for key in value:
            if type(key) not in (str, int):
                raise ValueError(f"{place} has the key {key!r}; keys must be strings or integers.")
        return {key: _plain(item, f"{place}[{key!r}]") for key, item in value.items()}
    raise ValueError(
        f"{place} is a {type(value).__name__}; checkpoints hold tensors, numbers, strings, "
        "booleans, None and dicts, lists and tuples of them. Convert it first."
    )
