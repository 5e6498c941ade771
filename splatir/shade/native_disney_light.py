"""The Disney lobe under moments of a light in the native library, as a differentiable function."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from splatir.native.library import NativeLibrary, can_run, num_threads
from splatir.native.library import library as default_library


def can_reflect_natively(moments: Tensor, normals: Tensor, views: Tensor, rough: Tensor) -> bool:
    """Whether `reflect_natively` takes these: float32 on the CPU, no gradient to the views."""
    return not views.requires_grad and can_run(moments, normals, views, rough)


def reflect_natively(
    moments: Float[Tensor, "height width 42"],
    normals: Float[Tensor, "p 3"],
    views: Float[Tensor, "p 3"],
    roughness: Float[Tensor, "p 1"],
    library: NativeLibrary | None = None,
) -> Float[Tensor, "p 3"]:
    """`shade.disney_light.reflect_torch` in one pass over the points, and one for the gradients.

    Differentiable in moments, normals and roughness. Gradients to the moments need memory for at
    most eight copies of them.

    Args:
        moments: float32 on the CPU, like all that follows.
        normals: Unit.
        views: Unit, towards the viewer; constants.
        roughness: Perceptual.
        library: Build of the kernels; the best one by default.

    Raises:
        MemoryError: Memory for the gradients to the moments does not suffice.
    """
    constants = _Constants(views.detach().contiguous(), library or default_library())
    return _DisneyRatio.apply(moments, normals, roughness, constants)


@dataclass(frozen=True)
class _Constants:
    views: Float[Tensor, "p 3"]
    library: NativeLibrary

    def call(self, name: str, inputs: tuple[Tensor, ...], *others: Tensor | None) -> int:
        """Call a kernel with what both have in common, then its own arrays."""
        moments, normals, roughness = inputs
        return self.library.call(
            name,
            *(num_threads(), len(normals), normals, self.views, roughness),
            *(*moments.shape[:2], moments, *others),
        )


class _DisneyRatio(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, moments: Tensor, normals: Tensor, roughness: Tensor, constants: _Constants
    ) -> Tensor:
        inputs = tuple(tensor.contiguous() for tensor in (moments, normals, roughness))
        ratio = torch.empty_like(inputs[1])
        constants.call("splatir_disney_ratio", inputs, ratio)
        ctx.save_for_backward(*inputs)
        ctx.constants = constants
        return ratio

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, v_ratio: Tensor
    ) -> tuple[Tensor | None, ...]:
        inputs: tuple[Tensor, ...] = ctx.saved_tensors
        moments, normals, roughness = inputs
        v_moments = torch.empty_like(moments) if ctx.needs_input_grad[0] else None
        v_normals = torch.empty_like(normals) if ctx.needs_input_grad[1] else None
        v_roughness = torch.empty_like(roughness)
        done = ctx.constants.call(
            "splatir_disney_ratio_backward",
            inputs,
            *(v_ratio.contiguous(), v_normals, v_roughness, v_moments),
        )
        if not done:
            raise MemoryError(f"not enough memory for the gradients to {moments.numel()} moments.")
        return v_moments, v_normals, v_roughness, None
