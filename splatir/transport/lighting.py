"""What does shading ask of a light that knows the Gaussians which it falls on?"""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from splatir.shade.surface import Shading, SurfacePoints


@runtime_checkable
class GaussianLighting(Protocol):
    """Gaussians under a light; what it needs at a pixel is composited from theirs."""

    def channels(self, camera_position: Float[Tensor, " 3"]) -> Float[Tensor, "n c"]:
        """What one view composites of each Gaussian.

        Args:
            camera_position: World frame.
        """
        ...

    def channels_of(
        self, who: Int[Tensor, " p"], views: Float[Tensor, "p 3"]
    ) -> Float[Tensor, "p c"]:
        """The same for some Gaussians, each seen from a direction of its own.

        Args:
            who: The Gaussians, by index; any number of times each.
            views: Unit directions towards the viewer.
        """
        ...

    def shade(self, points: SurfacePoints, channels: Float[Tensor, "p c"]) -> Shading:
        """Reflected radiance of points.

        Args:
            points: Surface.
            channels: Composited at the points.
        """
        ...
