"""One training step: photo in, losses, gradients, and the parameters moved."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from splatir.data.images import Photo
from splatir.optim.densification import (
    GradientStatistics,
    Refinement,
    add_mcmc_noise,
    refine_default,
    refine_mcmc,
    reset_opacities,
)
from splatir.optim.parameters import LearningRates, group, keep_flat
from splatir.raster.contract import RasterBackend
from splatir.render.radiance import RadianceImage
from splatir.scene.camera import Camera
from splatir.scene.corrections import remove_gauge
from splatir.train.perceptual import PictureDistance
from splatir.train.radiance_view import RadianceComparison, compare_radiance
from splatir.train.settings import Background
from splatir.train.stages import RadianceStage
from splatir.train.state import NOISE, REFINEMENT, TrainState, generator_for


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
        is_object: The photos show an object alone, whose Gaussians judge exposures.
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
    is_object: bool = False

    @property
    def comparison(self) -> RadianceComparison:
        """How a view is compared with its photo."""
        return RadianceComparison(
            self.rasterizer,
            self.stage.loss,
            self.extent,
            self.background,
            self.seed,
            self.antialiased,
            self.stage.densify.absgrad,
            self.distance,
        )


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
    compared = compare_radiance(
        state, context.comparison, camera, photo, view_index, stage.sh_degree(step), progress
    )
    if "camera" in compared.terms:
        group(state.optimizer, "cameras")["lr"] = context.rates.of_cameras(progress)
    group(state.optimizer, "means")["lr"] = context.rates.of_means(progress, context.extent)
    if state.learns_exposures:
        is_judged = context.is_object and stage.has_judged_exposures(step)
        group(state.optimizer, "exposures")["lr"] = 0.0 if is_judged else context.rates.exposures
    loss = take_step(state, compared.terms)
    _anchor(state, context)
    if context.thickness is not None:
        keep_flat(state.model, context.thickness)
    refinement = _densify(state, context, compared.image, camera)
    state.step += 1
    return StepReport(
        loss,
        {name: float(term.detach()) for name, term in compared.terms.items()},
        psnr_of(compared.image.rgb_srgb.detach(), compared.target.rgb_srgb),
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


@torch.no_grad()
def _anchor(state: TrainState, context: StepContext) -> None:
    """Leave to the model what all photos have in common: held-out views are shown with that."""
    if state.surroundings is not None:
        return
    if state.exposures is not None:
        state.exposures.sub_(state.exposures.mean(dim=0))
    if state.corrections is not None and context.gauge is not None:
        remove_gauge(state.corrections, context.gauge)


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
