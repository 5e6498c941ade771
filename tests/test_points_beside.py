"""When does a COLMAP model in a synthetic scene's folder give the scene its points?"""

from dataclasses import replace
from pathlib import Path

import torch

from splatir.data.recognise import read_dataset
from splatir.maths.frames import similarity
from tests.captures import image_names, small_scene, write_colmap_model, write_nerf_synthetic

SCENE = small_scene()


def synthetic_with_model(root: Path, shifted: float = 0.0) -> Path:
    """A NeRF-synthetic folder and a model of the same cameras, moved by some scene units."""
    write_nerf_synthetic(root, SCENE)
    move = similarity(1.0, torch.eye(3).double(), torch.tensor([shifted, 0.0, 0.0]).double())
    cameras = tuple(camera.in_world(move) for camera in SCENE.cameras)
    names = image_names(len(cameras))
    write_colmap_model(root / "colmap/sparse/0", replace(SCENE, cameras=cameras), names)
    return root


def test_points_of_a_model_with_the_same_cameras_are_used(tmp_path: Path) -> None:
    dataset = read_dataset(synthetic_with_model(tmp_path))
    assert dataset.points is not None
    assert torch.allclose(dataset.points.positions, SCENE.points.float(), atol=1e-5)
    assert not dataset.warnings


def test_a_model_in_another_frame_is_left_alone_with_a_warning(tmp_path: Path) -> None:
    dataset = read_dataset(synthetic_with_model(tmp_path, shifted=0.5))
    assert dataset.points is None
    assert any("do not stand where" in warning for warning in dataset.warnings)


def test_a_broken_model_does_not_stop_the_scene_beside_it(tmp_path: Path) -> None:
    root = synthetic_with_model(tmp_path)
    (root / "colmap/sparse/0/images.txt").write_text("1 nonsense\n")
    dataset = read_dataset(root)
    assert dataset.points is None
    assert any("are not used" in warning for warning in dataset.warnings)


def test_a_scene_without_a_model_has_no_points_and_no_warning(tmp_path: Path) -> None:
    write_nerf_synthetic(tmp_path, SCENE)
    dataset = read_dataset(tmp_path)
    assert dataset.points is None
    assert not dataset.warnings
