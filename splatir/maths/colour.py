"""The sRGB curve (IEC 61966-2-1), which only this file applies, and luminance."""

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.native_curve import srgb_curve_native
from splatir.native.library import can_run

# Of Rec. 709 primaries.
_LUMINANCE = (0.2126, 0.7152, 0.0722)
# Of the power law above the curve's linear toe: 1.055 x^(1/2.4) - 0.055.
SRGB_OFFSET = 0.055
# Slope of the sRGB curve at white.
_WHITE_SLOPE = 1.055 / 2.4


def linear_from_srgb(srgb: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Decode sRGB to linear Rec. 709.

    Native, and differentiable once, for float32 on the CPU where the library is built, else torch.

    Args:
        srgb: Encoded values; negative ones follow the linear segment, values above 1 the power law.
    """
    if can_run(srgb):
        return srgb_curve_native("linear_from_srgb", srgb)
    return linear_from_srgb_torch(srgb)


def srgb_from_linear(linear: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Encode linear Rec. 709 as sRGB; not clipped, so the inverse of `linear_from_srgb`."""
    if can_run(linear):
        return srgb_curve_native("srgb_from_linear", linear)
    return srgb_from_linear_torch(linear)


def linear_from_srgb_torch(srgb: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """`linear_from_srgb` in plain torch: any device and floating dtype, the reference."""
    power = ((srgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(srgb <= 0.04045, srgb / 12.92, power)


def srgb_from_linear_torch(linear: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """`srgb_from_linear` in plain torch: any device and floating dtype, the reference."""
    power = 1.055 * linear.clamp_min(0.0031308) ** (1.0 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, linear * 12.92, power)


def srgb_from_hdr(linear: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """sRGB up to white, and its tangent in the logarithm above: 1 + 1.055 / 2.4 ln x.

    Continuous with its slope. Above white equal ratios are equal steps, so that the sun does not
    outweigh the rest: 10 times white is 2.01, 1000 times 4.04.

    Args:
        linear: Linear Rec. 709; 1 is white.
    """
    above = _WHITE_SLOPE * linear.clamp_min(1.0).log()
    return srgb_from_linear(linear.clamp_max(1.0)) + above


def exposed_srgb(
    srgb: Float[Tensor, "*batch 3"],
    log_gains: Float[Tensor, " 3"],
    alpha: Float[Tensor, "*batch 1"] | None = None,
) -> Float[Tensor, "*batch 3"]:
    """sRGB colours after their linear values were multiplied by gains.

    Above the curve's linear toe, x <= 0.04, that is (x + 0.055) gain^(1/2.4) - 0.055, which is used
    for all: at black it is off by 0.008 for half a stop, and no power has to be computed.

    Args:
        srgb: Encoded values; not clipped.
        log_gains: Natural logarithm of linear gains of red, green and blue.
        alpha: Coverage, where `srgb` is premultiplied by it; None for opaque pictures.
    """
    factors = (log_gains / 2.4).exp()
    offsets = SRGB_OFFSET * (factors - 1.0)
    return srgb * factors + (offsets if alpha is None else offsets * alpha)


def exposed_over(
    srgb: Float[Tensor, "*batch 3"],
    log_gains: Float[Tensor, " 3"],
    alpha: Float[Tensor, "*batch 1"] | None,
    background_srgb: Float[Tensor, " 3"],
) -> Float[Tensor, "*batch 3"]:
    """`exposed_srgb` of a picture over a background that no exposure changes.

    Args:
        srgb: Composited over the background; not clipped.
        log_gains: Natural logarithm of linear gains.
        alpha: Coverage; None where there is no such background, and all of the picture is exposed.
        background_srgb: Behind the picture.
    """
    if alpha is None:
        return exposed_srgb(srgb, log_gains)
    behind = (1.0 - alpha) * background_srgb
    return exposed_srgb(srgb - behind, log_gains, alpha) + behind


def mixed_in_linear_light(
    srgb: Float[Tensor, "*batch 3"],
    alpha: Float[Tensor, "*batch 1"],
    behind_srgb: Float[Tensor, "*batch 3"],
) -> Float[Tensor, "*batch 3"]:
    """What a pixel shows of which something covers a part: light adds up, display values do not.

    Half a white edge before black is 0.74 on the display, not 0.5.

    Args:
        srgb: Of what covers it, straight; negative values count as 0.
        alpha: Part that is covered, in [0, 1].
        behind_srgb: Of what is behind, in [0, 1].
    """
    behind, own = linear_from_srgb(behind_srgb), linear_from_srgb(srgb.clamp_min(0.0))
    return srgb_from_linear(torch.lerp(behind, own, alpha))


def luminance(linear: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 1"]:
    """Luminance of linear Rec. 709 colours; 1 for white."""
    return (linear * linear.new_tensor(_LUMINANCE)).sum(-1, keepdim=True)
