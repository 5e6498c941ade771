"""How the cost of a raster pass grows with splats, pixels, channels and primitive.

    python benchmarks/grid.py --output benchmarks/results/NAME.json

Every cell is `splatir bench raster` on the built-in scene, in this process; the cells of one number
of splats run interleaved over `--rounds`, so that a machine whose speed drifts does not favour one.
CPU cells are in process CPU time on one thread; gsplat's (only with a CUDA device) in time until
the device is done. Prints a table and writes all medians with the machine's description.
"""

import argparse
import itertools
import json
import resource
import statistics
from pathlib import Path

import torch

from splatir.codecs.atomic import write_text
from splatir.commands.bench_raster import describe_machine, time_rasterizer
from splatir.commands.bench_scene import knot_scene
from splatir.raster.contract import RasterOptions
from splatir.raster.selection import RasterizerName
from splatir.scene.gaussians import Primitive

PRIMITIVES: tuple[Primitive, ...] = ("ellipsoid", "surfel")
Cell = tuple[RasterizerName, Primitive, int, int]
# (splats, image size, channels)
CELLS = [
    *itertools.product((10_000, 50_000, 200_000), (400, 800), (3, 16)),
    *itertools.product((50_000,), (200, 400), (8, 32)),
]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Time raster passes over a grid of scenes.")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--rounds", type=int, default=3, help="passes over each group of cells")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of a cell in a pass")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    backends: list[RasterizerName] = ["cpu"]
    if torch.cuda.is_available():
        backends.append("gsplat")
    rows = []
    print(
        f"{'backend':<8}{'primitive':<11}{'splats':>8}{'size':>6}{'C':>4}{'forward':>9}{'both':>8}"
    )
    for count in sorted({cell[0] for cell in CELLS}):
        cells: list[Cell] = [
            (backend, primitive, size, channels)
            for n, size, channels in CELLS
            if n == count
            for primitive in PRIMITIVES
            for backend in backends
        ]
        laps: dict[Cell, list[tuple[float, float]]] = {cell: [] for cell in cells}
        for _ in range(arguments.rounds):
            for cell in cells:
                laps[cell].append(_measure(count, *cell, arguments.repeats))
        for cell in cells:
            rows.append(_row(count, cell, laps[cell]))
            r = rows[-1]
            print(
                f"{r['backend']:<8}{r['primitive']:<11}{count:>8}{r['size']:>6}{r['channels']:>4}"
                f"{r['forward_ms']:>9.2f}{r['forward_backward_ms']:>8.2f}"
            )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report = {"machine": describe_machine(), "threads": 1, "peak_memory_mb": peak, "rows": rows}
    write_text(arguments.output, json.dumps(report, indent=1) + "\n")


def _measure(
    count: int,
    backend: RasterizerName,
    primitive: Primitive,
    size: int,
    channels: int,
    repeats: int,
) -> tuple[float, float]:
    """Median forward, and forward plus backward, in ms."""
    scene = knot_scene(count, size, size, channels, primitive)
    timings = time_rasterizer(scene, backend, RasterOptions(), repeats)
    return timings.forward.median, timings.forward.median + timings.backward.median


def _row(count: int, cell: Cell, laps: list[tuple[float, float]]) -> dict:
    backend, primitive, size, channels = cell
    forward, both = (statistics.median(lap[i] for lap in laps) for i in (0, 1))
    return {
        "backend": backend,
        "primitive": primitive,
        "num_splats": count,
        "size": size,
        "channels": channels,
        "forward_ms": forward,
        "forward_backward_ms": both,
    }


if __name__ == "__main__":
    main()
