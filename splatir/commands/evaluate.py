"""`splatir eval`: score a run on its held-out views and draw the contact sheet."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from splatir.codecs.atomic import write_text
from splatir.data.cache import PhotoCache
from splatir.data.dataset import Dataset
from splatir.data.images import photo_loader
from splatir.data.recognise import read_dataset
from splatir.evaluate.held_out import RenderedView, render_view
from splatir.evaluate.lpips import Unavailable, lpips_metric
from splatir.evaluate.metrics import ImageScores, mean_scores
from splatir.evaluate.report import radiance_sheet
from splatir.raster.contract import RasterOptions
from splatir.raster.selection import rasterizer
from splatir.settings import Settings
from splatir.train.finished import FinishedRun, load_run
from splatir.train.session import pick_device

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


def evaluate_run(
    finished: FinishedRun, device: torch.device, lpips_weights: Path | None = None
) -> dict[str, Any]:
    """Score every held-out view; writes scores and contact sheet into the run's eval folder.

    Args:
        finished: Run to score.
        device: Where to render.
        lpips_weights: As in `EvalSettings`.

    Returns:
        The flat object that `--json` writes.

    Raises:
        ValueError: The capture has no held-out views.
    """
    settings = finished.settings
    assert settings.data is not None
    dataset = read_dataset(settings.data, settings.dataset)
    if not dataset.test:
        raise ValueError(
            f"{settings.data} has no held-out views to score (too few images, or test_every is 0)."
        )
    lpips = lpips_metric(lpips_weights)
    views: list[ImageScores] = []
    perceptual: list[float] = []
    drawn: list[RenderedView] = []
    budget = int(settings.photo_memory_gb * 1e9)
    with PhotoCache(dataset.test, budget, photo_loader(dataset)) as photos:
        for index in tqdm(range(len(dataset.test)), desc="eval", unit="view"):
            rendered = _render(finished, dataset, photos, index, device)
            views.append(rendered.scores)
            if not isinstance(lpips, Unavailable):
                perceptual.append(float(lpips(rendered.image_srgb, rendered.photo_srgb)))
            if index in _drawn_indices(len(dataset.test)):
                drawn.append(rendered)
    mean = asdict(mean_scores(views))
    mean["lpips"] = sum(perceptual) / len(perceptual) if perceptual else None
    scores: dict[str, Any] = {**mean, **{f"radiance_{key}": mean[key] for key in mean}}
    if isinstance(lpips, Unavailable):
        scores["lpips_reason"] = lpips.reason
    scores["num_gaussians"] = finished.model.num_gaussians
    scores["train_seconds"] = round(finished.seconds, 2)
    scores["num_views"] = len(views)
    names = [view.name for view in dataset.test]
    folder = finished.folder.evaluation
    per_view = [{"name": n, **asdict(v)} for n, v in zip(names, views, strict=True)]
    _write_json(folder / "scores.json", scores)
    _write_json(folder / "views.json", per_view)
    radiance_sheet(drawn, folder / "contact_sheet.png")
    return scores


def _render(
    finished: FinishedRun, dataset: Dataset, photos: PhotoCache, index: int, device: torch.device
) -> RenderedView:
    if index + 1 < len(dataset.test):
        photos.prefetch(index + 1)
    options = RasterOptions(
        depth=True,
        normals=finished.model.primitive == "surfel",
        antialiased=finished.settings.uses_antialiasing,
    )
    return render_view(
        finished.model,
        dataset.test[index],
        photos[index],
        rasterizer(finished.settings.backend, device),
        finished.background_srgb,
        options,
    )


def _drawn_indices(count: int) -> set[int]:
    wanted = min(count, _SHEET_VIEWS)
    return {round(i * (count - 1) / max(wanted - 1, 1)) for i in range(wanted)}


def _write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")
