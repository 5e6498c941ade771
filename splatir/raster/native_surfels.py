"""How the native library composites surfels, and the gradient of that."""

import weakref
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from splatir.native.library import NativeLibrary
from splatir.raster.contract import RasterOptions, RasterOutput, ScreenSpace
from splatir.raster.native_projection import ProjectedSurfels, project_surfels
from splatir.raster.native_state import (
    CompositingCall,
    KernelState,
    background_gradient,
    contiguous,
    publish_absgrad,
)
from splatir.scene.camera import Camera
from splatir.scene.gaussians import Gaussians


def rasterize_surfels(
    gaussians: Gaussians,
    camera: Camera,
    features: Float[Tensor, "n channels"],
    background: Float[Tensor, " channels"] | None,
    options: RasterOptions,
    library: NativeLibrary,
) -> RasterOutput:
    """Project and composite surfels; inputs are checked by the caller.

    Args:
        gaussians: Geometry, world frame.
        camera: View.
        features: Any number of channels per Gaussian.
        background: Composited behind everything.
        options: Outputs wanted and culling.
        library: Build of the kernels.

    Raises:
        MemoryError: The lists of surfels per tile do not fit.
    """
    projected = project_surfels(
        gaussians.means, gaussians.quats, gaussians.scales, camera, options, library
    )
    size = (camera.width, camera.height)
    return composite_surfels(
        projected, gaussians.opacities, features, background, size, options, library
    )


def composite_surfels(
    projected: ProjectedSurfels,
    opacities: Float[Tensor, " n"],
    features: Float[Tensor, "n channels"],
    background: Float[Tensor, " channels"] | None,
    size: tuple[int, int],
    options: RasterOptions,
    library: NativeLibrary,
) -> RasterOutput:
    """Composite projected surfels front to back (2DGS, Huang et al. 2024; gsplat's semantics).

    Differentiable in all of `projected` but the radii, in opacities, features and background. The
    gradient of the probe is camera z times dL/d(T_02, T_12) of the ray transform T, as in gsplat's
    `gradient_2dgs`; `absgrad` on it sums absolute values of that over pixels.

    Args:
        projected: Footprints.
        opacities: Peak alpha.
        features: Any number of channels per surfel.
        background: Composited behind everything.
        size: Image width and height.
        options: Which outputs are wanted.
        library: Build of the kernels.

    Raises:
        MemoryError: The lists of surfels per tile do not fit.
    """
    wants_gradient = torch.is_grad_enabled() and projected.means2d.requires_grad
    probe = torch.zeros_like(projected.means2d, requires_grad=wants_gradient)
    image, alpha, depth, median, normals, distortion = _SurfelCompositing.apply(
        projected.means2d,
        projected.ray_transforms.double(),
        projected.depths,
        projected.normals,
        opacities,
        features,
        background,
        probe,
        CompositingCall(library, projected.radii, probe, size, options),
    )
    screen = ScreenSpace(projected.means2d, projected.radii, probe)
    return RasterOutput(image, alpha, depth, median, normals, distortion, screen)


def _has_depth(options: RasterOptions) -> bool:
    return options.depth or options.distortion


class _SurfelCompositing(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means2d: Tensor,
        ray_transforms: Tensor,
        depths: Tensor,
        normals: Tensor,
        opacities: Tensor,
        features: Tensor,
        background: Tensor | None,
        probe: Tensor,
        call: CompositingCall,
    ) -> tuple[Tensor | None, ...]:
        width, height = call.size
        options = call.options

        def image(wanted: bool, channels: int = 1) -> Tensor | None:
            return features.new_empty(height, width, channels) if wanted else None

        # In the order of `RasterOutput`.
        images = (
            *(image(True, features.shape[1]), image(True), image(_has_depth(options))),
            *(image(options.median_depth), image(options.normals, 3), image(options.distortion)),
        )
        transmittance = image(ctx.needs_input_grad[6])
        means2d, ray_transforms, opacities, background = contiguous(
            means2d, ray_transforms, opacities, background
        )
        ctx.state = KernelState(
            *(call.library, "surfels", features.shape, call.size, means2d, ray_transforms),
            *contiguous(depths, normals if options.normals else None, call.radii.int()),
            *(opacities, *contiguous(features), background, *images, transmittance),
        )
        ctx.save_for_backward(means2d, ray_transforms, opacities, background, transmittance)
        ctx.options, ctx.channels = options, features.shape[1]
        # Not the probe itself: the graph must not keep its result alive.
        ctx.probe = weakref.ref(call.probe)
        ctx.set_materialize_grads(False)
        return images

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        means2d, ray_transforms, opacities, background, transmittance = ctx.saved_tensors
        v_images = contiguous(*grad_outputs)
        v_background = background_gradient(v_images[0], transmittance)
        needs = ctx.needs_input_grad
        if not any((*needs[:5], needs[7])):
            v_features = ctx.state.feature_gradient(v_images[0]) if needs[5] else None
            return None, None, None, None, None, v_features, v_background, None, None
        options, n = ctx.options, opacities.shape[0]
        surfels = (means2d, ray_transforms, opacities)
        v_means2d, v_rays, v_opacities = (torch.empty_like(tensor) for tensor in surfels)
        v_depths, v_features = means2d.new_empty(n), means2d.new_empty(n, ctx.channels)
        v_normals = means2d.new_empty(n, 3) if options.normals else None
        v_probe = torch.empty_like(means2d) if needs[7] else None
        absgrad = torch.empty_like(means2d) if options.absgrad else None
        ctx.state.backward(
            *(*surfels, background, *v_images, options.detached_features),
            *(v_means2d, v_rays, v_depths, v_normals, v_opacities, v_features, v_probe, absgrad),
        )
        publish_absgrad(ctx.probe, absgrad)
        return (
            *(v_means2d, v_rays, v_depths, v_normals, v_opacities, v_features),
            *(v_background, v_probe, None),
        )
