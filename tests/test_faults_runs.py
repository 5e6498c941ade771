"""Broken runs, outputs and PLY files, full disks and losses that are not finite: what remains."""

import os
import pickle
import re
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from splatir.commands.main import main
from splatir.storage.checkpoint import load_checkpoint, save_checkpoint
from splatir.train import session
from splatir.train.step import train_step
from tests.faults import (
    TINY,
    Change,
    Evil,
    FailingCommand,
    contents,
    edit,
    replacing,
    shorten,
)


def broken_run(results: Path, root: Path, change: Change) -> Path:
    """A copy of the finished run with its last checkpoint alone, which is changed."""
    shutil.copytree(results / "run", root)
    *earlier, last = sorted((root / "checkpoints").glob("*.pt"))
    for checkpoint in earlier:
        checkpoint.unlink()
    change(last)
    return root


def newer(path: Path) -> None:
    record = torch.load(path, weights_only=True)
    torch.save({**record, "splatir_checkpoint": 99}, path)


def of_something_else(path: Path) -> None:
    save_checkpoint(path, {"weights": torch.zeros(3)})


def lacking_opacities(path: Path) -> None:
    checkpoint = load_checkpoint(path)
    del checkpoint["state"]["params"]["opacities"]
    save_checkpoint(path, checkpoint)


CHECKPOINTS: dict[str, tuple[Change, str]] = {
    "none": (Path.unlink, r"no usable checkpoint in checkpoints/"),
    "torn": (shorten, r"no usable checkpoint in checkpoints/"),
    "empty": (lambda p: p.write_bytes(b""), r"no usable checkpoint in checkpoints/"),
    "of a newer version": (newer, r"no usable checkpoint in checkpoints/"),
    "of something else": (of_something_else, r"step_\S+\.pt is a checkpoint but not of a training"),
    "lacking opacities": (lacking_opacities, r"not of a training: .*lack \['opacities'\]"),
}


@pytest.mark.filterwarnings("default:skipped a checkpoint")
@pytest.mark.parametrize("fault", CHECKPOINTS)
def test_a_run_without_a_usable_checkpoint_is_left_as_it_is(
    fault: str, results: Path, tmp_path: Path, command: FailingCommand
) -> None:
    change, message = CHECKPOINTS[fault]
    run = broken_run(results, tmp_path / "broken", change)
    before = contents(run)
    for words in (["train", "--resume", run], ["export", run], ["eval", run], ["info", run]):
        line = command(*words)
        assert re.search(message, line), line
    assert contents(run) == before


def test_an_optimiser_state_that_does_not_fit_is_refused(
    results: Path, tmp_path: Path, command: FailingCommand
) -> None:
    def spoil(path: Path) -> None:
        checkpoint = load_checkpoint(path)
        checkpoint["state"]["optimizer"]["param_groups"].pop()
        save_checkpoint(path, checkpoint)

    run = broken_run(results, tmp_path / "broken", spoil)
    before = contents(run)
    line = command("train", "--resume", run)
    assert re.search(r"step_\S+\.pt cannot be continued: its optimiser state.*Remove it", line)
    assert contents(run) == before


def test_torn_metrics_do_not_stop_a_resumed_training(results: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(results / "run", run)
    good = (run / "metrics.jsonl").read_bytes()
    (run / "metrics.jsonl").write_bytes(b'7\n{"stage": 1}\n' + good + b'\xff{"step": 1')
    assert main(["train", "--resume", str(run)]) == 0
    assert (run / "metrics.jsonl").read_bytes() == good


@pytest.mark.filterwarnings("default:skipped a checkpoint")
@pytest.mark.parametrize("container", ["pickle", "torch"])
def test_code_in_a_checkpoint_is_never_run(
    container: str, results: Path, tmp_path: Path, command: FailingCommand
) -> None:
    trap = tmp_path / "executed"

    def poison(path: Path) -> None:
        if container == "torch":
            torch.save({"splatir_checkpoint": 1, "contents": Evil(trap)}, path)
        else:
            path.write_bytes(pickle.dumps(Evil(trap)))

    run = broken_run(results, tmp_path / "broken", poison)
    for words in (["train", "--resume", run], ["export", run], ["info", run]):
        assert "no usable checkpoint" in command(*words)
    assert not trap.exists()
    # The trap itself works.
    pickle.loads(pickle.dumps(Evil(trap)))
    assert trap.exists()


def test_a_folder_that_is_no_run_is_refused_by_every_command(
    results: Path, command: FailingCommand
) -> None:
    for words in (["train", "--resume"], ["export"], ["eval"]):
        line = command(*words, results / "capture")
        assert "capture is no run folder" in line and "splatir train" in line
    assert "does not exist" in command("info", results / "nothing")


def test_settings_of_a_run_that_were_broken_are_named(
    results: Path, tmp_path: Path, command: FailingCommand
) -> None:
    run = tmp_path / "broken"
    shutil.copytree(results / "run", run)
    edit(run / "config.toml", "^steps = 2", "steps = 'two'")
    assert re.search(r"config\.toml: setting 'steps' must be int", command("export", run, code=2))


def test_a_run_whose_capture_is_gone_says_so(
    results: Path, tmp_path: Path, command: FailingCommand
) -> None:
    run = tmp_path / "moved"
    shutil.copytree(results / "run", run)
    edit(run / "config.toml", r"^data = .*", 'data = "gone"')
    for words in (["train", "--resume", run], ["eval", run]):
        assert "data folder gone does not exist" in command(*words)


def test_outputs_that_would_destroy_something_are_refused(
    results: Path, tmp_path: Path, command: FailingCommand
) -> None:
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "thesis.tex").write_text("all of it")
    (thesis / "config.toml").write_text("theme = 'dark'\n")
    words = ["train", *TINY, "--data", results / "capture", "--output"]
    assert "run is not empty. Give another one" in command(*words, results / "run")
    assert "thesis is not empty. Give" in command(*words, thesis)
    assert "is no run folder" in command(*words, thesis, "--overwrite")
    assert "thesis.tex is a file; give a folder" in command(*words, thesis / "thesis.tex")
    assert "Not a directory" in command(*words, thesis / "thesis.tex" / "run")
    assert contents(thesis).keys() == {"thesis.tex", "config.toml"}


def test_a_run_is_not_replaced_by_a_training_on_what_lies_in_it(
    results: Path, tmp_path: Path, command: FailingCommand
) -> None:
    run = tmp_path / "run"
    shutil.copytree(results / "run", run)
    shutil.copytree(results / "capture", run / "capture")
    line = command("train", *TINY, "--data", run / "capture", "--output", run, "--overwrite")
    assert "which --overwrite would delete" in line
    assert (run / "capture" / "images").is_dir()


def test_an_export_never_lands_on_something_else(
    results: Path, tmp_path: Path, command: FailingCommand
) -> None:
    words = ["export", results / "run", "--output"]
    assert "old.ply exists; give another --output" in command(*words, results / "old.ply")
    (tmp_path / "notes.json").write_text("{}")
    assert "notes.json exists" in command(*words, tmp_path / "notes.ply")
    assert "must be a .ply file" in command(*words, tmp_path / "notes.json")
    assert "must be a .ply file" in command(*words, tmp_path)
    assert (tmp_path / "notes.json").read_text() == "{}"
    assert contents(tmp_path).keys() == {"notes.json"}


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_named(
    results: Path, tmp_path: Path, command: FailingCommand
) -> None:
    tmp_path.chmod(0o500)
    line = command("export", results / "run", "--output", tmp_path / "new" / "a.ply")
    tmp_path.chmod(0o700)
    assert re.search(r"new: Permission denied\. Check its permissions", line)


def test_scores_that_were_broken_do_not_hide_a_run(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(results / "run", run)
    for text in ("{", "{}", "[]"):
        (run / "eval" / "scores.json").write_text(text)
        assert main(["info", str(run)]) == 0
        assert "splatir eval writes it again" in capsys.readouterr().out


def splat_header(old: bytes, pattern: bytes, replacement: bytes) -> bytes:
    changed = re.sub(pattern, replacement, old, count=1)
    assert changed != old
    return changed


def ply_with_nan(old: bytes) -> bytes:
    start = old.index(b"end_header\n") + len(b"end_header\n")
    return old[:start] + struct.pack("<f", float("nan")) + old[start + 4 :]


PLYS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda old: b"", r"splat\.ply is not a PLY"),
    "a picture": (lambda old: b"\x89PNG\r\n\x1a\n" + old, r"splat\.ply is not a PLY"),
    "cut short": (lambda old: old[:-99], r"splat\.ply is truncated or damaged"),
    "cut in the header": (lambda old: old[:60], r"splat\.ply is no valid PLY: its header"),
    "absurd count": (
        lambda old: splat_header(old, rb"vertex \d+", b"vertex 99999999999"),
        r"its header promises 99999999999 splats",
    ),
    "no opacity": (
        lambda old: splat_header(old, b"float opacity", b"float opakity"),
        r"lacks the properties \['opacity'\]. Is it a mesh",
    ),
    "f_rest of no degree": (
        lambda old: splat_header(old, b"float nx\n", b"float f_rest_0\n"),
        r"has 1 properties f_rest_\*",
    ),
    "list property": (
        lambda old: splat_header(old, b"float nx\n", b"list uchar int nx\n"),
        r"\['nx'\] of its vertices are lists",
    ),
    "NaN": (ply_with_nan, r"property 'x' is NaN or infinite for 1 of .*Remove them"),
    "some materials only": (
        lambda old: splat_header(old, b"float base_color_1\n", b"float colour\n"),
        r"it has the material properties .* but lacks \['base_color_1'\]",
    ),
    "a material out of range": (
        lambda old: old[:-4] + struct.pack("<f", 7.0),
        r"property '(metallic|sheen)' leaves the range 0 to 1 for 1 of",
    ),
    "of a newer format": (
        lambda old: splat_header(old, b"splatir_format 1", b"splatir_format 9"),
        r"splatir format 9.*Update splatir",
    ),
}


@pytest.mark.parametrize("fault", PLYS)
def test_a_broken_ply_is_refused(
    fault: str, results: Path, tmp_path: Path, command: FailingCommand
) -> None:
    change, message = PLYS[fault]
    (tmp_path / "splat.ply").write_bytes(change((results / "old.ply").read_bytes()))
    line = command("info", tmp_path / "splat.ply")
    assert re.search(message, line), line


def full_disk_after(writes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the given checkpoint on, the disk is full."""
    count = 0
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        nonlocal count
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        count += ".pt." in name
        if ".pt." in name and count > writes:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)


def test_a_full_disk_keeps_the_last_checkpoint_and_says_how_to_go_on(
    results: Path, tmp_path: Path, command: FailingCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    words = ["train", *TINY, "--data", results / "capture", "--output", run, "--steps", "5"]
    with monkeypatch.context() as patch:
        full_disk_after(2, patch)
        line = command(*words, "--checkpoint-every", "1")
    assert re.search(r"no space left to write .*step_00000003\.pt", line)
    assert re.search(rf"last good state is .*step_00000002\.pt.*splatir train --resume {run}", line)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "step_00000001.pt",
        "step_00000002.pt",
    ]
    assert main(["train", "--resume", str(run)]) == 0
    # Five steps of radiance and two of materials.
    assert load_checkpoint(run / "checkpoints" / "step_00000007.pt")["state"]["step"] == 7


def test_a_disk_that_is_full_from_the_start_leaves_no_half_run(
    results: Path, tmp_path: Path, command: FailingCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_disk_after(0, monkeypatch)
    new = tmp_path / "new"
    line = command("train", *TINY, "--data", results / "capture", "--output", new)
    assert re.search(r"no space left.*nothing is left of this training\.$", line)
    assert not new.exists()
    line = command(*replacing(results, results / "capture"))
    assert re.search(r"the earlier run .*run is as it was", line)


def test_a_disk_too_full_for_metrics_is_named(
    results: Path, tmp_path: Path, command: FailingCommand
) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    run = tmp_path / "run"
    shutil.copytree(results / "run", run)
    edit(run / "config.toml", "^steps = 2", "steps = 4")
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to(full)
    line = command("train", "--resume", run)
    assert re.search(r"metrics\.jsonl: No space left on device\. Free some", line)


def test_a_loss_that_is_not_finite_keeps_the_last_good_state(
    results: Path, tmp_path: Path, command: FailingCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(
        state: object, context: object, camera: object, photo: object, view_index: int
    ) -> object:
        if state.step == 3:  # type: ignore[attr-defined]
            photo = replace(photo, rgb=photo.rgb * float("nan"))  # type: ignore
        return train_step(state, context, camera, photo, view_index)  # type: ignore[arg-type]

    run = tmp_path / "run"
    words = ["train", *TINY, "--data", results / "capture", "--output", run, "--steps", "6"]
    with monkeypatch.context() as patch:
        patch.setattr(session, "train_step", spoiled)
        line = command(*words, "--checkpoint-every", "1")
    assert re.search(r"the loss of step 3 is not finite.*photometric", line)
    assert re.search(r"last good state is .*step_00000002\.pt.*lower --rates", line)
    assert main(["export", str(run)]) == 0


def test_an_absurd_learning_rate_never_ends_in_a_checkpoint_that_is_not_finite(
    results: Path, tmp_path: Path, command: FailingCommand
) -> None:
    words = replacing(results, results / "capture")
    line = command(*words, "--rates.scales", "1e30", "--rates.sh0", "1e38", "--steps", "20")
    assert re.search(r"not (all )?finite", line)
    assert re.search(r"the earlier run .*run is as it was", line)


def test_an_earlier_run_is_replaced_when_all_goes_well(results: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(results / "run", run)
    (run / "eval" / "old.txt").write_text("old")
    words = [*TINY, "--data", str(results / "capture"), "--output", str(run), "--overwrite"]
    assert main(["train", *words, "--steps", "3"]) == 0
    assert not (run / "eval" / "old.txt").exists()
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "step_00000003.pt",
        "step_00000005.pt",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("fault", ["missing", "not npz", "no means", "wrong shape", "pickle"])
def test_a_broken_benchmark_scene_is_refused(
    fault: str, tmp_path: Path, command: FailingCommand
) -> None:
    pytest.importorskip("splatir.commands.bench_raster")
    scene = tmp_path / "scene.npz"
    arrays: dict[str, Any] = {
        "quats": np.zeros((3, 4), np.float32),
        "K": np.eye(3, dtype=np.float32),
    }
    if fault == "not npz":
        scene.write_text("npz")
    elif fault == "no means":
        np.savez(scene, **arrays)
    elif fault == "wrong shape":
        np.savez(scene, means=np.zeros((2, 2), np.float32), **arrays)
    elif fault == "pickle":
        np.savez(scene, means=np.array([Evil(tmp_path / "executed")], dtype=object), **arrays)
    line = command("bench", "raster", "--scene", scene, "--backend", "reference")
    assert "scene.npz" in line
    assert not (tmp_path / "executed").exists()
