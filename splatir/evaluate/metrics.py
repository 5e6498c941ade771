"""How close a rendered picture is to a photograph: the protocols whose names reports carry.

`psnr_full` and `ssim` look at the whole frame composited on white in sRGB, `psnr_fg` only at pixels
where the photograph's own alpha exceeds one half. Rendered colours are clipped to [0, 1] first.
All arithmetic is float64.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from splatir.maths.ssim import ssim_torch

Image = Float[Tensor, "height width 3"] | Float[np.ndarray, "height width 3"]
Plane = Float[Tensor, "height width"] | Float[np.ndarray, "height width"]
Mask = Bool[Tensor, "height width"] | Bool[np.ndarray, "height width"]

# Mean squared errors below this count as this: equal pictures have 100 dB, not infinity.
_MIN_SQUARED_ERROR = 1e-10


@dataclass(frozen=True)
class ImageScores:
    """Scores of one picture, or their means over several.

    Attributes:
        psnr_full: dB, whole frame on white; at most 100.
        psnr_fg: dB, inside the photograph's mask; None without one, or with an empty one.
        ssim: In [-1, 1], whole frame on white, symmetric padding at the border.
    """

    psnr_full: float
    psnr_fg: float | None
    ssim: float


def on_white(image_srgb: Image, alpha: Plane | None) -> Float[Tensor, "height width 3"]:
    """Composite straight colours on white in sRGB, clipped to [0, 1], float64.

    Args:
        image_srgb: Straight (not premultiplied) sRGB values; what is already composited comes
            without alpha.
        alpha: In [0, 1]; None for an opaque picture.

    Raises:
        ValueError: Values that are not finite.
    """
    image = torch.as_tensor(image_srgb).detach().double()
    if not image.isfinite().all():
        count = int((~image.isfinite()).sum())
        raise ValueError(f"a picture to score has {count} values that are not finite.")
    image = image.clamp(0.0, 1.0)
    if alpha is None:
        return image
    weight = torch.as_tensor(alpha).detach().to(image)[..., None]
    return image * weight + (1.0 - weight)


def psnr(a: Image, b: Image, mask: Mask | None = None) -> float:
    """Peak signal-to-noise ratio in dB of two pictures as they are, peak 1.

    Args:
        a: Picture.
        b: Picture of the same size.
        mask: Pixels that count; None for all. At least one must.

    Raises:
        ValueError: No pixel counts.
    """
    first = torch.as_tensor(a).detach().double()
    error = (first - torch.as_tensor(b).detach().to(first)) ** 2
    if mask is not None:
        error = error[torch.as_tensor(mask).to(error.device)]
    if error.numel() == 0:
        raise ValueError("PSNR of no pixels is undefined; the picture or its mask is empty.")
    return -10.0 * math.log10(max(float(error.mean()), _MIN_SQUARED_ERROR))


def psnr_full(
    rendered_srgb: Image,
    photo_srgb: Image,
    rendered_alpha: Plane | None = None,
    photo_alpha: Plane | None = None,
) -> float:
    """PSNR of the whole frame, both pictures composited on white in sRGB.

    Args:
        rendered_srgb: Straight sRGB colours.
        photo_srgb: Straight sRGB colours.
        rendered_alpha: Coverage of the rendered picture; None for an opaque one.
        photo_alpha: Alpha or mask of the photograph; None for an opaque one.
    """
    return psnr(on_white(rendered_srgb, rendered_alpha), on_white(photo_srgb, photo_alpha))


def psnr_fg(
    rendered_srgb: Image,
    photo_srgb: Image,
    rendered_alpha: Plane | None,
    photo_alpha: Plane,
) -> float | None:
    """PSNR, on white in sRGB, of the pixels whose true alpha exceeds one half.

    Args:
        rendered_srgb: Straight sRGB colours.
        photo_srgb: Straight sRGB colours.
        rendered_alpha: Coverage of the rendered picture; None for an opaque one.
        photo_alpha: Alpha or mask of the photograph.

    Returns:
        dB, or None where no pixel is foreground.
    """
    is_foreground = torch.as_tensor(photo_alpha) > 0.5
    if not is_foreground.any():
        return None
    rendered = on_white(rendered_srgb, rendered_alpha)
    return psnr(rendered, on_white(photo_srgb, photo_alpha), is_foreground)


def ssim_full(
    rendered_srgb: Image,
    photo_srgb: Image,
    rendered_alpha: Plane | None = None,
    photo_alpha: Plane | None = None,
) -> float:
    """SSIM of the whole frame on white, in sRGB, with symmetric padding.

    Training losses pad with zeros instead (`splatir.maths.ssim.ssim`), as 3DGS does; the two differ
    only within 5 pixels of the border, where the common zeros raise the value.

    Args:
        rendered_srgb: Straight sRGB colours.
        photo_srgb: Straight sRGB colours.
        rendered_alpha: Coverage of the rendered picture; None for an opaque one.
        photo_alpha: Alpha or mask of the photograph; None for an opaque one.
    """
    rendered = on_white(rendered_srgb, rendered_alpha)
    photo = on_white(photo_srgb, photo_alpha).to(rendered.device)
    return float(ssim_torch(rendered, photo, padding="symmetric"))


def score_image(
    rendered_srgb: Image,
    photo_srgb: Image,
    rendered_alpha: Plane | None = None,
    photo_alpha: Plane | None = None,
) -> ImageScores:
    """All scores of one picture; the arguments are those of `psnr_full`."""
    foreground = None
    if photo_alpha is not None:
        foreground = psnr_fg(rendered_srgb, photo_srgb, rendered_alpha, photo_alpha)
    return ImageScores(
        psnr_full=psnr_full(rendered_srgb, photo_srgb, rendered_alpha, photo_alpha),
        psnr_fg=foreground,
        ssim=ssim_full(rendered_srgb, photo_srgb, rendered_alpha, photo_alpha),
    )


def mean_scores(scores: Sequence[ImageScores]) -> ImageScores:
    """Mean of each score over pictures; those without foreground do not count in `psnr_fg`.

    Raises:
        ValueError: No scores.
    """
    if not scores:
        raise ValueError("there are no pictures to average scores over.")
    foreground = [score.psnr_fg for score in scores if score.psnr_fg is not None]
    return ImageScores(
        psnr_full=float(np.mean([score.psnr_full for score in scores])),
        psnr_fg=float(np.mean(foreground)) if foreground else None,
        ssim=float(np.mean([score.ssim for score in scores])),
    )
