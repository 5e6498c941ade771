from dataclasses import replace
from pathlib import Path

import torch

from splatir.data.dataset import Dataset, View
from splatir.optim.densification import DensificationSettings
from splatir.scene.camera import Camera
from splatir.train.budget import within_pixel_budget
from splatir.train.settings import TrainSettings

# 4 views of 50 x 40 pixels.
CAMERA = Camera(torch.eye(3), torch.eye(4), 50, 40)
VIEWS = tuple(View(f"{i}", CAMERA, Path("photo.png")) for i in range(4))
CAPTURE = Dataset(Path(), "colmap", VIEWS, (), None, torch.eye(4).double(), has_background=True)


def limit(capture: Dataset, **densify: float) -> int:
    settings = TrainSettings(densify=replace(DensificationSettings(), **densify))
    return within_pixel_budget(settings, capture).densify.max_gaussians


def test_few_photos_with_a_background_get_one_gaussian_per_so_many_pixels() -> None:
    assert limit(CAPTURE, pixels_per_gaussian=100.0) == 80
    assert limit(CAPTURE, pixels_per_gaussian=1e9) == 1


def test_the_absolute_limit_holds_where_it_is_lower() -> None:
    assert limit(CAPTURE, pixels_per_gaussian=1.0, max_gaussians=30) == 30


def test_photos_of_an_object_alone_are_not_limited_by_their_pixels() -> None:
    assert limit(replace(CAPTURE, has_background=False), max_gaussians=5000) == 5000
