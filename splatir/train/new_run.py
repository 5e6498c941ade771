"""How does a new run take its place without costing an earlier one before it is worth it?"""

import contextlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from splatir.train.run_folder import RunFolder
from splatir.train.settings import TrainSettings


@dataclass(frozen=True)
class NewRun:
    """A run that has no checkpoint yet.

    Attributes:
        folder: Where it is written.
        replaces: Earlier run whose place it takes once it has a checkpoint, or None.
        latest: Link that points at it from then on, or None.
    """

    folder: RunFolder
    replaces: Path | None = None
    latest: Path | None = None

    def establish(self) -> RunFolder:
        """Take the final place, now that there is a checkpoint; returns the folder there."""
        folder = self.folder
        if self.replaces is not None:
            old = self.replaces.with_name(f".{self.replaces.name}.replaced")
            os.replace(self.replaces, old)
            os.replace(folder.root, self.replaces)
            shutil.rmtree(old)
            folder = RunFolder(self.replaces)
        if self.latest is not None:
            _point(self.latest, folder.root)
        return folder

    def abandon(self) -> None:
        """Remove what was written; an earlier run stays as it was."""
        shutil.rmtree(self.folder.checkpoints, ignore_errors=True)
        for path in (self.folder.config, self.folder.metrics):
            path.unlink(missing_ok=True)
        # Whatever else lies there was put there by others.
        with contextlib.suppress(OSError):
            self.folder.root.rmdir()


def create_new_run(settings: TrainSettings, data: Path) -> NewRun:
    """Make the folder of a new run.

    Args:
        settings: Say where; without `output` it is runs/<scene>/<time>, and `latest` beside it will
            point at it.
        data: The capture, for the name of the scene.

    Raises:
        FileExistsError: The given output is not empty and `overwrite` was not asked for.
        ValueError: The given output is a file, or `overwrite` would delete something that is no
            run folder.
    """
    if settings.output is None:
        name = data.resolve().name
        if name in ("colmap", "data", "dense"):
            name = data.resolve().parent.name
        parent = Path("runs") / name
        root = _unused(parent / time.strftime("%Y-%m-%d_%H%M%S"))
        new = NewRun(RunFolder(root), latest=parent / "latest")
    else:
        root = settings.output
        if _is_free(root, settings.overwrite, data):
            new = NewRun(RunFolder(root))
        else:
            root = root.resolve()
            beside = root.with_name(f".{root.name}.starting")
            # What a killed training left.
            shutil.rmtree(beside, ignore_errors=True)
            new = NewRun(RunFolder(beside), replaces=root)
    new.folder.root.mkdir(parents=True, exist_ok=True)
    return new


def _unused(root: Path) -> Path:
    """The path itself, or with a number if two runs start within a second."""
    candidate, number = root, 2
    while candidate.exists():
        candidate = root.with_name(f"{root.name}_{number}")
        number += 1
    return candidate


def _is_free(root: Path, overwrite: bool, data: Path) -> bool:
    """Whether nothing is there yet; False for an earlier run that may be replaced."""
    if root.is_file():
        raise ValueError(f"the output {root} is a file; give a folder.")
    if not root.is_dir() or not any(root.iterdir()):
        return True
    if not overwrite:
        raise FileExistsError(
            f"the output folder {root} is not empty. Give another one, continue it with "
            f"--resume {root}, or replace it with --overwrite."
        )
    if not RunFolder(root).is_run:
        raise ValueError(
            f"{root} is not empty and is no run folder (no config.toml of a training), so "
            "--overwrite will not delete it. Give another output folder."
        )
    if data.resolve().is_relative_to(root.resolve()):
        raise ValueError(
            f"the capture {data} lies in {root}, which --overwrite would delete. "
            "Give another output folder."
        )
    return False


def _point(link: Path, root: Path) -> None:
    """Atomically make a link to a folder beside it, where the file system has links."""
    fresh = link.with_name(f".{link.name}-{os.getpid()}")
    try:
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(root.name)
        fresh.replace(link)
    except OSError:
        # No links here (or a real folder of that name): the run itself is not affected.
        fresh.unlink(missing_ok=True)
