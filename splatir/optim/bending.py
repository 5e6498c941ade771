"""How unevenly do normals turn from pixel to pixel?"""

import torch
from jaxtyping import Float
from torch import Tensor

# Below this length a second difference counts by its square: noise of that size is none.
_SOFT = 1e-3
# Jump of depth, in widths of a pixel there, that lets normals jump too.
_JUMP = 3.0
_MIN_DEPTH = 1e-9


def bending(
    normals: Float[Tensor, "height width 3"],
    alpha: Float[Tensor, "height width 1"],
    depth: Float[Tensor, "height width 1"],
    focal: float,
) -> Float[Tensor, ""]:
    """Sum over rows and columns of the lengths of second differences, per pixel of the frame.

    What changes evenly, as the normals of a round surface nearly do, costs nothing; noise, steps
    and ridges do. (First differences, the total variation, would rather have steps than slopes.)
    Where one surface hides another, and less so at a crease, normals may jump: there inverse depth,
    which is linear on a plane, does not go on as it came. Differentiable in the normals only.

    Args:
        normals: Buffer.
        alpha: Three neighbours count by the smallest coverage among them.
        depth: Camera z, scene units; 0 where nothing is covered.
        focal: Focal length, pixels.
    """
    total = normals.new_zeros(())
    depth = depth.detach()[..., 0].clamp_min(_MIN_DEPTH)
    nearness, cover = depth.reciprocal(), alpha.detach()[..., 0]
    for axis in (0, 1):
        if normals.shape[axis] < 3:
            continue
        jump = focal * _triples(depth, axis)[1] * _second_difference(nearness, axis).abs()
        weight = torch.stack(_triples(cover, axis)).amin(0) * (-jump / _JUMP).exp()
        squared = _second_difference(normals, axis).square().sum(-1)
        total = total + (weight * ((squared + _SOFT**2).sqrt() - _SOFT)).sum()
    return total / alpha.numel()


def _triples(image: Tensor, axis: int) -> list[Tensor]:
    """Each pixel's predecessor, itself and its successor, where it has both."""
    return [image.narrow(axis, start, image.shape[axis] - 2) for start in range(3)]


def _second_difference(image: Tensor, axis: int) -> Tensor:
    before, here, after = _triples(image, axis)
    return before - 2.0 * here + after
