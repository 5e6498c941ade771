"""How a file is replaced so that a crash, a kill or a full disk never leaves half of it."""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# Marks files that a killed writer left; `remove_leftovers` deletes them.
TEMPORARY_SUFFIX = ".splatir-tmp"

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a free name to write to, whose file takes the place of `path` if all goes well.

    The name is a hidden one in the same folder; what was written there is forced to the disk and
    renamed over `path` when the block ends without an exception. Whoever opens `path` sees the old
    file or the whole new one. Missing parent folders are made.

    Args:
        path: File to create or replace.

    Raises:
        OSError: The file cannot be written, for instance because the disk is full; `path` is as it
            was and the hidden file is gone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in _NO_SPACE:
            kept = "the previous file is unchanged" if path.exists() else "nothing was written"
            raise OSError(
                error.errno, f"no space left to write {path}; {kept}. Free some and try again"
            ) from error
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` as `atomic_path` says.

    Args:
        path: File to create or replace.

    Raises:
        OSError: As `atomic_path`.
    """
    with atomic_path(path) as temporary, temporary.open("xb") as stream:
        yield stream


def write_text(path: Path, text: str) -> None:
    """Replace `path` with UTF-8 text, all or nothing.

    Raises:
        OSError: As `atomic_path`.
    """
    with atomic_file(path) as stream:
        stream.write(text.encode("utf-8"))


def remove_leftovers(folder: Path) -> None:
    """Delete what killed writers left in a folder; call it only where no other writer is active."""
    for leftover in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        leftover.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Force the rename itself to the disk; systems that cannot open folders do without."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and user-space file systems have no fsync for folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)
