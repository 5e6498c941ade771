"""Colours for buffers that people look at: depth, error, normals, materials, light as 8-bit RGB.

Both colour maps grow steadily in lightness, so they read the same in grey and to colour-blind eyes.
"""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from splatir.maths.colour import srgb_from_linear

Plane = Float[Tensor, "height width"] | Float[np.ndarray, "height width"]
Image = Float[Tensor, "height width 3"] | Float[np.ndarray, "height width 3"]
Picture = UInt8[np.ndarray, "height width 3"]

# sRGB anchors at equal steps from 0 to 1.
_DEPTH_MAP = np.array(
    [[26, 20, 66], [44, 66, 132], [38, 121, 142], [52, 171, 121], [152, 212, 81], [248, 236, 128]],
    dtype=np.float64,
)
_HEAT_MAP = np.array(
    [[0, 0, 0], [58, 14, 96], [148, 32, 92], [222, 80, 46], [250, 164, 40], [255, 250, 210]],
    dtype=np.float64,
)
# What the mean radiance of a light is shown as: middle grey.
_LIGHT_GREY = 0.18
# Alpha below which a pixel shows nothing that has a depth.
_MIN_ALPHA = 0.5


def _array(values: Tensor | np.ndarray) -> np.ndarray:
    return torch.as_tensor(values).detach().cpu().double().numpy()


def _apply_map(values: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Colours of values in [0, 1], not rounded yet; what is not a number is mid-grey."""
    at = np.linspace(0.0, 1.0, len(anchors))
    known = np.clip(np.nan_to_num(values), 0.0, 1.0)
    colours = np.stack([np.interp(known, at, anchors[:, c]) for c in range(3)], axis=-1)
    colours[np.isnan(values)] = 128.0
    return colours


def _to_bytes(colours: np.ndarray) -> Picture:
    return np.round(np.clip(colours, 0.0, 255.0)).astype(np.uint8)


def srgb_picture(image_srgb: Image) -> Picture:
    """An sRGB image in [0, 1] as bytes; values beyond are clipped, NaN becomes mid-grey."""
    values = _array(image_srgb)
    return _to_bytes(np.where(np.isnan(values), 128.0, 255.0 * values))


def depth_range(depth: Plane, alpha: Plane | None = None) -> tuple[float, float]:
    """Near and far limit for showing depth: the 2nd and 98th percentile of what is covered.

    Args:
        depth: Camera z, scene units.
        alpha: Coverage; pixels below one half do not count. None counts all.

    Returns:
        (near, far); (0, 1) where nothing is covered.
    """
    values = _array(depth)
    is_shown = np.isfinite(values)
    if alpha is not None:
        is_shown &= _array(alpha) > _MIN_ALPHA
    if not is_shown.any():
        return 0.0, 1.0
    near, far = np.percentile(values[is_shown], [2.0, 98.0])
    return float(near), float(far)


def depth_picture(
    depth: Plane, alpha: Plane | None = None, limits: tuple[float, float] | None = None
) -> Picture:
    """Depth in colour, near bright and far dark, white where nothing is.

    Args:
        depth: Camera z, scene units.
        alpha: Coverage in [0, 1], blends to white; None for everywhere.
        limits: Near and far depth at the ends of the colours; those of `depth_range` if None.
    """
    values = _array(depth)
    near, far = limits if limits is not None else depth_range(depth, alpha)
    span = max(far - near, 1e-6 * max(abs(far), 1e-6))
    return _to_bytes(_over_white(_apply_map(1.0 - (values - near) / span, _DEPTH_MAP), alpha))


def value_picture(values: Plane, alpha: Plane | None = None) -> Picture:
    """A quantity from 0 (dark) to 1 (bright), such as roughness, in colour; white where nothing is.

    Args:
        values: In [0, 1]; beyond, the ends of the colours.
        alpha: Coverage in [0, 1], blends to white; None for everywhere.
    """
    return _to_bytes(_over_white(_apply_map(_array(values), _DEPTH_MAP), alpha))


def albedo_picture(albedo: Image, alpha: Float[Tensor, "height width 1"]) -> Picture:
    """Base colour as it would display, on white.

    Args:
        albedo: Linear, not multiplied by coverage.
        alpha: Coverage in [0, 1], blends to white in sRGB.
    """
    linear = torch.from_numpy(np.clip(_array(albedo), 0.0, 1.0))
    colours = 255.0 * srgb_from_linear(linear).numpy()
    return _to_bytes(_over_white(colours, alpha[..., 0]))


def error_picture(a_srgb: Image, b_srgb: Image, full_scale: float = 0.2) -> Picture:
    """Mean absolute difference over channels as heat: black is none, pale is `full_scale` or more.

    Args:
        a_srgb: Image in [0, 1].
        b_srgb: Image of the same size.
        full_scale: Difference at the bright end.
    """
    error = np.abs(_array(a_srgb) - _array(b_srgb)).mean(-1)
    return _to_bytes(_apply_map(error / full_scale, _HEAT_MAP))


def normal_picture(normals: Image, alpha: Plane | None = None) -> Picture:
    """Directions as colours, 0.5 + 0.5 n: +x red, +y green, +z blue; white where nothing is.

    Args:
        normals: World frame; any length, shorter than 1e-6 counts as nothing.
        alpha: Coverage in [0, 1], blends to white; None for everywhere.
    """
    values = np.nan_to_num(_array(normals))
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    colours = 127.5 * (1.0 + values / np.maximum(length, 1e-6))
    return _to_bytes(_over_white(np.where(length > 1e-6, colours, 255.0), alpha))


def light_picture(radiance: Image, stops: float = 0.0) -> tuple[Picture, float]:
    """An environment map as sRGB, bright enough to see what lights most of the scene.

    Args:
        radiance: Linear, row 0 at +Z.
        stops: Brighter by so many factors of two; negative values show suns.

    Returns:
        The picture, and the factor from radiance to what is shown before the sRGB curve.
    """
    values = _array(radiance)
    # Mean over directions: rows near the poles are narrow.
    rows = np.sin(np.pi * (np.arange(len(values)) + 0.5) / len(values))
    mean = float(np.average(values.mean((1, 2)), weights=rows))
    factor = _LIGHT_GREY / max(mean, 1e-12) * 2.0**stops
    shown = srgb_from_linear(torch.from_numpy(np.clip(factor * values, 0.0, 1.0)))
    return srgb_picture(shown), factor


def _over_white(colours: np.ndarray, alpha: Plane | None) -> np.ndarray:
    if alpha is None:
        return colours
    weight = np.clip(_array(alpha), 0.0, 1.0)[..., None]
    return colours * weight + 255.0 * (1.0 - weight)
