"""Are the layouts of LLFF, Objects with Lighting and Stanford-ORB recognised and read right?"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from splatir.data.dataset import Dataset, View
from splatir.data.images import load_photo
from splatir.data.recognise import read_dataset
from splatir.maths.colour import linear_from_srgb
from tests.benchmark_captures import write_llff, write_objects_with_lighting, write_orb
from tests.captures import SmallScene, project, small_scene

SCENE = small_scene(num_cameras=6)


def views_of(dataset: Dataset) -> list[View]:
    return sorted([*dataset.train, *dataset.test], key=lambda view: view.image_path.as_posix())


def shows_the_points(dataset: Dataset, scene: SmallScene, views: list[View]) -> bool:
    """Whether each view has the colours of the points where its camera says that they are."""
    S = dataset.S_world_input.float()
    points = scene.points.float() @ S[:3, :3].mT + S[:3, 3]
    for view in views:
        photo = load_photo(view)
        pixels, depths = project(view.camera, points)
        nearest = int(depths.argmin())
        x, y = (int(v) for v in pixels[nearest])
        expected = scene.colours_srgb[nearest].float()
        if photo.encoding == "linear":
            expected = 1.5 * linear_from_srgb(expected)
        if not torch.allclose(photo.rgb[y, x], expected, atol=0.08) or photo.alpha is None:
            return False
        if float(photo.alpha[y, x]) < 0.9 or float(photo.alpha.mean()) > 0.5:
            return False
    return True


def test_llff_poses_and_masks_are_those_of_the_cameras(tmp_path: Path) -> None:
    write_llff(tmp_path, SCENE)
    dataset = read_dataset(tmp_path)
    assert dataset.kind == "llff" and not dataset.has_background
    assert (len(dataset.train), len(dataset.test)) == (5, 1)
    assert shows_the_points(dataset, SCENE, views_of(dataset))


@pytest.mark.parametrize("folder", ["", "test", "test/inputs"])
def test_objects_with_lighting_are_read_without_what_other_lights_show(
    folder: str, tmp_path: Path
) -> None:
    write_objects_with_lighting(tmp_path, SCENE)
    dataset = read_dataset(tmp_path / folder)
    assert dataset.kind == "objects-with-lighting" and not dataset.has_background
    assert len(views_of(dataset)) == 6
    assert shows_the_points(dataset, SCENE, views_of(dataset))


def test_both_layouts_of_stanford_orb_keep_its_split_and_masks(tmp_path: Path) -> None:
    name = write_orb(tmp_path, SCENE)[0]
    blender = read_dataset(tmp_path / "blender_HDR" / name)
    assert (len(blender.train), len(blender.test)) == (4, 2)
    assert not blender.has_background
    assert load_photo(blender.train[0]).encoding == "linear"
    assert float(load_photo(blender.train[0]).rgb.max()) > 1.0
    assert shows_the_points(blender, SCENE, list(blender.train))
    colmap = read_dataset(tmp_path / "llff_colmap_LDR" / name)
    assert colmap.kind == "colmap" and not colmap.has_background
    assert [view.name for view in colmap.test] == ["0004", "0005"]
    assert shows_the_points(colmap, SCENE, views_of(colmap))


def edited(path: str, content: bytes) -> Callable[[Path], object]:
    return lambda root: (root / path).write_bytes(content)


def fewer_rows(root: Path) -> None:
    np.save(root / "poses_bounds.npy", np.load(root / "poses_bounds.npy")[:-1])


def no_numbers(root: Path) -> None:
    np.save(root / "poses_bounds.npy", np.full((6, 17), np.nan))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edited("poses_bounds.npy", b"no numbers"), r"poses_bounds\.npy is no readable \.npy"),
        (fewer_rows, r"holds 5 poses, but .*images 6 images"),
        (no_numbers, r"frame_000\.png: the pose holds NaN"),
    ],
)
def test_broken_llff_files_are_named(
    change: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    write_llff(tmp_path, SCENE)
    change(tmp_path)
    with pytest.raises(ValueError, match=message):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1 2 3\n", r"camera_0001\.txt must hold 8 rows of 3 numbers"),
        (b"one two three\n", r"camera_0001\.txt is not a table of numbers"),
        (b"nan 0 1\n0 1 1\n0 0 1\n1 0 0\n0 1 0\n0 0 1\n0 0 0\n4 3 3\n", r"camera_0001.*NaN"),
        (b"9 1 1\n0 9 1\n0 0 1\n1 0 0\n0 1 0\n0 0 1\n0 0 0\n4 3 3\n", r"skew of 1"),
    ],
)
def test_broken_camera_files_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    write_objects_with_lighting(tmp_path, SCENE)
    (tmp_path / "test" / "inputs" / "camera_0001.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_dataset(tmp_path)
