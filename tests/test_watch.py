"""The page of a training: it pauses, steps and stops it, and its faults do not."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("viser", reason="needs viser: .[viewer]")

from splatir.commands.watch import TrainingPage, watched
from splatir.scene.gaussians import GaussianModel
from splatir.train.finished import load_run
from splatir.train.observer import TrainingProgress
from splatir.train.session import train
from splatir.train.settings import TrainSettings
from tests.captures import small_scene, write_nerf_synthetic
from tests.viewer_scenes import scene_of, until, wall
from viewer.live import Live, LiveStep
from viewer.page import Page

# Of viser's own network thread as it stops.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def step(number: int) -> LiveStep:
    return LiveStep("radiance", number, 100, 1.0 / number, 20.0, 10)


class Maker(threading.Thread):
    """Does steps as fast as it may."""

    def __init__(self, live: Live) -> None:
        super().__init__(daemon=True)
        self.live, self.done, self.copies = live, 0, 0
        self.interrupted = threading.Event()

    def scene(self) -> Any:
        self.copies += 1
        return scene_of(wall(4))

    def run(self) -> None:
        goes_on = True
        while goes_on and not self.interrupted.is_set():
            self.done += 1
            goes_on = self.live.after_step(step(self.done), self.scene, self.interrupted.is_set)
            time.sleep(0.001)


def test_maker_pauses_steps_goes_on_and_stops() -> None:
    live = Live()
    maker = Maker(live)
    maker.start()
    assert until(lambda: maker.done > 5)
    live.ask("pause")
    time.sleep(0.1)
    paused_at = maker.done
    time.sleep(0.2)
    assert maker.done == paused_at
    live.ask("step")
    assert until(lambda: maker.done == paused_at + 1)
    time.sleep(0.2)
    assert maker.done == paused_at + 1 and live.wish == "pause"
    # Also while it waits, it shows what there is.
    live.want_scene()
    taken: list[Any] = []

    def take() -> bool:
        taken.extend(scene for scene in [live.take_scene()] if scene is not None)
        return bool(taken)

    assert until(take) and taken[0].model.num_gaussians == 16
    live.ask("run")
    assert until(lambda: maker.done > paused_at + 5)
    live.ask("stop")
    live.ask("run")
    maker.join(5.0)
    assert not maker.is_alive() and maker.copies == 1


def test_an_interruption_ends_a_pause() -> None:
    live = Live()
    live.ask("pause")
    maker = Maker(live)
    maker.start()
    assert until(lambda: maker.done == 1)
    maker.interrupted.set()
    maker.join(5.0)
    assert not maker.is_alive()


def test_curves_stay_short_and_keep_the_steps() -> None:
    live = Live()
    for number in range(1, 5001):
        live.after_step(step(number), lambda: scene_of(wall(4)), lambda: False)
    steps, loss, psnr = live.curves()
    assert 400 < len(steps) <= 1001
    assert steps[0] < 20 and steps[-1] > 4980 and (np.diff(steps) > 0).all()
    assert loss[-1] == pytest.approx(1.0 / steps[-1], rel=1e-2) and (psnr == 20.0).all()


def test_a_scene_that_gains_materials_gains_light() -> None:
    params = {
        key: value.detach()
        for key, value in wall().params.items()
        if key not in ("albedo", "roughness", "metallic")
    }
    page = Page(scene_of(GaussianModel(params, "surfel"), light=None), 64, 1.0)
    assert page.first_look.channel == "radiance" and page.first_choice.source is None
    page.replace_scene(scene_of(wall()))
    assert page.first_look.channel == "image" and page.first_choice.source == "recovered"


@pytest.fixture
def settings(tmp_path: Path) -> TrainSettings:
    write_nerf_synthetic(tmp_path / "capture", small_scene(num_cameras=4), num_test=1)
    return TrainSettings(
        data=tmp_path / "capture",
        output=tmp_path / "run",
        stages=("radiance",),
        steps=8,
        eval_every=0,
        checkpoint_every=0,
        backend="reference",
        device="cpu",
    )


def test_a_watched_training_serves_its_page_and_ends(settings: TrainSettings) -> None:
    with watched(True, 0) as page:
        assert isinstance(page, TrainingPage)
        train(settings, page)
        assert page.url is not None and page.url.startswith("http://localhost:")
    assert load_run(settings.output or Path(), torch.device("cpu")).step == 8
    with watched(False, 0) as page:
        assert page is None


def test_a_fault_of_the_page_is_said_and_training_goes_on(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(self: TrainingPage, progress: TrainingProgress) -> bool:
        if progress.step == 3:
            raise KeyError("a fault of the viewer")
        return True

    monkeypatch.setattr(TrainingPage, "_show", fail)
    with watched(True, 0) as page:
        train(settings, page)
    assert load_run(settings.output or Path(), torch.device("cpu")).step == 8
    assert capsys.readouterr().err.count("training goes on") == 1
