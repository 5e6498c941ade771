"""What of a training's materials stage outlives a step: light that is known, transport, scale?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from splatir.data.cache import PhotoSource
from splatir.data.dataset import Dataset
from splatir.data.images import Photo
from splatir.optim.seen_light import ENOUGH_SEEN, SeenLight
from splatir.raster.contract import RasterBackend, RasterOptions
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GEOMETRY_KEYS, GaussianModel, Gaussians
from splatir.scene.lights import EnvironmentLight
from splatir.shade.prefilter import averaged_down
from splatir.train.grey_card import GreyCard
from splatir.train.material_step import (
    KnownLight,
    MaterialContext,
    Scale,
    check_metal,
    material_step,
)
from splatir.train.object_photos import evenly_exposed
from splatir.train.perceptual import PictureDistance
from splatir.train.radiance_view import RadianceComparison
from splatir.train.seen_light import Around, seen_light
from splatir.train.settings import Background, TrainSettings
from splatir.train.stages import MaterialStage
from splatir.train.start_materials import start_materials
from splatir.train.state import TrainState
from splatir.train.step import StepReport
from splatir.transport.orientation import orient_outwards
from splatir.transport.scene import SceneTransport


def grey_card(settings: TrainSettings, dataset: Dataset) -> GreyCard | None:
    """The card that the settings name, if any.

    Args:
        settings: `grey_card` and `grey_reflectance` count.
        dataset: Whose photo shows it.

    Raises:
        ValueError: No such photo or pixel.
    """
    if settings.grey_card is None:
        return None
    return GreyCard.find(settings.grey_card, settings.grey_reflectance, dataset)


@dataclass(frozen=True)
class MaterialInputs:
    """What the stage is trained on.

    Attributes:
        dataset: Capture, or its object alone.
        photos: Of the training views.
        cameras: Likewise, as refined, on the training device.
        rasterizer: Backend.
        distance: LPIPS, where it may be weighed.
        background: Behind the Gaussians; never "auto".
        thickness: Third scale that all Gaussians keep, scene units; None leaves it free.
    """

    dataset: Dataset
    photos: PhotoSource
    cameras: Sequence[Camera]
    rasterizer: RasterBackend
    distance: PictureDistance | None
    background: Background
    thickness: float | None


class MaterialTrainer:
    """The materials stage of one training."""

    def __init__(self, settings: TrainSettings, inputs: MaterialInputs) -> None:
        """Nothing is read or traced yet.

        Args:
            settings: Of the training.
            inputs: What it is trained on.
        """
        self._settings = settings
        self._inputs = inputs
        self._scene: SceneTransport | None = None
        self._known: dict[bool, KnownLight] = {}

    def start(self, state: TrainState, known_light: EnvironmentLight | None) -> TrainState:
        """The state at the start of the stage.

        Args:
            state: At the end of the radiance stage.
            known_light: Given by the settings, or None.
        """
        inputs, settings = self._inputs, self._settings
        # Transport needs to know the outside; pictures stay.
        state.model = orient_outwards(state.model, inputs.cameras, inputs.rasterizer)
        if settings.materials.transport:
            self._scene = self._traced(state.model.gaussians)
        seen = self._seen_light(state)
        state = start_materials(state, known_light, settings, self._scene, seen)
        state.traced = _as_it_is(state.model)
        return state

    def step_function(
        self, state: TrainState, stage: MaterialStage
    ) -> Callable[[Camera, Photo, int], StepReport]:
        """What does one step of the stage on a view.

        Args:
            state: In the stage; advanced by each step.
            stage: Losses and schedule.
        """
        seen = self._seen_light(state)
        inputs = self._inputs
        context = MaterialContext(
            stage,
            inputs.rasterizer,
            self._settings.rates,
            RasterOptions(antialiased=self._settings.uses_antialiasing),
            self._known_light(state, stage),
            self._radiance(stage),
            inputs.thickness,
            scale=self._scale(seen),
            distance=inputs.distance,
            seen=seen,
            seed=self._settings.seed,
        )
        return lambda camera, photo, index: self._step(
            state, context, camera, self._even(state, photo, index)
        )

    def _step(
        self, state: TrainState, context: MaterialContext, camera: Camera, photo: Photo
    ) -> StepReport:
        stage, inputs = context.stage, self._inputs
        transport, known = self._transport(state, stage), self._known_light(state, stage)
        context = replace(context, transport=transport, known_light=known)
        if stage.checks_metal(state.step):
            check_metal(
                state,
                context,
                inputs.cameras,
                lambda index: self._even(state, inputs.photos[index], index),
            )
        return material_step(state, context, camera, photo)

    def _even(self, state: TrainState, photo: Photo, index: int) -> Photo:
        """A photo as the mean of the exposures would show it."""
        if state.exposures is None or state.surroundings is not None:
            return photo
        return evenly_exposed(photo, state.exposures[index].detach().to(photo.rgb.device))

    def _traced(self, gaussians: Gaussians) -> SceneTransport:
        """What Gaussians see of each other."""
        return SceneTransport.of(gaussians.detach(), self._settings.materials.directions)

    def _known_light(self, state: TrainState, stage: MaterialStage) -> KnownLight | None:
        """The given light, as coarse as a learned one until that would have settled.

        Under a sharp sun a surface that leans a little too far from it loses most of its light, and
        its albedo makes up for it before the normal can.
        """
        assert state.environment is not None
        if state.environment.requires_grad:
            return None
        is_whole = stage.has_settled(state.step)
        if is_whole not in self._known:
            radiance = state.radiance
            if not is_whole:
                radiance = averaged_down(radiance, stage.settings.environment_height)
            self._known[is_whole] = KnownLight.of(EnvironmentLight(radiance))
        return self._known[is_whole]

    def _transport(self, state: TrainState, stage: MaterialStage) -> SceneTransport | None:
        """What a step takes for what the Gaussians see: as last traced, also after a resume."""
        if not stage.settings.transport:
            return None
        done = state.step - stage.start
        traced = state.traced
        if traced is None or (done and done % stage.settings.retrace_every == 0):
            traced = _as_it_is(state.model)
            state.traced, state.bounced, self._scene = traced, None, None
        if self._scene is None:
            self._scene = self._traced(traced)
        return self._scene

    def _radiance(self, stage: MaterialStage) -> RadianceComparison | None:
        """How the radiance goes on; None if Gaussians stay as they are."""
        if not stage.settings.geometry:
            return None
        inputs, settings = self._inputs, self._settings
        return RadianceComparison(
            inputs.rasterizer,
            stage.radiance,
            inputs.dataset.extent,
            inputs.background,
            settings.seed,
            settings.uses_antialiasing,
            distance=inputs.distance,
        )

    def _seen_light(self, state: TrainState) -> SeenLight | None:
        """What the photos show of the light beyond the object."""
        settings, inputs = self._settings, self._inputs
        if not settings.material_loss.seen_light or settings.envmap is not None:
            return None
        around = None
        if state.surroundings is not None:
            centre = state.model.means.detach().median(dim=0).values
            around = Around(state.surroundings, inputs.cameras, centre, inputs.rasterizer)
        height = settings.materials.environment_height
        seen = seen_light(inputs.dataset, inputs.photos, height, around)
        return None if seen is None else seen.to(state.model.means.device)

    def _scale(self, seen: SeenLight | None) -> Scale:
        """What decides between bright paint and bright light."""
        settings = self._settings
        if settings.envmap is not None:
            return "given"
        card = grey_card(settings, self._inputs.dataset)
        if card is not None:
            return card
        if seen is not None and seen.share > ENOUGH_SEEN:
            return "given"
        maps = settings.maps
        are_albedos_known = maps.albedos is not None and maps.albedos_scale == "known"
        return "given" if are_albedos_known and settings.material_loss.albedo_map else "convention"


def _as_it_is(model: GaussianModel) -> Gaussians:
    """A copy of where the Gaussians are, which the next steps do not change."""
    now = model.gaussians.detach()
    parts = {key: getattr(now, key).clone() for key in GEOMETRY_KEYS}
    return Gaussians(**parts, primitive=now.primitive)
