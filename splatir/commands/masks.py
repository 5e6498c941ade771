"""`splatir masks`: masks of the object in every photo, from a trained scene."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tqdm import tqdm

from splatir.data.recognise import read_dataset
from splatir.raster.contract import RasterOptions
from splatir.raster.selection import rasterizer
from splatir.render.surrounded import whole_scene
from splatir.settings import Settings
from splatir.train.device import pick_device
from splatir.train.finished import load_run
from splatir.train.object_photos import mask_path, write_masks
from splatir.train.separation import object_mask


@dataclass(frozen=True)
class MasksSettings(Settings):
    """Write a mask of the object for every photo of a run's capture, white inside.

    Put them as `masks` beside the capture's images, and a training takes the object from them.

    Attributes:
        run: Run folder.
        output: Folder; RUN/object_masks if not given.
        overwrite: Replace masks that are there.
        device: "auto" takes CUDA where there is one.
    """

    run: Path | None = None
    output: Path | None = None
    overwrite: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"


def run(settings: MasksSettings) -> None:
    """Render the masks of all views, write them, say where they are."""
    if settings.run is None:
        raise ValueError("give a run folder: splatir masks RUN.")
    device = pick_device(settings.device)
    finished = load_run(settings.run, device)
    assert finished.settings.data is not None
    dataset = read_dataset(finished.settings.data, finished.settings.dataset)
    if finished.surroundings is None and dataset.has_background:
        raise ValueError(
            f"{settings.run} is the radiance of everything that the photos show, with no object "
            "told apart. Train it with --roi auto (the default), or say where the object is."
        )
    if finished.corrections is not None:
        dataset = dataset.with_corrections(finished.corrections)
    views = (*dataset.train, *dataset.test)
    folder = settings.output or finished.folder.root / "object_masks"
    taken = [path for path in (mask_path(folder, view) for view in views) if path.exists()]
    if taken and not settings.overwrite:
        raise FileExistsError(f"{taken[0]} exists. Give another --output, or add --overwrite.")
    backend = rasterizer(finished.settings.backend, device)
    options = RasterOptions(antialiased=finished.settings.uses_antialiasing)
    whole = whole_scene(finished.model, finished.surroundings)
    is_object = torch.arange(whole.num_gaussians, device=device) < finished.model.num_gaussians
    for view in tqdm(views, desc="masks", unit="view"):
        mask = object_mask(whole, is_object, view.camera.to(device), backend, options)
        write_masks(folder, [view], [mask])
    print(f"masks    {folder}  ({len(views)} pictures, white where the object is)")
    print("\nnext:")
    print(f"  copy {shlex.quote(str(folder))} to {finished.settings.data}/masks and train again")
