"""`splatir bench orb`: how does splatir do on Stanford-ORB, by that benchmark's own protocol?"""

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from splatir import __version__
from splatir.codecs.atomic import write_text
from splatir.commands.bench_quality import trained_apart
from splatir.commands.bench_raster import describe_machine
from splatir.commands.quality_tables import score_table
from splatir.data.dataset import DataSettings
from splatir.data.orb import OrbCapture, find_captures, novel_views
from splatir.data.recognise import read_dataset
from splatir.evaluate.judge import ScoredScene
from splatir.evaluate.lpips import Unavailable, lpips_metric
from splatir.evaluate.orb_capture import score_other_lights, score_views_and_surfaces
from splatir.evaluate.protocols import mean_of
from splatir.raster.selection import rasterizer
from splatir.settings import SettingsError, to_plain
from splatir.train.device import pick_device
from splatir.train.finished import load_run
from splatir.train.settings import TrainSettings

# The benchmark compares pictures of this size.
_SIZE = 512


@dataclass(frozen=True)
class BenchOrbSettings(TrainSettings):
    """Train captures of Stanford-ORB, score them by its protocol, write one table.

    All flags of `splatir train` are taken too and apply to every training. Captures that `output`
    has scores of are not trained again.

    Attributes:
        path: Folder with blender_HDR and ground_truth, or one capture of blender_HDR.
        captures: Names of the captures to train, separated by spaces or commas; all if not given.
        dataset: How captures are read; 512 pixels at most unless said otherwise.
        output: Folder for the runs, orb.json and orb.md; runs/orb if not given.
        overwrite: Begin anew, and replace what an earlier call left in `output`.
    """

    path: Path | None = None
    captures: tuple[str, ...] = ()
    dataset: Annotated[DataSettings, tyro.conf.arg(name="")] = field(
        default_factory=lambda: DataSettings(max_size=_SIZE)
    )


def run(settings: BenchOrbSettings) -> None:
    """Train, score, print, write."""
    if settings.path is None:
        raise ValueError("give the data: splatir bench orb DIR.")
    if settings.data is not None or settings.resume is not None:
        raise SettingsError("bench orb trains the captures of DIR; it takes no --data or --resume.")
    captures = _chosen(find_captures(settings.path), settings.captures)
    training = TrainSettings(**{f.name: getattr(settings, f.name) for f in fields(TrainSettings)})
    output = Path("runs/orb") if settings.output is None else settings.output
    rows = {} if settings.overwrite else _read_rows(output / "orb.json")
    for capture in captures:
        if capture.name in rows:
            continue
        # What is missing should be known before hours of training.
        dataset = read_dataset(capture.folder, training.dataset)
        novel_views(capture, dataset.S_world_input, training.dataset)
        chosen = replace(training, data=capture.folder, output=output / capture.name)
        rows[capture.name] = measure(chosen, capture)
        _write(output, settings, rows)
    print(f"\n{_markdown(settings, rows)}\nfiles    {output}/orb.md, orb.json and the runs")


def measure(settings: TrainSettings, capture: OrbCapture) -> dict[str, float]:
    """Train a capture and score the run.

    Args:
        settings: With `data` and `output`.
        capture: The same as `data`.

    Returns:
        Scores by the names of docs/data.md, `train_seconds`, `num_gaussians`, `peak_memory_mb`.
    """
    assert settings.output is not None
    memory = trained_apart(settings)
    device = pick_device(settings.device)
    finished = load_run(settings.output, device)
    dataset = read_dataset(capture.folder, finished.settings.dataset)
    scene = ScoredScene(
        finished.model,
        finished.light,
        finished.background_srgb,
        rasterizer(settings.backend, device),
        settings.uses_antialiasing,
        finished.transport(),
    )
    lpips = lpips_metric(settings.lpips_weights)
    distance = None if isinstance(lpips, Unavailable) else lpips.to(device)
    with torch.no_grad():
        scores = score_views_and_surfaces(scene, capture, dataset.test, distance)
        if scene.is_shaded:
            novel = novel_views(capture, finished.S_world_input, finished.settings.dataset)
            scores |= score_other_lights(scene, novel, distance)
    return scores | {
        "train_seconds": finished.seconds,
        "num_gaussians": float(finished.model.num_gaussians),
        "peak_memory_mb": memory,
    }


def _chosen(captures: list[OrbCapture], words: tuple[str, ...]) -> list[OrbCapture]:
    names = [name for word in words for name in word.split(",") if name]
    known = {capture.name: capture for capture in captures}
    for name in names:
        if name not in known:
            raise SettingsError(f"--captures knows no {name}; there are {', '.join(known)}.")
    return [known[name] for name in names] if names else captures


def _read_rows(path: Path) -> dict[str, dict[str, float]]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))["captures"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is broken ({error}). Remove it, or give --overwrite.") from error


def _write(output: Path, settings: BenchOrbSettings, rows: dict[str, dict[str, float]]) -> None:
    found: dict[str, Any] = {
        "version": __version__,
        "machine": describe_machine(),
        "settings": {k: v for k, v in to_plain(settings).items() if k not in ("path", "output")},
        "captures": rows,
        "mean": mean_of(list(rows.values())),
    }
    write_text(output / "orb.json", json.dumps(found, indent=1, default=str) + "\n")
    write_text(output / "orb.md", _markdown(settings, rows))


def _markdown(settings: BenchOrbSettings, rows: dict[str, dict[str, float]]) -> str:
    head = f"splatir {__version__}, {describe_machine()}, {pick_device(settings.device)}"
    return f"{head}\n\n{score_table(rows)}\n"
