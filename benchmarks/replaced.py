"""What holds a run's relighting back: its normals, its materials, or what shades them?

    python -m benchmarks.replaced RUN... --output benchmarks/results/replaced.md

The data of a run has `gt/`, `relight/` and `envs/` (docs/data.md). Test views are relit as `splatir
relight` does it, with parts of the G-buffer replaced by the truth. Shadows and bounced light stay
those of the trained Gaussians. PSNR in sRGB on white inside the true mask, mean over views and
lights, without any factor: factors would hide what replacing albedo is worth. A run trained with
its true light (`--envmap`) beside one without says what the light is worth.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from splatir.codecs.atomic import write_text
from splatir.commands.envmap import world_environment
from splatir.data.dataset import View
from splatir.data.recognise import read_dataset
from splatir.evaluate.truth import (
    TrueBuffers,
    TruePicture,
    environment_file,
    protocol_of,
    relit_lights,
    relit_picture,
    true_buffers,
)
from splatir.maths.colour import srgb_from_linear
from splatir.maths.frames import similarity_scale
from splatir.maths.safe import safe_normalise
from splatir.raster.contract import RasterOptions
from splatir.raster.selection import rasterizer
from splatir.render.deferred import Lighting, shade_gbuffer
from splatir.render.gbuffer import GBuffer, render_gbuffer
from splatir.render.relighting import lighting_for
from splatir.train.finished import FinishedRun, load_run
from splatir.transport.lighting import GaussianLighting

# Parts of the G-buffer that are replaced, by row.
_ROWS: dict[str, tuple[str, ...]] = {
    "as trained": (),
    "true normals": ("normals",),
    "true albedo": ("albedo",),
    "true roughness, metallic": ("roughness", "metallic"),
    "true materials": ("albedo", "roughness", "metallic"),
    "true normals, albedo": ("normals", "albedo"),
    "all of them": ("normals", "albedo", "roughness", "metallic"),
}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Relighting with parts replaced by the truth.")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True, help="Markdown file to write")
    arguments = parser.parse_args()
    lines = [f"| run | {' | '.join(_ROWS)} |", f"|---|{'---|' * len(_ROWS)}"]
    for run in arguments.runs:
        scores = _measure(load_run(run, torch.device("cpu")))
        lines.append(f"| {run.name} | {' | '.join(f'{scores[row]:.2f}' for row in _ROWS)} |")
        print(lines[-1], flush=True)
    write_text(arguments.output, "\n".join(lines) + "\n")


@torch.no_grad()
def _measure(finished: FinishedRun) -> dict[str, float]:
    settings, model = finished.settings, finished.model
    assert settings.data is not None
    root, protocol = settings.data, protocol_of(settings.data)
    views = read_dataset(root, settings.dataset).test
    S = finished.S_world_input
    R_world_input = S[:3, :3] / similarity_scale(S)
    options = RasterOptions(antialiased=settings.uses_antialiasing)
    backend, transport = rasterizer(settings.backend, torch.device("cpu")), finished.transport()
    found: dict[str, list[float]] = {row: [] for row in _ROWS}
    for name in relit_lights(root, protocol, views[0]):
        path = environment_file(root, None, name)
        light = world_environment(path, S, upright=False, rotate=0.0)
        lighting = lighting_for(model, light, transport)
        for view in views:
            channels = None
            if isinstance(lighting, GaussianLighting):
                channels = lighting.channels(view.camera.position_world)
            gbuffer = render_gbuffer(model, view.camera, backend, options, channels)
            truth = true_buffers(root, protocol, view)
            picture = relit_picture(root, protocol, view, name)
            for row, parts in _ROWS.items():
                mended = _mended(gbuffer, truth, parts, R_world_input, view)
                found[row].append(_psnr(mended, lighting, truth, picture))
    return {row: sum(scores) / len(scores) for row, scores in found.items()}


def _mended(
    gbuffer: GBuffer, truth: TrueBuffers, parts: tuple[str, ...], R_world_input: Tensor, view: View
) -> GBuffer:
    """The G-buffer with some of its parts replaced where the true surface is."""
    is_surface = torch.from_numpy(truth.alpha > 0.5)[..., None]
    for part in parts:
        stored = getattr(truth, part)
        if stored is None:
            raise ValueError(f"the truth about view {view.name} lacks {part}.")
        true = torch.from_numpy(stored).to(gbuffer.albedo)
        if part == "normals":
            true = safe_normalise(true @ R_world_input.to(true).mT)
        true = true.view_as(getattr(gbuffer, part))
        gbuffer = replace(gbuffer, **{part: torch.where(is_surface, true, getattr(gbuffer, part))})
    return gbuffer


def _psnr(gbuffer: GBuffer, lighting: Lighting, truth: TrueBuffers, picture: TruePicture) -> float:
    image = shade_gbuffer(gbuffer, lighting)
    shown = srgb_from_linear(image.rgb.clamp(0.0, 1.0)) * image.alpha + 1.0 - image.alpha
    alpha = picture.alpha[..., None]
    true = picture.rgb_srgb * alpha + 1.0 - alpha
    error = (shown.double().numpy() - true)[truth.alpha > 0.5]
    return float(-10.0 * np.log10(np.square(error).mean()))


if __name__ == "__main__":
    main()
