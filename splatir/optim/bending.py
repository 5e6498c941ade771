"""How unevenly does a buffer turn from pixel to pixel?"""

import torch
from jaxtyping import Float
from torch import Tensor

# Below this length a second difference counts by its square: noise of that size is none.
_SOFT = 1e-3


def bending(
    values: Float[Tensor, "height width channels"], alpha: Float[Tensor, "height width 1"]
) -> Float[Tensor, ""]:
    """Sum over rows and columns of the lengths of second differences, per pixel of the frame.

    What changes evenly, as the normals of a round surface nearly do, costs nothing; noise, steps
    and ridges do. (First differences, the total variation, would rather have steps than slopes.)
    Differentiable in the values only.

    Args:
        values: Buffer.
        alpha: Three neighbours count by the smallest coverage among them.
    """
    total = values.new_zeros(())
    for axis in (0, 1):
        size = values.shape[axis] - 2
        if size < 1:
            continue
        before, here, after = (values.narrow(axis, start, size) for start in range(3))
        covers = [alpha.detach().narrow(axis, start, size) for start in range(3)]
        weight = torch.minimum(torch.minimum(covers[0], covers[1]), covers[2])[..., 0]
        squared = (before - 2.0 * here + after).square().sum(-1)
        total = total + (weight * ((squared + _SOFT**2).sqrt() - _SOFT)).sum()
    return total / alpha.numel()
