"""One training step: photo in, losses, gradients, and the parameters moved."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.data.images import Photo
from splatir.maths.colour import exposed_over, srgb_from_hdr
from splatir.optim.densification import (
    GradientStatistics,
    Refinement,
    add_mcmc_noise,
    refine_default,
    refine_mcmc,
    reset_opacities,
)
from splatir.optim.losses import (
    Target,
    needs_depth,
    needs_distortion,
    needs_surface,
    radiance_losses,
)
from splatir.optim.parameters import LearningRates, group, keep_flat
from splatir.raster.contract import RasterBackend, RasterOptions
from splatir.render.camera_gradient import CameraCorrection
from splatir.render.radiance import RadianceImage, render_radiance
from splatir.scene.camera import Camera
from splatir.scene.corrections import TYPICAL_CORRECTION, remove_gauge
from splatir.scene.gaussians import GaussianModel
from splatir.train.perceptual import PictureDistance, distance_term
from splatir.train.settings import Background
from splatir.train.stages import RadianceStage
from splatir.train.state import TrainState, generator_for

# Purposes of random draws, so that no two share a generator.
VIEW_ORDER, BACKGROUND, REFINEMENT, NOISE = range(4)
# The brightest step of 8 bits.
_SATURATED = 254.5 / 255.0


class NonFiniteLoss(RuntimeError):
    """The loss became NaN or infinite; the state before the step is still good."""


@dataclass(frozen=True)
class StepContext:
    """What a step needs and does not change.

    Attributes:
        stage: Losses, schedule and densification.
        rasterizer: Backend.
        rates: Learning rates.
        extent: Radius of the scene, scene units.
        background: How the background is chosen; never "auto".
        antialiased: Scale opacity by the blurred area; False for surfels.
        thickness: Third scale that all Gaussians keep, scene units; None leaves it free.
        seed: Of everything random.
        distance: LPIPS, where it may be weighed.
        gauge: Of `gauge_directions`, where cameras are corrected.
    """

    stage: RadianceStage
    rasterizer: RasterBackend
    rates: LearningRates
    extent: float
    background: Background
    antialiased: bool
    thickness: float | None
    seed: int
    distance: PictureDistance | None = None
    gauge: Tensor | None = None


@dataclass(frozen=True)
class StepReport:
    """What one step measured.

    Attributes:
        loss: Sum of the weighted terms.
        terms: Each weighted term.
        psnr: Of the training view, in sRGB over the step's background, dB.
        refinement: Gaussians added and removed after the step.
    """

    loss: float
    terms: dict[str, float]
    psnr: float
    refinement: Refinement = field(default_factory=Refinement)


def train_step(
    state: TrainState, context: StepContext, camera: Camera, photo: Photo, view_index: int = 0
) -> StepReport:
    """Do one step in place.

    Args:
        state: Advanced by one step.
        context: What stays the same.
        camera: View, on the training device, at the size of `photo`, with its correction.
        photo: Pixels.
        view_index: Which training photo it is, for its exposure and its camera.

    Raises:
        NonFiniteLoss: Before any parameter is changed.
    """
    stage, step = context.stage, state.step
    progress = stage.progress(step)
    background = _background(state, context)
    behind = behind_object(photo, background)
    target = make_target(photo, behind.detach())
    options = replace(
        _options(state.model, context), depth=needs_depth(stage.loss, progress, target.maps)
    )
    image = render_radiance(
        state.model,
        camera,
        context.rasterizer,
        None if photo.rim is not None else background,
        stage.sh_degree(step),
        options,
        with_surface=needs_surface(stage.loss, progress, target.maps),
        correction=_correction(state, context, view_index),
    )
    if photo.rim is not None:
        rgb = image.rgb_srgb + (1.0 - image.raster.alpha) * behind
        image = replace(image, rgb_srgb=rgb)
    if state.exposures is not None and state.surroundings is None:
        image = _exposed(image, state.exposures[view_index], target, background)
    terms = radiance_losses(
        image, target, camera, state.model, stage.loss, context.extent, progress
    )
    if context.distance is not None:
        pictures = (image.rgb_srgb, target.rgb_srgb)
        terms.update(distance_term(context.distance, *pictures, stage.loss.lpips))
    if state.exposures is not None and state.surroundings is None:
        # By as much as the photo shows: its colours pull at the gains no harder.
        shown = 1.0 if target.alpha is None else target.alpha.mean()
        terms["exposure"] = stage.loss.exposure * shown * state.exposures[view_index].abs().mean()
    if state.corrections is not None and state.surroundings is None:
        typical = state.corrections.new_tensor(TYPICAL_CORRECTION)
        square = (state.corrections[view_index] / typical).square().mean()
        terms["camera"] = stage.loss.camera * square
        group(state.optimizer, "cameras")["lr"] = context.rates.of_cameras(progress)
    group(state.optimizer, "means")["lr"] = context.rates.of_means(progress, context.extent)
    loss = take_step(state, terms)
    _anchor(state, context)
    if context.thickness is not None:
        keep_flat(state.model, context.thickness)
    refinement = _densify(state, context, image, camera)
    state.step += 1
    return StepReport(
        loss,
        {name: float(term.detach()) for name, term in terms.items()},
        psnr_of(image.rgb_srgb.detach(), target.rgb_srgb),
        refinement,
    )


def take_step(state: TrainState, terms: dict[str, Tensor]) -> float:
    """Move the parameters down the gradient of the terms' sum; returns the sum.

    Raises:
        NonFiniteLoss: Before any parameter is changed.
    """
    loss = torch.stack(list(terms.values())).sum()
    if not bool(loss.isfinite()):
        values = {name: float(term.detach()) for name, term in terms.items()}
        raise NonFiniteLoss(f"the loss of step {state.step} is not finite: {values}.")
    loss.backward()
    state.optimizer.step()
    state.optimizer.zero_grad()
    return float(loss.detach())


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


def _background(state: TrainState, context: StepContext) -> Tensor:
    device = state.model.means.device
    if state.background is not None:
        return state.background
    if context.background == "random":
        generator = generator_for(context.seed, state.step, BACKGROUND)
        return torch.rand(3, generator=generator).to(device)
    return torch.full((3,), 1.0 if context.background == "white" else 0.0, device=device)


def _exposed(
    image: RadianceImage, log_gains: Tensor, target: Target, background: Tensor
) -> RadianceImage:
    """The image as brightly as a photo was exposed; saturated pixels only say "at least"."""
    alpha = None if target.alpha is None else image.raster.alpha
    rgb = exposed_over(image.rgb_srgb, log_gains, alpha, background)
    is_saturated = target.rgb_srgb > _SATURATED
    return replace(image, rgb_srgb=torch.where(is_saturated, rgb.clamp_max(1.0), rgb))


def _correction(
    state: TrainState, context: StepContext, view_index: int
) -> CameraCorrection | None:
    if state.corrections is None or state.surroundings is not None:
        return None
    return CameraCorrection(state.corrections[view_index], context.extent)


@torch.no_grad()
def _anchor(state: TrainState, context: StepContext) -> None:
    """Leave to the model what all photos have in common: held-out views are shown with that."""
    if state.surroundings is not None:
        return
    if state.exposures is not None:
        state.exposures.sub_(state.exposures.mean(dim=0))
    if state.corrections is not None and context.gauge is not None:
        remove_gauge(state.corrections, context.gauge)


def _options(model: GaussianModel, context: StepContext) -> RasterOptions:
    return RasterOptions(
        distortion=needs_distortion(model, context.stage.loss),
        antialiased=context.antialiased,
        absgrad=context.stage.densify.absgrad,
    )


def _densify(
    state: TrainState, context: StepContext, image: RadianceImage, camera: Camera
) -> Refinement:
    settings, step = context.stage.densify, state.step
    refinement = Refinement()
    if settings.strategy == "none":
        return refinement
    generator = generator_for(context.seed, step, REFINEMENT)
    if settings.strategy == "default":
        if context.stage.progress(step) < settings.stop:
            state.statistics.add(image.raster.screen, camera.width, camera.height)
        if context.stage.refines(step):
            refinement = refine_default(
                state.model,
                state.optimizer,
                state.statistics,
                settings,
                context.extent,
                prune_large=0 < settings.reset_every < step,
                generator=generator,
            )
            state.statistics = GradientStatistics.zeros(
                state.model.num_gaussians, state.model.means.device
            )
        if context.stage.resets_opacity(step):
            reset_opacities(state.model, state.optimizer, settings)
    elif settings.strategy == "mcmc":
        if context.stage.refines(step):
            refinement = refine_mcmc(state.model, state.optimizer, settings, generator)
        noise = generator_for(context.seed, step, NOISE)
        add_mcmc_noise(state.model, state.optimizer, settings.mcmc_noise, noise)
    return refinement


def psnr_of(image: Tensor, target: Tensor) -> float:
    """PSNR of two pictures clipped at white, dB."""
    error = float((image.clamp(0.0, 1.0) - target.clamp(0.0, 1.0)).square().mean())
    return -10.0 * float(torch.tensor(max(error, 1e-10)).log10())
