"""A trained run as other commands need it: Gaussians, background, settings, frame."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.scene.gaussians import GaussianModel
from splatir.scene.lights import EnvironmentLight
from splatir.train.run_folder import RunFolder
from splatir.train.settings import TrainSettings
from splatir.train.state import model_from_plain, surroundings_from_plain
from splatir.transport.scene import SceneTransport


@dataclass(frozen=True)
class FinishedRun:
    """What the newest checkpoint of a run holds.

    Attributes:
        folder: Where it came from.
        settings: Of the training.
        model: Gaussians, world frame.
        background_srgb: Learned background, or None.
        light: Environment that lit the photos, recovered or given, world frame; None for a run
            without materials.
        S_world_input: Similarity from the capture's frame to the world, float64.
        step: Steps trained.
        seconds: Time spent in them.
        corrections: Of the training cameras [views,7], see `scene.corrections`; None where they
            were trusted.
        surroundings: Radiance of what stands around `model`, the object; None where that is all.
    """

    folder: RunFolder
    settings: TrainSettings
    model: GaussianModel
    background_srgb: Float[Tensor, " 3"] | None
    light: EnvironmentLight | None
    S_world_input: Float[Tensor, "4 4"]
    step: int
    seconds: float
    corrections: Float[Tensor, "views 7"] | None = None
    surroundings: GaussianModel | None = None

    def transport(self) -> SceneTransport | None:
        """What the Gaussians see of each other, traced anew; None for a run that is shaded without.

        Takes seconds: 256 rays for each Gaussian.
        """
        if not self.model.has_materials or not self.settings.materials.transport:
            return None
        return SceneTransport.of(self.model.gaussians, self.settings.materials.directions)


def load_run(root: Path, device: torch.device) -> FinishedRun:
    """Read a run folder.

    Raises:
        FileNotFoundError: No run, or no usable checkpoint in it.
        ValueError: A file of it is broken.
    """
    folder = RunFolder(root)
    settings = folder.settings()
    checkpoint = folder.load_latest()
    state = checkpoint["state"]
    background, environment = state["background"], state["environment"]
    return FinishedRun(
        folder,
        settings,
        model_from_plain(state, device),
        None if background is None else background.to(device),
        None if environment is None else EnvironmentLight(environment.to(device).exp()),
        checkpoint["S_world_input"],
        state["step"],
        state["seconds"],
        corrections=state.get("corrections"),
        surroundings=surroundings_from_plain(state, device),
    )
