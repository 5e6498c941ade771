"""`splatir eval`: score a run on its held-out views and draw the contact sheet."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from splatir.codecs.atomic import write_text
from splatir.data.broken import without_broken
from splatir.data.cache import PhotoCache
from splatir.data.images import photo_loader
from splatir.data.recognise import read_dataset
from splatir.evaluate.judge import Judge, ScoredScene
from splatir.evaluate.lpips import Unavailable, lpips_metric
from splatir.evaluate.report import write_sheet
from splatir.raster.selection import rasterizer
from splatir.settings import Settings
from splatir.train.device import pick_device
from splatir.train.finished import FinishedRun, load_run

# Views drawn in the contact sheet, evenly spread over the held-out ones.
_SHEET_VIEWS = 6


@dataclass(frozen=True)
class EvalSettings(Settings):
    """Score a run on its held-out views.

    Attributes:
        run: Run folder.
        json: Also write the scores to this file, as one flat object.
        device: "auto" takes CUDA where there is one.
        lpips_weights: File of VGG16 or AlexNet weights for LPIPS; None looks in torch's cache.
    """

    run: Path | None = None
    json: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    lpips_weights: Path | None = None


def run(settings: EvalSettings) -> None:
    """Score, draw, print."""
    if settings.run is None:
        raise ValueError("give a run folder: splatir eval RUN.")
    if settings.json is not None and settings.json.is_dir():
        raise ValueError(f"--json must be a file, got the folder {settings.json}.")
    device = pick_device(settings.device)
    finished = load_run(settings.run, device)
    scores = evaluate_run(finished, device, settings.lpips_weights)
    if settings.json is not None:
        _write_json(settings.json, scores)
    for name, value in scores.items():
        print(f"{name:<22}{value:.4f}" if isinstance(value, float) else f"{name:<22}{value}")
    print(f"\nfiles    {finished.folder.evaluation}")
    root = shlex.quote(str(settings.run))
    print("\nnext:")
    if finished.model.has_materials:
        print(f"  splatir relight {root} --envmap MAP.hdr --path turntable")
    else:
        print(f"  splatir render {root} --path turntable")
    print(f"  splatir export {root}")


def evaluate_run(
    finished: FinishedRun,
    device: torch.device,
    lpips_weights: Path | None = None,
    aligned: bool | None = None,
) -> dict[str, Any]:
    """Score every held-out view; writes scores and contact sheet into the run's eval folder.

    A run with materials is scored by its shaded picture, and by its radiance alone under the prefix
    `radiance_`; one without has the same scores under both names. Where cameras or exposures of
    training photos were learned, the held-out photos' own are fitted with the model fixed, and the
    scores after that have the prefix `aligned_`; those without it are as calibrated.

    Args:
        finished: Run to score.
        device: Where to render.
        lpips_weights: As in `EvalSettings`.
        aligned: Whether cameras and exposures are fitted too; None where such were learned.

    Returns:
        The flat object that `--json` writes.

    Raises:
        ValueError: The capture has no held-out views.
    """
    settings = finished.settings
    assert settings.data is not None
    dataset = without_broken(read_dataset(settings.data, settings.dataset))
    if not dataset.test:
        raise ValueError(
            f"{settings.data} has no held-out views to score (too few images, or test_every is 0)."
        )
    lpips = lpips_metric(lpips_weights)
    aligned = settings.learns_photos if aligned is None else aligned
    scene = ScoredScene(
        finished.model,
        finished.light,
        finished.background_srgb,
        rasterizer(settings.backend, device),
        settings.uses_antialiasing,
        finished.transport(),
        dataset.extent if aligned else None,
        finished.surroundings,
    )
    judge = Judge(scene, None if isinstance(lpips, Unavailable) else lpips)
    budget = int(settings.photo_memory_gb * 1e9)
    drawn = _drawn_indices(len(dataset.test))
    with PhotoCache(dataset.test, budget, photo_loader(dataset)) as photos:
        for index in tqdm(range(len(dataset.test)), desc="eval", unit="view"):
            if index + 1 < len(dataset.test):
                photos.prefetch(index + 1)
            judge.look_at(dataset.test[index], photos[index], index in drawn)
    scores = judge.scores()
    if isinstance(lpips, Unavailable):
        scores["lpips_reason"] = lpips.reason
    scores["num_gaussians"] = finished.model.num_gaussians
    scores["train_seconds"] = round(finished.seconds, 2)
    scores["num_views"] = len(dataset.test)
    folder = finished.folder.evaluation
    _write_json(folder / "scores.json", scores)
    _write_json(folder / "views.json", judge.per_view)
    write_sheet(judge.rows, scene.light if scene.is_shaded else None, folder / "contact_sheet.png")
    return scores


def _drawn_indices(count: int) -> set[int]:
    wanted = min(count, _SHEET_VIEWS)
    return {round(i * (count - 1) / max(wanted - 1, 1)) for i in range(wanted)}


def _write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")
