"""The folder that a training writes, and that every other command reads."""

import json
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
from splatir.train.state import check_contents

# One to continue from, and one before it in case the disk tears the first.
_KEPT_CHECKPOINTS = 2
_CONFIG_HEAD = "# splatir "


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

    @property
    def masks(self) -> Path:
        """Folder of the object's masks in the training photos, where the run found them."""
        return self.root / "masks"

    @property
    def is_run(self) -> bool:
        """Whether a training made this folder."""
        if not self.config.is_file():
            return False
        with self.config.open("rb") as stream:
            return stream.read(len(_CONFIG_HEAD)) == _CONFIG_HEAD.encode()

    @property
    def newest_checkpoint(self) -> Path | None:
        """The checkpoint of the highest step, usable or not."""
        return max(self.checkpoints.glob("step_*.pt"), default=None)

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
        head = f"{_CONFIG_HEAD}{__version__}: every setting of this run\n"
        write_text(self.config, head + tomli_w.dumps(to_plain(settings)))

    def save(self, step: int, contents: dict[str, Any]) -> Path:
        """Write a checkpoint and drop those that are no longer needed."""
        self.checkpoints.mkdir(exist_ok=True)
        path = checkpoint_path(self.checkpoints, step)
        save_checkpoint(path, contents)
        for old in sorted(self.checkpoints.glob("step_*.pt"))[:-_KEPT_CHECKPOINTS]:
            old.unlink()
        return path

    def forget_checkpoint(self, step: int) -> None:
        """Remove the checkpoint of a step that proved bad, if there is an earlier one."""
        bad = checkpoint_path(self.checkpoints, step)
        if bad.is_file() and any(path < bad for path in self.checkpoints.glob("step_*.pt")):
            bad.unlink()

    def load_latest(self) -> dict[str, Any]:
        """Contents of the newest usable checkpoint.

        Raises:
            FileNotFoundError: There is none.
            CheckpointError: It does not hold a training.
        """
        path = latest_checkpoint(self.checkpoints)
        if path is None:
            raise FileNotFoundError(
                f"{self.root} has no usable checkpoint in checkpoints/. "
                "Train it first, or give another run folder."
            )
        contents = load_checkpoint(path)
        check_contents(contents, path)
        return contents

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl."""
        try:
            with self.metrics.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")
        except OSError as error:
            # What fails in write or close names no file.
            raise OSError(error.errno, error.strerror, str(self.metrics)) from error

    def forget_metrics_after(self, step: int) -> None:
        """Drop lines of steps that a resumed run will do again, and torn ones."""
        if not self.metrics.is_file():
            return
        kept = []
        for line in self.metrics.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                is_earlier = json.loads(line)["step"] <= step
            except (json.JSONDecodeError, LookupError, TypeError):
                continue
            if is_earlier:
                kept.append(line)
        write_text(self.metrics, "".join(line + "\n" for line in kept))
