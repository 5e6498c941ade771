"""Structural similarity of two images, Wang et al. 2004."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.native_comparison import can_compare_natively, compare_images

WINDOW = 11
SIGMA = 1.5
# (0.01 L)^2 and (0.03 L)^2 of the paper for the data range L = 1.
C1 = 0.01**2
C2 = 0.03**2

Padding = Literal["zero", "symmetric"]


def gaussian_window(like: Tensor) -> Float[Tensor, " window"]:
    """The normalised one-dimensional factor of the 11x11 window, in the dtype of `like`."""
    offset = torch.arange(WINDOW, dtype=like.dtype, device=like.device) - WINDOW // 2
    weights = torch.exp(-0.5 * (offset / SIGMA) ** 2)
    return weights / weights.sum()


def ssim(
    a: Float[Tensor, "height width 3"], b: Float[Tensor, "height width 3"]
) -> Float[Tensor, ""]:
    """Mean SSIM of two images as training losses use it: zeros beyond the border.

    Near a border the zeros count as equal pixels of both images, so the value is a little higher
    there than under the symmetric padding that evaluation uses (`ssim_torch`'s `padding`).
    Differentiable in both images. Native for float32 on the CPU where the library is built and `b`
    needs no gradient, else torch.

    Args:
        a: Image, data range 1.
        b: Image of the same size.

    Raises:
        ValueError: The images differ in size or are empty.
    """
    if can_compare_natively(a, b):
        return compare_images(a, b, difference_weight=0.0, ssim_weight=1.0)
    return ssim_torch(a, b)


def ssim_torch(
    a: Float[Tensor, "height width 3"],
    b: Float[Tensor, "height width 3"],
    padding: Padding = "zero",
) -> Float[Tensor, ""]:
    """Mean over pixels and channels of the SSIM index, eq. 13 with a Gaussian window of sigma 1.5.

    Any device and floating dtype; the reference for faster versions.

    Args:
        a: Image, data range 1.
        b: Image of the same size.
        padding: What lies beyond the border: "zero", or "symmetric" for the mirrored image with
            its edge repeated (scipy's "reflect"). The two differ only within 5 pixels of it.

    Raises:
        ValueError: The images differ in size or are empty.
    """
    if a.shape != b.shape or a.numel() == 0:
        raise ValueError(
            f"SSIM compares two images of one size, got {tuple(a.shape)} and {tuple(b.shape)}."
        )
    a, b = a.permute(2, 0, 1), b.permute(2, 0, 1)
    moments = _smooth(torch.cat([a, b, a * a, b * b, a * b]), padding)
    mean_a, mean_b, aa, bb, ab = moments.unflatten(0, (5, 3)).unbind(0)
    var_a, var_b, cov = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return (luminance * (2 * cov + C2) / (var_a + var_b + C2)).mean()


def _smooth(
    images: Float[Tensor, "channels height width"], padding: Padding
) -> Float[Tensor, "channels height width"]:
    """Convolve every channel with the window, columns then rows; the size does not change."""
    window = gaussian_window(images)
    reach = WINDOW // 2
    zeros = reach if padding == "zero" else 0
    if padding == "symmetric":
        for axis in (1, 2):
            mirrored = np.pad(np.arange(images.shape[axis]), reach, mode="symmetric")
            index = torch.from_numpy(mirrored).to(images.device)
            images = images.index_select(axis, index)
    # A group per channel is 18 times as fast on a CPU as a batch of one-channel images.
    count = images.shape[0]
    rows = window.expand(count, 1, 1, WINDOW)
    images = torch.nn.functional.conv2d(images[None], rows.mT, padding=(zeros, 0), groups=count)
    return torch.nn.functional.conv2d(images, rows, padding=(0, zeros), groups=count)[0]
