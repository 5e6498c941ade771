"""The gsplat backend: the contract on CUDA. The only file that calls gsplat's rasteriser.

Its kernels are called one by one rather than through `gsplat.rasterization`, which would sum the
absolute gradients of the last 32 channels only, places tensors on "cuda" whatever the device, pads
surfel channels with uninitialised memory and shifts the background of padded surfel channels.
"""

import math
import weakref
from dataclasses import dataclass
from types import ModuleType

import torch
from jaxtyping import Float, Int
from torch import Tensor

from splatir.raster.contract import RasterOptions, RasterOutput, ScreenSpace
from splatir.raster.validation import check_inputs
from splatir.scene.camera import Camera
from splatir.scene.gaussians import Gaussians

_TILE = 16
# Channels per pass: gsplat keeps them in registers and slows down beyond.
_CHANNELS = 32
# Channel counts the surfel kernels are compiled for, up to `_CHANNELS`.
_SURFEL_CHANNELS = (1, 2, 3, 4, 8, 16, 32)
# More channels do not fit the shared memory of any GPU; one pass is needed for absolute gradients.
_MAX_ABSGRAD_CHANNELS = 129


class GsplatBackend:
    """gsplat 1.5.3 on a CUDA device, float32."""

    name = "gsplat"

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
            gaussians: Geometry, world frame, float32 on a CUDA device.
            camera: View; moved to the device of the Gaussians.
            features: Any number of channels per Gaussian, also none.
            background: Composited behind everything, features only.
            options: Outputs wanted and culling.

        Raises:
            ValueError: Wrong shapes, dtypes or devices; an output the primitive lacks; median depth
                of ellipsoids or absolute gradients of surfels, which gsplat does not have.
            RuntimeError: There is no CUDA device.
        """
        check_inputs(gaussians, features, background, options)
        _check_supported(gaussians, features, options)
        gsplat = _load_gsplat(gaussians.means)
        camera = camera.to(gaussians.means.device, torch.float32)
        if gaussians.means.shape[0] == 0:
            # gsplat divides by the number of Gaussians.
            images, screen = _nothing(gaussians, camera, features, options)
        elif gaussians.primitive == "surfel":
            images, screen = _rasterize_surfels(gsplat, gaussians, camera, features, options)
        else:
            images, screen = _rasterize_ellipsoids(gsplat, gaussians, camera, features, options)
        attached = features.shape[1] - options.detached_features
        composited = torch.cat([images.values[..., :attached], images.detached], -1)
        if background is not None:
            behind = (1 - images.alpha) * background[:attached]
            detached_behind = (1 - images.alpha.detach()) * background[attached:]
            composited = composited + torch.cat([behind, detached_behind], -1)
        has_depth = options.depth or options.distortion
        return RasterOutput(
            features=composited,
            alpha=images.alpha,
            depth=images.values[..., attached : attached + 1] if has_depth else None,
            median_depth=images.median_depth if options.median_depth else None,
            normals=images.normals if options.normals else None,
            distortion=images.distortion if options.distortion else None,
            screen=screen,
        )


@dataclass(frozen=True)
class _Images:
    """What the kernels return for one view.

    Attributes:
        values: Features that are not detached, then depth if it was composited.
        detached: Detached features.
        alpha: Sum of weights.
        median_depth: Surfels only, as normals and distortion.
        normals: World frame.
    """

    values: Float[Tensor, "height width k"]
    detached: Float[Tensor, "height width d"]
    alpha: Float[Tensor, "height width 1"]
    median_depth: Float[Tensor, "height width 1"] | None = None
    normals: Float[Tensor, "height width 3"] | None = None
    distortion: Float[Tensor, "height width 1"] | None = None


@dataclass(frozen=True)
class _Tiles:
    """gsplat's sorted lists of splats per tile."""

    offsets: Int[Tensor, "1 rows columns"]
    splats: Int[Tensor, " entries"]


def _load_gsplat(means: Tensor) -> ModuleType:
    """Import gsplat if it can run on the device of `means`."""
    if means.device.type != "cuda":
        raise ValueError(
            f"the gsplat rasteriser needs Gaussians on a CUDA device, got {means.device}. "
            "Move the model, or use the cpu or reference rasteriser."
        )
    # Without a device but with nvcc, gsplat would try to compile itself at the first call.
    if not torch.cuda.is_available():
        raise RuntimeError("no CUDA device is available; use the cpu or reference rasteriser.")
    import gsplat

    return gsplat


def _check_supported(gaussians: Gaussians, features: Tensor, options: RasterOptions) -> None:
    if gaussians.means.dtype != torch.float32:
        raise ValueError(f"the gsplat rasteriser takes float32, got {gaussians.means.dtype}.")
    if gaussians.primitive == "ellipsoid" and options.median_depth:
        raise ValueError(
            "gsplat has no median depth for ellipsoids; use surfels, or the cpu or reference "
            "rasteriser."
        )
    if gaussians.primitive == "surfel" and options.absgrad:
        raise ValueError(
            "gsplat has no absolute gradients for surfels; use ellipsoids, or the cpu or reference "
            "rasteriser."
        )
    channels = features.shape[1] - options.detached_features + int(options.depth)
    if options.absgrad and channels > _MAX_ABSGRAD_CHANNELS:
        raise ValueError(
            f"absolute gradients take at most {_MAX_ABSGRAD_CHANNELS} channels, depth included, "
            f"got {channels}. Composite the features that densification does not need apart."
        )


def _nothing(
    gaussians: Gaussians, camera: Camera, features: Tensor, options: RasterOptions
) -> tuple[_Images, ScreenSpace]:
    """The empty images of no Gaussians."""
    size = (camera.height, camera.width)
    means2d = gaussians.means[:, :2]
    if torch.is_grad_enabled() and means2d.requires_grad:
        means2d.retain_grad()
    # Products with nothing tie the images to the inputs, so that backward works.
    nothing = torch.zeros(*size, 0, device=features.device)
    values, detached = _split(nothing @ features, options)
    depth = nothing @ (means2d[:, :1] + gaussians.opacities[:, None])
    radii = torch.zeros_like(means2d, dtype=torch.int32)
    values = torch.cat([values, depth], -1)
    images = _Images(values, detached, depth, depth, depth.expand(*size, 3), depth)
    return images, ScreenSpace(means2d, radii, means2d)


def _split(features: Tensor, options: RasterOptions) -> tuple[Tensor, Tensor]:
    """Channels that give gradients to the geometry, and detached ones."""
    attached = features.shape[-1] - options.detached_features
    return features[..., :attached], features[..., attached:]


def _tiles(
    gsplat: ModuleType, means2d: Tensor, radii: Tensor, depths: Tensor, camera: Camera
) -> _Tiles:
    """Sort splats by depth and list them per tile. All tensors have a leading view axis of 1."""
    columns, rows = math.ceil(camera.width / _TILE), math.ceil(camera.height / _TILE)
    _, keys, splats = gsplat.isect_tiles(
        means2d=means2d,
        radii=radii,
        depths=depths,
        tile_size=_TILE,
        tile_width=columns,
        tile_height=rows,
        packed=False,
        n_images=1,
    )
    offsets = gsplat.isect_offset_encode(
        isect_ids=keys, n_images=1, tile_width=columns, tile_height=rows
    )
    return _Tiles(offsets.reshape(1, rows, columns), splats)


def _rasterize_ellipsoids(
    gsplat: ModuleType,
    gaussians: Gaussians,
    camera: Camera,
    features: Tensor,
    options: RasterOptions,
) -> tuple[_Images, ScreenSpace]:
    radii, means2d, depths, conics, compensations = gsplat.fully_fused_projection(
        means=gaussians.means,
        covars=None,
        quats=gaussians.quats,
        scales=gaussians.scales,
        viewmats=camera.T_camera_world[None],
        Ks=camera.K[None],
        width=camera.width,
        height=camera.height,
        eps2d=options.blur,
        near_plane=options.near,
        far_plane=options.far,
        radius_clip=options.radius_clip,
        packed=False,
        calc_compensations=options.antialiased,
        opacities=gaussians.opacities,
    )
    opacities = gaussians.opacities[None]
    if options.antialiased:
        opacities = opacities * compensations
    probe = means2d[0]
    means2d = _watched(probe, options.absgrad)
    tiles = _tiles(gsplat, means2d, radii, depths, camera)
    features, detached = _split(features[None], options)
    values = torch.cat([features, depths[..., None]], -1) if options.depth else features
    splats = _Ellipsoids(means2d, conics, opacities)
    image, alpha = _composite_ellipsoids(gsplat, splats, values, tiles, camera, options.absgrad)
    detached_image = image[..., :0]
    if options.detached_features:
        constant = _Ellipsoids(means2d.detach(), conics.detach(), opacities.detach())
        detached_image, _ = _composite_ellipsoids(gsplat, constant, detached, tiles, camera, False)
    return _Images(image, detached_image, alpha), ScreenSpace(probe, radii[0], probe)


@dataclass(frozen=True)
class _Ellipsoids:
    """Projected ellipsoids with a view axis."""

    means2d: Float[Tensor, "1 n 2"]
    conics: Float[Tensor, "1 n 3"]
    opacities: Float[Tensor, "1 n"]


def _composite_ellipsoids(
    gsplat: ModuleType,
    splats: _Ellipsoids,
    values: Float[Tensor, "1 n k"],
    tiles: _Tiles,
    camera: Camera,
    absgrad: bool,
) -> tuple[Float[Tensor, "height width _"], Float[Tensor, "height width 1"]]:
    """Images of `values`, of one channel if there is none, and alpha."""
    parts, alpha = [], None
    limit = _MAX_ABSGRAD_CHANNELS if absgrad else _CHANNELS
    for chunk in _at_least_one_channel(values).split(limit, -1):
        image, alpha = gsplat.rasterize_to_pixels(
            means2d=splats.means2d,
            conics=splats.conics,
            colors=chunk,
            opacities=splats.opacities,
            image_width=camera.width,
            image_height=camera.height,
            tile_size=_TILE,
            isect_offsets=tiles.offsets,
            flatten_ids=tiles.splats,
            packed=False,
            absgrad=absgrad,
        )
        parts.append(image[0])
    assert alpha is not None, "there is at least one channel"
    return torch.cat(parts, -1), alpha[0]


def _watched(probe: Float[Tensor, "n 2"], absgrad: bool) -> Float[Tensor, "1 n 2"]:
    """The probe with a view axis; after backward the probe has `grad` and, if wanted, `absgrad`."""
    means2d = probe[None]
    if not (torch.is_grad_enabled() and probe.requires_grad):
        return means2d
    probe.retain_grad()
    if absgrad:
        # gsplat sets `absgrad` on the tensor it was given, which must live until then. The hook
        # must not own it: the graph owns the hook, and the tensor the graph.
        probe.watched = means2d  # pyright: ignore[reportAttributeAccessIssue]
        owner = weakref.ref(probe)

        def publish(_: Tensor) -> None:
            target = owner()
            if target is not None:
                watched = target.watched  # pyright: ignore[reportAttributeAccessIssue]
                target.absgrad = watched.absgrad[0]  # pyright: ignore[reportAttributeAccessIssue]

        means2d.register_hook(publish)
    return means2d


def _rasterize_surfels(
    gsplat: ModuleType,
    gaussians: Gaussians,
    camera: Camera,
    features: Tensor,
    options: RasterOptions,
) -> tuple[_Images, ScreenSpace]:
    radii, means2d, depths, ray_transforms, normals = gsplat.fully_fused_projection_2dgs(
        means=gaussians.means,
        quats=gaussians.quats,
        scales=gaussians.scales,
        viewmats=camera.T_camera_world[None],
        Ks=camera.K[None],
        width=camera.width,
        height=camera.height,
        near_plane=options.near,
        far_plane=options.far,
        radius_clip=options.radius_clip,
        packed=False,
    )
    probe = torch.zeros_like(means2d[0], requires_grad=False)
    if torch.is_grad_enabled() and means2d.requires_grad:
        probe.requires_grad_()
    tiles = _tiles(gsplat, means2d, radii, depths, camera)
    has_depth = options.depth or options.distortion or options.median_depth
    features, detached = _split(features[None], options)
    values = torch.cat([features, depths[..., None]], -1) if has_depth else features
    splats = _Surfels(means2d, ray_transforms, gaussians.opacities[None], normals, probe[None])
    image, others = _composite_surfels(gsplat, splats, values, tiles, camera, options.distortion)
    detached_image = image[..., :0]
    if options.detached_features:
        constant = _Surfels(
            *(means2d.detach(), ray_transforms.detach(), gaussians.opacities[None].detach()),
            *(normals.detach(), torch.zeros_like(means2d, requires_grad=False)),
        )
        detached_image, _ = _composite_surfels(gsplat, constant, detached, tiles, camera, False)
    alpha, normal_image, distortion, median_depth = others
    images = _Images(
        values=image,
        detached=detached_image,
        alpha=alpha,
        median_depth=median_depth,
        normals=normal_image @ camera.T_camera_world[:3, :3],
        distortion=distortion,
    )
    return images, ScreenSpace(means2d[0], radii[0], probe)


@dataclass(frozen=True)
class _Surfels:
    """Projected surfels with a view axis."""

    means2d: Float[Tensor, "1 n 2"]
    ray_transforms: Float[Tensor, "1 n 3 3"]
    opacities: Float[Tensor, "1 n"]
    normals: Float[Tensor, "1 n 3"]
    probe: Float[Tensor, "1 n 2"]


def _composite_surfels(
    gsplat: ModuleType,
    splats: _Surfels,
    values: Float[Tensor, "1 n k"],
    tiles: _Tiles,
    camera: Camera,
    has_distortion: bool,
) -> tuple[Float[Tensor, "height width _"], tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Images of `values`, of one channel if there is none; alpha, normals, distortion, median."""
    parts, others = [], None
    for chunk in _at_least_one_channel(values).split(_CHANNELS, -1):
        image, *others = gsplat.rasterize_to_pixels_2dgs(
            means2d=splats.means2d,
            ray_transforms=splats.ray_transforms,
            colors=_padded(chunk),
            opacities=splats.opacities,
            normals=splats.normals,
            densify=splats.probe,
            image_width=camera.width,
            image_height=camera.height,
            tile_size=_TILE,
            isect_offsets=tiles.offsets,
            flatten_ids=tiles.splats,
            packed=False,
            distloss=has_distortion,
        )
        parts += [image[0, ..., : chunk.shape[-1] - 1], image[0, ..., -1:]]
    assert others is not None, "there is at least one channel"
    # Only the last pass sees depth, as its last channel, which distortion and median are taken of.
    alpha, normals, distortion, median_depth = (other[0] for other in others)
    return torch.cat(parts, -1), (alpha, normals, distortion, median_depth)


def _at_least_one_channel(values: Float[Tensor, "1 n k"]) -> Float[Tensor, "1 n _"]:
    """gsplat composites no fewer than one channel."""
    return values if values.shape[-1] else values.new_zeros(*values.shape[:-1], 1)


def _padded(values: Float[Tensor, "1 n k"]) -> Float[Tensor, "1 n _"]:
    """Insert zeros before the last channel up to a count that the surfel kernels exist for."""
    k = values.shape[-1]
    missing = next(count for count in _SURFEL_CHANNELS if count >= k) - k
    zeros = values.new_zeros(*values.shape[:-1], missing)
    return torch.cat([values[..., :-1], zeros, values[..., -1:]], -1)
