"""LPIPS as a loss: it acts in both stages, is loaded only where weighed, and says what it lacks."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from splatir.commands.main import main
from splatir.data.dataset import DataSettings
from splatir.data.recognise import read_dataset
from splatir.evaluate.lpips import Lpips
from splatir.optim.losses import LossWeights
from splatir.optim.material_losses import MaterialLossWeights
from splatir.scene.initialise import InitialisationSettings
from splatir.settings import SettingsError
from splatir.train.material_settings import MaterialSettings
from splatir.train.perceptual import distance_term, picture_distance
from splatir.train.session import train
from splatir.train.settings import TrainSettings
from tests.captures import small_scene, write_nerf_synthetic
from tests.faults import the_error

CPU = torch.device("cpu")
PATCHED = "splatir.train.perceptual.lpips_metric"


@pytest.fixture
def settings(tmp_path: Path) -> TrainSettings:
    write_nerf_synthetic(tmp_path / "capture", small_scene(num_cameras=4), num_test=1)
    return TrainSettings(
        data=tmp_path / "capture",
        output=tmp_path / "run",
        device="cpu",
        steps=1,
        init=InitialisationSettings(num_points=60, sh_degree=0),
        materials=MaterialSettings(steps=1, metal_checks=(), transport=False),
        loss=LossWeights(lpips=0.1),
        material_loss=MaterialLossWeights(lpips=0.2),
    )


def test_both_stages_weigh_it(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PATCHED, lambda _: Lpips("alex"))
    train(settings)
    assert settings.output is not None
    lines = (settings.output / "metrics.jsonl").read_text().splitlines()
    losses = {line["stage"]: line for line in map(json.loads, lines) if "stage" in line}
    for stage in ("radiance", "materials"):
        assert losses[stage]["loss_lpips"] > 0.0


def test_nothing_is_loaded_without_a_weight(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PATCHED, lambda _: pytest.fail("it was loaded"))
    assert settings.data is not None
    dataset = read_dataset(settings.data)
    plain = replace(settings, loss=LossWeights(), material_loss=MaterialLossWeights())
    assert picture_distance(plain, dataset, CPU) is None
    distance = Lpips("alex")
    grey = torch.full((32, 32, 3), 0.5)
    assert distance_term(distance, grey, grey, 0.0) == {}


def test_missing_weights_are_one_error_before_any_training(
    settings: TrainSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nothing"))
    words = ["train", "--data", str(settings.data), "--output", str(tmp_path / "run")]
    assert main([*words, "--device", "cpu", "--loss.lpips", "0.1"]) == 1
    printed = capsys.readouterr()
    error = the_error(printed.err, printed.out)
    assert "no VGG16 or AlexNet weights" in error and "--loss.lpips 0" in error
    assert not (tmp_path / "run").exists()


def test_photos_too_small_for_the_network_are_refused(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PATCHED, lambda _: Lpips("alex"))
    assert settings.data is not None
    dataset = read_dataset(settings.data, DataSettings(max_size=40))
    with pytest.raises(ValueError, match="the smallest here has 30"):
        picture_distance(settings, dataset, CPU)


def test_pictures_that_excite_nothing_have_a_finite_gradient() -> None:
    metric = Lpips("alex")
    for parameter in metric.parameters():
        parameter.data.neg_().abs_().neg_()
    shown = torch.zeros(32, 32, 3, requires_grad=True)
    term = distance_term(metric, shown, torch.ones(32, 32, 3), 1.0)["lpips"]
    (gradient,) = torch.autograd.grad(term, shown)
    assert bool(gradient.isfinite().all())


def test_negative_weights_are_refused() -> None:
    with pytest.raises(SettingsError, match="lpips"):
        LossWeights(lpips=-1.0)
    with pytest.raises(SettingsError, match="lpips"):
        MaterialLossWeights(lpips=-1.0)
