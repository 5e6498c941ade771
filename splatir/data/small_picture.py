"""What does a photograph look like, small and in 8 bits, to who compares or matches it?"""

import numpy as np
from jaxtyping import Float, UInt8

from splatir.data.images import Photo
from splatir.data.resample import area_average
from splatir.maths.colour import srgb_from_linear

# Rec. 709 luma weights, for display values.
_LUMA = (0.2126, 0.7152, 0.0722)
# Linear photographs are scaled so that this part of their pixels is not brighter than white.
_WHITE_QUANTILE = 0.98
# What stands behind transparent pixels: in the middle, for weak edges with any object.
_BEHIND = 0.5


def small_picture(photo: Photo, max_size: int) -> UInt8[np.ndarray, "h w 3"]:
    """Display values of a photo, shrunk, with what is transparent grey.

    Args:
        photo: As its file stores it.
        max_size: Longer side at most, pixels.
    """
    rgb = photo.rgb
    if photo.encoding == "linear":
        # torch.quantile refuses large tensors.
        white = float(np.quantile(rgb[::4, ::4].numpy(), _WHITE_QUANTILE))
        rgb = srgb_from_linear((rgb / max(white, 1e-12)).clamp(0.0, 1.0))
    if photo.alpha is not None:
        rgb = rgb * photo.alpha + _BEHIND * (1.0 - photo.alpha)
    height, width = rgb.shape[:2]
    factor = max(1.0, max(width, height) / max_size)
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    return (area_average(rgb, *size) * 255.0).round().clamp(0.0, 255.0).byte().numpy()


def grey_of(picture: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    """Luma in [0, 255].

    Args:
        picture: Display values.
    """
    return picture.astype(np.float32) @ np.asarray(_LUMA, np.float32)
