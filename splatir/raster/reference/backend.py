"""The reference backend: the contract in plain torch, differentiated by autograd."""

import weakref

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.raster.contract import RasterOptions, RasterOutput, ScreenSpace
from splatir.raster.reference.compositing import (
    Composite,
    composite_ellipsoids,
    composite_surfels,
)
from splatir.raster.reference.projection import project_ellipsoids
from splatir.raster.reference.surfel_projection import ProjectedSurfels, project_surfels
from splatir.raster.validation import check_inputs
from splatir.scene.camera import Camera
from splatir.scene.gaussians import Gaussians


class ReferenceBackend:
    """Dense compositing in torch: any floating dtype and any device, slow, small in memory."""

    name = "reference"

    def rasterize(
        self,
        gaussians: Gaussians,
        camera: Camera,
        features: Float[Tensor, "n channels"],
        background: Float[Tensor, " channels"] | None = None,
        options: RasterOptions = RasterOptions(),
    ) -> RasterOutput:
        """Composite `features` front to back; see `RasterBackend.rasterize`.

        Args:
            gaussians: Geometry, world frame.
            camera: View; converted to the dtype and device of the Gaussians.
            features: Any number of channels per Gaussian, also none.
            background: Composited behind everything, features only.
            options: Outputs wanted and culling. Median depth exists for both primitives.

        Raises:
            ValueError: Shapes, dtypes or devices disagree, or the primitive lacks an output.
        """
        check_inputs(gaussians, features, background, options)
        camera = camera.to(gaussians.means.device, gaussians.means.dtype)
        rasterize = _rasterize_surfels if gaussians.primitive == "surfel" else _rasterize_ellipsoids
        composite, normals, screen = rasterize(gaussians, camera, features, options)
        transmittance = composite.transmittance[..., None]
        attached = features.shape[1] - options.detached_features
        values = composite.values
        first_detached = values.shape[-1] - options.detached_features
        image = torch.cat([values[..., :attached], values[..., first_detached:]], -1)
        if background is not None:
            behind = transmittance * background[:attached]
            detached_behind = transmittance.detach() * background[attached:]
            image = image + torch.cat([behind, detached_behind], -1)
        return RasterOutput(
            features=image,
            alpha=1 - transmittance,
            depth=values[..., attached : attached + 1] if _has_depth(options) else None,
            median_depth=composite.median_depth[..., None] if options.median_depth else None,
            normals=normals,
            distortion=composite.distortion[..., None] if options.distortion else None,
            screen=screen,
        )


def _has_depth(options: RasterOptions) -> bool:
    return options.depth or options.distortion


def _values(features: Tensor, others: list[Tensor], options: RasterOptions) -> Tensor:
    """Channels to composite: features, others, and last the detached features."""
    attached = features.shape[1] - options.detached_features
    return torch.cat([features[:, :attached], *others, features[:, attached:]], -1)


def _rasterize_ellipsoids(
    gaussians: Gaussians, camera: Camera, features: Tensor, options: RasterOptions
) -> tuple[Composite, None, ScreenSpace]:
    """Composite features and, if wanted, depth; the probe is the projected centre itself."""
    projected = project_ellipsoids(gaussians, camera, options)
    probe = projected.means2d
    wants_gradient = torch.is_grad_enabled() and probe.requires_grad
    if wants_gradient:
        probe.retain_grad()
    absolute = _absolute_gradient(probe) if wants_gradient and options.absgrad else None
    opacities = gaussians.opacities
    if options.antialiased:
        opacities = opacities * projected.compensations
    depths = [projected.depths[:, None]] if _has_depth(options) else []
    size = (camera.width, camera.height)
    composite = composite_ellipsoids(
        projected, opacities, _values(features, depths, options), size, options, absolute
    )
    return composite, None, ScreenSpace(probe, projected.radii, probe)


def _rasterize_surfels(
    gaussians: Gaussians, camera: Camera, features: Tensor, options: RasterOptions
) -> tuple[Composite, Tensor | None, ScreenSpace]:
    """Composite features and, if wanted, depth and normals.

    The probe's gradient is z (dL/dT_02, dL/dT_12) with T the ray transform and z the depth of the
    centre, as T_02 = z * (x of the projected centre). It leaves out what reaches the centre through
    the low-pass, as gsplat 1.5.3 does.
    """
    projected = project_surfels(gaussians, camera, options)
    probe = torch.zeros_like(projected.means2d, requires_grad=False)
    wants_gradient = torch.is_grad_enabled() and projected.means2d.requires_grad
    absolute = None
    if wants_gradient:
        probe.requires_grad_()
        depths = projected.depths.detach()
        if options.absgrad:
            absolute = _absolute_gradient(probe, depths)
        shift = torch.nn.functional.pad((probe * depths[:, None])[..., None], (2, 0, 0, 1))
        projected = ProjectedSurfels(
            projected.means2d,
            projected.depths,
            projected.ray_transforms + shift,
            projected.normals,
            projected.radii,
        )
    others = [projected.depths[:, None]] if _has_depth(options) else []
    if options.normals:
        others.append(projected.normals)
    values = _values(features, others, options)
    size = (camera.width, camera.height)
    composite = composite_surfels(projected, gaussians.opacities, values, size, options, absolute)
    normals = None
    if options.normals:
        end = values.shape[1] - options.detached_features
        normals = composite.values[..., end - 3 : end] @ camera.T_camera_world[:3, :3]
    return composite, normals, ScreenSpace(projected.means2d, projected.radii, probe)


def _absolute_gradient(
    probe: Tensor, scales: Float[Tensor, " n"] | None = None
) -> Float[Tensor, "n 2"]:
    """A leaf that collects absolute gradients and hands them to `probe.absgrad` after backward."""
    absolute = torch.zeros_like(probe, requires_grad=True)
    # The hook must not own the probe: the graph owns the hook, and the probe may own the graph.
    owner = weakref.ref(probe)

    def publish(collected: Tensor) -> None:
        target = owner()
        if target is not None and collected.grad is not None:
            factor = 1.0 if scales is None else scales[:, None]
            target.absgrad = collected.grad * factor  # pyright: ignore[reportAttributeAccessIssue]

    absolute.register_post_accumulate_grad_hook(publish)
    return absolute
