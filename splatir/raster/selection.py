"""Which backend rasterises on this device?"""

import functools
import warnings
from typing import Literal

import torch

from splatir.native import library
from splatir.raster.contract import RasterBackend
from splatir.raster.gsplat_backend import GsplatBackend
from splatir.raster.reference.backend import ReferenceBackend

RasterizerName = Literal["auto", "reference", "cpu", "gsplat"]


def rasterizer(name: RasterizerName, device: torch.device) -> RasterBackend:
    """The backend of a name, or the fastest one for a device.

    Args:
        name: "auto" takes gsplat on CUDA, the native kernels on the CPU where they are built, and
            the reference with one warning elsewhere.
        device: Where the Gaussians live.

    Raises:
        ValueError: The backend does not run on the device.
        NativeLibraryMissing: "cpu" was asked for by name and the library is not built.
    """
    if name == "reference":
        return ReferenceBackend()
    if name == "gsplat" or (name == "auto" and device.type == "cuda"):
        if device.type != "cuda":
            raise ValueError(
                f"the gsplat rasteriser needs a CUDA device, got {device}. "
                "Use --device cuda, or rasteriser auto, cpu or reference."
            )
        return GsplatBackend()
    if name == "cpu" and device.type != "cpu":
        raise ValueError(
            f"the cpu rasteriser needs tensors on the CPU, got {device}. "
            "Use --device cpu, or rasteriser auto or gsplat."
        )
    reason = library.why_unavailable() if device.type == "cpu" else f"nothing faster for {device}."
    if name == "cpu" or reason is None:
        # Imported here so that the package works where the native bindings cannot be loaded.
        from splatir.raster.cpu import CpuBackend

        return CpuBackend()
    _warn_that_it_is_slow(reason)
    return ReferenceBackend()


@functools.cache
def _warn_that_it_is_slow(reason: str) -> None:
    """Say once per process and reason that the slow backend is in use."""
    warnings.warn(
        f"rasterising with the reference backend, hundreds of times slower: {reason}",
        stacklevel=3,
    )
