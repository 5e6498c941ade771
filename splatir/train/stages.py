"""The stages of a training, as data: what each optimises, for how long, under which losses."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from splatir.optim.densification import DensificationSettings
from splatir.optim.losses import LossWeights
from splatir.optim.material_losses import MaterialLossWeights
from splatir.optim.parameters import LearningRates
from splatir.scene.gaussians import GEOMETRY_KEYS
from splatir.train.material_settings import MaterialSettings
from splatir.train.settings import ScheduleSettings, TrainSettings

# What is left at the end of the materials stage of weights that fall over it. That of the albedo's
# smoothness stays: light and albedo would share out anew what shading cannot follow.
_LEFT = {"few_paints": 0.0, "roughness_smooth": 0.0, "normal_smooth": 0.3}
_LEFT_OF_RADIANCE = {"normal": 0.3}

# Parts of a radiance stage at which the Gaussians of an object judge exposures.
_EXPOSURES_JUDGED = (0.25, 0.5)

# Sparse points that photos show this near to where cameras expect them, pixels, were found together
# with these cameras: to learn the cameras again, from less, loses what is known.
_CALIBRATED = 0.5

_Weights = TypeVar("_Weights", LossWeights, MaterialLossWeights)


@dataclass(frozen=True)
class Stage:
    """One part of a training.

    Attributes:
        name: As in `--stages`.
        start: Steps of the training before this stage.
        steps: Number of steps.
    """

    name: str
    start: int
    steps: int

    @property
    def end(self) -> int:
        """Steps of the training when the stage is done."""
        return self.start + self.steps

    def progress(self, step: int) -> float:
        """Part of the stage that is done before a step of the training, in [0, 1)."""
        return (step - self.start) / self.steps

    def image_divisor(self, step: int) -> int:
        """Reduction of the image size at a step."""
        del step
        return 1


@dataclass(frozen=True)
class RadianceStage(Stage):
    """Geometry and view-dependent radiance, with densification.

    Attributes:
        loss: Weights of the terms.
        schedule: What changes over the steps.
        densify: Where Gaussians are added and removed.
    """

    loss: LossWeights
    schedule: ScheduleSettings
    densify: DensificationSettings

    def sh_degree(self, step: int) -> int:
        """Highest SH degree in use at a step; the model's own may be lower."""
        if self.schedule.sh_every <= 0:
            return 4
        return int(self.progress(step) / self.schedule.sh_every)

    def image_divisor(self, step: int) -> int:
        """Reduction of the image size at a step."""
        coarse = self.progress(step) < self.schedule.coarse_until
        return self.schedule.coarse_factor if coarse else 1

    def refines(self, step: int) -> bool:
        """Whether Gaussians are added and removed after a step."""
        d = self.densify
        stop, every = (d.mcmc_stop, d.mcmc_every) if d.strategy == "mcmc" else (d.stop, d.every)
        inside = d.start <= self.progress(step) < stop
        return d.strategy != "none" and inside and step % every == 0 and step > self.start

    def judges_exposures(self, step: int) -> bool:
        """Whether an object's Gaussians say, before a step, how brightly photos were exposed."""
        return step - self.start in {int(part * self.steps) for part in _EXPOSURES_JUDGED}

    def has_judged_exposures(self, step: int) -> bool:
        """Whether they have said so: from then on descent leaves exposures alone."""
        return step - self.start >= int(_EXPOSURES_JUDGED[0] * self.steps)

    def resets_opacity(self, step: int) -> bool:
        """Whether opacities are reset after a step (default strategy only)."""
        d = self.densify
        inside = 0 < self.progress(step) < d.stop
        return (
            d.strategy == "default" and d.reset_every > 0 and inside and step % d.reset_every == 0
        )


@dataclass(frozen=True)
class MaterialStage(Stage):
    """Materials and light, to which Gaussians and radiance give way.

    Priors lead at first and let go: by the end, photographs decide what is fine.

    Attributes:
        settings: Start values and schedule.
        loss: Weights of the terms of the shaded picture at the start.
        radiance: Likewise of the radiance, which goes on.
    """

    settings: MaterialSettings
    loss: MaterialLossWeights
    radiance: LossWeights

    def loss_at(self, step: int) -> MaterialLossWeights:
        """Weights of the terms of the shaded picture at a step."""
        faded = _faded(self.loss, _LEFT, self.progress(step))
        return faded if self.has_settled(step) else replace(faded, squared=0.0)

    def radiance_at(self, step: int) -> LossWeights:
        """Weights of the terms of the radiance at a step."""
        return _faded(self.radiance, _LEFT_OF_RADIANCE, self.progress(step))

    def rate(self, rates: LearningRates, key: str, step: int, extent: float) -> float:
        """Learning rate of a parameter at a step.

        Args:
            rates: At the start of the stage.
            key: Of the parameter.
            step: Of the training.
            extent: Radius of the scene, scene units.
        """
        progress = self.progress(step)
        late = max(progress - self.settings.decay_from, 0.0)
        factor = 1.0
        if late > 0.0:
            factor = self.settings.decay ** (late / (1.0 - self.settings.decay_from))
        if key in GEOMETRY_KEYS:
            factor *= self.settings.geometry
        if key == "quats":
            factor *= progress >= self.settings.turns_from
        if key == "environment" and self.has_settled(step):
            factor = 0.0
        return factor * rates.initial(key, extent)

    def checks_metal(self, step: int) -> bool:
        """Whether Gaussians are judged metal, dielectric or cloth before a step."""
        parts = self.settings.metal_checks
        return step - self.start in {int(part * self.steps) for part in parts}

    def has_settled(self, step: int) -> bool:
        """Whether the light is found and what is left is to bring the picture near the photos."""
        return self.progress(step) >= self.settings.settles_at


def for_capture(
    settings: TrainSettings, has_background: bool, reprojection_error: float | None = None
) -> TrainSettings:
    """The settings with "auto" replaced by what suits the capture.

    Args:
        settings: As given.
        has_background: Whether the photos show more than an object: no alpha, no masks.
        reprojection_error: Of the cameras, pixels of the photos; None where nothing is known of it.
    """
    if settings.stages == ("auto",):
        stages = ("radiance", "materials")
        if has_background:
            finds = settings.roi != "none"
            stages = ("surroundings", *stages) if finds else ("radiance",)
        settings = replace(settings, stages=stages)
    if settings.densify.strategy == "auto":
        shows_all = has_background and "surroundings" not in settings.stages
        strategy = "mcmc" if shows_all else "default"
        settings = replace(settings, densify=replace(settings.densify, strategy=strategy))
    if settings.exposures == "auto":
        settings = replace(settings, exposures="per-photo" if has_background else "shared")
    if settings.cameras == "auto":
        is_calibrated = reprojection_error is not None and reprojection_error < _CALIBRATED
        refines = has_background and not is_calibrated
        settings = replace(settings, cameras="refine" if refines else "fixed")
    return settings


def stages_of(settings: TrainSettings, pixel_budget: int | None = None) -> tuple[Stage, ...]:
    """The stages that settings name, in order; see `for_capture`.

    Args:
        settings: Of the training.
        pixel_budget: Gaussians that the photos of a whole capture can tell apart; None for no
            limit but the settings' own.
    """
    assert settings.stages != ("auto",)
    max_of_all = settings.densify.max_gaussians
    if pixel_budget is not None:
        max_of_all = min(max_of_all, pixel_budget)
    stages: list[Stage] = []
    for name in settings.stages:
        start = stages[-1].end if stages else 0
        radiance = settings.loss
        if settings.densify.strategy != "mcmc":
            radiance = replace(radiance, opacity=0.0, scale=0.0)
        if name == "surroundings":
            densify = replace(settings.densify, strategy="mcmc", max_gaussians=max_of_all)
            parts = (settings.loss, settings.schedule, densify)
            stages.append(RadianceStage(name, start, settings.surroundings_steps, *parts))
        elif name == "radiance":
            densify = settings.densify
            if densify.strategy == "mcmc":
                densify = replace(densify, max_gaussians=max_of_all)
            parts = (radiance, settings.schedule, densify)
            stages.append(RadianceStage(name, start, settings.steps, *parts))
        else:
            materials, loss = settings.materials, settings.material_loss
            if settings.grey_card is not None:
                # The card shows the colour of the light, whatever that is.
                loss = replace(loss, white_light=0.0)
            parts = (materials, loss, radiance)
            stages.append(MaterialStage(name, start, materials.steps, *parts))
    return tuple(stages)


def _faded(weights: _Weights, left: Mapping[str, float], progress: float) -> _Weights:
    """The weights when so much of a stage is done: those named fall to what is left of them."""
    to_come = (1.0 - progress) ** 2
    factors = {name: share + (1.0 - share) * to_come for name, share in left.items()}
    return replace(weights, **{name: f * getattr(weights, name) for name, f in factors.items()})
