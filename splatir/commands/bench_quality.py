"""`splatir bench quality`: how good are trainings of given scenes, by all protocols, in a table?"""

import json
import multiprocessing
import resource
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from splatir import __version__
from splatir.codecs.atomic import write_text
from splatir.commands.bench_raster import describe_machine
from splatir.commands.envmap import world_environment
from splatir.commands.evaluate import evaluate_run
from splatir.commands.export import export_run
from splatir.commands.quality_tables import ablation_table, score_table
from splatir.data.recognise import read_dataset
from splatir.evaluate.judge import ScoredScene
from splatir.evaluate.protocols import mean_of
from splatir.evaluate.quality import Truth, score_relighting, score_surfaces
from splatir.evaluate.truth import environment_file, protocol_of
from splatir.raster.selection import rasterizer
from splatir.scene.lights import EnvironmentLight
from splatir.settings import SettingsError, to_plain
from splatir.train.device import pick_device
from splatir.train.finished import FinishedRun, load_run
from splatir.train.session import train
from splatir.train.settings import TrainSettings

DEFAULTS = "defaults"
# Groups in which a name without a dot is looked for, in this order.
_GROUPS = ("materials", "material_loss", "loss")
# Parts of the materials stage and what takes them out of it.
_PARTS: dict[str, tuple[()] | bool] = {"metal_checks": (), "cloth": False, "transport": False}


@dataclass(frozen=True)
class BenchQualitySettings(TrainSettings):
    """Train scenes, score their test views against the truth, write one table.

    All flags of `splatir train` are taken too and apply to every training; what is measured without
    them are the defaults. docs/data.md has the layouts of scenes with ground truth.

    Attributes:
        scenes: Scene folders.
        ablate: Weights to train without, one after the other, on all scenes: names of
            --material-loss, --loss (or in full, such as loss.ssim), metal_checks, cloth and
            transport. Separated by spaces or commas.
        envmaps: Folder of the maps of the relit pictures; SCENE/envs if not given.
        output: Folder for the runs, quality.json and quality.md; runs/quality if not given.
        overwrite: Replace what an earlier call left in `output`.
    """

    scenes: tuple[Path, ...] = ()
    ablate: tuple[str, ...] = ()
    envmaps: Path | None = None


def run(settings: BenchQualitySettings) -> None:
    """Train, score, print, write."""
    if not settings.scenes:
        raise ValueError("give scene folders: splatir bench quality --scenes DIR DIR ...")
    if settings.data is not None or settings.resume is not None:
        raise SettingsError("bench quality trains --scenes; it takes no --data and no --resume.")
    scenes = _named(settings.scenes)
    training = TrainSettings(**{f.name: getattr(settings, f.name) for f in fields(TrainSettings)})
    variants = {DEFAULTS: training}
    for name in (part for word in settings.ablate for part in word.split(",") if part):
        variants[f"without {name}"] = without(training, name)
    output = Path("runs/quality") if settings.output is None else settings.output
    if (output / "quality.json").exists() and not settings.overwrite:
        raise FileExistsError(f"{output} holds results. Give another --output, or --overwrite.")
    for root in scenes.values():
        _check(root, training, settings.envmaps)
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for variant, chosen in variants.items():
        for scene, root in scenes.items():
            folder = output / variant.replace(" ", "_") / scene
            scores = measure(replace(chosen, data=root, output=folder), settings.envmaps)
            rows.setdefault(variant, {})[scene] = scores
            _write(output, settings, rows)
    print(f"\n{_markdown(settings, rows)}\nfiles    {output}/quality.md, quality.json and the runs")


def measure(settings: TrainSettings, envmaps: Path | None = None) -> dict[str, float]:
    """Train a scene and score the run; the run folder is left with its contact sheet and PLY.

    Args:
        settings: With `data` and `output`.
        envmaps: Folder of the maps of the relit pictures; `envs` of the scene if None.

    Returns:
        Scores by the names of docs/data.md, `train_seconds`, `num_gaussians` and `peak_memory_mb`
        of the training process (on CUDA of torch's allocator).
    """
    assert settings.output is not None
    memory = trained_apart(settings)
    device = pick_device(settings.device)
    finished = load_run(settings.output, device)
    export_run(finished.folder)
    scores = {
        name: float(value)
        for name, value in evaluate_run(finished, device).items()
        if isinstance(value, int | float) and name != "num_views"
    }
    return scores | score_against_truth(finished, device, envmaps) | {"peak_memory_mb": memory}


def score_against_truth(
    finished: FinishedRun, device: torch.device, envmaps: Path | None = None
) -> dict[str, float]:
    """Scores of surfaces and relighting of a run, as far as the truth goes.

    Args:
        finished: Run.
        device: Where to render.
        envmaps: As in `measure`.
    """
    settings = finished.settings
    assert settings.data is not None
    dataset = read_dataset(settings.data, settings.dataset)
    truth = Truth(settings.data, protocol_of(settings.data), dataset.test)
    scene = ScoredScene(
        finished.model,
        finished.light,
        finished.background_srgb,
        rasterizer(settings.backend, device),
        settings.uses_antialiasing,
        finished.transport(),
    )
    scores, scales = score_surfaces(scene, finished.S_world_input, truth)
    if finished.model.has_materials and truth.lights:
        lights = {}
        for name in truth.lights:
            path = environment_file(truth.root, envmaps, name)
            light = world_environment(path, finished.S_world_input, upright=False, rotate=0.0)
            lights[name] = EnvironmentLight(light.radiance.to(device))
        scores |= score_relighting(scene, truth, lights, scales)
    return scores


def without(settings: TrainSettings, name: str) -> TrainSettings:
    """Settings with one weight at 0, or without a part of the materials stage.

    Args:
        settings: To start from.
        name: Of a setting, with its group and a dot, or alone.

    Raises:
        SettingsError: No such weight.
    """
    group, _, key = name.rpartition(".")
    known = []
    for candidate in _GROUPS:
        values = getattr(settings, candidate)
        for field in fields(values):
            off = _off(candidate, field.name)
            if off is None:
                continue
            known.append(f"{candidate}.{field.name}")
            if field.name == key and group in ("", candidate):
                return replace(settings, **{candidate: replace(values, **{key: off})})
    raise SettingsError(f"--ablate knows no '{name}'; it knows {', '.join(known)}.")


def _off(group: str, name: str) -> tuple[()] | bool | float | None:
    """Value that takes a setting out of the training; None if it is neither weight nor part."""
    if group == "materials":
        return _PARTS.get(name)
    return None if name == "normal_start" else 0.0


def trained_apart(settings: TrainSettings) -> float:
    """Train in a process of its own, whose peak memory is then that of this training.

    Args:
        settings: With `data` and `output`.

    Returns:
        MB.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_train, settings).result()


def _train(settings: TrainSettings) -> float:
    train(settings)
    if pick_device(settings.device).type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _named(roots: tuple[Path, ...]) -> dict[str, Path]:
    """Scenes by the names of their folders."""
    named = {root.resolve().name: root for root in roots}
    if len(named) < len(roots):
        raise ValueError("two of --scenes have the same folder name; rename one.")
    return named


def _check(root: Path, settings: TrainSettings, envmaps: Path | None) -> None:
    """Find out before the first training that scores can follow."""
    dataset = read_dataset(root, settings.dataset)
    if not dataset.test:
        raise ValueError(f"{root} has no test views to score.")
    truth = Truth(root, protocol_of(root), dataset.test)
    for name in truth.lights:
        environment_file(root, envmaps, name)


def _write(
    output: Path, settings: BenchQualitySettings, rows: dict[str, dict[str, dict[str, float]]]
) -> None:
    found: dict[str, Any] = {
        "version": __version__,
        "machine": describe_machine(),
        "settings": {k: v for k, v in to_plain(settings).items() if k not in ("scenes", "output")},
        "protocols": {name: protocol_of(root) for name, root in _named(settings.scenes).items()},
        "variants": {
            variant: {"scenes": scenes, "mean": mean_of(list(scenes.values()))}
            for variant, scenes in rows.items()
        },
    }
    write_text(output / "quality.json", json.dumps(found, indent=1, default=str) + "\n")
    write_text(output / "quality.md", _markdown(settings, rows))


def _markdown(settings: BenchQualitySettings, rows: dict[str, dict[str, dict[str, float]]]) -> str:
    parts = [f"splatir {__version__}, {describe_machine()}, {pick_device(settings.device)}"]
    parts += [f"## {variant}\n\n{score_table(scenes)}" for variant, scenes in rows.items()]
    if len(rows) > 1:
        means = {variant: mean_of(list(scenes.values())) for variant, scenes in rows.items()}
        parts.append(f"## Ablation, mean over scenes\n\n{ablation_table(means)}")
    return "\n\n".join(parts) + "\n"
