"""What do timings of training steps have in common: a clock, a photo, rates that move nothing?"""

import time
from collections.abc import Callable
from dataclasses import fields

import torch

from splatir.commands.bench_raster import Timing
from splatir.data.images import Photo
from splatir.optim.parameters import LearningRates

_WARM_UP = 3


def cpu_time(body: Callable[[], object], repeats: int) -> Timing:
    """CPU time of a call, milliseconds, after a few that do not count.

    Args:
        body: What to time.
        repeats: Calls that count.
    """
    return _time(body, repeats, time.process_time)


def wall_time(body: Callable[[], object], repeats: int) -> Timing:
    """Likewise the time that passes, which says what threads are worth on an idle machine.

    Args:
        body: What to time.
        repeats: Calls that count.
    """
    return _time(body, repeats, time.perf_counter)


def _time(body: Callable[[], object], repeats: int, clock: Callable[[], float]) -> Timing:
    laps = []
    for lap in range(_WARM_UP + repeats):
        start = clock()
        body()
        if lap >= _WARM_UP:
            laps.append((clock() - start) * 1e3)
    return Timing.of(laps)


def noise_photo(size: int) -> Photo:
    """A photo with coverage; no compression of time by flat areas.

    Args:
        size: Width and height, pixels.
    """
    generator = torch.Generator().manual_seed(1)
    rgb = torch.rand(size, size, 3, generator=generator)
    return Photo(rgb, (rgb[..., :1] > 0.3).float(), "srgb", 8)


def frozen_rates() -> LearningRates:
    """Rates that leave the scene as it is, so that every repeat does the same work."""
    return LearningRates(**{field.name: 1e-12 for field in fields(LearningRates)})
