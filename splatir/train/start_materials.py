"""Where do materials and light start from, given a trained radiance?"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.data.dataset import Dataset
from splatir.maths.colour import linear_from_srgb
from splatir.maths.frames import similarity_scale
from splatir.maths.spherical_harmonics import SH_DC
from splatir.optim.first_light import light_from_radiance
from splatir.optim.seen_light import SeenLight
from splatir.scene.environment_map import rotate_environment
from splatir.scene.gaussians import GaussianModel
from splatir.scene.lights import EnvironmentLight
from splatir.storage.environment import read_environment, resize_environment
from splatir.train.material_settings import MaterialSettings
from splatir.train.settings import TrainSettings
from splatir.train.state import TrainState
from splatir.transport.scene import SceneTransport

# Log radiance below which a known environment counts as black.
_MIN_RADIANCE = 1e-6
# Gaussians that are fainter say little of the light.
_MIN_OPACITY = 0.3
# Darkest channel of an albedo at the start.
_MIN_ALBEDO = 0.01
# More rows than this change no lobe that is shaded.
_MAX_KNOWN_HEIGHT = 256


def start_materials(
    state: TrainState,
    known_light: EnvironmentLight | None,
    settings: TrainSettings,
    transport: SceneTransport | None = None,
    seen: SeenLight | None = None,
) -> TrainState:
    """The state at the start of the materials stage.

    Args:
        state: At the end of the radiance stage.
        known_light: As `known_light` gives it; None for a light that is learned.
        settings: Start values.
        transport: What the Gaussians see of each other: a learned light then starts from what
            their shadows say, else from white.
        seen: What photos show of a learned light.
    """
    materials = initial_materials(state.model, settings.materials)
    if known_light is None:
        height = settings.materials.environment_height
        if transport is None:
            environment = _initial_light(state.model, materials["albedo"], height)
        else:
            light = _light_from_shadows(state.model, materials["albedo"], height, transport, seen)
            environment = light.radiance.log()
    else:
        radiance = known_light.radiance.to(state.model.means.device)
        environment = radiance.clamp_min(_MIN_RADIANCE).log()
    return state.add_materials(materials, environment, known_light is None, settings.rates)


def known_light(settings: TrainSettings, dataset: Dataset) -> EnvironmentLight | None:
    """The environment that the settings give, in the world frame; None where it is learned.

    Args:
        settings: Name its file.
        dataset: For its frame.

    Raises:
        FileNotFoundError: The file is not there.
        ValueError: It is no environment map.
    """
    if settings.envmap is None or "materials" not in settings.stages:
        return None
    S = dataset.S_world_input
    R_world_input = S[:3, :3] / similarity_scale(S)
    return rotate_environment(_read_known(settings.envmap), R_world_input.float())


def initial_materials(model: GaussianModel, settings: MaterialSettings) -> dict[str, Tensor]:
    """Activated start values by key.

    Albedo takes only half its hue from the radiance, and all Gaussians are equally bright: shading
    and tints of the light that the albedo starts with would stay in it.

    Args:
        model: With trained radiance.
        settings: Start values.
    """
    count = model.num_gaussians
    linear = _mean_radiance(model)
    hue = linear / linear.amax(-1, keepdim=True).clamp_min(1e-4)
    return {
        "albedo": (settings.albedo * hue.sqrt()).clamp(_MIN_ALBEDO, 1.0 - _MIN_ALBEDO),
        "roughness": torch.full((count,), settings.roughness, device=linear.device),
        "metallic": torch.full((count,), settings.metallic, device=linear.device),
    }


def _mean_radiance(model: GaussianModel) -> Float[Tensor, "n 3"]:
    """What each Gaussian sends out in the mean over directions, linear."""
    colour = 0.5 + SH_DC * model.params["sh0"].detach()[:, 0]
    return linear_from_srgb(colour.clamp(0.0, 1.0))


def _light_from_shadows(
    model: GaussianModel,
    albedo: Tensor,
    height: int,
    transport: SceneTransport,
    seen: SeenLight | None,
) -> EnvironmentLight:
    """The light under which the Gaussians look most like their radiance."""
    opacities = model.opacities.detach()
    areas = transport.occluder.sizes.square() * opacities * (opacities > _MIN_OPACITY)
    radiance = _mean_radiance(model)
    return light_from_radiance(transport.visibility, radiance, albedo, areas, height, seen)


def _initial_light(model: GaussianModel, albedo: Tensor, height: int) -> Float[Tensor, "h w 3"]:
    """Log radiance of a uniform white light under which the mean albedo looks as bright as the
    mean radiance does."""
    linear = _mean_radiance(model)
    weights = model.opacities.detach()[:, None]
    level = (linear * weights).mean() / (albedo * weights).mean().clamp_min(1e-6)
    return level.clamp_min(_MIN_RADIANCE).log().expand(height, 2 * height, 3).clone()


def _read_known(path: Path) -> EnvironmentLight:
    light = read_environment(path)
    if light.radiance.shape[0] <= _MAX_KNOWN_HEIGHT:
        return light
    return resize_environment(light, _MAX_KNOWN_HEIGHT)
