"""Values whose gradient is made together with them."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def with_gradient(
    inputs: Float[Tensor, "*size"], value: Float[Tensor, ""], gradient: Float[Tensor, "*size"]
) -> Float[Tensor, ""]:
    """A value as a function of inputs, differentiable once.

    Args:
        inputs: What the gradient flows to.
        value: Of the function.
        gradient: Of the value by the inputs.
    """
    return _Known.apply(inputs, value, gradient)


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        del inputs
        ctx.gradient = gradient
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, v: Tensor
    ) -> tuple[Tensor | None, ...]:
        return ctx.gradient * v, None, None
