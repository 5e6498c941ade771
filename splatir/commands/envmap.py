"""How is the environment map of `--envmap` placed in a run's world?"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.frames import similarity_scale
from splatir.scene.environment_map import rotate_environment, rotation_about_z
from splatir.scene.lights import EnvironmentLight
from splatir.storage.environment import read_environment

# Between the scene's up and the map's, in degrees, from which on a user should hear of it.
_TILTED = 20.0


def world_environment(
    path: Path, S_world_input: Float[Tensor, "4 4"], upright: bool, rotate: float
) -> EnvironmentLight:
    """Read a map into the world frame; says so when its top is not the scene's.

    Args:
        path: Latitude-longitude .hdr or .exr, in the capture's frame.
        S_world_input: Similarity from the capture's frame to the world.
        upright: The map's top is the world's up, whatever the capture's axes.
        rotate: Turn about the map's vertical axis, degrees, from +X towards +Y.

    Raises:
        FileNotFoundError: No such file.
        ValueError: No environment map.
    """
    environment = read_environment(path)
    S = S_world_input.double()
    R_world_map = S[:3, :3] / similarity_scale(S)
    if upright:
        R_world_map = torch.eye(3, dtype=torch.float64)
    tilt = float(torch.rad2deg(torch.acos(R_world_map[2, 2].clamp(-1.0, 1.0))))
    if tilt > _TILTED:
        print(
            f"note     the capture's +Z, and so the map's top, leans {tilt:.0f} degrees from the "
            "scene's up; --upright puts the map's top up"
        )
    return rotate_environment(environment, R_world_map @ rotation_about_z(rotate))
