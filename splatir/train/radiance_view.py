"""A training view by its radiance: what lies behind it, and how far is it from its photo?"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from splatir.data.images import Photo
from splatir.maths.colour import exposed_over, mixed_in_linear_light, srgb_from_hdr
from splatir.optim.losses import (
    LossWeights,
    Target,
    needs_depth,
    needs_distortion,
    needs_surface,
    radiance_losses,
)
from splatir.raster.contract import RasterBackend, RasterOptions
from splatir.render.camera_gradient import CameraCorrection
from splatir.render.radiance import RadianceImage, render_radiance
from splatir.scene.camera import Camera
from splatir.scene.corrections import TYPICAL_CORRECTION
from splatir.train.perceptual import PictureDistance, distance_term
from splatir.train.settings import Background
from splatir.train.state import BACKGROUND, TrainState, generator_for

# The brightest step of 8 bits.
_SATURATED = 254.5 / 255.0
# Coverage below which an object's own colour in a pixel means nothing.
_MIN_ALPHA = 1e-3


@dataclass(frozen=True)
class RadianceComparison:
    """How the radiance of a view is rendered and compared with its photo.

    Attributes:
        rasterizer: Backend.
        loss: Weights of the terms.
        extent: Radius of the scene, scene units.
        background: Behind the Gaussians; never "auto".
        seed: Of random backgrounds.
        antialiased: Scale opacity by the blurred area; False for surfels.
        absgrad: Also sum absolute screen gradients.
        distance: LPIPS, where it may be weighed.
    """

    rasterizer: RasterBackend
    loss: LossWeights
    extent: float
    background: Background
    seed: int
    antialiased: bool = False
    absgrad: bool = False
    distance: PictureDistance | None = None


@dataclass(frozen=True)
class Compared:
    """A view by its radiance.

    Attributes:
        image: Rendered, as brightly as its photo was exposed.
        target: Photo.
        terms: Weighted terms of the loss.
    """

    image: RadianceImage
    target: Target
    terms: dict[str, Float[Tensor, ""]]


def compare_radiance(
    state: TrainState,
    comparison: RadianceComparison,
    camera: Camera,
    photo: Photo,
    view_index: int = 0,
    sh_degree: int | None = None,
    progress: float = 1.0,
) -> Compared:
    """Render the radiance of a view and compare it with its photo.

    Args:
        state: Model, background, exposures and corrections. Exposures and corrections that are
            constants by now count as taken out of photo and camera.
        comparison: How.
        camera: View, on the training device, at the size of `photo`, with its correction.
        photo: Pixels.
        view_index: Which training photo it is, for its exposure and its camera.
        sh_degree: Highest degree used; None for all.
        progress: Part of the radiance stage that is done, in [0, 1].
    """
    loss, correction = comparison.loss, _correction(state, comparison.extent, view_index)
    background = choose_background(state, comparison)
    behind = behind_object(photo, background)
    target = make_target(photo, behind.detach())
    image = render_radiance(
        state.model,
        camera,
        comparison.rasterizer,
        None if photo.rim is not None else background,
        sh_degree,
        RasterOptions(
            depth=needs_depth(loss, progress, target.maps),
            distortion=needs_distortion(state.model, loss),
            antialiased=comparison.antialiased,
            absgrad=comparison.absgrad,
        ),
        with_surface=needs_surface(loss, progress, target.maps),
        correction=correction,
    )
    if photo.rim is not None:
        image = _before(image, behind, photo.rim.is_rim)
    gains = None
    if state.exposures is not None and state.learns_exposures:
        gains = state.exposures[view_index]
        image = _exposed(image, gains, target, background)
    terms = radiance_losses(image, target, camera, state.model, loss, comparison.extent, progress)
    if comparison.distance is not None:
        pictures = (image.rgb_srgb, target.rgb_srgb)
        terms.update(distance_term(comparison.distance, *pictures, loss.lpips))
    if gains is not None:
        # By as much as the photo shows: its colours pull at the gains no harder.
        shown = 1.0 if target.alpha is None else target.alpha.mean()
        terms["exposure"] = loss.exposure * shown * gains.abs().mean()
    if correction is not None:
        typical = correction.values.new_tensor(TYPICAL_CORRECTION)
        terms["camera"] = loss.camera * (correction.values / typical).square().mean()
    return Compared(image, target, terms)


def _before(
    image: RadianceImage, behind_srgb: Float[Tensor, "h w 3"], is_rim: Bool[Tensor, "h w 1"]
) -> RadianceImage:
    """The image over what is behind it, mixed at an outline as a camera does."""
    alpha = image.raster.alpha
    over = image.rgb_srgb + (1.0 - alpha) * behind_srgb
    own = image.rgb_srgb / alpha.clamp_min(_MIN_ALPHA)
    mixed = mixed_in_linear_light(own, alpha, behind_srgb)
    return replace(image, rgb_srgb=torch.where(is_rim.to(alpha.device), mixed, over))


def choose_background(state: TrainState, comparison: RadianceComparison) -> Float[Tensor, " 3"]:
    """The colour behind the Gaussians in the present step, sRGB: learned, random or fixed.

    Args:
        state: Holds a learned one.
        comparison: Says which it is.
    """
    device = state.model.means.device
    if state.background is not None:
        return state.background
    if comparison.background == "random":
        generator = generator_for(comparison.seed, state.step, BACKGROUND)
        return torch.rand(3, generator=generator).to(device)
    return torch.full((3,), 1.0 if comparison.background == "white" else 0.0, device=device)


def behind_object(photo: Photo, background_srgb: Float[Tensor, " 3"]) -> Float[Tensor, "*size 3"]:
    """What a step composites over: a colour, and about an uncertain outline what the photo shows.

    Args:
        photo: Pixels.
        background_srgb: Elsewhere.
    """
    if photo.rim is None:
        return background_srgb
    is_rim, behind = (
        part.to(background_srgb.device) for part in (photo.rim.is_rim, photo.rim.behind_srgb)
    )
    return torch.where(is_rim, behind, background_srgb)


def make_target(
    photo: Photo, background_srgb: Float[Tensor, "*size 3"], is_hdr: bool = False
) -> Target:
    """The photo as the splat should look over a background: sRGB, straight alpha, clipped.

    Args:
        photo: Pixels; linear ones are encoded.
        background_srgb: As `behind_object` gives it.
        is_hdr: Encode linear pixels by `srgb_from_hdr`, which does not clip.
    """
    goes_on = is_hdr and photo.encoding == "linear"
    rgb = srgb_from_hdr(photo.rgb.clamp_min(0.0)) if goes_on else photo.rgb_srgb
    device = background_srgb.device
    rgb, alpha = rgb.to(device), None
    maps = None if photo.maps is None else photo.maps.to(device)
    if photo.alpha is not None:
        alpha = photo.alpha.to(device)
        over = torch.lerp(background_srgb.expand_as(rgb), rgb, alpha)
        if photo.rim is None:
            return Target(over, alpha, is_hdr, maps)
        is_rim = photo.rim.is_rim.to(device)
        return Target(torch.where(is_rim, rgb, over), alpha, is_hdr, maps, is_rim)
    return Target(rgb, alpha, is_hdr, maps)


def _exposed(
    image: RadianceImage, log_gains: Tensor, target: Target, background: Tensor
) -> RadianceImage:
    """The image as brightly as a photo was exposed; saturated pixels only say "at least"."""
    alpha = None if target.alpha is None else image.raster.alpha
    rgb = exposed_over(image.rgb_srgb, log_gains, alpha, background)
    is_saturated = target.rgb_srgb > _SATURATED
    return replace(image, rgb_srgb=torch.where(is_saturated, rgb.clamp_max(1.0), rgb))


def _correction(state: TrainState, extent: float, view_index: int) -> CameraCorrection | None:
    if state.corrections is None or not state.corrections.requires_grad:
        return None
    return CameraCorrection(state.corrections[view_index], extent)
