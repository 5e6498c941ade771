"""The sRGB curve in the native library, as differentiable functions."""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from splatir.native.library import NativeLibrary, num_threads
from splatir.native.library import library as default_library

Direction = Literal["srgb_from_linear", "linear_from_srgb"]


def srgb_curve_native(
    direction: Direction,
    values: Float[Tensor, "*batch"],
    library: NativeLibrary | None = None,
) -> Float[Tensor, "*batch"]:
    """A function of `splatir.maths.colour`, to 1e-6 relative.

    Args:
        direction: Name of the function.
        values: float32 on the CPU.
        library: Build of the kernels; the best one by default.
    """
    return _Curve.apply(values, direction, library or default_library())


class _Curve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, direction: str, library: NativeLibrary) -> Tensor:
        values = values.detach().contiguous()
        out = torch.empty_like(values)
        library.call(f"splatir_{direction}", num_threads(), values.numel(), values, out)
        ctx.save_for_backward(values)
        ctx.direction, ctx.library = direction, library
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, v: Tensor
    ) -> tuple[Tensor | None, ...]:
        (values,) = ctx.saved_tensors
        v_values = torch.empty_like(values)
        name, v = f"splatir_{ctx.direction}_backward", v.contiguous()
        ctx.library.call(name, num_threads(), values.numel(), values, v, v_values)
        return v_values, None, None
