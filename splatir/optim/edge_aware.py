"""How much does a buffer vary where the photo does not?"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def edge_aware_variation(
    values: Float[Tensor, "height width channels"],
    photo: Float[Tensor, "height width 3"],
    alpha: Float[Tensor, "height width 1"],
    sharpness: Float[Tensor, "height width 1"],
) -> Float[Tensor, ""]:
    """Mean over the frame of |difference of neighbours| exp(-sharpness |difference of photo|).

    Differentiable in the values only. The gradient is made with the value: a quarter of the time of
    what autograd records.

    Args:
        values: Buffer that should be smooth; channels are averaged.
        photo: Where it has edges, so may the buffer; channels are averaged.
        alpha: Neighbours count by the smaller coverage of the two.
        sharpness: How small a difference of display values already counts as an edge; the smaller
            of two neighbours counts.
    """
    return _Variation.apply(values, photo.detach(), alpha.detach(), sharpness.detach())


class _Variation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, photo: Tensor, alpha: Tensor, sharpness: Tensor
    ) -> Tensor:
        total = values.new_zeros(())
        gradient = torch.zeros_like(values)
        for axis in (0, 1):
            size = values.shape[axis]
            ahead, behind = (
                [x.narrow(axis, start, size - 1) for x in (values, photo, alpha, sharpness)]
                for start in (1, 0)
            )
            # Sums over three channels this way take a third of what a reduction takes.
            red, green, blue = (ahead[1] - behind[1]).abs_().unbind(-1)
            edge = (red + green).add_(blue).mul_(-1.0 / 3.0)
            weight = edge.mul_(torch.minimum(ahead[3], behind[3])[..., 0]).exp_()
            weight = weight.mul_(torch.minimum(ahead[2], behind[2])[..., 0])
            difference = ahead[0] - behind[0]
            slope = difference.sign().mul_(weight[..., None])
            gradient.narrow(axis, 1, size - 1).add_(slope)
            gradient.narrow(axis, 0, size - 1).sub_(slope)
            total = total + torch.dot(difference.flatten(), slope.flatten())
        ctx.gradient = gradient
        return total / values.numel()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, v: Tensor
    ) -> tuple[Tensor | None, ...]:
        return ctx.gradient * (v / ctx.gradient.numel()), None, None, None
