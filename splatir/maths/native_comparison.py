"""The native comparison of an image with its photo, as a differentiable function."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from splatir.native.library import NativeLibrary, can_run, num_threads
from splatir.native.library import library as default_library


def can_compare_natively(image: Tensor, photo: Tensor) -> bool:
    """Whether `compare_images` takes these: float32 on the CPU, no gradient to the photo."""
    return not photo.requires_grad and can_run(image, photo)


def compare_images(
    image: Float[Tensor, "height width 3"],
    photo: Float[Tensor, "height width 3"],
    difference_weight: float,
    ssim_weight: float,
    pixel_weights: Float[Tensor, "height width"] | None = None,
    library: NativeLibrary | None = None,
) -> Float[Tensor, ""]:
    """difference_weight * mean |image - photo| + ssim_weight * SSIM(image, photo).

    The gradient to the image is computed together with the value, in one pass. SSIM is that of
    `splatir.maths.ssim.ssim`.

    Args:
        image: float32 on the CPU like the photo; data range 1.
        photo: Not differentiated.
        difference_weight: Factor of the mean absolute difference.
        ssim_weight: Factor of SSIM; with 0 it is not computed.
        pixel_weights: Factor of each pixel's absolute difference, 1 by default. The mean still
            divides by all pixels, and SSIM is not weighted.
        library: Build of the kernels; the best one by default.

    Raises:
        ValueError: The images differ in size or are empty.
        MemoryError: Scratch memory (about seven images) does not suffice.
    """
    if image.shape != photo.shape or image.numel() == 0:
        raise ValueError(
            f"two images of one size can be compared, got {tuple(image.shape)} and "
            f"{tuple(photo.shape)}."
        )
    wants_gradient = image.requires_grad and torch.is_grad_enabled()
    return _Comparison.apply(
        image,
        photo.detach().contiguous(),
        None if pixel_weights is None else pixel_weights.detach().float().contiguous(),
        (float(difference_weight), float(ssim_weight)),
        wants_gradient,
        library or default_library(),
    )


class _Comparison(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        photo: Tensor,
        pixel_weights: Tensor | None,
        weights: tuple[float, float],
        wants_gradient: bool,
        library: NativeLibrary,
    ) -> Tensor:
        image = image.detach().contiguous()
        gradient = torch.empty_like(image) if wants_gradient else None
        means = torch.empty(2, dtype=torch.float64)
        height, width, _ = image.shape
        done = library.call(
            "splatir_compare_images",
            *(num_threads(), height, width, image, photo, pixel_weights, *weights),
            *(means, gradient),
        )
        if not done:
            raise MemoryError(f"not enough memory to compare two images of {width} x {height}.")
        ctx.gradient = gradient
        difference, similarity = means.tolist()
        return torch.tensor(weights[0] * difference + weights[1] * similarity)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, v: Tensor
    ) -> tuple[Tensor | None, ...]:
        # A loss is mostly summed as it is; then a pass over the image is saved.
        gradient = ctx.gradient if v.item() == 1.0 else ctx.gradient * v
        return gradient, None, None, None, None, None
