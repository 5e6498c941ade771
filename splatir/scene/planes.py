"""Where do the planes of Gaussians meet the rays through the pixels?"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from splatir.maths.frames import transform_points
from splatir.native.library import NativeLibrary, can_run, num_threads
from splatir.native.library import library as default_library
from splatir.scene.camera import Camera

# Tangent of the steepest plane towards the line of sight: 45 degrees. Steeper ones run away from
# the surface within the splat's own footprint.
_MAX_SLOPE = 1.0
_MIN_COSINE = 1e-3
# A Gaussian this close to the camera, scene units, is seen by nobody.
_MIN_DISTANCE = 1e-9


def inverse_depth_planes(
    means: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], camera: Camera
) -> Float[Tensor, "n 3"]:
    """Planes as m with 1 / z = m . (x, y, 1) at the camera ray through (x, y, 1).

    A plane n . p = n . c in the camera frame meets the ray at 1 / z = n . (x, y, 1) / (n . c), so
    sums of w m are sums of w / z at every pixel. Planes seen at a grazing angle are turned about
    their centre until they face the camera at 45 degrees. Differentiable in the means; normals and
    camera count as constants. Native for float32 on the CPU where the library is built, else torch.

    Args:
        means: Points of the planes, in front of the camera, world frame.
        normals: Unit, world frame; either sign.
        camera: View.

    Returns:
        Planes in the camera frame, per scene unit.
    """
    T = camera.T_camera_world.detach().to(means)
    if can_run(means, normals):
        return inverse_depth_planes_native(means, normals, T, default_library())
    return inverse_depth_planes_torch(means, normals, T)


def inverse_depth_planes_torch(
    means: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], T: Float[Tensor, "4 4"]
) -> Float[Tensor, "n 3"]:
    """`inverse_depth_planes` in plain torch, given T_camera_world: the reference."""
    centres = transform_points(T, means)
    distances = centres.norm(dim=-1, keepdim=True).clamp_min(_MIN_DISTANCE)
    sight = centres / distances
    normals = normals.detach() @ T[:3, :3].mT
    cosines = (normals * sight).sum(-1, keepdim=True)
    signs = torch.where(cosines < 0.0, -1.0, 1.0)
    slopes = (normals - cosines * sight) * signs / cosines.abs().clamp_min(_MIN_COSINE)
    steepness = slopes.norm(dim=-1, keepdim=True)
    slopes = slopes * (_MAX_SLOPE / steepness.clamp_min(_MAX_SLOPE))
    return (sight + slopes) / distances


def inverse_depth_planes_native(
    means: Float[Tensor, "n 3"],
    normals: Float[Tensor, "n 3"],
    T: Float[Tensor, "4 4"],
    library: NativeLibrary,
) -> Float[Tensor, "n 3"]:
    """`inverse_depth_planes` in the native library, given T_camera_world: float32 on the CPU."""
    return _InverseDepthPlanes.apply(means, normals.detach(), T, library)


class _InverseDepthPlanes(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, means: Tensor, normals: Tensor, T: Tensor, library: NativeLibrary
    ) -> Tensor:
        inputs = tuple(x.contiguous() for x in (means, normals, T))
        planes = torch.empty_like(means)
        sizes = (num_threads(), len(means))
        library.call("splatir_inverse_depth_planes_forward", *sizes, *inputs, planes)
        ctx.save_for_backward(*inputs)
        ctx.sizes, ctx.library = sizes, library
        return planes

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, v_planes: Tensor
    ) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        v_means = torch.empty_like(inputs[0])
        ctx.library.call(
            "splatir_inverse_depth_planes_backward",
            *(*ctx.sizes, *inputs, v_planes.contiguous(), v_means),
        )
        return v_means, None, None, None
