from dataclasses import replace
from pathlib import Path

import pytest
import torch

from splatir.data.dataset import Dataset, View
from splatir.optim.densification import DensificationSettings
from splatir.scene.camera import Camera
from splatir.train.budget import pixel_budget
from splatir.train.settings import TrainSettings
from splatir.train.stages import RadianceStage, for_capture, stages_of

# 4 views of 50 x 40 pixels.
CAMERA = Camera(torch.eye(3), torch.eye(4), 50, 40)
VIEWS = tuple(View(f"{i}", CAMERA, Path("photo.png")) for i in range(4))
CAPTURE = Dataset(Path(), "colmap", VIEWS, (), None, torch.eye(4).double(), has_background=True)


def test_few_photos_with_a_background_get_one_gaussian_per_so_many_pixels() -> None:
    assert pixel_budget(CAPTURE, 100.0) == 80
    assert pixel_budget(CAPTURE, 1e9) == 1


def test_photos_of_an_object_alone_are_not_limited_by_their_pixels() -> None:
    assert pixel_budget(replace(CAPTURE, has_background=False), 100.0) is None


@pytest.mark.parametrize(("budget", "limit"), [(80, 80), (10_000, 5000), (None, 5000)])
def test_a_stage_on_the_whole_capture_takes_the_lower_limit(budget: int | None, limit: int) -> None:
    densify = DensificationSettings(max_gaussians=5000)
    settings = for_capture(TrainSettings(densify=densify), has_background=True)
    everything, alone, _ = stages_of(settings, budget)
    assert isinstance(everything, RadianceStage) and isinstance(alone, RadianceStage)
    assert everything.densify.max_gaussians == limit
    assert alone.densify.max_gaussians == 5000
