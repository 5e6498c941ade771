"""How far are composited normals from the normals of the composited depth?"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from splatir.native.library import NativeLibrary, can_run, num_threads
from splatir.native.library import library as default_library
from splatir.render.geometry import normals_from_depth
from splatir.scene.camera import Camera

# Depth differences across a silhouette are no surface: normals are compared above this alpha.
SOLID_ALPHA = 0.9
_MIN_ALPHA = 1e-10


def normal_consistency(
    alpha: Float[Tensor, "height width 1"],
    depth: Float[Tensor, "height width 1"],
    normals: Float[Tensor, "height width 3"],
    camera: Camera,
    weight: float = 1.0,
) -> Float[Tensor, ""]:
    """weight * mean over pixels of alpha - (sum w n) . n_depth, Huang et al. 2024, eq. 14.

    Only pixels whose four neighbours are solid count, the others as 0: their differences would
    compare the surface with the jump to what lies behind. Differentiable in depth and normals, not
    in alpha. Native for float32 on the CPU where the library is built, else torch.

    Args:
        alpha: Coverage sum w, in [0, 1].
        depth: Composited camera z, sum w z, scene units.
        normals: Composited normals, sum w n, world frame, facing the camera.
        camera: View, a constant.
        weight: Of the term. Here rather than outside, it costs no pass over the gradients.

    Raises:
        ValueError: The images differ in size from each other or from the camera, or are empty.
    """
    matrices = (camera.K, camera.T_camera_world)
    is_on_cpu = all(matrix.device.type == "cpu" for matrix in matrices)
    if is_on_cpu and can_run(alpha, depth, normals):
        return normal_consistency_native(alpha, depth, normals, camera, weight)
    return normal_consistency_torch(alpha, depth, normals, camera, weight)


def normal_consistency_torch(
    alpha: Float[Tensor, "height width 1"],
    depth: Float[Tensor, "height width 1"],
    normals: Float[Tensor, "height width 3"],
    camera: Camera,
    weight: float = 1.0,
) -> Float[Tensor, ""]:
    """`normal_consistency` in plain torch: any device and floating dtype, the reference."""
    _check_sizes(alpha, depth, normals, camera)
    alpha = alpha.detach()
    from_depth = normals_from_depth(depth / alpha.clamp_min(_MIN_ALPHA), camera)
    solid = _cross_minimum(alpha[..., 0]) > SOLID_ALPHA
    error = alpha[..., 0] - (normals * from_depth).sum(-1)
    return weight * torch.where(solid, error, torch.zeros_like(error)).mean()


def normal_consistency_native(
    alpha: Float[Tensor, "height width 1"],
    depth: Float[Tensor, "height width 1"],
    normals: Float[Tensor, "height width 3"],
    camera: Camera,
    weight: float = 1.0,
    library: NativeLibrary | None = None,
) -> Float[Tensor, ""]:
    """`normal_consistency` in the native library, value and gradients in one pass.

    Args:
        alpha: float32 on the CPU, like the other images and the camera.
        depth: As there.
        normals: As there.
        camera: As there.
        weight: As there.
        library: Build of the kernels; the best one by default.

    Raises:
        ValueError: As there.
        MemoryError: Scratch memory (twenty rows per thread) does not suffice.
    """
    _check_sizes(alpha, depth, normals, camera)
    wants_gradients = torch.is_grad_enabled() and (depth.requires_grad or normals.requires_grad)
    call = _Call(camera, float(weight), wants_gradients, library or default_library())
    return _NormalConsistency.apply(depth, normals, alpha.detach(), call)


@dataclass(frozen=True)
class _Call:
    camera: Camera
    weight: float
    wants_gradients: bool
    library: NativeLibrary


class _NormalConsistency(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        depth: Tensor,
        normals: Tensor,
        alpha: Tensor,
        call: _Call,
    ) -> Tensor:
        alpha, depth, normals = (image.contiguous() for image in (alpha, depth, normals))
        matrices = (call.camera.K, call.camera.T_camera_world)
        gradients = [torch.empty_like(x) for x in (depth, normals)] if call.wants_gradients else []
        mean = torch.empty(1, dtype=torch.float64)
        height, width, _ = alpha.shape
        done = call.library.call(
            "splatir_normal_consistency",
            *(num_threads(), height, width),
            *(matrix.detach().float().contiguous() for matrix in matrices),
            *(alpha, depth, normals, call.weight, mean),
            *(gradients or (None, None)),
        )
        if not done:
            raise MemoryError(f"not enough memory to compare normals of {width} x {height}.")
        ctx.gradients = gradients
        return torch.tensor(call.weight * mean.item())

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, v: Tensor
    ) -> tuple[Tensor | None, ...]:
        v_depth, v_normals = ctx.gradients
        # A loss is mostly summed as it is; then a pass over the images is saved.
        if v.item() != 1.0:
            v_depth, v_normals = v_depth * v, v_normals * v
        return v_depth, v_normals, None, None


def _check_sizes(alpha: Tensor, depth: Tensor, normals: Tensor, camera: Camera) -> None:
    sizes = [tuple(image.shape[:2]) for image in (alpha, depth, normals)]
    if set(sizes) != {(camera.height, camera.width)} or alpha.numel() == 0:
        raise ValueError(
            f"alpha, depth and normals must have the camera's size, {camera.height} x "
            f"{camera.width} and not empty, got {sizes}."
        )


def _cross_minimum(image: Float[Tensor, "height width"]) -> Float[Tensor, "height width"]:
    """Smallest value among each pixel's four neighbours; 0 on the border."""
    neighbours = [image[1:-1, 2:], image[1:-1, :-2], image[2:, 1:-1], image[:-2, 1:-1]]
    minimum = torch.zeros_like(image)
    minimum[1:-1, 1:-1] = torch.stack(neighbours).amin(0)
    return minimum
