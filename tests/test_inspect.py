"""The data set report: right counts, and every planted fault named."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from splatir.data.cache import PhotoCache
from splatir.data.dataset import Dataset, Distortion, SparsePoints, View
from splatir.data.inspect import format_report, inspect_dataset
from splatir.scene.camera import Camera

K = torch.tensor([[50.0, 0, 20], [0, 50, 15], [0, 0, 1]])


def camera(index: int) -> Camera:
    T = torch.eye(4)
    T[:3, 3] = torch.tensor([float(index), 0.0, 2.0])
    return Camera(K, T, 40, 30)


def photo_of(level: int, channels: int = 3) -> np.ndarray:
    samples = np.full((30, 40, channels), level, np.uint8)
    if channels == 4:
        samples[..., 3] = 0
        samples[8:22, 12:28, 3] = 255
    return samples


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Dataset]:
    def build(images: list[np.ndarray], masks: list[np.ndarray] | None = None) -> Dataset:
        views = []
        for i, samples in enumerate(images):
            path, mask_path = tmp_path / f"v{i}.png", None
            Image.fromarray(samples).save(path)
            if masks is not None:
                mask_path = tmp_path / f"m{i}.png"
                Image.fromarray(masks[i]).save(mask_path)
            views.append(View(f"v{i}", camera(i), path, mask_path))
        points = SparsePoints(torch.randn(100, 3), torch.rand(100, 3))
        return Dataset(
            root=tmp_path,
            kind="colmap",
            train=tuple(views[:-1]),
            test=tuple(views[-1:]),
            points=points,
            S_world_input=torch.eye(4),
            has_background=masks is None and images[0].shape[-1] == 3,
        )

    return build


def test_counts_sizes_and_memory_of_a_clean_capture(make: Callable[..., Dataset]) -> None:
    dataset = make([photo_of(100)] * 5)
    lens = Distortion("OPENCV", (50.0, 50.0, 20.0, 15.0, 0.0, 0.0, 0.0, 0.0), 40, 30)
    small = replace(dataset.test[0], camera=camera(4).resized(20, 15), distortion=lens)
    dataset = replace(dataset, test=(small,))
    report = inspect_dataset(dataset)
    assert (report.num_train, report.num_test, report.num_points) == (4, 1, 100)
    assert report.image_sizes == ((40, 30, 4), (20, 15, 1))
    assert report.camera_models == (("PINHOLE", 4), ("OPENCV", 1))
    assert report.memory_bytes == (4 * 40 * 30 + 20 * 15) * 3
    assert (report.num_with_mask, report.num_with_alpha) == (0, 0)
    assert report.warnings == () and report.errors == ()
    text = format_report(report)
    assert "4 train, 1 test" in text and "no faults found" in text and "background" in text


def test_error_of_cameras_is_told_where_it_is_known(make: Callable[..., Dataset]) -> None:
    dataset = make([photo_of(100)] * 5)
    assert "expect" not in format_report(inspect_dataset(dataset))
    assert dataset.points is not None
    dataset = replace(dataset, points=replace(dataset.points, error=0.01))
    report = inspect_dataset(dataset)
    assert report.reprojection_error == pytest.approx(0.4)
    assert "seen within 0.40 pixels of where cameras expect" in format_report(report)


def test_reported_memory_is_what_the_cache_takes(make: Callable[..., Dataset]) -> None:
    dataset = make([photo_of(100, 4)] * 3)
    report = inspect_dataset(dataset)
    with PhotoCache((*dataset.train, *dataset.test), 10**7) as cache:
        for index in range(3):
            _ = cache[index]
        assert report.memory_bytes == cache.memory_bytes
    assert report.num_with_alpha == 3 and report.warnings == ()


def test_every_unreadable_image_is_named(make: Callable[..., Dataset]) -> None:
    dataset = make([photo_of(100)] * 5)
    dataset.train[1].image_path.unlink()
    body = dataset.train[3].image_path.read_bytes()
    dataset.train[3].image_path.write_bytes(body[: len(body) // 2])
    report = inspect_dataset(dataset)
    assert len(report.errors) == 2
    text = format_report(report)
    assert "errors (2):" in text and "v1.png" in text and "v3.png" in text


def test_inverted_masks_are_found(make: Callable[..., Dataset]) -> None:
    mask = photo_of(0, 4)[..., 3]
    assert inspect_dataset(make([photo_of(100)] * 3, [mask] * 3)).warnings == ()
    report = inspect_dataset(make([photo_of(100)] * 3, [255 - mask] * 3))
    assert any("3 of 3 views" in w and "invert" in w for w in report.warnings)


def test_empty_and_missing_masks_are_found(make: Callable[..., Dataset]) -> None:
    mask = photo_of(0, 4)[..., 3]
    dataset = make([photo_of(100)] * 4, [mask, mask * 0, mask, mask])
    bare = replace(dataset.train[2], mask_path=None)
    report = inspect_dataset(replace(dataset, train=(*dataset.train[:2], bare)))
    assert any("(v1)" in w and "less than 0.1 %" in w for w in report.warnings)
    assert any("(v2)" in w and "neither alpha nor mask" in w for w in report.warnings)


def test_alpha_that_marks_nothing_is_found(make: Callable[..., Dataset]) -> None:
    opaque = photo_of(100, 4)
    opaque[..., 3] = 255
    report = inspect_dataset(make([opaque] * 3))
    assert any("nothing marks the object" in warning for warning in report.warnings)


def test_odd_exposure_and_black_images_are_found(make: Callable[..., Dataset]) -> None:
    # sRGB 100 -> 180 is a factor of 3.6 in linear light, 1.8 stops; 100 -> 120 is 0.5 stops.
    report = inspect_dataset(make([photo_of(level) for level in (100, 100, 120, 180, 0)]))
    assert any("1 of 5 views (v3)" in w and "stop" in w for w in report.warnings)
    assert any("(v4)" in w and "black" in w for w in report.warnings)


def test_a_photo_with_a_focal_length_of_its_own_is_found(make: Callable[..., Dataset]) -> None:
    dataset = make([photo_of(100)] * 6)
    zoomed = [replace(v, camera=replace(v.camera, K=v.camera.K * 1.0)) for v in dataset.train]
    zoomed[2].camera.K[0, 0] *= 1.4
    zoomed[3].camera.K[0, 0] *= 1.1
    found = inspect_dataset(replace(dataset, train=tuple(zoomed))).warnings
    assert [w for w in found if "focal length" in w and "1 of 6 views (v2)" in w]
    assert not any("focal length" in w for w in inspect_dataset(dataset).warnings)


def test_two_lenses_used_alike_are_no_fault(make: Callable[..., Dataset]) -> None:
    dataset = make([photo_of(100)] * 6)
    other = dataset.train[0].camera.K * torch.tensor([[2.0], [2.0], [1.0]])
    views = [
        replace(v, camera=replace(v.camera, K=other)) if i % 2 else v
        for i, v in enumerate(dataset.train)
    ]
    views.append(replace(views[1], name="v9"))
    found = inspect_dataset(replace(dataset, train=tuple(views))).warnings
    assert not any("focal length" in w for w in found)


def test_warnings_of_the_reader_are_passed_on(make: Callable[..., Dataset]) -> None:
    dataset = replace(make([photo_of(100)] * 3), warnings=("2 images are missing.",), points=None)
    report = inspect_dataset(dataset)
    text = format_report(report)
    assert "- 2 images are missing." in text and "no faults" not in text
    assert report.num_points == 0 and "none" in text
