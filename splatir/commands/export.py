"""`splatir export`: a run as a splat PLY that any viewer opens."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from splatir import __version__
from splatir.codecs.atomic import write_text
from splatir.maths.frames import invert_similarity
from splatir.settings import Settings
from splatir.storage.ply import write_ply
from splatir.train.finished import load_run
from splatir.train.run_folder import RunFolder


@dataclass(frozen=True)
class ExportSettings(Settings):
    """Write a run as a splat PLY, in the capture's own frame.

    Attributes:
        run: Run folder.
        output: PLY file; RUN/export/splats.ply if not given.
        overwrite: Allow `output` to replace a file outside the run folder.
    """

    run: Path | None = None
    output: Path | None = None
    overwrite: bool = False


def run(settings: ExportSettings) -> None:
    """Write the PLY and say what it holds and what it does not."""
    if settings.run is None:
        raise ValueError("give a run folder: splatir export RUN.")
    output = settings.output
    if output is not None:
        _check_output(output, settings.overwrite)
    path = export_run(RunFolder(settings.run), output)
    print(f"splat    {path}  ({path.stat().st_size / 1e6:.1f} MB)")
    print(f"sidecar  {path.with_suffix('.json')}")
    print("lost     the learned background colour is in the sidecar only; no materials yet")


def _check_output(output: Path, overwrite: bool) -> None:
    """Refuse a place where the PLY or the sidecar beside it would destroy something.

    Raises:
        ValueError: Not the name of a PLY file.
        FileExistsError: Something is there and may not be replaced.
    """
    if output.suffix.lower() != ".ply" or output.is_dir():
        raise ValueError(f"--output must be a .ply file, got {output}.")
    for path in (output, output.with_suffix(".json")):
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists; give another --output, or add --overwrite.")


def export_run(folder: RunFolder, output: Path | None = None) -> Path:
    """Write a run's newest Gaussians and a JSON sidecar.

    Args:
        folder: The run.
        output: PLY file, RUN/export/splats.ply if None.

    Returns:
        The PLY's path.
    """
    finished = load_run(folder.root, torch.device("cpu"))
    path = folder.export / "splats.ply" if output is None else output
    path.parent.mkdir(parents=True, exist_ok=True)
    S_input_world = invert_similarity(finished.S_world_input)
    write_ply(path, finished.model, S_input_world)
    background = finished.background_srgb
    sidecar = {
        "splatir_format": 1,
        "splatir_version": __version__,
        "primitive": finished.model.primitive,
        "num_gaussians": finished.model.num_gaussians,
        "sh_degree": finished.model.sh_degree,
        "frame": "input",
        "S_input_world": S_input_world.tolist(),
        "background_srgb": None if background is None else background.tolist(),
    }
    write_text(path.with_suffix(".json"), json.dumps(sidecar, indent=1) + "\n")
    return path
