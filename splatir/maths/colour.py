"""The sRGB transfer curve, IEC 61966-2-1. The only place in the package that applies it."""

import torch
from jaxtyping import Float
from torch import Tensor


def linear_from_srgb(srgb: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Decode sRGB to linear Rec. 709.

    Args:
        srgb: Encoded values; negative ones follow the linear segment, values above 1 the power law.
    """
    power = ((srgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(srgb <= 0.04045, srgb / 12.92, power)


def srgb_from_linear(linear: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Encode linear Rec. 709 as sRGB; not clipped, so the inverse of `linear_from_srgb`."""
    power = 1.055 * linear.clamp_min(0.0031308) ** (1.0 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, linear * 12.92, power)
