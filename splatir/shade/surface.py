"""What shading takes and returns, whatever the method."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class SurfacePoints:
    """Points to shade, with glTF's metallic-roughness materials; world frame.

    Attributes:
        positions: Scene units.
        normals: Unit, facing the viewer.
        views: Unit directions towards the viewer.
        albedo: Base colour, linear, 0 to 1.
        roughness: Perceptual, alpha = roughness^2.
        metallic: 0 to 1.
        sheen: Of the diffuse lobe, 0 to 1, see `shade.cloth`; None for 0.
    """

    positions: Float[Tensor, "p 3"]
    normals: Float[Tensor, "p 3"]
    views: Float[Tensor, "p 3"]
    albedo: Float[Tensor, "p 3"]
    roughness: Float[Tensor, "p 1"]
    metallic: Float[Tensor, "p 1"]
    sheen: Float[Tensor, "p 1"] | None = None


@dataclass(frozen=True)
class Shading:
    """Reflected radiance towards the viewer, linear, not clipped.

    Attributes:
        diffuse: From the diffuse lobe.
        specular: From the specular lobe.
    """

    diffuse: Float[Tensor, "p 3"]
    specular: Float[Tensor, "p 3"]

    @property
    def radiance(self) -> Float[Tensor, "p 3"]:
        """Both lobes."""
        return self.diffuse + self.specular


@runtime_checkable
class Shader(Protocol):
    """A method of shading with a light already prepared for it."""

    def shade(self, points: SurfacePoints) -> Shading:
        """Reflected radiance of points; differentiable in them and in the light."""
        ...
