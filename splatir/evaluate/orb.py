"""How does Stanford-ORB (Kuang et al. 2023) score pictures, normals, depth and albedo?

Written after the paper's section 4 and the benchmark's public evaluation: masks eroded by 5 x 5
pixels, one factor per picture and channel by least squares, errors averaged over the whole frame.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import minimum_filter

from splatir.maths.colour import srgb_from_linear

Picture = Float[np.ndarray, "height width 3"]
Plane = Float[np.ndarray, "height width"]
Mask = Bool[np.ndarray, "height width"]

# Of masks, whose rims are not exact.
_EROSION = 5
# Brightest value that counts in PSNR-H.
_HDR_WHITE = 4.0
# Of the SSIM index.
_SSIM_SIGMA, _SSIM_SIDE, _SSIM_C1, _SSIM_C2 = 1.5, 3, 0.01**2, 0.03**2


def eroded(mask: Mask) -> Mask:
    """The mask without what lies within 2 pixels of anything unmasked inside the frame.

    Args:
        mask: Of the object.
    """
    return minimum_filter(mask.astype(np.uint8), _EROSION, mode="constant", cval=1) > 0


def picture_scores(predicted: Picture, truth: Picture, mask: Mask) -> dict[str, float]:
    """PSNR-H, PSNR-L and SSIM of a picture.

    Args:
        predicted: Linear, not negative.
        truth: Linear.
        mask: Of the object, not eroded.

    Returns:
        `psnr_h`: linear, clipped at 4 after the brightness of the truth is made that of its sRGB
        picture; `psnr_l`: sRGB, clipped at white; `ssim` of the latter.
    """
    inside = eroded(mask)
    truth = np.maximum(truth, 0.0) * inside[..., None]
    scaled = _matched(np.maximum(predicted, 0.0) * inside[..., None], truth, inside)
    brightness = _brightness(truth)
    found_h, true_h = (np.clip(x * brightness, 0.0, _HDR_WHITE) for x in (scaled, truth))
    found_l, true_l = (_srgb(x) for x in (scaled, truth))
    return {
        "psnr_h": _psnr(found_h, true_h, inside),
        "psnr_l": _psnr(found_l, true_l, inside),
        "ssim": _ssim(found_l, true_l),
    }


def albedo_psnr(predicted: Picture, truth: Picture, mask: Mask) -> float:
    """PSNR of albedo, linear, clipped at 1.

    Args:
        predicted: Linear.
        truth: Linear.
        mask: Of the object, not eroded.
    """
    inside = eroded(mask)
    truth = np.maximum(truth, 0.0) * inside[..., None]
    scaled = _matched(np.maximum(predicted, 0.0) * inside[..., None], truth, inside)
    return _psnr(scaled.clip(0.0, 1.0), truth.clip(0.0, 1.0), inside)


def normal_distance(predicted: Picture, truth: Picture, mask: Mask) -> float:
    """Mean of one minus the cosine between normals; NaN for an empty mask.

    Args:
        predicted: Any length.
        truth: Any length, same frame.
        mask: Of the object, not eroded.
    """
    inside = eroded(mask)
    cosines = (_unit(predicted) * _unit(truth)).sum(-1)
    return float((1.0 - cosines)[inside].mean()) if inside.any() else math.nan


def depth_error(predicted: list[Plane], truth: list[Plane], masks: list[Mask]) -> float:
    """Squared error of depth over whole frames, after one factor for all views of a capture.

    Args:
        predicted: Camera z of each view, any unit.
        truth: Camera z of each view.
        masks: Of the object, not eroded.
    """
    views = [(p, t, eroded(mask)) for p, t, mask in zip(predicted, truth, masks, strict=True)]
    products = sum(float((p * t)[m].sum()) for p, t, m in views)
    squares = sum(float((p**2)[m].sum()) for p, _, m in views)
    scale = products / max(squares, 1e-12)
    return float(np.mean([((scale * p - t) ** 2 * m).mean() for p, t, m in views]))


def display_pair(predicted: Picture, truth: Picture, mask: Mask) -> tuple[Picture, Picture]:
    """Both pictures as the benchmark's LPIPS takes them: matched, in sRGB, black outside.

    Args:
        predicted: Linear.
        truth: Linear.
        mask: Of the object, not eroded.
    """
    inside = eroded(mask)
    truth = np.maximum(truth, 0.0) * inside[..., None]
    scaled = _matched(np.maximum(predicted, 0.0) * inside[..., None], truth, inside)
    return _srgb(scaled), _srgb(truth)


def _matched(predicted: Picture, truth: Picture, inside: Mask) -> Picture:
    """The prediction times a factor for each channel; what is black throughout counts as white."""
    x, y = predicted[inside], truth[inside]
    squares = (x**2).sum(0)
    products = np.where(squares > 1e-6, (x * y).sum(0), y.sum(0))
    return predicted * (products / np.where(squares > 1e-6, squares, max(len(x), 1)))


def _brightness(truth: Picture) -> float:
    """Mean of the truth in sRGB over its mean in linear."""
    mean = float(truth.clip(0.0, 1.0).mean())
    return float(_srgb(truth).mean()) / mean if mean > 1e-8 else 1.0


def _srgb(linear: Picture) -> Picture:
    return srgb_from_linear(torch.from_numpy(linear.clip(0.0, 1.0))).numpy()


def _psnr(a: Picture, b: Picture, inside: Mask) -> float:
    """Over the whole frame; never below that of a grey silhouette."""
    floor = float(((0.5 * inside[..., None] - b) ** 2).mean())
    error = min(float(((a - b) ** 2).mean()), floor)
    return -10.0 * math.log10(max(error, 1e-12))


def _ssim(a: Picture, b: Picture) -> float:
    """SSIM with the benchmark's window of 3 x 3 pixels, mirrored at the border."""
    offsets = np.arange(_SSIM_SIDE) - _SSIM_SIDE // 2
    weights = np.exp(-(offsets**2) / (2.0 * _SSIM_SIGMA**2))
    weights /= weights.sum()

    def smooth(values: np.ndarray) -> np.ndarray:
        padded = np.pad(values, ((1, 1), (1, 1), (0, 0)), mode="reflect")
        height, width = values.shape[:2]
        rows = np.stack([padded[i : i + height] for i in range(_SSIM_SIDE)], -1) @ weights
        return np.stack([rows[:, i : i + width] for i in range(_SSIM_SIDE)], -1) @ weights

    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
    covariance = smooth(a * b) - mean_a * mean_b
    index = (2 * mean_a * mean_b + _SSIM_C1) * (2 * covariance + _SSIM_C2)
    index /= (mean_a**2 + mean_b**2 + _SSIM_C1) * (var_a + var_b + _SSIM_C2)
    return float(index.mean())


def _unit(vectors: Picture) -> Picture:
    return vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-6)
