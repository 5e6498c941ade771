"""How freed memory is kept, which decides what large tensors cost."""

import ctypes
import sys

# Parameters of glibc's mallopt (malloc.h), and what they are set to, bytes.
_TRIM_THRESHOLD, _KEPT = -1, 2**31 - 1
_MMAP_THRESHOLD, _LARGEST = -3, 2**30


def keep_freed_memory() -> bool:
    """Let the process reuse memory that it freed, up to blocks of 1 GiB.

    By default, glibc gives large blocks back to the system and gets them again as fresh pages, each
    of which the system fills with zeros: doubling a million numbers and adding 1 takes ten times as
    long so. In return the process stays as large as it once was.

    Returns:
        Whether the C library took it; others than glibc have no such switch.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, _KEPT))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
