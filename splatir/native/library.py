"""Which build of the native library is loaded, and how its functions are called.

ABI: every integer is int64_t, every real scalar is float, every array a pointer to contiguous
memory; functions return int64_t or nothing and never throw.
"""

import ctypes
import functools
import os
from pathlib import Path

import torch
from torch import Tensor

from splatir.native.build import (
    LIBRARY_DIR,
    SOURCE_DIR,
    instruction_sets,
    library_name,
    source_hash,
)

# Set to one of the instruction sets to force a slower build, for tests and benchmarks.
ISA_VARIABLE = "SPLATIR_ISA"
# Another folder to load the libraries from, for developing kernels.
DIRECTORY_VARIABLE = "SPLATIR_LIBRARY_DIR"

_HAS_SOURCES = SOURCE_DIR.is_dir() and any(SOURCE_DIR.glob("*.cpp"))
_HOW_TO_BUILD = (
    "Build it with: python -m splatir.native.build (needs a C++ compiler)."
    if _HAS_SOURCES
    else "Install a C++ compiler, then: pip install --force-reinstall --no-cache-dir splatir."
)


class NativeLibraryMissing(RuntimeError):
    """The native library was not built, was built from other sources, or cannot be loaded."""


class NativeLibrary:
    """One loaded build of the kernels.

    Attributes:
        isa: Instruction set it was compiled for.
        path: File it was loaded from.
    """

    def __init__(self, isa: str) -> None:
        """Load the build for `isa`.

        Raises:
            NativeLibraryMissing: No such build, one that does not load, or a stale one.
        """
        self.isa = isa
        folder = Path(os.environ.get(DIRECTORY_VARIABLE, LIBRARY_DIR))
        self.path = folder / library_name(isa)
        if not self.path.is_file():
            raise NativeLibraryMissing(
                f"the native library {self.path} is missing. {_HOW_TO_BUILD}"
            )
        try:
            self._library = ctypes.CDLL(str(self.path))
        except OSError as error:
            raise NativeLibraryMissing(
                f"the native library {self.path} cannot be loaded: {error}. {_HOW_TO_BUILD}"
            ) from error
        self._refuse_stale()

    def _refuse_stale(self) -> None:
        get_hash = self._library.splatir_source_hash
        get_hash.restype = ctypes.c_char_p
        # A wheel ships no sources; there is nothing to compare with.
        if _HAS_SOURCES:
            built_from = get_hash().decode()
            if built_from != source_hash():
                raise NativeLibraryMissing(
                    f"the native library {self.path} was built from other sources. {_HOW_TO_BUILD}"
                )

    def supports_this_processor(self, isa: str) -> bool:
        """Whether the processor can run code for an instruction set."""
        return (
            self.call("splatir_processor_supports", ("baseline", "avx2", "avx512").index(isa)) == 1
        )

    def call(self, name: str, *args: Tensor | int | float | None) -> int:
        """Call a kernel.

        Args:
            name: Exported function.
            args: Tensors are passed as pointers (contiguous, on the CPU), None as a null pointer,
                int and bool as int64_t, float as float.

        Returns:
            What the function returns; meaningless for functions that return nothing.

        Raises:
            ValueError: A tensor is not contiguous or not on the CPU.
        """
        function = getattr(self._library, name)
        function.restype = ctypes.c_int64
        return function(*[_argument(name, i, arg) for i, arg in enumerate(args)])


def _argument(
    name: str, index: int, value: Tensor | int | float | None
) -> ctypes.c_void_p | ctypes.c_int64 | ctypes.c_float:
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, Tensor):
        if value.device.type != "cpu" or not value.is_contiguous():
            raise ValueError(
                f"{name}: argument {index} must be a contiguous CPU tensor, got shape "
                f"{tuple(value.shape)}, strides {value.stride()}, device {value.device}."
            )
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, float):
        return ctypes.c_float(value)
    return ctypes.c_int64(int(value))


@functools.cache
def load(isa: str) -> NativeLibrary:
    """Load the build for one instruction set; later calls return the same library.

    Raises:
        NativeLibraryMissing: It is not there or cannot be loaded.
    """
    return NativeLibrary(isa)


def library() -> NativeLibrary:
    """The fastest build that this processor runs, or the one that $SPLATIR_ISA names.

    Raises:
        NativeLibraryMissing: There is none; the message says how to build it.
        ValueError: $SPLATIR_ISA names an instruction set that is unknown or not this processor's.
    """
    known = list(instruction_sets())
    forced = os.environ.get(ISA_VARIABLE)
    if forced is not None:
        if forced not in known:
            raise ValueError(f"{ISA_VARIABLE} must be one of {known}, got {forced!r}.")
        if not load("baseline").supports_this_processor(forced):
            raise ValueError(f"{ISA_VARIABLE} is {forced!r}, which this processor does not have.")
        return load(forced)
    return load(_best_isa())


@functools.cache
def _best_isa() -> str:
    baseline = load("baseline")
    return next(isa for isa in instruction_sets() if baseline.supports_this_processor(isa))


def available() -> bool:
    """Whether `library()` succeeds."""
    return why_unavailable() is None


def can_run(*tensors: Tensor) -> bool:
    """Whether kernels can take these: float32 on the CPU, and there is a library."""
    is_plain = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
    return is_plain and available()


def why_unavailable() -> str | None:
    """Why there is no native library on this machine and how to build it; None if there is one."""
    try:
        library()
    except NativeLibraryMissing as error:
        return str(error)
    return None


def num_threads() -> int:
    """Threads that kernels use: torch's own setting (`torch.set_num_threads`)."""
    return torch.get_num_threads()
