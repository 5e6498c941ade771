"""Where do materials and light start from, given a trained radiance?"""

from pathlib import Path

import torch
from torch import Tensor

from splatir.data.dataset import Dataset
from splatir.maths.colour import linear_from_srgb
from splatir.maths.frames import similarity_scale
from splatir.maths.spherical_harmonics import SH_DC
from splatir.scene.gaussians import GaussianModel
from splatir.scene.lights import EnvironmentLight, rotate_light
from splatir.storage.environment import read_environment, resize_environment
from splatir.train.settings import TrainSettings
from splatir.train.state import TrainState

# Log radiance below which a known environment counts as black.
_MIN_RADIANCE = 1e-6
# More rows than this change no lobe that is shaded.
_MAX_KNOWN_HEIGHT = 256


def start_materials(state: TrainState, dataset: Dataset, settings: TrainSettings) -> TrainState:
    """The state at the start of the materials stage: radiance explained by white light of 1.

    Args:
        state: At the end of the radiance stage.
        dataset: For its frame.
        settings: Start values, and the known environment if there is one.

    Raises:
        FileNotFoundError: The known environment is not there.
        ValueError: It cannot be read.
    """
    device = state.model.means.device
    if settings.envmap is None:
        height = settings.materials.environment_height
        environment = torch.zeros(height, 2 * height, 3, device=device)
    else:
        S = dataset.S_world_input
        R_world_input = S[:3, :3] / similarity_scale(S)
        light = rotate_light(_read_known(settings.envmap), R_world_input.float())
        environment = light.radiance.to(device).clamp_min(_MIN_RADIANCE).log()
    materials = initial_materials(state.model, settings)
    return state.add_materials(materials, environment, settings.envmap is None, settings.rates)


def initial_materials(model: GaussianModel, settings: TrainSettings) -> dict[str, Tensor]:
    """Activated start values by key.

    Albedo is the mean radiance, which a Lambert surface has under white light of radiance 1.
    """
    start = settings.materials
    count = model.num_gaussians
    colour = 0.5 + SH_DC * model.params["sh0"].detach()[:, 0]
    return {
        "albedo": linear_from_srgb(colour.clamp(0.0, 1.0)).clamp(0.02, 0.95),
        "roughness": torch.full((count,), start.roughness, device=colour.device),
        "metallic": torch.full((count,), start.metallic, device=colour.device),
    }


def _read_known(path: Path) -> EnvironmentLight:
    light = read_environment(path)
    if light.radiance.shape[0] <= _MAX_KNOWN_HEIGHT:
        return light
    return resize_environment(light, _MAX_KNOWN_HEIGHT)
