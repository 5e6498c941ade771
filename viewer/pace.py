"""How tall may a picture be while the camera moves, so that it moves smoothly?"""

import math

# Pictures a second while the camera moves, and the share of that time that rendering may take:
# the rest goes into encoding and sending.
MOVING_FPS = 15.0
_RENDER_SHARE = 0.8
_MIN_HEIGHT = 96
# Heights are multiples of this, so that small noise in time does not change the size.
_STEP = 8
# Change of height from one picture to the next.
_SLOWEST, _FASTEST = 0.6, 1.25


class Pace:
    """Finds the height by the times that pictures took.

    Time does not fall with the pixels alone (each Gaussian costs something), so the height is
    steered, not computed.
    """

    def __init__(self, max_height: int) -> None:
        self.max_height = max_height
        self._height = float(min(max_height, 256))

    @property
    def height(self) -> int:
        """Rows of the next picture while moving."""
        rounded = _STEP * round(self._height / _STEP)
        return min(self.max_height, max(_MIN_HEIGHT, rounded))

    def record(self, seconds: float) -> None:
        """Take in how long a moving picture took.

        Args:
            seconds: Of rendering at `height`.
        """
        budget = _RENDER_SHARE / MOVING_FPS
        factor = math.sqrt(budget / max(seconds, 1e-4))
        self._height *= min(_FASTEST, max(_SLOWEST, factor))
        self._height = min(float(self.max_height), max(float(_MIN_HEIGHT), self._height))
