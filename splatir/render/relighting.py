"""How is a scene shown under another light: which shader, and what is behind it?"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.render.deferred import Lighting
from splatir.render.geometry import ray_directions
from splatir.scene.camera import Camera
from splatir.scene.environment_map import sample_environment
from splatir.scene.gaussians import GaussianModel
from splatir.scene.lights import EnvironmentLight, Light
from splatir.shade.monte_carlo import MonteCarlo
from splatir.shade.split_sum import SplitSum
from splatir.transport.lit import light_gaussians
from splatir.transport.materials import SurfaceMaterials
from splatir.transport.path_integrator import PathSettings, PathTracing
from splatir.transport.scene import SceneTransport

Quality = Literal["fast", "reference"]


def lighting_for(
    model: GaussianModel,
    light: Light,
    transport: SceneTransport | None,
    quality: Quality = "fast",
    paths: PathSettings = PathSettings(),
) -> Lighting:
    """The method that a quality stands for, with its light prepared.

    Args:
        model: Gaussians with materials.
        light: Any kind, world frame.
        transport: What the Gaussians see of each other; None for no shadows.
        quality: "fast" is split-sum with baked transport, "reference" Monte Carlo with traced rays.
        paths: Of the reference.

    Raises:
        ValueError: A light that cannot be used.
    """
    if transport is None:
        return MonteCarlo(light, paths.samples) if quality == "reference" else SplitSum(light)
    with torch.no_grad():
        materials = SurfaceMaterials.of(model)
        if quality == "reference":
            return PathTracing(transport, materials, light, paths)
        return light_gaussians(transport, materials, light)


def environment_background(
    light: EnvironmentLight, camera: Camera
) -> Float[Tensor, "height width 3"]:
    """What a camera sees of an environment with nothing before it; linear.

    Args:
        light: Map, world frame.
        camera: View.
    """
    return sample_environment(light, ray_directions(camera).to(light.radiance))
