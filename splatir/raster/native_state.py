"""What does a native forward pass keep for backward, and what do both primitives do with it?"""

import weakref
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from splatir.native.library import NativeLibrary, num_threads
from splatir.raster.contract import RasterOptions


@dataclass(frozen=True)
class CompositingCall:
    """What compositing needs besides differentiable tensors.

    Attributes:
        library: Build of the kernels.
        radii: Half extents of the splats' rectangles, pixels.
        probe: Receives absolute gradients.
        size: Image width and height, pixels.
        options: Which outputs are wanted.
    """

    library: NativeLibrary
    radii: Int[Tensor, "n 2"]
    probe: Float[Tensor, "n 2"]
    size: tuple[int, int]
    options: RasterOptions


class KernelState:
    """Owns what a forward kernel keeps for its backward kernels; frees it when collected."""

    def __init__(
        self,
        library: NativeLibrary,
        primitives: Literal["ellipsoids", "surfels"],
        features_shape: torch.Size,
        size: tuple[int, int],
        *args: Tensor | None,
    ) -> None:
        """Run a forward kernel.

        Args:
            library: Build of the kernels.
            primitives: Whose.
            features_shape: Number of splats and of channels.
            size: Image width and height, pixels.
            args: The kernel's other arguments, contiguous; it fills the images among them.

        Raises:
            MemoryError: The lists of splats per tile do not fit.
        """
        self._library, self._primitives = library, primitives
        self._features_shape = features_shape
        self._address = library.call(
            f"splatir_{primitives}_forward", num_threads(), *features_shape, *size, *args
        )
        if self._address == 0:
            raise MemoryError(
                f"not enough memory to rasterise {features_shape[0]} {primitives} at "
                f"{size[0]}x{size[1]}. "
                "Huge splats cost most: lower their scales, or render a smaller image."
            )
        release = weakref.finalize(
            self, library.call, f"splatir_{primitives}_release", self._address
        )
        # At exit the process returns its memory; the library may already be gone.
        release.atexit = False

    def backward(self, *args: Tensor | int | None) -> None:
        """Run the backward kernel of all inputs.

        Args:
            args: The kernel's arguments after the state and the number of threads.

        Raises:
            MemoryError: The partial sums do not fit.
        """
        self._call("backward", *args)

    def feature_gradient(
        self, v_image: Float[Tensor, "height width channels"] | None
    ) -> Float[Tensor, "n channels"]:
        """Gradient of the features alone, about twice as fast as `backward`.

        Args:
            v_image: Gradient of the feature image; None for zero.

        Raises:
            MemoryError: The partial sums do not fit.
        """
        if v_image is None:
            return torch.zeros(self._features_shape)
        v_features = v_image.new_empty(self._features_shape)
        self._call("backward_features", v_image, v_features)
        return v_features

    def _call(self, kernel: str, *args: Tensor | int | None) -> None:
        name = f"splatir_{self._primitives}_{kernel}"
        if self._library.call(name, self._address, num_threads(), *args) == 0:
            raise MemoryError(
                f"not enough memory for the gradients of {self._features_shape[0]} "
                f"{self._primitives}."
            )


def contiguous(*tensors: Tensor | None) -> list[Any]:
    """Tensors without graph, in the layout that kernels read; None stays None."""
    return [None if tensor is None else tensor.detach().contiguous() for tensor in tensors]


def background_gradient(
    v_image: Float[Tensor, "height width channels"] | None,
    transmittance: Float[Tensor, "height width 1"] | None,
) -> Float[Tensor, " channels"] | None:
    """Gradient of the background.

    Args:
        v_image: Gradient of the feature image; None for zero.
        transmittance: Behind the last splat; None if the background does not learn.
    """
    if v_image is None or transmittance is None:
        return None
    # In one order whatever the number of threads, which BLAS does not promise.
    weighted = (v_image * transmittance).flatten(0, 1).numpy()
    return torch.from_numpy(weighted.sum(0, dtype=np.float64)).to(v_image)


def publish_absgrad(probe: "weakref.ref[Tensor]", absgrad: Tensor | None) -> None:
    """Hand absolute gradients to the probe, where it still lives."""
    target = probe()
    if absgrad is not None and target is not None:
        target.absgrad = absgrad  # pyright: ignore[reportAttributeAccessIssue]
