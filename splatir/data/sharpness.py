"""Which photographs of a capture are blurred, by comparison with the others?"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

# Share of the pixels that counts: where edges are strongest, so that a view of a smooth side is not
# taken for a blurred one.
_EDGE_SHARE = 0.02
# Part of the median sharpness below which a photograph is blurred. Sharp photographs of two real
# captures and a rendered one lie at 0.45 and above, blurred by one pixel in a thousand at 0.21 and
# below.
_MAX_RATIO = 0.3
# And so many robust standard deviations below it: where sharpness varies, more is needed.
_MAX_DEVIATIONS = 3.5
# Fewer photographs have no usual sharpness.
_MIN_COUNT = 4


def sharpness(grey: Float[np.ndarray, "h w"]) -> float:
    """Energy of the Laplacian over that of the gradient, at the strongest edges.

    A ratio, so that exposure and contrast do not matter; the gradient is that of the smoothed
    picture, which blur changes little. 0 for a picture of one colour.

    Args:
        grey: Display values of any range, at least 3 x 3.
    """
    smooth = _smoothed(grey)
    gradient = (smooth[2:, 1:-1] - smooth[:-2, 1:-1]) ** 2 / 4.0
    gradient += (smooth[1:-1, 2:] - smooth[1:-1, :-2]) ** 2 / 4.0
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    laplacian = (around - 4.0 * grey[1:-1, 1:-1]) ** 2
    strongest = gradient >= np.quantile(gradient, 1.0 - _EDGE_SHARE)
    edge = float(gradient[strongest].mean())
    return float(laplacian[strongest].mean()) / edge if edge > 1e-12 else 0.0


def are_blurred(values: Sequence[float]) -> Bool[np.ndarray, " n"]:
    """Which of a capture's photographs are far less sharp than most of them.

    Args:
        values: `sharpness` of each, of pictures of about the same size.
    """
    logs = np.log(np.maximum(np.asarray(values, np.float64), 1e-9))
    if len(logs) < _MIN_COUNT:
        return np.zeros(len(logs), bool)
    below = np.median(logs) - logs
    # 1.4826: from the median absolute deviation to the standard deviation of a normal.
    deviation = 1.4826 * float(np.median(np.abs(below)))
    return below > max(-np.log(_MAX_RATIO), _MAX_DEVIATIONS * deviation)


def _smoothed(grey: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Binomial filter of five taps along both axes."""
    for axis in (0, 1):
        widths = [(2, 2) if a == axis else (0, 0) for a in (0, 1)]
        padded = np.pad(grey, widths, mode="edge")
        count = grey.shape[axis]
        taps = [np.take(padded, range(i, i + count), axis) for i in range(5)]
        grey = (taps[0] + 4 * taps[1] + 6 * taps[2] + 4 * taps[3] + taps[4]) / 16.0
    return grey
