"""How the native library projects splats, and the gradient of that."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from splatir.native.library import NativeLibrary, num_threads
from splatir.native.library import library as default_library
from splatir.raster.contract import MIN_ALPHA, RasterOptions
from splatir.raster.native_state import contiguous
from splatir.scene.camera import Camera


@dataclass(frozen=True)
class ProjectedEllipsoids:
    """Image footprints of ellipsoids. Rows of culled splats are zero.

    Attributes:
        means2d: Projected centres, pixels.
        depths: Camera z of the centres, scene units.
        factors: Factors (along, slope, across) of the inverse of the blurred image covariance, the
            conic: d.T @ conic @ d = along (dx + slope dy)^2 + across dy^2. Per square pixel, slope
            without unit. Unlike the conic's entries they hold a needle's length in float32.
        compensations: sqrt(det(cov) / det(cov + blur)), which the opacity is to be multiplied by;
            None unless antialiased.
        radii: Half extents of the rectangle that holds every alpha >= 1/255, pixels; (0, 0) for
            culled splats.
    """

    means2d: Float[Tensor, "n 2"]
    depths: Float[Tensor, " n"]
    factors: Float[Tensor, "n 3"]
    compensations: Float[Tensor, " n"] | None
    radii: Int[Tensor, "n 2"]

    @property
    def conics(self) -> Float[Tensor, "n 3"]:
        """Inverse of the blurred image covariance as (xx, xy, yy), per square pixel."""
        along, slope, across = self.factors.unbind(-1)
        return torch.stack([along, along * slope, along * slope * slope + across], -1)


@dataclass(frozen=True)
class ProjectedSurfels:
    """Image footprints of surfels. Rows of culled splats are zero.

    Attributes:
        means2d: Centres of the one-sigma ellipse's bounding box, pixels; not the projected centre.
        depths: Camera z of the centres, scene units.
        ray_transforms: T with (x z, y z, z) = T @ (u, v, 1) for the surfel point at u, v standard
            deviations along its axes, seen at pixel (x, y) and camera depth z. In float64: hits of
            a surfel seen at a grazing angle are small differences of its entries.
        normals: Unit, world frame, facing the camera.
        radii: Half extents of the rectangle in pixels; (0, 0) for culled splats.
    """

    means2d: Float[Tensor, "n 2"]
    depths: Float[Tensor, " n"]
    ray_transforms: Float[Tensor, "n 3 3"]
    normals: Float[Tensor, "n 3"]
    radii: Int[Tensor, "n 2"]


def project_ellipsoids(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    camera: Camera,
    options: RasterOptions = RasterOptions(),
    library: NativeLibrary | None = None,
) -> ProjectedEllipsoids:
    """Project ellipsoids by linearising the perspective map at their centres (Zwicker et al. 2001).

    Differentiable in means, quats and scales. Opacities only decide radii and culling, which have
    no gradient. The determinant of the image covariance is taken as the squared length of a cross
    product, so needles keep a positive one in float32.

    Args:
        means: Centres, world frame, scene units; float32 on the CPU like all splat tensors here.
        quats: wxyz, any non-zero length.
        scales: Standard deviations along the own axes, scene units.
        opacities: Peak alpha in [0, 1].
        camera: View.
        options: Culling, and whether compensations are wanted.
        library: Build of the kernels; the best one by default.

    Raises:
        ValueError: A tensor is not float32 or not on the CPU.
    """
    _check(means=means, quats=quats, scales=scales, opacities=opacities)
    means2d, depths, factors, compensations, radii = _EllipsoidProjection.apply(
        means, quats, scales, opacities.detach(), camera, options, library or default_library()
    )
    return ProjectedEllipsoids(means2d, depths, factors, compensations, radii)


def project_surfels(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    camera: Camera,
    options: RasterOptions = RasterOptions(),
    library: NativeLibrary | None = None,
) -> ProjectedSurfels:
    """Project surfels exactly under perspective (2DGS, Huang et al. 2024, eqs. 7 to 9).

    Differentiable in means, quats and the first two scales.

    Args:
        means: Centres, world frame, scene units; float32 on the CPU like all splat tensors here.
        quats: wxyz, any non-zero length.
        scales: Standard deviations along the own axes, scene units; the third is ignored.
        camera: View.
        options: Culling.
        library: Build of the kernels; the best one by default.

    Raises:
        ValueError: A tensor is not float32 or not on the CPU.
    """
    _check(means=means, quats=quats, scales=scales)
    return ProjectedSurfels(
        *_SurfelProjection.apply(
            means, quats, scales, camera, options, library or default_library()
        )
    )


def _check(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise ValueError(
                f"native projection takes float32 tensors on the CPU, got {name} of "
                f"{tensor.dtype} on {tensor.device}. Use the reference backend for others."
            )


def _view(camera: Camera) -> tuple[Tensor, Tensor, int, int]:
    T_camera_world = camera.T_camera_world.detach().to("cpu", torch.float32).contiguous()
    K = camera.K.detach().to("cpu", torch.float32).contiguous()
    return T_camera_world, K, camera.width, camera.height


def _splat_gradients(ctx: Any, kernel: str, *args: Tensor | float | None) -> list[Tensor]:
    """Gradients of means, quats and scales; `args` are the kernel's after the view."""
    means, quats, scales, _ = ctx.saved_tensors
    gradients = [torch.empty_like(tensor) for tensor in (means, quats, scales)]
    n = means.shape[0]
    ctx.library.call(kernel, num_threads(), n, means, quats, scales, *ctx.view, *args, *gradients)
    return gradients


class _EllipsoidProjection(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        camera: Camera,
        options: RasterOptions,
        library: NativeLibrary,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
        n = means.shape[0]
        means2d, depths, factors = means.new_empty(n, 2), means.new_empty(n), means.new_empty(n, 3)
        compensations = means.new_empty(n) if options.antialiased else None
        radii = torch.empty(n, 2, dtype=torch.int32)
        splats = contiguous(means, quats, scales)
        view = _view(camera)
        library.call(
            "splatir_project_ellipsoids_forward",
            *(num_threads(), n, *splats, opacities.contiguous(), *view),
            *(float(options.near), float(options.far), float(options.radius_clip)),
            *(MIN_ALPHA, options.blur, means2d, depths, factors, compensations, radii),
        )
        ctx.save_for_backward(*splats, radii)
        ctx.view, ctx.library, ctx.blur = view, library, options.blur
        ctx.mark_non_differentiable(radii)
        return means2d, depths, factors, compensations, radii

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        v_means2d: Tensor,
        v_depths: Tensor,
        v_factors: Tensor,
        v_compensations: Tensor | None,
        _: Tensor,
    ) -> tuple[Tensor | None, ...]:
        gradients = _splat_gradients(
            *(ctx, "splatir_project_ellipsoids_backward", ctx.blur, ctx.saved_tensors[-1]),
            *contiguous(v_means2d, v_depths, v_factors, v_compensations),
        )
        return *gradients, None, None, None, None


class _SurfelProjection(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        camera: Camera,
        options: RasterOptions,
        library: NativeLibrary,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        n = means.shape[0]
        means2d, depths = means.new_empty(n, 2), means.new_empty(n)
        ray_transforms = means.new_empty(n, 3, 3, dtype=torch.float64)
        normals = means.new_empty(n, 3)
        radii = torch.empty(n, 2, dtype=torch.int32)
        splats = contiguous(means, quats, scales)
        view = _view(camera)
        library.call(
            "splatir_project_surfels_forward",
            *(num_threads(), n, *splats, *view),
            *(float(options.near), float(options.far), float(options.radius_clip)),
            *(means2d, depths, ray_transforms, normals, radii),
        )
        ctx.save_for_backward(*splats, radii)
        ctx.view, ctx.library = view, library
        ctx.mark_non_differentiable(radii)
        return means2d, depths, ray_transforms, normals, radii

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        v_means2d: Tensor,
        v_depths: Tensor,
        v_ray_transforms: Tensor,
        v_normals: Tensor,
        _: Tensor,
    ) -> tuple[Tensor | None, ...]:
        gradients = _splat_gradients(
            *(ctx, "splatir_project_surfels_backward", ctx.saved_tensors[-1]),
            *contiguous(v_means2d, v_depths, v_ray_transforms.float(), v_normals),
        )
        return *gradients, None, None, None
