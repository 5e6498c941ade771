"""How near is each kind of transport to path-traced pictures, with true surfaces and true light?

    python -m benchmarks.transport_truth SCENE... --output benchmarks/results/transport_truth.md

Scenes have `gt/`, `relight/` and `envs/` (docs/data.md). Gaussians are sampled from the true depth,
normals and materials of the test views, fitted to these G-buffers (`--no-fit` turns that off),
traced, and lit; the true G-buffer is shaded pixel by pixel with what they say of shadows and
bounces. So the errors are those of shading and transport alone: a ceiling, not a prediction for
trained scenes. PSNR in sRGB on white inside the true mask, mean over views and lights, the training
light among them.

With `--supersample N` the true surface is sampled N x N times per pixel, as well as one value per
pixel and fitted Gaussians tell it (`true_surface.sub_pixels`), shaded, and averaged over pixels.

What Gaussians say is composited, as everywhere. One row looks values up instead: from the nearest
Gaussians whose normals agree with the pixel's. The reference traces from the true points, and so
against Gaussians as they were sampled, which lie on the same surface.
"""

import argparse
import copy
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from benchmarks.true_surface import (
    SubPixels,
    TrueView,
    fit_to_views,
    sampled_gaussians,
    sub_pixels,
    true_view,
)
from splatir.codecs.atomic import write_text
from splatir.data.dataset import DataSettings
from splatir.data.recognise import read_dataset
from splatir.evaluate.truth import protocol_of, read_picture, relit_picture
from splatir.maths.colour import srgb_from_linear
from splatir.raster.selection import rasterizer
from splatir.scene.gaussians import GaussianModel
from splatir.scene.lights import EnvironmentLight
from splatir.shade.split_sum import SplitSum
from splatir.storage.environment import read_environment
from splatir.transport.lighting import GaussianLighting
from splatir.transport.lit import Bounced, LitGaussians, light_gaussians
from splatir.transport.materials import SurfaceMaterials
from splatir.transport.path_integrator import PathSettings, PathTracing
from splatir.transport.scene import SceneTransport

_NONE, _VISIBILITY, _BAKED, _LOOKED_UP, _REFERENCE = ROWS = (
    "no transport",
    "visibility",
    "visibility + bounces",
    "the same, looked up",
    "reference",
)
# Gaussians that are looked up, the width of their weights in their sizes, and the power of the
# cosines to the pixel's shading normal and to its surface's.
_NEAREST, _REACH, _SHARPNESS = 6, 1.2, 4


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Transport against path-traced pictures.")
    parser.add_argument("scenes", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--gaussians", type=int, default=50000, help="about what trainings have")
    parser.add_argument("--no-fit", action="store_true", help="Gaussians as they were sampled")
    parser.add_argument("--directions", type=int, default=256)
    parser.add_argument("--samples", type=int, default=128, help="per pixel, of the reference")
    parser.add_argument("--supersample", type=int, default=1, help="along a pixel's sides")
    parser.add_argument("--views", type=int, nargs="+", default=[0, 4, 8, 12])
    arguments = parser.parse_args()
    lines = [
        f"{arguments.gaussians} Gaussians, {arguments.directions} directions, reference with "
        f"{arguments.samples} samples, {arguments.supersample} points along a pixel's sides; "
        f"views {arguments.views}; dB foreground, mean of the lights.",
        "",
        f"| scene | {' | '.join(ROWS)} | bake, s | new light, s |",
        f"|---|{'---|' * (len(ROWS) + 2)}",
    ]
    for scene in arguments.scenes:
        lines.append(_measure(scene, arguments))
        print(lines[-1], flush=True)
    write_text(arguments.output, "\n".join(lines) + "\n")


def _measure(root: Path, arguments: argparse.Namespace) -> str:
    dataset = read_dataset(root, replace(DataSettings(), world="input"))
    views = [true_view(root, view) for view in dataset.test]
    sampled = sampled_gaussians(views, arguments.gaussians)
    model = copy.deepcopy(sampled)
    if not arguments.no_fit:
        fit_to_views(model, views)
    with torch.no_grad():
        return _scored(root, views, model, sampled, arguments)


def _scored(
    root: Path,
    views: list[TrueView],
    model: GaussianModel,
    sampled: GaussianModel,
    arguments: argparse.Namespace,
) -> str:
    started = time.perf_counter()
    scene = SceneTransport.of(model.gaussians, arguments.directions)
    bake = time.perf_counter() - started
    materials = SurfaceMaterials.of(model)
    sampled_scene = SceneTransport.of(sampled.gaussians, arguments.directions)
    paths = PathSettings(arguments.samples)
    samples = {i: sub_pixels(views[i], model, arguments.supersample) for i in arguments.views}
    scores: dict[str, list[float]] = {row: [] for row in ROWS}
    seconds = []
    relit = {path.name for path in (root / "relight").iterdir()}
    for file in sorted((root / "envs").glob("*.exr")):
        light = read_environment(file)
        started = time.perf_counter()
        lit = light_gaussians(scene, materials, light)
        seconds.append(time.perf_counter() - started)
        none = torch.zeros_like(lit.bounced.radiance)
        rows: dict[str, GaussianLighting | None] = {
            _NONE: None,
            _VISIBILITY: replace(lit, bounced=Bounced(none, none)),
            _BAKED: lit,
            _LOOKED_UP: lit,
            _REFERENCE: PathTracing(sampled_scene, materials, light, paths),
        }
        for index in arguments.views:
            true, within = views[index], samples[index]
            if file.stem in relit:
                picture = relit_picture(root, protocol_of(root), true.view, file.stem)
            else:
                picture = read_picture(true.view.image_path)
            for row, lighting in rows.items():
                if row == _LOOKED_UP:
                    channels = _looked_up(within, lit)
                    radiance = lit.shade(within.points, channels).radiance
                else:
                    shown = sampled if row == _REFERENCE else model
                    radiance = _shaded(within, shown, light, lighting)
                scores[row].append(
                    _psnr(within.mean(radiance), true.mask, picture.rgb_srgb, picture.alpha)
                )
    means = " | ".join(f"{sum(found) / len(found):.2f}" for found in scores.values())
    return f"| {root.name} | {means} | {bake:.1f} | {sum(seconds) / len(seconds):.2f} |"


def _shaded(
    samples: SubPixels,
    model: GaussianModel,
    light: EnvironmentLight,
    lighting: GaussianLighting | None,
) -> Tensor:
    """Radiance of the samples, linear."""
    if lighting is None:
        return SplitSum(light).shade(samples.points).radiance
    camera, options = samples.camera, samples.options
    channels = lighting.channels(camera.position_world)
    backend = rasterizer("auto", torch.device("cpu"))
    raster = backend.rasterize(model.gaussians, camera, channels, None, options)
    straight = raster.features / raster.alpha.clamp_min(1e-4)
    return lighting.shade(samples.points, straight[samples.mask]).radiance


def _looked_up(samples: SubPixels, lit: LitGaussians) -> Tensor:
    """Channels of the nearest Gaussians, weighted by distance and by agreement of normals."""
    positions, normals = lit.scene.positions, lit.scene.visibility.normals
    found = KDTree(positions.numpy()).query(samples.points.positions.numpy(), _NEAREST)
    distances, near = (torch.from_numpy(values) for values in found)
    reach = _REACH * lit.scene.occluder.sizes.median()
    weights = (-0.5 * (distances.float() / reach).square()).exp()
    for at_pixel in (samples.points.normals, samples.geo_normals):
        cosines = (normals[near] * at_pixel[:, None]).sum(-1).clamp_min(0.0)
        weights = weights * cosines**_SHARPNESS
    # Where none agrees, the nearest.
    weights[:, 0] += 1e-9
    channels = lit.channels(samples.camera.position_world)[near]
    return (weights[..., None] * channels).sum(1) / weights.sum(1, keepdim=True)


def _psnr(radiance: Tensor, mask: Tensor, true_srgb: np.ndarray, true_alpha: np.ndarray) -> float:
    alpha = torch.from_numpy(true_alpha).float()[mask][:, None]
    true = torch.from_numpy(true_srgb).float()[mask] * alpha + 1.0 - alpha
    shown = srgb_from_linear(radiance.clamp(0.0, 1.0)) * alpha + 1.0 - alpha
    return float(-10.0 * (shown - true).square().mean().log10())


if __name__ == "__main__":
    main()
