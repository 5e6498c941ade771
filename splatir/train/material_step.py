"""One step of the materials stage: shade a view, compare it with the photo, move what shades it."""

from dataclasses import dataclass

import torch

from splatir.data.images import Photo
from splatir.optim.material_losses import display_colour, material_losses
from splatir.optim.parameters import LearningRates
from splatir.raster.contract import RasterBackend, RasterOptions
from splatir.render.deferred import render_scene
from splatir.scene.camera import Camera
from splatir.scene.lights import EnvironmentLight
from splatir.shade.split_sum import SplitSum
from splatir.train.stages import MaterialStage
from splatir.train.state import TrainState
from splatir.train.step import StepReport, make_target, psnr_of, take_step


@dataclass(frozen=True)
class KnownLight:
    """A light that is given, not learned.

    Attributes:
        light: Radiance, world frame.
        shader: Prefiltered once.
    """

    light: EnvironmentLight
    shader: SplitSum

    @classmethod
    def of(cls, light: EnvironmentLight) -> "KnownLight":
        """Prefilter a light."""
        return cls(light, SplitSum(light))


@dataclass(frozen=True)
class MaterialContext:
    """What a step of the materials stage needs and does not change.

    Attributes:
        stage: Losses and schedule.
        rasterizer: Backend.
        rates: Learning rates at the start of the stage.
        options: Culling and antialiasing.
        known_light: In place of a learned one, or None.
    """

    stage: MaterialStage
    rasterizer: RasterBackend
    rates: LearningRates
    options: RasterOptions
    known_light: KnownLight | None


def material_step(
    state: TrainState, context: MaterialContext, camera: Camera, photo: Photo
) -> StepReport:
    """Do one step in place.

    Args:
        state: In the materials stage; advanced by one step.
        context: What stays the same.
        camera: View, on the training device, at the size of `photo`.
        photo: Pixels.

    Raises:
        NonFiniteLoss: Before any parameter is changed.
    """
    stage = context.stage
    background = torch.ones(3, device=state.model.means.device)
    target = make_target(photo, background)
    if context.known_light is not None:
        light, shader = context.known_light.light, context.known_light.shader
    else:
        light = EnvironmentLight(state.radiance)
        shader = SplitSum(light)
    image = render_scene(state.model, camera, shader, context.rasterizer, context.options)
    terms = material_losses(
        image, target, background, None if context.known_light else light, stage.loss
    )
    factor = stage.rate_factor(state.step)
    for parameter_group in state.optimizer.param_groups:
        rate = getattr(context.rates, parameter_group["name"])
        parameter_group["lr"] = factor * rate
    loss = take_step(state, terms)
    state.step += 1
    with torch.no_grad():
        shown = torch.lerp(background, display_colour(image.rgb), image.alpha)
    return StepReport(
        loss,
        {name: float(term.detach()) for name, term in terms.items()},
        psnr_of(shown, target.rgb_srgb),
    )
