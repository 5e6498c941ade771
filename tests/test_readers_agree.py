"""One scene in all formats gives the same cameras, and they fit the pixels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from splatir.data.dataset import Dataset, DataSettings, View
from splatir.data.recognise import read_dataset
from splatir.maths.frames import invert_similarity, transform_points
from tests.captures import (
    SmallScene,
    project,
    small_scene,
    write_colmap,
    write_nerf_synthetic,
    write_tensoir,
    write_transforms,
)

SCENE = small_scene()


def write_colmap_binary(root: Path, scene: SmallScene) -> None:
    write_colmap(root, scene, "colmap/sparse/0", binary=True)


WRITERS: dict[str, Callable] = {
    "colmap": write_colmap,
    "colmap-binary": write_colmap_binary,
    "transforms": write_transforms,
    "nerf-synthetic": write_nerf_synthetic,
    "tensoir": write_tensoir,
}


def all_views(dataset: Dataset) -> list[View]:
    return [*dataset.train, *dataset.test]


def written_camera(view: View) -> int:
    """Index of the scene's camera that a view must be, by its place in the file names."""
    digits = int("".join(c for c in view.name if c.isdigit()))
    first_test = len(SCENE.cameras) - 2
    return digits + first_test if view.name.startswith("test") else digits


@pytest.mark.parametrize("layout", WRITERS)
def test_cameras_are_those_written(layout: str, tmp_path: Path) -> None:
    WRITERS[layout](tmp_path, SCENE)
    dataset = read_dataset(tmp_path, DataSettings(world="input"))
    assert dataset.kind == layout.removesuffix("-binary")
    assert len(all_views(dataset)) == len(SCENE.cameras)
    torch.testing.assert_close(dataset.S_world_input, torch.eye(4, dtype=torch.float64))
    for view in all_views(dataset):
        expected = SCENE.cameras[written_camera(view)].to(dtype=torch.float32)
        torch.testing.assert_close(view.camera.K, expected.K)
        torch.testing.assert_close(view.camera.T_camera_world, expected.T_camera_world)
        assert (view.camera.width, view.camera.height) == (expected.width, expected.height)


@pytest.mark.parametrize("layout", WRITERS)
def test_known_points_land_on_their_pixels_in_the_world_frame(layout: str, tmp_path: Path) -> None:
    WRITERS[layout](tmp_path, SCENE)
    dataset = read_dataset(tmp_path)
    points_world = transform_points(dataset.S_world_input, SCENE.points).float()
    seen = 0
    for view in all_views(dataset):
        pixels, depths = project(view.camera, points_world)
        photo = np.asarray(Image.open(view.image_path).convert("RGB"))
        # The nearest point is hidden by no other.
        nearest = int(depths.argmin())
        column, row = (int(c) for c in pixels[nearest])
        if 0 <= row < photo.shape[0] and 0 <= column < photo.shape[1]:
            expected = (SCENE.colours_srgb[nearest].numpy() * 255).round()
            np.testing.assert_array_equal(photo[row, column], expected)
            seen += 1
    assert seen >= 7


@pytest.mark.parametrize("layout", ["colmap", "transforms"])
def test_captures_become_upright_and_a_unit_away(layout: str, tmp_path: Path) -> None:
    WRITERS[layout](tmp_path, SCENE)
    dataset = read_dataset(tmp_path)
    S_input_world = invert_similarity(dataset.S_world_input)
    up_input = S_input_world[:3, :3] @ torch.tensor([0.0, 0.0, 1.0]).double()
    torch.testing.assert_close(
        up_input / up_input.norm(), torch.tensor([0.0, 0.0, 1.0]).double(), atol=1e-6, rtol=0
    )
    positions = torch.stack([view.camera.position_world for view in all_views(dataset)])
    torch.testing.assert_close(positions.norm(dim=-1), torch.ones(len(positions)))


@pytest.mark.parametrize("layout", ["colmap", "colmap-binary"])
def test_sparse_points_and_colours(layout: str, tmp_path: Path) -> None:
    WRITERS[layout](tmp_path, SCENE)
    dataset = read_dataset(tmp_path)
    assert dataset.points is not None
    # pycolmap keeps points in a hash map: compare them sorted.
    expected = transform_points(dataset.S_world_input, SCENE.points).float()
    order, expected_order = (p[:, 0].argsort() for p in (dataset.points.positions, expected))
    torch.testing.assert_close(dataset.points.positions[order], expected[expected_order])
    torch.testing.assert_close(
        dataset.points.colours_srgb[order],
        SCENE.colours_srgb[expected_order].float(),
        atol=0.5 / 255 + 1e-6,
        rtol=0,
    )


@pytest.mark.parametrize("layout", WRITERS)
def test_background_is_real_unless_alpha_says_otherwise(layout: str, tmp_path: Path) -> None:
    WRITERS[layout](tmp_path, SCENE)
    expected = layout not in ("nerf-synthetic", "tensoir")
    assert read_dataset(tmp_path).has_background is expected


@pytest.mark.parametrize("layout", WRITERS)
def test_reading_twice_gives_the_same_order(layout: str, tmp_path: Path) -> None:
    """Resuming a run draws views and seeds Gaussians by index."""
    WRITERS[layout](tmp_path, SCENE)
    first, second = read_dataset(tmp_path), read_dataset(tmp_path)
    assert [v.name for v in first.train] == [v.name for v in second.train]
    if first.points is not None and second.points is not None:
        assert torch.equal(first.points.positions, second.points.positions)


@pytest.mark.shared_data
def test_colmap_and_transforms_of_one_scene_agree(shared_data: Path) -> None:
    synthetic = read_dataset(shared_data / "scenes" / "spot")
    colmap = read_dataset(shared_data / "scenes" / "spot" / "colmap")
    assert (len(colmap.train), len(colmap.test)) == (60, 15)
    S_input_world = invert_similarity(colmap.S_world_input)
    for part in ("train", "test"):
        expected = {v.name: v.camera for v in getattr(synthetic, part)}
        for view in getattr(colmap, part):
            index = int(view.name.rsplit("_", 1)[1])
            camera = view.camera.in_world(S_input_world)
            other = expected[f"{part}/r_{index}"]
            torch.testing.assert_close(
                camera.T_camera_world, other.T_camera_world, atol=2e-6, rtol=1e-5
            )
            torch.testing.assert_close(camera.K, other.K)
    assert not colmap.has_background
    assert all(view.mask_path is not None for view in colmap.train)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "downscale", "views", "unused", "size"),
    [("mouse", 4.0, 56, 3, {(360, 480), (480, 360)}), ("chess", 2.0, 23, 0, None)],
)
def test_real_captures_load(
    name: str, downscale: float, views: int, unused: int, size: set | None, shared_data: Path
) -> None:
    dataset = read_dataset(shared_data / "real" / name, DataSettings(downscale=downscale))
    assert len(all_views(dataset)) == views
    assert dataset.has_background
    assert [warning.split(" photographs have no pose")[0] for warning in dataset.warnings] == (
        [f"{unused} of {views + unused}"] if unused else []
    )
    sizes = {(view.camera.width, view.camera.height) for view in all_views(dataset)}
    assert size is None or sizes == size
    assert dataset.points is not None
    # What the cameras look at lies around the origin, below them.
    assert float(dataset.points.positions.median(dim=0).values.norm()) < 0.3
    assert float(torch.stack([v.camera.position_world[2] for v in dataset.train]).min()) > 0.2


@pytest.mark.shared_data
def test_chair_has_only_the_listed_views(shared_data: Path) -> None:
    dataset = read_dataset(shared_data / "scenes" / "chair400")
    assert (len(dataset.train), len(dataset.test)) == (100, 40)
    assert not any("normal" in view.name for view in dataset.test)
    assert not dataset.has_background
