"""A wrong flag, preset or command: one line that names it, before anything is read."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from splatir.commands.main import main
from tests.faults import FailingCommand, replacing, the_error

ROOT = Path(__file__).parents[1]

PRESETS = {
    "typing error": ("stepz = 5", r"preset\.toml: unknown setting 'stepz'.*Did you mean 'steps'"),
    "typing error in a table": ("[densify]\nevry = 5", r"'densify\.evry'.*'densify\.every'"),
    "wrong type": ('steps = "many"', r"preset\.toml: setting 'steps' must be int, got 'many'"),
    "a number for a table": ("loss = 3", r"setting 'loss' is a group.*\[loss\]"),
    "unknown choice": ('primitive = "disc"', r"'primitive' must be one of \['ellipsoid', 'surfel"),
    "out of range": ("[loss]\nssim = 2.0", r"preset\.toml: loss\.ssim must be between 0 and 1"),
    "not TOML": ("steps: 5", r"preset\.toml is not valid TOML"),
    "not text": ("\x00\xff", r"preset\.toml is not valid TOML"),
}


@pytest.mark.parametrize("fault", PRESETS)
def test_a_broken_preset_is_refused(
    fault: str, results: Path, tmp_path: Path, command: FailingCommand
) -> None:
    text, message = PRESETS[fault]
    (tmp_path / "preset.toml").write_text(text, encoding="latin-1")
    words = replacing(results, results / "capture")
    line = command(*words, "--config", tmp_path / "preset.toml", code=2)
    assert re.search(message, line), line


def test_an_unknown_preset_is_answered_with_the_known_ones(
    results: Path, command: FailingCommand
) -> None:
    line = command(*replacing(results, results / "capture"), "--config", "quikc")
    assert re.search(r"no configuration 'quikc'.*presets \[.*Did you mean 'quick'\?", line)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "0"], "steps must be at least 1, got 0"),
        (["--steps", "-7"], "steps must be at least 1"),
        (["--downscale", "0"], "downscale must be at least 1"),
        (["--downscale", "nan"], "downscale must be at least 1"),
        (["--max-size", "0"], "max_size must be at least 1"),
        (["--test-every", "1"], "test_every must be 0"),
        (["--densify.every", "0"], "densify.every must be at least 1"),
        (["--rates.means", "-1"], "rates.means must be above 0"),
        (["--loss.ssim", "7"], "loss.ssim must be between 0 and 1"),
        (["--init.opacity", "1"], "init.opacity must be strictly between 0 and 1"),
    ],
)
def test_a_value_out_of_range_is_refused(
    words: list[str], message: str, results: Path, command: FailingCommand
) -> None:
    assert message in command(*replacing(results, results / "capture"), *words, code=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stepz", "5"], r"--stepz, 5\. Did you mean --steps\? See splatir train --help"),
        (["--steps", "many"], r"--steps: .*'many'.* See splatir train --help"),
        (["--primitive", "disc"], r"'disc'.*--primitive.*'surfel'"),
        (["--steps"], r"value for argument '--steps'.*--help"),
        (["--config"], r"value for argument '--config'"),
    ],
)
def test_a_flag_that_is_unknown_or_unreadable_is_named(
    words: list[str], message: str, results: Path, command: FailingCommand
) -> None:
    line = command(*replacing(results, results / "capture"), *words, code=2)
    assert re.search(message, line), line


@pytest.mark.parametrize("words", [["trian"], ["bench"], ["bench", "scene"]])
def test_an_unknown_command_is_answered_with_the_known_ones(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: unknown command") and "splatir COMMAND" in err


@pytest.mark.parametrize("name", ["train", "eval", "export", "info"])
def test_a_command_without_its_folder_asks_for_it(name: str, command: FailingCommand) -> None:
    assert re.search(r"error: give (a|the) (run|capture).*", command(name))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--data", "nowhere"], "data folder nowhere does not exist"),
        (["train", "--data", "assets/demo", "--steps", "0"], "steps must be at least 1"),
    ],
)
def test_a_shell_sees_the_line_and_the_exit_code(words: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "splatir.commands.main", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode != 0
    assert message in the_error(done.stderr, done.stdout)
