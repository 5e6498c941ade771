"""How is a scene shown under another light: which shader, and what is behind it?"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from splatir.maths.safe import safe_normalise
from splatir.render.geometry import camera_rays
from splatir.scene.camera import Camera
from splatir.scene.environment_map import sample_environment
from splatir.scene.lights import EnvironmentLight, Light
from splatir.shade.monte_carlo import MonteCarlo
from splatir.shade.split_sum import SplitSum
from splatir.shade.surface import Shader

Quality = Literal["fast", "reference"]


def shader_for(light: Light, quality: Quality, num_samples: int) -> Shader:
    """The method that a quality stands for, with its light prepared.

    Args:
        light: Any kind, world frame.
        quality: "fast" is split-sum, "reference" Monte Carlo.
        num_samples: Directions per pixel of the reference.

    Raises:
        ValueError: Too few samples, or a light that cannot be used.
    """
    if quality == "reference":
        return MonteCarlo(light, num_samples)
    return SplitSum(light)


def environment_background(
    light: EnvironmentLight, camera: Camera
) -> Float[Tensor, "height width 3"]:
    """What a camera sees of an environment with nothing before it; linear.

    Args:
        light: Map, world frame.
        camera: View.
    """
    rays = camera_rays(camera).to(light.radiance)
    directions = safe_normalise(rays @ camera.T_camera_world[:3, :3].to(rays))
    return sample_environment(light, directions)
