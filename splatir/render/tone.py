"""How do unbounded linear colours become display values?"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.colour import luminance, srgb_from_linear

ToneCurve = Literal["srgb", "reinhard", "filmic"]

# Luminance that the Reinhard curve shows as white.
_REINHARD_WHITE = 4.0
# Scale at which the filmic curve shows middle grey, 0.18, about as bright as the sRGB curve does.
_FILMIC_SCALE = 0.72


def display_srgb(linear: Float[Tensor, "*batch 3"], curve: ToneCurve) -> Float[Tensor, "*batch 3"]:
    """Display values in [0, 1] of linear colours.

    "srgb" clips at 1: right for comparing with photos taken so. "reinhard" compresses luminance
    (Reinhard et al. 2002, eq. 4, white at 4) and keeps hue until a channel clips. "filmic"
    compresses each channel by Narkowicz's 2015 fit of the ACES curve, so highlights pale.

    Args:
        linear: Rec. 709; negative values count as 0.
        curve: Which.
    """
    colour = linear.clamp_min(0.0)
    if curve == "reinhard":
        bright = luminance(colour)
        colour = colour * (1.0 + bright / _REINHARD_WHITE**2) / (1.0 + bright)
    elif curve == "filmic":
        # Beyond this the curve is 1, and the squares of huge suns are infinite.
        x = (_FILMIC_SCALE * colour).clamp_max(1e4)
        colour = x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14)
    return srgb_from_linear(colour.clamp_max(1.0))


def composite_srgb(
    image_srgb: Float[Tensor, "height width 3"],
    alpha: Float[Tensor, "height width 1"],
    background_srgb: Float[Tensor, "*size 3"],
) -> Float[Tensor, "height width 3"]:
    """Straight display values over a background, in sRGB as NeRF-synthetic composites.

    Args:
        image_srgb: In [0, 1].
        alpha: Coverage in [0, 1].
        background_srgb: One colour or a picture.
    """
    return torch.lerp(background_srgb.to(image_srgb).expand_as(image_srgb), image_srgb, alpha)
