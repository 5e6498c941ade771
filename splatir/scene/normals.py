"""Which way does each Gaussian's surface look?"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from splatir.maths.rotations import rotation_from_quat
from splatir.native.library import NativeLibrary, can_run, num_threads
from splatir.native.library import library as default_library
from splatir.scene.gaussians import Gaussians

# Where normals are known to look outwards, those just behind the horizon do not turn to the camera:
# cosine up to which.
PAST_HORIZON = 0.2


def facing_normals(
    gaussians: Gaussians, camera_position: Float[Tensor, " 3"], past_horizon: float = 0.0
) -> Float[Tensor, "n 3"]:
    """Unit world normals, turned towards the camera; differentiable in the quaternions.

    A surfel's normal is its third axis, an ellipsoid's the shortest one. Native for float32 on the
    CPU where the library is built, else torch.

    Args:
        gaussians: Geometry.
        camera_position: Centre of projection, world frame.
        past_horizon: Normals that look away from the camera by less than this cosine stay as they
            are. For axes that look outwards (`transport.orientation`): just behind an outline, a
            Gaussian that reaches into view turned round would look into the object.
    """
    if can_run(gaussians.means, gaussians.quats, gaussians.scales, camera_position):
        return facing_normals_native(gaussians, camera_position, default_library(), past_horizon)
    return facing_normals_torch(gaussians, camera_position, past_horizon)


def facing_normals_torch(
    gaussians: Gaussians, camera_position: Float[Tensor, " 3"], past_horizon: float = 0.0
) -> Float[Tensor, "n 3"]:
    """`facing_normals` in plain torch: any device and floating dtype, the reference."""
    axes = normal_axes(gaussians)
    with torch.no_grad():
        sight = camera_position - gaussians.means
        towards = (sight * axes).sum(-1, keepdim=True)
        looks_away = towards < -past_horizon * sight.norm(dim=-1, keepdim=True)
    return torch.where(looks_away, -axes, axes)


def facing_normals_native(
    gaussians: Gaussians,
    camera_position: Float[Tensor, " 3"],
    library: NativeLibrary,
    past_horizon: float = 0.0,
) -> Float[Tensor, "n 3"]:
    """`facing_normals` in the native library: float32 on the CPU."""
    scales = None if gaussians.primitive == "surfel" else gaussians.scales.detach()
    means, position = gaussians.means.detach(), camera_position.detach()
    return _FacingNormals.apply(gaussians.quats, scales, means, position, past_horizon, library)


def normal_axes(gaussians: Gaussians) -> Float[Tensor, "n 3"]:
    """Unit world normals with the sign that the axes happen to have.

    Args:
        gaussians: Geometry.
    """
    rotations = rotation_from_quat(gaussians.quats)
    index = normal_axis_indices(gaussians)
    return torch.take_along_dim(rotations, index[:, None, None], -1)[..., 0]


def normal_axis_indices(gaussians: Gaussians) -> Int[Tensor, " n"]:
    """Which of its own axes is each Gaussian's normal: the third of a surfel, else the shortest."""
    if gaussians.primitive == "surfel":
        return torch.full_like(gaussians.opacities, 2, dtype=torch.long)
    return gaussians.scales.detach().argmin(-1)


class _FacingNormals(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        quats: Tensor,
        scales: Tensor | None,
        means: Tensor,
        camera_position: Tensor,
        past_horizon: float,
        library: NativeLibrary,
    ) -> Tensor:
        quats, means, position = (x.contiguous() for x in (quats, means, camera_position))
        scales = None if scales is None else scales.contiguous()
        normals = torch.empty_like(means)
        sizes = (num_threads(), len(quats))
        library.call(
            "splatir_facing_normals_forward",
            *(*sizes, quats, scales, means, position, past_horizon, normals),
        )
        ctx.save_for_backward(quats, scales, normals)
        ctx.sizes, ctx.library = sizes, library
        return normals

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, v_normals: Tensor
    ) -> tuple[Tensor | None, ...]:
        quats, scales, normals = ctx.saved_tensors
        v_quats = torch.empty_like(quats)
        ctx.library.call(
            "splatir_facing_normals_backward",
            *(*ctx.sizes, quats, scales, normals, v_normals.contiguous(), v_quats),
        )
        return v_quats, None, None, None, None, None
