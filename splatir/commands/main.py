"""Which command runs, and how its errors reach the user."""

import contextlib
import importlib
import io
import os
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import tyro

from splatir import __version__, presets
from splatir.commands.memory import keep_freed_memory
from splatir.messages import error_message, one_line
from splatir.settings import Settings, SettingsError, load

# Set to anything to see the traceback of an error.
DEBUG_VARIABLE = "SPLATIR_DEBUG"


@dataclass(frozen=True)
class Command:
    """One entry of the command line.

    Attributes:
        module: Module with a settings class and `run(settings)`; imported only when needed.
        settings: Name of the settings class.
        summary: One line for the overview.
        positional: Fields that may be given without their flags, in this order.
    """

    module: str
    settings: str
    summary: str
    positional: tuple[str, ...] = ()


COMMANDS: dict[str, Command] = {
    "sfm": Command(
        "splatir.commands.sfm", "SfmCommandSettings", "find poses of photographs", ("path",)
    ),
    "train": Command("splatir.commands.train", "TrainSettings", "train on a capture: --data DIR"),
    "render": Command(
        "splatir.commands.render", "RenderSettings", "write pictures, materials, normals", ("run",)
    ),
    "relight": Command(
        "splatir.commands.relight", "RelightSettings", "show a run under another light", ("run",)
    ),
    "compose": Command(
        "splatir.commands.compose",
        "ComposeSettings",
        "put an object into another scene: A B --at x,y,z",
        ("run", "object"),
    ),
    "masks": Command(
        "splatir.commands.masks",
        "MasksSettings",
        "write the object's mask in every photo",
        ("run",),
    ),
    "view": Command(
        "splatir.commands.view", "ViewSettings", "look at a run in the browser", ("run",)
    ),
    "eval": Command(
        "splatir.commands.evaluate", "EvalSettings", "score a run on its held-out views", ("run",)
    ),
    "export": Command(
        "splatir.commands.export", "ExportSettings", "write a run as a splat PLY", ("run",)
    ),
    "info": Command(
        "splatir.commands.info", "InfoSettings", "what a capture, run or PLY holds", ("path",)
    ),
    "bench raster": Command(
        "splatir.commands.bench_raster", "BenchRasterSettings", "time a rasteriser backend"
    ),
    "bench step": Command(
        "splatir.commands.bench_step", "BenchStepSettings", "time a training step, part by part"
    ),
    "bench transport": Command(
        "splatir.commands.bench_transport",
        "BenchTransportSettings",
        "time shadows and interreflection, part by part",
    ),
    "bench quality": Command(
        "splatir.commands.bench_quality", "BenchQualitySettings", "train scenes, score all of it"
    ),
    "bench orb": Command(
        "splatir.commands.bench_orb", "BenchOrbSettings", "train and score Stanford-ORB", ("path",)
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after the program's name; those of the process if None.

    Returns:
        Exit code: 0 done, 1 a fault in data or files, 2 a fault in the arguments, 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"splatir {__version__}")
        return 0
    name, rest = _split_command(words)
    if name is None:
        print(f"error: unknown command '{' '.join(words[:2])}'.\n\n{_overview()}", file=sys.stderr)
        return 2
    return _guarded(name, rest)


def _guarded(name: str, words: list[str]) -> int:
    """Run a command; faults that its user can mend end in one line."""
    keep_freed_memory()
    warnings.showwarning = _print_warning
    try:
        command = COMMANDS[name]
        module = importlib.import_module(command.module)
        settings = _parse(name, command, getattr(module, command.settings), words)
        module.run(settings)
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError, MemoryError, ImportError) as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        print(f"error: {error_message(error)}", file=sys.stderr)
        return 2 if isinstance(error, SettingsError) else 1
    return 0


def _parse(name: str, command: Command, kind: type[Settings], words: list[str]) -> Settings:
    """Flags over a preset over defaults."""
    words = _named(words, command.positional)
    words = _joined_lists(words)
    defaults = kind()
    if any(field.name == "config" for field in fields(kind)):
        preset = _flag_value(words, "--config")
        if preset is not None:
            defaults = load(presets.find(preset), defaults)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, args=words, default=defaults, prog=f"splatir {name}")
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        raise SettingsError(_parser_message(said.getvalue(), name)) from stop


def _named(words: list[str], fields_in_order: Sequence[str]) -> list[str]:
    """The words at the start that are no flags, each after the flag of its field."""
    named: list[str] = []
    for name, word in zip(fields_in_order, words, strict=False):
        if word.startswith("-"):
            break
        named += [f"--{name}", word]
    return [*named, *words[len(named) // 2 :]]


def _parser_message(said: str, name: str) -> str:
    """The sentence of the parser's framed message, and the flags that it suggests."""
    lines = [line.strip(" │╭╮╰╯|+") for line in said.splitlines()]
    # Rules between its sections are hyphens where the output cannot show frames.
    parts = [" ".join(part.split()) for part in re.split(r"─{3,}|-{8,}", "\n".join(lines))]
    sections = [part.strip("─ ") for part in parts if part.strip("─ ")]
    # The first is the frame's title.
    sentence = sections[1] if len(sections) > 1 else " ".join(sections)
    sentence = re.sub(r"^Error parsing (?!-)\S+: ", "", sentence).rstrip(".")
    similar = next((part for part in sections if part.startswith("Perhaps you meant")), "")
    flags = re.findall(r"(?<!\S)--[\w.-]+", similar)
    hint = f" Did you mean {' or '.join(flags)}?" if flags else ""
    return f"{sentence}.{hint} See splatir {name} --help."


def _joined_lists(words: Sequence[str]) -> list[str]:
    """Write `--box -1,0,0` as `--box=-1,0,0`: a value with a minus would count as a flag."""
    joined: list[str] = []
    for word in words:
        is_list = re.fullmatch(r"-[\d.][\d.eE+-]*(,[\d.eE+-]*)+", word) is not None
        if is_list and joined and re.fullmatch(r"--[\w.-]+", joined[-1]):
            joined[-1] = f"{joined[-1]}={word}"
        else:
            joined.append(word)
    return joined


def _flag_value(words: list[str], flag: str) -> str | None:
    for i, word in enumerate(words):
        if word == flag and i + 1 < len(words):
            return words[i + 1]
        if word.startswith(f"{flag}="):
            return word.split("=", 1)[1]
    return None


def _split_command(words: list[str]) -> tuple[str | None, list[str]]:
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return name, words[length:]
    return None, words


def _overview() -> str:
    width = max(len(name) for name in COMMANDS) + 2
    lines = [f"  {name:<{width}}{command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"splatir {__version__}: Gaussian splatting from posed photographs",
            "",
            "usage: splatir COMMAND [--help] ...",
            "",
            *lines,
        ]
    )


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {one_line(str(message))}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
