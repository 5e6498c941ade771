"""What all tests of broken input share: results to be left alone, and how a command must fail."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from splatir.commands.main import main
from tests.captures import small_scene, write_colmap

SCENE = small_scene(num_cameras=6)
TINY = [
    "--backend", "reference", "--device", "cpu", "--steps", "2", "--materials.steps", "2",
    "--stages", "radiance", "materials", "--eval-every", "0",
    "--init.num-points", "40", "--init.sh-degree", "0", "--densify.strategy", "none",
]  # fmt: skip

# How a file or folder is spoilt.
Change = Callable[[Path], object]


class FailingCommand(Protocol):
    """Runs a command line that must fail as all must; returns the line that it prints."""

    def __call__(self, *words: str | Path, code: int = 1) -> str: ...


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def write_results(folder: Path) -> None:
    """A capture, a finished run of it and an exported PLY."""
    write_colmap(folder / "capture", SCENE)
    words = [*TINY, "--data", str(folder / "capture"), "--output", str(folder / "run")]
    assert main(["train", *words]) == 0
    assert main(["export", str(folder / "run"), "--output", str(folder / "old.ply")]) == 0


def the_error(err: str, out: str) -> str:
    assert "Traceback" not in err + out
    lines = [line for line in re.split(r"[\r\n]", err) if line.startswith("error:")]
    assert len(lines) == 1, err
    assert "error:" not in out
    # The last thing that is said, so that it is seen.
    assert err.rstrip().endswith(lines[0])
    return lines[0]


def replacing(results: Path, data: Path) -> list[str | Path]:
    """A training that would replace the earlier run if it went well; it sees every photo."""
    words = ["train", *TINY, "--steps", "6", "--data", data]
    return [*words, "--output", results / "run", "--overwrite"]


def edit(path: Path, pattern: str, replacement: str) -> None:
    text = path.read_text()
    changed = re.sub(pattern, replacement, text, count=1, flags=re.MULTILINE)
    assert changed != text
    path.write_text(changed)


def shorten(path: Path, keep: float = 0.6) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


class Evil:
    """Unpickled carelessly, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))
