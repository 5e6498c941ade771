import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from splatir.data.dataset import DataSettings
from splatir.optim.densification import DensificationSettings
from splatir.scene.initialise import InitialisationSettings
from splatir.storage.checkpoint import load_checkpoint
from splatir.train.finished import load_run
from splatir.train.run_folder import RunFolder
from splatir.train.session import train
from splatir.train.settings import TrainSettings
from splatir.train.stages import for_capture

ROOT = Path(__file__).parents[1]


@pytest.fixture
def small(tmp_path: Path) -> TrainSettings:
    """A training of the demo capture that takes a second or two."""
    return TrainSettings(
        data=ROOT / "assets" / "demo",
        output=tmp_path / "run",
        dataset=DataSettings(downscale=8.0),
        stages=("radiance",),
        steps=20,
        eval_every=0,
        checkpoint_every=0,
        init=InitialisationSettings(num_points=300, sh_degree=1),
        densify=DensificationSettings(start=0.2, stop=0.9, every=5, gradient=1e-5),
    )


def final_state(run: Path) -> dict:
    return load_checkpoint(max((run / "checkpoints").glob("*.pt")))["state"]


def assert_same(a: object, b: object, where: str = "state") -> None:
    """Equal to the last bit, whatever is nested in it."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where  # type: ignore[arg-type]
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where  # type: ignore[union-attr]
        for key in a:
            if key != "seconds":
                assert_same(a[key], b[key], f"{where}.{key}")  # type: ignore[index]
    elif isinstance(a, list):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):  # type: ignore[call-overload]
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


@pytest.mark.parametrize("strategy", ["default", "mcmc"])
def test_resumed_training_equals_an_unbroken_one_bit_for_bit(
    small: TrainSettings, tmp_path: Path, strategy: str
) -> None:
    densify = replace(small.densify, strategy=strategy, reset_every=8, mcmc_every=5)
    exposures = "per-photo" if strategy == "mcmc" else "shared"
    cameras = "refine" if strategy == "mcmc" else "fixed"
    small = replace(small, densify=densify, exposures=exposures, cameras=cameras)
    train(small)
    broken = replace(small, output=tmp_path / "broken", checkpoint_every=11)
    train(broken)
    # As if the run had been stopped right after step 11.
    (tmp_path / "broken" / "checkpoints" / "step_00000020.pt").unlink()
    assert final_state(tmp_path / "broken")["step"] == 11
    train(TrainSettings(resume=tmp_path / "broken"))
    assert_same(final_state(tmp_path / "broken"), final_state(tmp_path / "run"))


def test_training_improves_the_held_out_score_and_reports_it(small: TrainSettings) -> None:
    init = replace(small.init, num_points=1500)
    densify = DensificationSettings(strategy="none")
    train(replace(small, steps=60, eval_every=20, init=init, densify=densify))
    assert small.output is not None
    lines = [json.loads(x) for x in (small.output / "metrics.jsonl").read_text().splitlines()]
    scores = [line["test_psnr_full"] for line in lines if "test_psnr_full" in line]
    assert len(scores) == 2
    assert scores[1] > scores[0] + 0.3
    assert all(line["seconds"] > 0 for line in lines)


def test_settings_of_a_run_read_back_as_they_were(small: TrainSettings) -> None:
    train(replace(small, steps=1))
    assert small.output is not None
    as_trained = for_capture(replace(small, steps=1), has_background=False)
    assert RunFolder(small.output).settings() == as_trained


def test_an_existing_run_is_never_overwritten_unasked(small: TrainSettings) -> None:
    train(replace(small, steps=1))
    assert small.output is not None
    before = final_state(small.output)
    with pytest.raises(FileExistsError, match="--resume"):
        train(replace(small, steps=2))
    assert_same(final_state(small.output), before)


def test_overwrite_does_not_delete_a_folder_that_is_no_run(small: TrainSettings) -> None:
    assert small.output is not None
    small.output.mkdir()
    (small.output / "thesis.tex").write_text("all of it")
    with pytest.raises(ValueError, match="no run folder"):
        train(replace(small, overwrite=True))
    assert (small.output / "thesis.tex").read_text() == "all of it"


def test_a_broken_capture_leaves_the_run_it_would_replace(
    small: TrainSettings, tmp_path: Path
) -> None:
    train(replace(small, steps=1))
    assert small.output is not None
    with pytest.raises((ValueError, FileNotFoundError)):
        train(replace(small, data=tmp_path / "nothing", overwrite=True))
    assert final_state(small.output)["step"] == 1


def test_two_runs_of_one_seed_are_equal_and_of_another_seed_are_not(
    small: TrainSettings, tmp_path: Path
) -> None:
    states = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(replace(small, output=tmp_path / name, seed=seed, steps=8))
        states.append(final_state(tmp_path / name))
    assert_same(states[0], states[1])
    assert not torch.equal(states[0]["params"]["sh0"], states[2]["params"]["sh0"])


def test_a_torn_checkpoint_is_passed_over_on_resume(small: TrainSettings) -> None:
    train(replace(small, checkpoint_every=10))
    assert small.output is not None
    newest = small.output / "checkpoints" / "step_00000020.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="skipped a checkpoint"):
        finished = load_run(small.output, torch.device("cpu"))
    assert finished.step == 10


def endless_training(run: Path, checkpoint_every: int) -> subprocess.Popen[str]:
    """A training in a process of its own that goes on until it is stopped."""
    words = [
        "train", "--data", str(ROOT / "assets" / "demo"), "--output", str(run),
        "--downscale", "8", "--steps", "100000", "--checkpoint-every", str(checkpoint_every),
        "--eval-every", "0", "--init.num-points", "300", "--densify.strategy", "none",
    ]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "splatir.commands.main", *words],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_killing_a_training_leaves_a_usable_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = endless_training(run, checkpoint_every=1)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(list(run.glob("checkpoints/step_*.pt"))) < 2:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert load_run(run, torch.device("cpu")).step >= 1


def test_interrupting_saves_the_present_step(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = endless_training(run, checkpoint_every=0)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (run / "metrics.jsonl").is_file():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted" in errors and "Traceback" not in errors
    assert load_run(run, torch.device("cpu")).step >= 50
