"""The stages of a training, as data: what each optimises, for how long, under which losses."""

from dataclasses import dataclass

from splatir.optim.densification import DensificationSettings
from splatir.optim.losses import LossWeights
from splatir.train.settings import ScheduleSettings, TrainSettings


@dataclass(frozen=True)
class Stage:
    """One part of a training.

    Attributes:
        name: As in `--stages`.
        steps: Number of steps.
        loss: Weights of the terms.
        schedule: What changes over the steps.
        densify: Where Gaussians are added and removed.
    """

    name: str
    steps: int
    loss: LossWeights
    schedule: ScheduleSettings
    densify: DensificationSettings

    def progress(self, step: int) -> float:
        """Part of the stage that is done before a step, in [0, 1)."""
        return step / self.steps

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
        inside = d.start * self.steps <= step < d.stop * self.steps
        return d.strategy != "none" and inside and step % d.every == 0 and step > 0

    def resets_opacity(self, step: int) -> bool:
        """Whether opacities are reset after a step (default strategy only)."""
        d = self.densify
        inside = 0 < step < d.stop * self.steps
        return (
            d.strategy == "default" and d.reset_every > 0 and inside and step % d.reset_every == 0
        )


def stages_of(settings: TrainSettings) -> tuple[Stage, ...]:
    """The stages that settings ask for, in order."""
    return tuple(
        Stage(name, settings.steps, settings.loss, settings.schedule, settings.densify)
        for name in settings.stages
    )
