"""The folder that a training writes, and that every other command reads."""

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from splatir import __version__
from splatir.codecs.atomic import write_text
from splatir.settings import load, to_plain
from splatir.storage.checkpoint import (
    checkpoint_path,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from splatir.train.settings import TrainSettings

# One to continue from, and one before it in case the disk tears the first.
_KEPT_CHECKPOINTS = 2


@dataclass(frozen=True)
class RunFolder:
    """Layout of a run.

    Attributes:
        root: The folder.
    """

    root: Path

    @property
    def config(self) -> Path:
        """Resolved settings."""
        return self.root / "config.toml"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.root / "checkpoints"

    @property
    def metrics(self) -> Path:
        """One JSON object per line."""
        return self.root / "metrics.jsonl"

    @property
    def evaluation(self) -> Path:
        """Folder of scores and contact sheets."""
        return self.root / "eval"

    @property
    def export(self) -> Path:
        """Folder of exported files."""
        return self.root / "export"

    def settings(self) -> TrainSettings:
        """The settings the run was made with.

        Raises:
            FileNotFoundError: This is no run folder.
        """
        if not self.config.is_file():
            raise FileNotFoundError(
                f"{self.root} is no run folder: it has no config.toml. "
                "Give a folder that `splatir train` made, such as runs/<scene>/latest."
            )
        return load(self.config, TrainSettings())

    def write_settings(self, settings: TrainSettings) -> None:
        """Write the resolved settings."""
        head = f"# splatir {__version__}: every setting of this run\n"
        write_text(self.config, head + tomli_w.dumps(to_plain(settings)))

    def save(self, step: int, contents: dict[str, Any]) -> Path:
        """Write a checkpoint and drop those that are no longer needed."""
        self.checkpoints.mkdir(exist_ok=True)
        path = checkpoint_path(self.checkpoints, step)
        save_checkpoint(path, contents)
        for old in sorted(self.checkpoints.glob("step_*.pt"))[:-_KEPT_CHECKPOINTS]:
            old.unlink()
        return path

    def load_latest(self) -> dict[str, Any]:
        """Contents of the newest usable checkpoint.

        Raises:
            FileNotFoundError: There is none.
        """
        path = latest_checkpoint(self.checkpoints)
        if path is None:
            raise FileNotFoundError(
                f"{self.root} has no usable checkpoint in checkpoints/. "
                "Train it first, or give another run folder."
            )
        return load_checkpoint(path)

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl."""
        with self.metrics.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")

    def forget_metrics_after(self, step: int) -> None:
        """Drop lines of steps that a resumed run will do again, and a torn last line."""
        if not self.metrics.is_file():
            return
        kept = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if record["step"] <= step:
                kept.append(line)
        write_text(self.metrics, "".join(line + "\n" for line in kept))


def create_run_folder(settings: TrainSettings, data: Path) -> RunFolder:
    """Make the folder of a new run; `latest` beside it points at it.

    Raises:
        FileExistsError: The given output is not empty and `overwrite` was not asked for.
        ValueError: The given output is a file, or `overwrite` would delete something that is no
            run folder.
    """
    given = settings.output
    if given is None:
        name = data.resolve().name
        if name in ("colmap", "data", "dense"):
            name = data.resolve().parent.name
        parent = Path("runs") / name
        root = _unused(parent / time.strftime("%Y-%m-%d_%H%M%S"))
    else:
        root, parent = given, given.parent
        _make_room(root, settings.overwrite)
    root.mkdir(parents=True, exist_ok=True)
    if given is None:
        _point_latest(parent, root)
    return RunFolder(root)


def _unused(root: Path) -> Path:
    """The path itself, or with a number if two runs start within a second."""
    candidate, number = root, 2
    while candidate.exists():
        candidate = root.with_name(f"{root.name}_{number}")
        number += 1
    return candidate


def _make_room(root: Path, overwrite: bool) -> None:
    if root.is_file():
        raise ValueError(f"the output {root} is a file; give a folder.")
    if not root.is_dir() or not any(root.iterdir()):
        return
    if not overwrite:
        raise FileExistsError(
            f"the output folder {root} is not empty. Give another one, continue it with "
            f"--resume {root}, or replace it with --overwrite."
        )
    if not (root / "config.toml").is_file():
        raise ValueError(
            f"{root} is not empty and is no run folder (no config.toml), so --overwrite will not "
            "delete it. Give another output folder."
        )
    shutil.rmtree(root)


def _point_latest(parent: Path, root: Path) -> None:
    """Atomically make parent/latest a link to the run, where the file system has links."""
    link, fresh = parent / "latest", parent / f".latest-{os.getpid()}"
    try:
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(root.name)
        fresh.replace(link)
    except OSError:
        # No links here (or a real folder of that name): the run itself is not affected.
        fresh.unlink(missing_ok=True)
