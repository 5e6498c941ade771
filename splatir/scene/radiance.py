"""Which colour does each Gaussian show to a camera?"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from splatir.maths.spherical_harmonics import (
    degree_of,
    evaluate_sh_torch,
    num_coefficients,
)
from splatir.native.library import NativeLibrary, can_run, num_threads
from splatir.native.library import library as default_library


def radiance_colours(
    sh0: Float[Tensor, "n 1 3"],
    shN: Float[Tensor, "n k 3"],
    means: Float[Tensor, "n 3"],
    camera_position: Float[Tensor, " 3"],
    degree: int,
    visible: Bool[Tensor, " n"] | None = None,
) -> Float[Tensor, "n 3"]:
    """Colours max(0.5 + sum_k c_k Y_k(d), 0), with d from the camera to the centre.

    Differentiable in coefficients and means, not in the camera. Native for float32 on the CPU where
    the library is built, else torch.

    Args:
        sh0: Coefficients of degree 0.
        shN: Coefficients of higher degrees; those above `degree` are ignored.
        means: Centres, world frame.
        camera_position: Centre of projection, world frame.
        degree: Highest degree used, 0 to 4. With 0, `shN` and `means` get no gradient at all, so
            that optimisers can leave them alone.
        visible: Gaussians whose colour is wanted; the others get 0 and no gradient.

    Raises:
        ValueError: Fewer coefficients than the degree needs, or a degree that is not supported.
    """
    if can_run(sh0, shN, means):
        return radiance_colours_native(
            sh0, shN, means, camera_position, degree, visible, default_library()
        )
    return radiance_colours_torch(sh0, shN, means, camera_position, degree, visible)


def radiance_colours_torch(
    sh0: Float[Tensor, "n 1 3"],
    shN: Float[Tensor, "n k 3"],
    means: Float[Tensor, "n 3"],
    camera_position: Float[Tensor, " 3"],
    degree: int,
    visible: Bool[Tensor, " n"] | None = None,
) -> Float[Tensor, "n 3"]:
    """`radiance_colours` in plain torch: any device and floating dtype, the reference."""
    used = num_coefficients(degree) - 1
    coefficients = torch.cat([sh0, shN[:, :used]], dim=1) if used else sh0
    directions = means - camera_position.detach()
    colours = (0.5 + evaluate_sh_torch(coefficients, directions, degree)).clamp_min(0.0)
    return colours if visible is None else torch.where(visible[:, None], colours, 0.0)


def radiance_colours_native(
    sh0: Float[Tensor, "n 1 3"],
    shN: Float[Tensor, "n k 3"],
    means: Float[Tensor, "n 3"],
    camera_position: Float[Tensor, " 3"],
    degree: int,
    visible: Bool[Tensor, " n"] | None,
    library: NativeLibrary,
) -> Float[Tensor, "n 3"]:
    """`radiance_colours` in the native library: float32 on the CPU."""
    stored = degree_of(shN.shape[1] + 1)
    if not 0 <= degree <= stored:
        raise ValueError(
            f"degree must lie in 0 to {stored}, which the coefficients hold, got {degree}."
        )
    return _NativeRadiance.apply(sh0, shN, means, camera_position, degree, visible, library)


class _NativeRadiance(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        sh0: Tensor,
        shN: Tensor,
        means: Tensor,
        camera_position: Tensor,
        degree: int,
        visible: Tensor | None,
        library: NativeLibrary,
    ) -> Tensor:
        sh0, shN, means = (tensor.detach().contiguous() for tensor in (sh0, shN, means))
        position = camera_position.detach().to("cpu", torch.float32).contiguous()
        visible = None if visible is None else visible.contiguous()
        colours = torch.empty_like(means)
        sizes = (num_threads(), means.shape[0], shN.shape[1] + 1, degree)
        inputs = (*sizes, sh0, shN, means, position, visible)
        library.call("splatir_radiance_forward", *inputs, colours)
        ctx.save_for_backward(sh0, shN, means, position, visible)
        ctx.sizes, ctx.library = sizes, library
        return colours

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, v_colours: Tensor
    ) -> tuple[Tensor | None, ...]:
        sh0, shN, means, position, visible = ctx.saved_tensors
        has_direction = ctx.sizes[3] > 0
        v_sh0 = torch.empty_like(sh0)
        v_shN = torch.empty_like(shN) if has_direction else None
        v_means = torch.empty_like(means) if has_direction and ctx.needs_input_grad[2] else None
        ctx.library.call(
            "splatir_radiance_backward",
            *(*ctx.sizes, sh0, shN, means, position, visible),
            *(v_colours.contiguous(), v_sh0, v_shN, v_means),
        )
        return v_sh0, v_shN, v_means, None, None, None, None
