"""What a radiance splat is trained to minimise, term by term."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from splatir.data.maps import SurfaceMaps
from splatir.maths.photometric import photometric_loss
from splatir.optim.map_losses import depth_map_loss, normal_map_loss
from splatir.optim.normal_consistency import SOLID_ALPHA, normal_consistency
from splatir.render.radiance import RadianceImage
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.settings import Settings, check_range

# A view that shows less of the object than this does not weigh its few pixels more.
_MIN_SOLID = 0.01

# Weight of coverage about an uncertain outline: without any, background grows there.
_RIM_WEIGHT = 0.05


@dataclass(frozen=True)
class LossWeights(Settings):
    """Weights of the terms; a term of weight 0 is not computed.

    Attributes:
        ssim: Share of 1 - SSIM in the photometric loss, the rest is L1 (Kerbl et al. 2023).
        lpips: LPIPS (Zhang et al. 2018), for which its network's weights must be on the machine.
        alpha: L1 between coverage and the photo's alpha or mask, where it has one.
        normal: Normals against normals from depth (2DGS, Huang et al. 2024, eq. 14), mean over the
            solid pixels. It turns splats; compositing weights are constants in it. Falls to 0.3
            of that over the materials stage.
        normal_pull: Part of that term's gradient that also moves splats, to where depth agrees with
            normals. All of it (1) costs sharpness, none lets glossy patches cave in.
        normal_start: When that begins, and what maps say, as a part of the stage.
        normal_map: Normals against the user's maps (--normals), mean of 1 - cosine.
        depth_map: Depth against the user's maps (--depths), mean relative error.
        distortion: Depth distortion (2DGS, eq. 13), in units of the squared extent; surfels only.
        opacity: Mean opacity (Kheradmand et al. 2024); under mcmc densification only.
        scale: Mean scale in scene extents (likewise).
        camera: Mean square of a camera's correction, in typical ones (`scene.corrections`): what
            keeps refined cameras near the given ones where photos say little.
        exposure: Mean size of a photo's log gains: photos with other things in them also differ in
            brightness, and small gains would explain that.
    """

    ssim: float = 0.2
    lpips: float = 0.0
    alpha: float = 1.0
    normal: float = 0.25
    normal_pull: float = 0.25
    normal_start: float = 0.05
    normal_map: float = 0.5
    depth_map: float = 0.5
    distortion: float = 0.0
    opacity: float = 0.01
    scale: float = 0.01
    camera: float = 1e-3
    exposure: float = 0.03

    def __post_init__(self) -> None:
        """Refuse weights that are no weights.

        Raises:
            SettingsError: A value out of range.
        """
        check_range(self, "ssim normal_pull normal_start", 0, 1, group="loss")
        maps = "normal_map depth_map"
        names = f"lpips alpha normal {maps} distortion opacity scale camera exposure"
        check_range(self, names, 0, group="loss")


@dataclass(frozen=True)
class Target:
    """What an image is compared with.

    Attributes:
        rgb_srgb: Photo composited over the same background as the image.
        alpha: Object coverage, or None where the photo has none.
        maps: What the user's files say about the surface, or None.
        is_hdr: Whether `rgb_srgb` goes on above white, by `colour.srgb_from_hdr`, not clipped.
        is_rim: Pixels whose coverage is uncertain, or None.
    """

    rgb_srgb: Float[Tensor, "height width 3"]
    alpha: Float[Tensor, "height width 1"] | None
    is_hdr: bool = False
    maps: SurfaceMaps | None = None
    is_rim: Bool[Tensor, "height width 1"] | None = None


def radiance_losses(
    image: RadianceImage,
    target: Target,
    camera: Camera,
    model: GaussianModel,
    weights: LossWeights,
    extent: float,
    progress: float,
) -> dict[str, Float[Tensor, ""]]:
    """All terms that apply, already weighted; their sum is the loss.

    Args:
        image: Rendered view, with its surface where `needs_surface` says so, and with depth where
            `needs_depth` does.
        target: Photo.
        camera: View.
        model: For the regularisers.
        weights: Weights of the terms.
        extent: Radius of the scene, scene units.
        progress: Part of the stage that is done, in [0, 1].

    Raises:
        ValueError: A term applies whose image was not composited.
    """
    terms = {"photometric": photometric_loss(image.rgb_srgb, target.rgb_srgb, weights.ssim)}
    if weights.alpha and target.alpha is not None:
        error = (image.raster.alpha - target.alpha).abs()
        if target.is_rim is not None:
            error = torch.where(target.is_rim, _RIM_WEIGHT * error, error)
        terms["alpha"] = weights.alpha * error.mean()
    if weights.normal > 0 and progress >= weights.normal_start:
        terms["normal"] = _normal_loss(image, camera, weights)
    terms.update(_map_losses(image, target, weights, progress))
    if needs_distortion(model, weights) and image.raster.distortion is not None:
        scaled = image.raster.distortion.mean() / extent**2
        terms["distortion"] = weights.distortion * scaled
    if weights.opacity:
        terms["opacity"] = weights.opacity * model.opacities.mean()
    if weights.scale:
        num_scales = 2 if model.primitive == "surfel" else 3
        terms["scale"] = weights.scale * model.scales[:, :num_scales].mean() / extent
    return terms


def needs_surface(weights: LossWeights, progress: float, maps: SurfaceMaps | None = None) -> bool:
    """Whether a term about normals applies now."""
    has_map = maps is not None and maps.normals is not None and weights.normal_map > 0
    return (weights.normal > 0 or has_map) and progress >= weights.normal_start


def needs_depth(weights: LossWeights, progress: float, maps: SurfaceMaps | None) -> bool:
    """Whether the term of depth maps applies now."""
    has_map = maps is not None and maps.depth is not None and weights.depth_map > 0
    return has_map and progress >= weights.normal_start


def needs_distortion(model: GaussianModel, weights: LossWeights) -> bool:
    """Whether the distortion term applies."""
    return model.primitive == "surfel" and weights.distortion > 0


def _normal_loss(image: RadianceImage, camera: Camera, weights: LossWeights) -> Float[Tensor, ""]:
    if image.normals is None or image.depth is None:
        raise ValueError("normal consistency needs render_radiance(with_surface=True).")
    alpha = image.raster.alpha
    solid = float((alpha.detach() > SOLID_ALPHA).float().mean())
    weight = weights.normal / max(solid, _MIN_SOLID)
    # The same depth, of which a part receives gradients.
    depth = torch.lerp(image.depth.detach(), image.depth, weights.normal_pull)
    return normal_consistency(alpha, depth, image.normals, camera, weight)


def _map_losses(
    image: RadianceImage, target: Target, weights: LossWeights, progress: float
) -> dict[str, Float[Tensor, ""]]:
    maps, alpha = target.maps, image.raster.alpha
    terms = {}
    if maps is None or progress < weights.normal_start:
        return terms
    if maps.normals is not None and weights.normal_map:
        if image.normals is None:
            raise ValueError("normal maps need render_radiance(with_surface=True).")
        error = normal_map_loss(image.normals, alpha, maps.normals)
        terms["normal_map"] = weights.normal_map * error
    if maps.depth is not None and weights.depth_map:
        if image.raster.depth is None:
            raise ValueError("depth maps need RasterOptions(depth=True).")
        error = depth_map_loss(image.raster.depth, alpha, maps.depth, maps.depth_kind)
        terms["depth_map"] = weights.depth_map * error
    return terms
