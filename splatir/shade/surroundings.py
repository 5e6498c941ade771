"""What does shading by rays ask of the scene around its points?"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from splatir.scene.lights import DirectionalLight, PointLight


@dataclass(frozen=True)
class Seen:
    """What points see in some directions.

    Attributes:
        is_sky: Whether light from infinitely far arrives.
        radiance: That arrives from surfaces; 0 where the sky is seen.
    """

    is_sky: Bool[Tensor, "samples p"]
    radiance: Float[Tensor, "samples p 3"]


@runtime_checkable
class Surroundings(Protocol):
    """The scene around the points that are shaded."""

    def look(self, rows: slice, directions: Float[Tensor, "samples p 3"]) -> Seen:
        """What some of the points see; below their horizons anything may be answered.

        Args:
            rows: Which of the points.
            directions: Unit, world frame, for these points.
        """
        ...

    def sees(self, light: PointLight | DirectionalLight) -> Float[Tensor, "p 1"]:
        """1 where a light reaches a point, else 0; for all points.

        Args:
            light: World frame.
        """
        ...
