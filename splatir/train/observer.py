"""Who may watch a training, and what is it told after each step?"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from splatir.scene.gaussians import GaussianModel
from splatir.scene.lights import EnvironmentLight
from splatir.train.finished import FinishedRun
from splatir.train.run_folder import RunFolder
from splatir.train.settings import TrainSettings
from splatir.train.state import TrainState


@dataclass(frozen=True)
class TrainingProgress:
    """Where a training stands after a step.

    Attributes:
        stage: Name of the stage.
        step: Steps done, over all stages.
        end: Step at which the stage ends.
        loss: Of the step.
        psnr: Of the step's photo, dB.
        num_gaussians: After the step.
        interrupted: Set by Ctrl-C; an observer that keeps the training waiting has to look at it.
        moment: Copies the scene as it is now; to be called before the observer returns.
    """

    stage: str
    step: int
    end: int
    loss: float
    psnr: float
    num_gaussians: int
    interrupted: threading.Event
    moment: Callable[[], FinishedRun]


@runtime_checkable
class TrainingObserver(Protocol):
    """Watches a training from its own thread's point of view: between steps."""

    def after_step(self, progress: TrainingProgress) -> bool:
        """Take note of a step; the training waits until this returns.

        Args:
            progress: Where it stands.

        Returns:
            False to stop as Ctrl-C does: a checkpoint is written, and the run can be resumed.
        """
        ...


def scene_of(
    run: RunFolder, settings: TrainSettings, state: TrainState, S_world_input: Float[Tensor, "4 4"]
) -> FinishedRun:
    """The scene as it is between two steps; nothing of it changes as training goes on.

    Args:
        run: Folder of the training.
        settings: Of the training.
        state: Between two steps.
        S_world_input: Similarity from the capture's frame to the world.
    """
    background = None if state.background is None else state.background.detach().clone()
    light = None
    if state.environment is not None:
        light = EnvironmentLight(state.log_radiance.exp())
    model = GaussianModel(dict(state.model.params.items()), state.model.primitive)
    return FinishedRun(
        run, settings, model, background, light, S_world_input, state.step, state.seconds
    )
