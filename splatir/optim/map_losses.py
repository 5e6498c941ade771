"""How far is a surface from what the user's normal, depth and albedo maps say of it?"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from splatir.data.maps import DepthsKind
from splatir.optim.normal_consistency import SOLID_ALPHA

# Pixels below which a scale and a shift are not fitted.
_MIN_PIXELS = 16


def normal_map_loss(
    normals: Float[Tensor, "height width 3"],
    alpha: Float[Tensor, "height width 1"],
    known_normals: Float[Tensor, "height width 3"],
) -> Float[Tensor, ""]:
    """Mean of 1 - n . n_map over the solid pixels that the map knows; 0 if there are none.

    Args:
        normals: Composited normals, sum w n, world frame. Differentiable.
        alpha: Coverage, a constant.
        known_normals: Unit, world frame; 0 where unknown.
    """
    counts = _solid(alpha) & known_normals.any(-1, keepdim=True)
    error = 1.0 - (normals * known_normals).sum(-1, keepdim=True) / alpha.detach().clamp_min(0.5)
    return _mean_where(error, counts)


def depth_map_loss(
    depth: Float[Tensor, "height width 1"],
    alpha: Float[Tensor, "height width 1"],
    known_depth: Float[Tensor, "height width 1"],
    kind: DepthsKind,
) -> Float[Tensor, ""]:
    """Mean of |d - d_map| over mean d_map, on solid pixels that the map knows; 0 without any.

    The scale and the shift that a map leaves open are those of least squares, fitted to the present
    depth as constants; with kind "inverse" all of this is about 1 / d. A map that would need a
    negative scale says nothing.

    Args:
        depth: Composited camera z, sum w z, scene units. Differentiable.
        alpha: Coverage, a constant.
        known_depth: As the map has it; 0 where unknown.
        kind: "metric" (scene units), "relative" or "inverse".
    """
    counts = _solid(alpha) & (known_depth > 0.0)
    straight = depth / alpha.detach().clamp_min(0.5)
    straight = torch.where(counts, straight, 1.0)
    values = 1.0 / straight if kind == "inverse" else straight
    target = known_depth
    if kind != "metric":
        fitted = _fitted(known_depth[counts], values.detach()[counts])
        if fitted is None:
            return 0.0 * depth.sum()
        target = fitted[0] * known_depth + fitted[1]
    mean = _mean_where(target, counts).clamp_min(1e-12)
    return _mean_where((values - target).abs() / mean, counts)


def albedo_map_loss(
    albedo: Float[Tensor, "height width 3"],
    alpha: Float[Tensor, "height width 1"],
    known_albedo: Float[Tensor, "height width 3"],
    scale_is_free: bool,
) -> Float[Tensor, ""]:
    """Mean of |a - f a_map| over the solid pixels that the map knows; 0 if there are none.

    Args:
        albedo: Straight albedo, linear. Differentiable.
        alpha: Coverage, a constant.
        known_albedo: Linear; negative where unknown.
        scale_is_free: f is that of least squares, a constant, instead of 1.
    """
    counts = _solid(alpha) & (known_albedo >= 0.0).all(-1, keepdim=True)
    target = known_albedo
    if scale_is_free:
        present = torch.where(counts, albedo.detach(), 0.0)
        known = torch.where(counts, known_albedo, 0.0)
        target = known * ((present * known).sum() / known.square().sum().clamp_min(1e-12))
    return _mean_where((albedo - target).abs().mean(-1, keepdim=True), counts)


def _solid(alpha: Tensor) -> Bool[Tensor, "height width 1"]:
    return alpha.detach() > SOLID_ALPHA


def _mean_where(
    values: Float[Tensor, "height width 1"], counts: Bool[Tensor, "height width 1"]
) -> Float[Tensor, ""]:
    return torch.where(counts, values, 0.0).sum() / counts.sum().clamp_min(1)


def _fitted(
    x: Float[Tensor, " n"], y: Float[Tensor, " n"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]] | None:
    """Scale and shift of the line through (x, y) by least squares; None without a rising one."""
    if len(x) < _MIN_PIXELS:
        return None
    x_mean, y_mean = x.mean(), y.mean()
    variance = (x - x_mean).square().mean()
    scale = ((x - x_mean) * (y - y_mean)).mean() / variance.clamp_min(1e-20)
    if not bool(scale > 0.0):
        return None
    return scale, y_mean - scale * x_mean
