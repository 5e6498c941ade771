"""`splatir info`: what a capture, a run or a splat PLY holds, and what is wrong with it."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from splatir.data.dataset import DataSettings
from splatir.data.inspect import format_report, inspect_dataset
from splatir.data.recognise import read_dataset
from splatir.messages import one_line
from splatir.scene.gaussians import MATERIAL_KEYS, GaussianModel
from splatir.scene.lights import EnvironmentLight, texel_solid_angles
from splatir.settings import Settings
from splatir.storage.relightable import RelightableMetadata, read_relightable
from splatir.train.finished import FinishedRun, load_run
from splatir.train.stages import stages_of


@dataclass(frozen=True)
class InfoSettings(Settings):
    """Print what a capture folder, a run folder or a splat PLY holds.

    Attributes:
        path: Folder or file.
        dataset: How a capture is read.
    """

    path: Path | None = None
    dataset: Annotated[DataSettings, tyro.conf.arg(name="")] = field(default_factory=DataSettings)


def run(settings: InfoSettings) -> None:
    """Recognise and describe."""
    path = settings.path
    if path is None:
        raise ValueError("give a capture folder, a run folder or a PLY: splatir info PATH.")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist.")
    if path.is_file():
        print("\n".join(describe_files(path)))
    elif (path / "config.toml").is_file():
        print("\n".join(describe_run(load_run(path, torch.device("cpu")))))
    else:
        print(format_report(inspect_dataset(read_dataset(path, settings.dataset))))


def describe_model(model: GaussianModel) -> list[str]:
    """Lines about Gaussians: count, primitive, SH degree, bounds, sizes, opacity, materials."""
    lines = [
        f"Gaussians    {model.num_gaussians:,} {model.primitive}s, SH degree {model.sh_degree}"
    ]
    if model.num_gaussians == 0:
        return lines
    low, high = model.means.detach().aminmax(dim=0)
    num_scales = 2 if model.primitive == "surfel" else 3
    scales = model.scales.detach()[:, :num_scales].flatten()
    opacities = model.opacities.detach()
    return [
        *lines,
        f"bounds       {_vector(low)} to {_vector(high)}",
        f"scale        median {scales.median():.4g}, largest {scales.max():.4g}",
        f"opacity      median {opacities.median():.2f}, "
        f"{100 * (opacities < 0.05).float().mean():.0f} % below 0.05",
        f"materials    {_materials(model)}",
    ]


def describe_light(light: EnvironmentLight | None) -> str:
    """A line about an environment map: size, mean and largest radiance."""
    if light is None:
        return "light        none"
    height, width = light.radiance.shape[:2]
    weights = texel_solid_angles(height, width, light.radiance)[:, None, None]
    mean = (light.radiance * weights).sum((0, 1)) / (4.0 * math.pi)
    return (
        f"light        {width}x{height} map, mean radiance {_vector(mean)}, "
        f"largest {light.radiance.max():.4g}"
    )


def describe_files(path: Path) -> list[str]:
    """Lines about a PLY and what stands beside it."""
    model, light, metadata = read_relightable(path)
    lines = [*describe_model(model), describe_light(light)]
    if path.with_suffix(".json").is_file():
        is_photo = metadata.appearance == RelightableMetadata.appearance
        lines.append(f"shows        the {'' if is_photo else 'scene under '}{metadata.appearance}")
    return lines


def describe_run(finished: FinishedRun) -> list[str]:
    """Lines about a run: data, progress, Gaussians, scores if it was evaluated."""
    settings = finished.settings
    num_steps = stages_of(settings)[-1].end
    lines = [
        f"run          {finished.folder.root}",
        f"capture      {settings.data}",
        f"trained      {finished.step} of {num_steps} steps, {finished.seconds:.0f} s, "
        f"seed {settings.seed}",
        *describe_model(finished.model),
        describe_light(finished.light),
    ]
    scores = finished.folder.evaluation / "scores.json"
    if scores.is_file():
        try:
            values = json.loads(scores.read_text(encoding="utf-8"))
            found = f"PSNR {values['psnr_full']:.2f} dB, SSIM {values['ssim']:.4f}"
        except (ValueError, KeyError, TypeError) as error:
            found = f"{scores} is broken ({one_line(str(error))}); splatir eval writes it again"
        lines.append(f"scores       {found}")
    return lines


def _materials(model: GaussianModel) -> str:
    """Means by opacity, which is roughly how much of each is seen."""
    if not model.has_materials:
        return "none: radiance only"
    weights = model.opacities.detach()[:, None]
    albedo, roughness, metallic = (
        (model.material(key).detach().reshape(len(weights), -1) * weights).sum(0) / weights.sum()
        for key in MATERIAL_KEYS
    )
    sheen = ""
    if model.sheen is not None:
        share = (model.sheen.detach()[:, None] * weights).sum() / weights.sum()
        sheen = f", sheen {share.item():.2f}"
    return (
        f"mean albedo {_vector(albedo)} (linear), roughness {roughness.item():.2f}, "
        f"metallic {metallic.item():.2f}{sheen}"
    )


def _vector(values: torch.Tensor) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in values.tolist()) + ")"
