"""`splatir bench transport`: how long a bake, a new light and a new view take with transport."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from splatir.codecs.atomic import write_text
from splatir.commands.bench_raster import Timing, describe_machine
from splatir.commands.bench_scene import BenchScene, knot_scene
from splatir.maths.safe import safe_normalise
from splatir.native.library import available, library
from splatir.scene.lights import EnvironmentLight
from splatir.settings import Settings
from splatir.transport.bake import Visibility, bake_visibility
from splatir.transport.lit import light_gaussians
from splatir.transport.materials import SurfaceMaterials
from splatir.transport.occluder import OccluderSettings, occluder_of
from splatir.transport.scene import SceneTransport
from splatir.transport.sums import bounced_irradiance, irradiance, specular_sums
from splatir.transport.torch_tracer import tracer_for

_BOUNCES = 4
_MAP_HEIGHT = 256


@dataclass(frozen=True)
class BenchTransportSettings(Settings):
    """Time the parts of light transport on a built-in scene, in CPU time over all threads.

    Attributes:
        num_splats: How many; each number is timed with each number of directions.
        directions: Over the whole sphere.
        threads: Threads of the native kernels, of ray tracing and of torch.
        repeats: Timed runs of all but the bake, which runs once.
        json: Also write the numbers to this file.
    """

    num_splats: tuple[int, ...] = (20_000, 50_000)
    directions: tuple[int, ...] = (128, 256)
    threads: int = 1
    repeats: int = 7
    json: Path | None = None


@dataclass(frozen=True)
class TransportRow:
    """Medians for one number of splats and of directions, milliseconds.

    Attributes:
        num_splats: How many.
        directions: Over the whole sphere.
        facing: Splats that face the view, whose specular sums are found.
        occluded: Share of the directions above the horizon that meet a splat.
        bake_ms: Polygons, their tree, and all rays.
        irradiance_ms: Light past the occluders, and without them.
        bounces_ms: Four steps of radiosity.
        specular_ms: Sums of the specular lobe for one view.
        light_ms: All that a new map of 256 rows takes, prefiltering and a sun's rays included.
        view_ms: All that a new view takes before it is composited.
    """

    num_splats: int
    directions: int
    facing: int
    occluded: float
    bake_ms: float
    irradiance_ms: float
    bounces_ms: float
    specular_ms: float
    light_ms: float
    view_ms: float


def run(settings: BenchTransportSettings) -> None:
    """Measure, print, write."""
    for name in ("num_splats", "directions", "threads", "repeats"):
        value = getattr(settings, name)
        values = value if isinstance(value, tuple) else (value,)
        if not values or min(values) < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}.")
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    names = [field.name for field in fields(TransportRow)]
    print("  ".join(name.removesuffix("_ms").rjust(10) for name in names))
    rows = []
    try:
        for num_splats in settings.num_splats:
            scene = knot_scene(num_splats, 400, 400, 3, "surfel")
            for directions in settings.directions:
                rows.append(measure(scene, directions, settings.repeats))
                values = (getattr(rows[-1], name) for name in names)
                print(
                    "  ".join(f"{v:10.3f}" if isinstance(v, float) else f"{v:10}" for v in values)
                )
    finally:
        torch.set_num_threads(before)
    if settings.json is not None:
        write_text(settings.json, json.dumps(_report(settings, rows), indent=1) + "\n")
        print(f"\nfile     {settings.json}")


def measure(scene: BenchScene, directions: int, repeats: int) -> TransportRow:
    """Time one scene with one number of directions.

    Args:
        scene: What is baked and seen.
        directions: Over the whole sphere.
        repeats: Timed runs of all but the bake.
    """
    start = time.process_time()
    occluder = occluder_of(scene.gaussians)
    tracer = tracer_for(occluder)
    visibility = bake_visibility(occluder, tracer, directions)
    bake_ms = (time.process_time() - start) * 1e3
    generator = torch.Generator().manual_seed(0)
    count = len(visibility.normals)
    light, radiance = (torch.rand(k, 3, generator=generator) for k in (directions, count))

    def bounce() -> None:
        for _ in range(_BOUNCES):
            bounced_irradiance(visibility, radiance)

    eye = scene.camera.position_world
    views = safe_normalise(eye - occluder.centres)
    who = ((views * visibility.normals).sum(-1) > 0.0).nonzero()[:, 0]
    alpha = 0.1 + 0.9 * torch.rand(len(who), generator=generator)
    given = (visibility, who, views[who], alpha, light, radiance)

    transport = SceneTransport(occluder, tracer, visibility, OccluderSettings())
    materials = SurfaceMaterials(*(torch.rand(count, k, generator=generator) for k in (3, 1, 1)))
    environment = EnvironmentLight(_sunny_map(generator))
    lit = light_gaussians(transport, materials, environment)
    return TransportRow(
        count,
        directions,
        len(who),
        _occluded(visibility),
        bake_ms,
        _time(lambda: irradiance(visibility, light), repeats),
        _time(bounce, repeats),
        _time(lambda: specular_sums(*given), repeats),
        _time(lambda: light_gaussians(transport, materials, environment), repeats),
        _time(lambda: lit.channels(eye), repeats),
    )


def _sunny_map(generator: torch.Generator) -> torch.Tensor:
    radiance = torch.rand(_MAP_HEIGHT, 2 * _MAP_HEIGHT, 3, generator=generator)
    radiance[_MAP_HEIGHT // 4, _MAP_HEIGHT // 2] = 1e4
    return radiance


def _occluded(visibility: Visibility) -> float:
    return float((visibility.hits >= 0).sum() / (visibility.hits >= -1).sum().clamp_min(1))


def _time(work: Callable[[], Any], repeats: int) -> float:
    """Median milliseconds of CPU time, after one run that is not counted."""
    work()
    laps = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        laps.append((time.process_time() - start) * 1e3)
    return Timing.of(laps).median


def _report(settings: BenchTransportSettings, rows: list[TransportRow]) -> dict[str, Any]:
    return {
        "rows": [asdict(row) for row in rows],
        "threads": settings.threads,
        "repeats": settings.repeats,
        "clock": "process CPU time",
        "instruction_set": library().isa if available() else None,
        "machine": describe_machine(),
    }
