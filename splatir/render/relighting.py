"""How is a scene shown under another light: which shader, and what is behind it?"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.safe import safe_normalise
from splatir.render.geometry import camera_rays
from splatir.scene.camera import Camera
from splatir.scene.environment_map import sample_environment
from splatir.scene.lights import (
    DirectionalLight,
    EnvironmentLight,
    Light,
    PointLight,
    SphericalHarmonicLight,
    environment_from_sh,
    flatten_light,
)
from splatir.shade.monte_carlo import MonteCarlo
from splatir.shade.punctual import shade_punctual
from splatir.shade.split_sum import SplitSum
from splatir.shade.surface import Shader, Shading, SurfacePoints

Quality = Literal["fast", "reference"]


@dataclass(frozen=True)
class FastShader:
    """Split-sum for environments and exact shading for other lights, added up; a `Shader`.

    Attributes:
        environments: Prefiltered.
        punctual: Point and directional lights.
    """

    environments: tuple[SplitSum, ...]
    punctual: tuple[PointLight | DirectionalLight, ...]

    @staticmethod
    def of(light: Light) -> "FastShader":
        """Prepare a light of any kind."""
        environments, punctual = [], []
        for simple in flatten_light(light):
            if isinstance(simple, PointLight | DirectionalLight):
                punctual.append(simple)
                continue
            if isinstance(simple, SphericalHarmonicLight):
                simple = environment_from_sh(simple)
            environments.append(SplitSum(simple))
        return FastShader(tuple(environments), tuple(punctual))

    def shade(self, points: SurfacePoints) -> Shading:
        """Reflected radiance of points; differentiable in them and in the light."""
        diffuse, specular = torch.zeros_like(points.albedo), torch.zeros_like(points.albedo)
        parts = [shader.shade(points) for shader in self.environments]
        parts += [shade_punctual(points, light) for light in self.punctual]
        for part in parts:
            diffuse, specular = diffuse + part.diffuse, specular + part.specular
        return Shading(diffuse, specular)


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
    return FastShader.of(light)


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
