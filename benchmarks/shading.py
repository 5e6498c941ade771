"""How near is shading to the truth: Monte Carlo to Mitsuba 3, and split-sum to Monte Carlo?

    python -m benchmarks.shading mitsuba MAP.hdr... --output benchmarks/results/shading_mitsuba.md
    python -m benchmarks.shading split-sum MAP.hdr... --output ...

Spheres of one material each, over roughness and metallic, under every given environment map.
"mitsuba" tabulates relative errors of Monte Carlo against Mitsuba's direct light: the sum of
absolute differences over the sum of values. "split-sum" tabulates PSNR of split-sum pictures
against Monte Carlo's, after exposure, both sRGB-encoded and clipped.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.mitsuba_sphere import (
    Material,
    diffuse_bsdf,
    reflected_radiance,
    specular_bsdf,
    sphere_points,
)
from splatir.codecs.atomic import write_text
from splatir.codecs.hdr import read_hdr
from splatir.maths.colour import srgb_from_linear
from splatir.scene.lights import EnvironmentLight
from splatir.shade.brdf import ShadingSettings
from splatir.shade.monte_carlo import MonteCarlo
from splatir.shade.split_sum import SplitSum

ALBEDO = (0.9, 0.5, 0.1)
ROUGHNESS = (0.1, 0.2, 0.4, 0.7, 1.0)
METALLIC = (0.0, 0.5, 1.0)
# The diffuse lobe of both tables: the same for every roughness, so that Mitsuba renders it once.
_LAMBERT = ShadingSettings("lambert")
# Pixels along a side of the sphere's picture.
_MITSUBA_SIZE, _SPLIT_SUM_SIZE = 10, 32
# Linear mean of the exposed picture; 0.54 after encoding.
_MEAN = 0.25


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Compare shading with Mitsuba and Monte Carlo.")
    parser.add_argument("table", choices=["mitsuba", "split-sum"])
    parser.add_argument("maps", type=Path, nargs="+", help="environment maps (.hdr)")
    parser.add_argument("--output", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--samples", type=int, default=16384, help="per point, for Mitsuba")
    arguments = parser.parse_args()
    lights = {path.stem: torch.from_numpy(read_hdr(path)) for path in arguments.maps}
    if arguments.table == "mitsuba":
        text = _against_mitsuba(lights, arguments.samples)
    else:
        text = _split_sum(lights)
    print(text)
    write_text(arguments.output, text)


def _against_mitsuba(lights: dict[str, Tensor], num_samples: int) -> str:
    """Table of relative errors, per cent: both lobes together, as a picture has them."""

    # The diffuse lobe of a white dielectric, to be tinted: it is the same for all the rest.
    white = Material((1.0, 1.0, 1.0), 1.0, 0.0)
    points = sphere_points(_MITSUBA_SIZE, white)
    diffuse = {
        name: reflected_radiance(points, radiance, diffuse_bsdf(white), num_samples, seed=1)
        for name, radiance in lights.items()
    }

    def error(name: str, material: Material) -> float:
        points = sphere_points(_MITSUBA_SIZE, material)
        light = EnvironmentLight(lights[name])
        ours = MonteCarlo(light, num_samples, settings=_LAMBERT).shade(points).radiance
        bsdf = specular_bsdf(material)
        theirs = reflected_radiance(points, lights[name], bsdf, num_samples)
        theirs = theirs + (1.0 - material.metallic) * points.albedo * diffuse[name]
        return 100.0 * float((ours - theirs).abs().sum() / theirs.sum())

    head = (
        "# Monte Carlo against Mitsuba 3\n\n"
        f"Relative error in per cent with {num_samples} samples a point on both sides, whose noise "
        "it is. Roughness down, metallic 0 / 0.5 / 1 in each cell."
    )
    return head + "\n\n" + _table(list(lights), error, "{:.2f}") + "\n"


def _split_sum(lights: dict[str, Tensor]) -> str:
    """Table of PSNR over the sphere."""

    shaders = {name: SplitSum(EnvironmentLight(light), _LAMBERT) for name, light in lights.items()}

    def psnr(name: str, material: Material) -> float:
        points = sphere_points(_SPLIT_SUM_SIZE, material)
        light = EnvironmentLight(lights[name])
        truth = MonteCarlo(light, 2048, settings=_LAMBERT).shade(points).radiance
        exposure = _MEAN / truth.mean()
        pictures = [
            srgb_from_linear(exposure * picture).clamp(0.0, 1.0)
            for picture in (shaders[name].shade(points).radiance, truth)
        ]
        return -10.0 * math.log10(float((pictures[0] - pictures[1]).square().mean()))

    head = (
        "# Split-sum against Monte Carlo\n\n"
        "PSNR in dB over the sphere, sRGB, after an exposure that puts the linear mean at 0.25. "
        "Roughness down, metallic 0 / 0.5 / 1 in each cell."
    )
    return head + "\n\n" + _table(list(lights), psnr, "{:.1f}") + "\n"


def _table(names: list[str], measure: Callable[[str, Material], float], number: str) -> str:
    """Markdown: roughness by map, a value per metallic in each cell; means at the end."""
    lines = ["| roughness | " + " | ".join(names) + " | mean |", "|---" * (len(names) + 2) + "|"]
    everything: list[float] = []
    for roughness in ROUGHNESS:
        cells, row = [], []
        for name in names:
            start = time.perf_counter()
            values = [measure(name, Material(ALBEDO, roughness, m)) for m in METALLIC]
            cells.append(" / ".join(number.format(value) for value in values))
            row += values
            print(roughness, cells[-1], f"{time.perf_counter() - start:.0f} s", flush=True)
        lines.append(f"| {roughness} | " + " | ".join([*cells, number.format(_mean(row))]) + " |")
        everything += row
    lines.append("")
    lines.append(
        f"Mean {number.format(_mean(everything))}, smallest {number.format(min(everything))}, "
        f"largest {number.format(max(everything))}."
    )
    return "\n".join(lines)


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


if __name__ == "__main__":
    main()
