"""How far is a rendered image from its photo?"""

from jaxtyping import Float
from torch import Tensor

from splatir.maths.native_comparison import can_compare_natively, compare_images
from splatir.maths.ssim import ssim_torch


def photometric_loss(
    image: Float[Tensor, "height width 3"],
    photo: Float[Tensor, "height width 3"],
    ssim_weight: float,
    pixel_weights: Float[Tensor, "height width"] | None = None,
) -> Float[Tensor, ""]:
    """(1 - s) mean |image - photo| + s (1 - SSIM(image, photo)), Kerbl et al. 2023, eq. 7.

    Differentiable in the image only. Native for float32 on the CPU where the library is built, else
    torch.

    Args:
        image: Rendered display values, composited over the photo's background.
        photo: What they should be, data range 1.
        ssim_weight: s in [0, 1].
        pixel_weights: Factor of each pixel's absolute difference, 1 by default. The mean still
            divides by all pixels, and SSIM is not weighted.

    Raises:
        ValueError: The images differ in size or are empty.
    """
    photo = photo.detach()
    if can_compare_natively(image, photo):
        difference_weight = 1.0 - ssim_weight
        compared = compare_images(image, photo, difference_weight, -ssim_weight, pixel_weights)
        return ssim_weight + compared
    return photometric_loss_torch(image, photo, ssim_weight, pixel_weights)


def photometric_loss_torch(
    image: Float[Tensor, "height width 3"],
    photo: Float[Tensor, "height width 3"],
    ssim_weight: float,
    pixel_weights: Float[Tensor, "height width"] | None = None,
) -> Float[Tensor, ""]:
    """`photometric_loss` in plain torch: any device and floating dtype, the reference."""
    if image.shape != photo.shape or image.numel() == 0:
        raise ValueError(
            f"image and photo must have one size, got {tuple(image.shape)} and "
            f"{tuple(photo.shape)}."
        )
    photo = photo.detach()
    difference = (image - photo).abs()
    if pixel_weights is not None:
        difference = difference * pixel_weights[..., None]
    loss = (1.0 - ssim_weight) * difference.mean()
    if ssim_weight != 0.0:
        loss = loss + ssim_weight * (1.0 - ssim_torch(image, photo))
    return loss
