"""Watching a training: what the observer is told, and that it can stop but not change it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from splatir.train.finished import FinishedRun, load_run
from splatir.train.observer import TrainingProgress
from splatir.train.session import train
from splatir.train.settings import TrainSettings
from tests.captures import small_scene, write_nerf_synthetic


class Watcher:
    """Keeps what it is told; stops after some steps."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.told: list[TrainingProgress] = []
        self.first: FinishedRun | None = None

    def after_step(self, progress: TrainingProgress) -> bool:
        self.told.append(progress)
        if self.first is None:
            self.first = progress.moment()
        return progress.step != self.stop_at


@pytest.fixture
def settings(tmp_path: Path) -> TrainSettings:
    write_nerf_synthetic(tmp_path / "capture", small_scene(num_cameras=4), num_test=1)
    return TrainSettings(
        data=tmp_path / "capture",
        output=tmp_path / "run",
        stages=("radiance",),
        steps=6,
        eval_every=0,
        checkpoint_every=0,
        backend="reference",
        device="cpu",
    )


def test_observer_hears_of_each_step_and_its_copy_does_not_train_on(
    settings: TrainSettings,
) -> None:
    watcher = Watcher()
    train(settings, watcher)
    assert [progress.step for progress in watcher.told] == [1, 2, 3, 4, 5, 6]
    assert {progress.end for progress in watcher.told} == {6}
    assert watcher.told[0].loss > 0.0 and watcher.told[0].psnr > 0.0
    assert watcher.first is not None and watcher.first.step == 1
    last = load_run(settings.output or Path(), torch.device("cpu"))
    assert not torch.equal(watcher.first.model.params["sh0"], last.model.params["sh0"])


def test_watching_changes_nothing_of_what_is_trained(settings: TrainSettings) -> None:
    train(settings, Watcher())
    assert settings.output is not None
    alone = replace(settings, output=settings.output.with_name("alone"))
    train(alone)
    watched = load_run(settings.output, torch.device("cpu")).model.params
    unwatched = load_run(settings.output.with_name("alone"), torch.device("cpu")).model.params
    assert all(torch.equal(watched[key], unwatched[key]) for key in watched)


def test_observer_stops_a_training_that_can_be_resumed(settings: TrainSettings) -> None:
    watcher = Watcher(stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        train(settings, watcher)
    assert settings.output is not None
    assert load_run(settings.output, torch.device("cpu")).step == 3
    train(TrainSettings(resume=settings.output))
    assert load_run(settings.output, torch.device("cpu")).step == 6
