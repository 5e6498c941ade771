"""How the native library composites ellipsoids, and the gradient of that."""

import weakref
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from splatir.native.library import NativeLibrary
from splatir.raster.contract import RasterOptions, RasterOutput, ScreenSpace
from splatir.raster.native_projection import ProjectedEllipsoids, project_ellipsoids
from splatir.raster.native_state import (
    CompositingCall,
    KernelState,
    background_gradient,
    contiguous,
    publish_absgrad,
)
from splatir.scene.camera import Camera
from splatir.scene.gaussians import Gaussians


def rasterize_ellipsoids(
    gaussians: Gaussians,
    camera: Camera,
    features: Float[Tensor, "n channels"],
    background: Float[Tensor, " channels"] | None,
    options: RasterOptions,
    library: NativeLibrary,
) -> RasterOutput:
    """Project and composite ellipsoids; inputs are checked by the caller.

    Args:
        gaussians: Geometry, world frame.
        camera: View.
        features: Any number of channels per Gaussian.
        background: Composited behind everything.
        options: Outputs wanted and culling.
        library: Build of the kernels.
    """
    projected = project_ellipsoids(
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        camera,
        options,
        library,
    )
    if torch.is_grad_enabled() and projected.means2d.requires_grad:
        projected.means2d.retain_grad()
    opacities = gaussians.opacities
    if projected.compensations is not None:
        opacities = opacities * projected.compensations
    size = (camera.width, camera.height)
    return composite_ellipsoids(projected, opacities, features, background, size, options, library)


def composite_ellipsoids(
    projected: ProjectedEllipsoids,
    opacities: Float[Tensor, " n"],
    features: Float[Tensor, "n channels"],
    background: Float[Tensor, " channels"] | None,
    size: tuple[int, int],
    options: RasterOptions,
    library: NativeLibrary,
) -> RasterOutput:
    """Composite projected ellipsoids front to back.

    Differentiable in means2d, factors and depths of `projected`, in opacities, features and
    background. Absolute gradients appear as `absgrad` on `projected.means2d`.

    Args:
        projected: Footprints.
        opacities: Peak alpha, already compensated if antialiased.
        features: Any number of channels per Gaussian.
        background: Composited behind everything.
        size: Image width and height.
        options: Which outputs are wanted.
        library: Build of the kernels.
    """
    image, alpha, depth, median = _EllipsoidCompositing.apply(
        projected.means2d,
        projected.factors,
        opacities,
        projected.depths,
        features,
        background,
        CompositingCall(library, projected.radii, projected.means2d, size, options),
    )
    screen = ScreenSpace(projected.means2d, projected.radii, projected.means2d)
    return RasterOutput(image, alpha, depth, median, None, None, screen)


class _EllipsoidCompositing(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means2d: Tensor,
        factors: Tensor,
        opacities: Tensor,
        depths: Tensor,
        features: Tensor,
        background: Tensor | None,
        call: CompositingCall,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        width, height = call.size
        image = features.new_empty(height, width, features.shape[1])
        alpha = features.new_empty(height, width, 1)
        depth = torch.empty_like(alpha) if call.options.depth else None
        median = torch.empty_like(alpha) if call.options.median_depth else None
        transmittance = torch.empty_like(alpha) if ctx.needs_input_grad[5] else None
        features, depths, background = contiguous(features, depths, background)
        ctx.state = KernelState(
            *(call.library, "ellipsoids", features.shape, call.size),
            *contiguous(means2d, factors, opacities, depths, call.radii),
            *(features, background, image, alpha, depth, median, transmittance),
        )
        ctx.save_for_backward(depths, features, background, transmittance)
        ctx.options, ctx.size = call.options, call.size
        # Not the probe itself: it owns the graph that owns this.
        ctx.probe = weakref.ref(call.probe)
        ctx.set_materialize_grads(False)
        return image, alpha, depth, median

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        depths, features, background, transmittance = ctx.saved_tensors
        n = features.shape[0]
        v_image, *v_others = contiguous(*grad_outputs)
        v_background = background_gradient(v_image, transmittance)
        if not any(ctx.needs_input_grad[:4]):
            v_features = ctx.state.feature_gradient(v_image) if ctx.needs_input_grad[4] else None
            return None, None, None, None, v_features, v_background, None
        if v_image is None:
            v_image = features.new_zeros(*reversed(ctx.size), features.shape[1])
        v_means2d, v_factors = features.new_empty(n, 2), features.new_empty(n, 3)
        v_opacities, v_features = features.new_empty(n), torch.empty_like(features)
        has_depth = any(v is not None for v in v_others[1:])
        v_depths = features.new_empty(n) if has_depth else None
        absgrad = torch.empty_like(v_means2d) if ctx.options.absgrad else None
        ctx.state.backward(
            *(depths, features, background, v_image, *v_others),
            *(ctx.options.detached_features, v_means2d, absgrad, v_factors),
            *(v_opacities, v_features, v_depths),
        )
        publish_absgrad(ctx.probe, absgrad)
        return v_means2d, v_factors, v_opacities, v_depths, v_features, v_background, None
