"""One step of the materials stage: shade a view, compare it with the photo, move what shades it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.data.images import Photo
from splatir.optim.few_paints import scene_entropy
from splatir.optim.material_losses import material_losses, shown_over
from splatir.optim.material_moves import (
    CORRECTION,
    apply_verdict,
    correct_scale,
    exchange_brightness,
    sheen_after,
)
from splatir.optim.metal_evidence import MetalEvidence, collect_sightings, judge_metal
from splatir.optim.parameters import LearningRates, forget_moments, keep_flat, keep_plain
from splatir.optim.seen_light import SeenLight
from splatir.raster.contract import RasterBackend, RasterOptions
from splatir.render.deferred import Lighting, render_scene
from splatir.render.gbuffer import GBuffer
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GEOMETRY_KEYS, SHEEN
from splatir.scene.lights import EnvironmentLight
from splatir.shade.split_sum import SplitSum
from splatir.train.grey_card import GreyCard
from splatir.train.perceptual import PictureDistance, distance_term
from splatir.train.radiance_view import (
    RadianceComparison,
    behind_object,
    choose_background,
    compare_radiance,
    make_target,
)
from splatir.train.stages import MaterialStage
from splatir.train.state import PAINTS, TrainState, generator_for
from splatir.train.step import StepReport, psnr_of, take_step
from splatir.transport.directions import spherical_cells
from splatir.transport.lit import CellLight, LitGaussians, bounce, diffuse_ratio
from splatir.transport.materials import SurfaceMaterials
from splatir.transport.scene import NUM_DIRECTIONS, SceneTransport

# The convention about the brightest paint, a card in the scene, or light or albedo that is known.
Scale = GreyCard | Literal["convention", "given"]

# Steps between corrections of the scale between albedo and light, and of the bounced light.
_CORRECT_EVERY = 25


@dataclass(frozen=True)
class KnownLight:
    """A light that is given, not learned.

    Attributes:
        light: Radiance, world frame.
        prepared: For shading, once.
    """

    light: EnvironmentLight
    prepared: CellLight

    @classmethod
    def of(cls, light: EnvironmentLight) -> "KnownLight":
        """Prepare a light."""
        cells = spherical_cells(NUM_DIRECTIONS, light.radiance)
        return cls(light, CellLight.of((light,), cells))


@dataclass(frozen=True)
class MaterialContext:
    """What a step of the materials stage needs and does not change.

    Attributes:
        stage: Losses and schedule.
        rasterizer: Backend.
        rates: Learning rates at the start of the stage.
        options: Culling and antialiasing.
        known_light: In place of a learned one, or None.
        radiance: How the radiance goes on to be compared while Gaussians move; None keeps both as
            they are.
        thickness: Third scale that all Gaussians keep, scene units; None leaves it free.
        transport: What the Gaussians see of each other; None to shade each as if it were alone.
        scale: What decides between bright paint and bright light.
        distance: LPIPS, where it may be weighed.
        seen: What photos show of a learned light.
        seed: Of what is drawn at random.
    """

    stage: MaterialStage
    rasterizer: RasterBackend
    rates: LearningRates
    options: RasterOptions
    known_light: KnownLight | None
    radiance: RadianceComparison | None = None
    thickness: float | None = None
    transport: SceneTransport | None = None
    scale: Scale = "convention"
    distance: PictureDistance | None = None
    seen: SeenLight | None = None
    seed: int = 0


def material_step(
    state: TrainState, context: MaterialContext, camera: Camera, photo: Photo
) -> StepReport:
    """Do one step in place: the same view shaded and by its radiance, if Gaussians move.

    Args:
        state: In the materials stage; advanced by one step.
        context: What stays the same.
        camera: View, on the training device, at the size of `photo`.
        photo: Pixels.

    Raises:
        NonFiniteLoss: Before any parameter is changed.
    """
    stage, radiance = context.stage, context.radiance
    is_hdr = stage.loss.compares_as_hdr(photo.encoding == "linear")
    background = behind_object(photo, _background(state, radiance))
    target = make_target(photo, background, is_hdr)
    light = None
    if context.known_light is None:
        stays = stage.has_settled(state.step)
        light = EnvironmentLight(state.radiance.detach() if stays else state.radiance)
    lighting = lighting_of(state, context, light)
    image = render_scene(
        state.model,
        camera,
        lighting,
        context.rasterizer,
        context.options,
        moves_splats=radiance is not None,
    )
    loss = stage.loss_at(state.step)
    shown = shown_over(image, background, is_hdr, target.is_rim)
    terms = material_losses(image, shown, target, light, loss, context.seen)
    terms.update(paint_terms(state, context, image.gbuffer))
    if context.distance is not None:
        terms.update(distance_term(context.distance, shown, target.rgb_srgb, loss.lpips))
    if radiance is not None:
        faded = replace(radiance, loss=stage.radiance_at(state.step))
        compared = compare_radiance(state, faded, camera, photo)
        terms.update({f"radiance_{name}": term for name, term in compared.terms.items()})
    extent = 1.0 if radiance is None else radiance.extent
    for parameter_group in state.optimizer.param_groups:
        name = parameter_group["name"]
        stays = radiance is None and name in GEOMETRY_KEYS
        rate = stage.rate(context.rates, name, state.step, extent)
        parameter_group["lr"] = 0.0 if stays else rate
    total = take_step(state, terms)
    if context.thickness is not None:
        keep_flat(state.model, context.thickness)
    keep_plain(state.model)
    is_last = state.step + 1 == stage.end
    is_due = (state.step - stage.start) % _CORRECT_EVERY == 0
    if is_due or (is_last and isinstance(context.scale, GreyCard)):
        if context.known_light is None:
            _correct_scale(state, context)
        state.bounced = None
    state.step += 1
    return StepReport(
        total,
        {name: float(term.detach()) for name, term in terms.items()},
        psnr_of(shown.detach(), target.rgb_srgb),
    )


def paint_terms(
    state: TrainState, context: MaterialContext, gbuffer: GBuffer
) -> dict[str, Float[Tensor, ""]]:
    """The entropy of the paint, as a step weighs it; nothing where that is 0.

    Args:
        state: In the materials stage.
        context: What stays the same.
        gbuffer: Of the view.
    """
    weight = context.stage.loss_at(state.step).few_paints
    if not weight:
        return {}
    generator = generator_for(context.seed, state.step, PAINTS)
    return {"few_paints": weight * scene_entropy(gbuffer, state.model, generator)}


def _background(state: TrainState, radiance: RadianceComparison | None) -> Tensor:
    """What is behind the Gaussians in a step: as for the radiance, white without that."""
    if radiance is not None:
        return choose_background(state, radiance).detach()
    if state.background is not None:
        return state.background.detach()
    return torch.ones(3, device=state.model.means.device)


def _correct_scale(state: TrainState, context: MaterialContext) -> None:
    """Move brightness between albedo and light towards what decides about it."""
    stage, scale = context.stage, context.scale
    if isinstance(scale, GreyCard):
        factor = scale.missing_factor(state.model, context.rasterizer, context.options)
        # The last step leaves the card as it is.
        share = 1.0 if state.step + 1 == stage.end else CORRECTION
        exchange_brightness(state.model, state.log_radiance, factor**share)
    elif scale == "convention":
        certainty = None if context.seen is None else context.seen.certainty
        correct_scale(state.model, state.log_radiance, stage.settings.brightest, certainty)


def lighting_of(
    state: TrainState, context: MaterialContext, learned: EnvironmentLight | None
) -> Lighting:
    """How a step shades: with shadows and bounced light where transport is known.

    Args:
        state: In the materials stage; keeps the bounced light until it is corrected.
        context: What stays the same.
        learned: The present light; None where it is known.
    """
    scene, known = context.transport, context.known_light
    if learned is None:
        assert known is not None
        light = known.prepared
    elif scene is None:
        return SplitSum(learned)
    else:
        light = CellLight.of((learned,), scene.visibility.cells)
    if scene is None:
        return light.shader
    materials = SurfaceMaterials.of(state.model).detach()
    ratio = diffuse_ratio(scene, light)
    if state.bounced is None:
        state.bounced = bounce(scene, materials, light, ratio.detach())
    return LitGaussians(scene, materials, light, ratio, state.bounced)


def check_metal(
    state: TrainState,
    context: MaterialContext,
    cameras: Sequence[Camera],
    photo_of: Callable[[int], Photo],
) -> None:
    """Judge every Gaussian metal, dielectric or cloth from the photos, and make it that.

    Args:
        state: In the materials stage; changed in place.
        context: As for the steps.
        cameras: Training views, on the training device.
        photo_of: Photo of a view, by index.
    """
    if context.known_light is None:
        light = EnvironmentLight(state.radiance.detach())
    else:
        light = context.known_light.light
    sightings = collect_sightings(state.model, cameras, photo_of, context.rasterizer)
    visibility = None if context.transport is None else context.transport.visibility
    evidence = judge_metal(state.model, sightings, light, visibility)
    roughness = context.stage.settings.roughness
    forget_moments(state.optimizer, apply_verdict(state.model, evidence, roughness))
    if context.stage.settings.cloth:
        _move_sheen(state, context, evidence)


def _move_sheen(state: TrainState, context: MaterialContext, evidence: MetalEvidence) -> None:
    """Give what was judged cloth its sheen, and take it from what is cloth no longer."""
    sheen = sheen_after(state.model, evidence)
    if sheen is None:
        return
    if state.model.sheen is None:
        state.add_sheen(sheen, context.rates)
    else:
        state.model.params[SHEEN].data.copy_(sheen)
    forget_moments(state.optimizer, (SHEEN, "albedo"))
