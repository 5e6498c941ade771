"""transforms.json, NeRF-synthetic and TensoIR folders: what they may hold and what can be wrong."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from plyfile import PlyData, PlyElement

from splatir.data.dataset import Dataset, DataSettings, View
from splatir.data.recognise import read_dataset
from splatir.maths.frames import transform_points
from tests.captures import (
    change_json,
    field_of_view_x,
    small_scene,
    write_photo,
    write_transforms,
)

SCENE = small_scene()
INPUT = DataSettings(world="input")


def views_by_name(dataset: Dataset) -> dict[str, View]:
    return {view.name: view for view in (*dataset.train, *dataset.test)}


# nerfstudio and instant-ngp.


def test_each_frame_may_have_its_own_intrinsics(tmp_path: Path) -> None:
    content = write_transforms(tmp_path, SCENE)
    for i, frame in enumerate(content["frames"]):
        frame.update(fl_x=50.0 + i, fl_y=60.0 + i)
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    views = views_by_name(read_dataset(tmp_path))
    for i in range(9):
        K = views[f"frame_{i:03d}"].camera.K
        assert (float(K[0, 0]), float(K[1, 1])) == (50.0 + i, 60.0 + i)


@pytest.mark.parametrize(
    ("changes", "model", "params"),
    [
        ({"k1": 0.1, "p2": 0.01}, "OPENCV", (0.1, 0.0, 0.0, 0.01)),
        (
            {"k1": 0.1, "k3": 0.02},
            "FULL_OPENCV",
            (0.1, 0.0, 0.0, 0.0, 0.02, 0.0, 0.0, 0.0),
        ),
        ({"camera_model": "OPENCV_FISHEYE", "k4": 0.01}, "OPENCV_FISHEYE", (0.0, 0.0, 0.0, 0.01)),
        ({"camera_model": "SIMPLE_RADIAL", "k1": 0.1}, "OPENCV", (0.1, 0.0, 0.0, 0.0)),
        ({"camera_model": None, "is_fisheye": True, "k1": 0.1}, "OPENCV_FISHEYE", (0.1, 0, 0, 0)),
    ],
)
def test_distortion_becomes_a_colmap_lens(
    changes: dict, model: str, params: tuple, tmp_path: Path
) -> None:
    write_transforms(tmp_path, SCENE, **changes)
    distortion = read_dataset(tmp_path).train[0].distortion
    assert distortion is not None
    assert distortion.model == model
    assert distortion.params[4:] == params
    assert (distortion.width, distortion.height) == (48, 36)


@pytest.mark.parametrize("changes", [{}, {"k1": 0.0}, {"camera_model": "PINHOLE", "k1": 0.1}])
def test_pinhole_files_need_no_undistortion(changes: dict, tmp_path: Path) -> None:
    write_transforms(tmp_path, SCENE, **changes)
    assert read_dataset(tmp_path).train[0].distortion is None


def test_size_and_principal_point_default_to_the_image(tmp_path: Path) -> None:
    write_transforms(tmp_path, SCENE, w=None, h=None, cx=None, cy=None, fl_y=None)
    camera = read_dataset(tmp_path, INPUT).train[0].camera
    torch.testing.assert_close(camera.K, SCENE.cameras[0].K.float())


def test_a_field_of_view_is_a_focal_length(tmp_path: Path) -> None:
    angle = field_of_view_x(SCENE.cameras[0])
    write_transforms(tmp_path, SCENE, fl_x=None, fl_y=None, camera_model=None, camera_angle_x=angle)
    dataset = read_dataset(tmp_path)
    torch.testing.assert_close(dataset.train[0].camera.K, SCENE.cameras[0].K.float())
    # A file with a field of view alone is a rendering: its frame is kept.
    torch.testing.assert_close(dataset.S_world_input, torch.eye(4, dtype=torch.float64))


def test_missing_images_are_skipped_and_counted(tmp_path: Path) -> None:
    write_transforms(tmp_path, SCENE)
    for i in range(3):
        (tmp_path / "images" / f"frame_{i:03d}.png").unlink()
    dataset = read_dataset(tmp_path)
    assert len(views_by_name(dataset)) == 6
    assert dataset.warnings[0].startswith("3 images of transforms.json are missing and skipped")


@pytest.mark.parametrize("prefix", ["./images/", "images\\", "images/"])
def test_paths_without_extension_and_with_other_separators(prefix: str, tmp_path: Path) -> None:
    write_transforms(tmp_path, SCENE)

    def rename(content: dict) -> None:
        for i, frame in enumerate(content["frames"]):
            frame["file_path"] = f"{prefix}frame_{i:03d}"

    change_json(tmp_path / "transforms.json", rename)
    assert set(views_by_name(read_dataset(tmp_path))) == {f"frame_{i:03d}" for i in range(9)}


def test_downscaled_folder_is_used(tmp_path: Path) -> None:
    write_transforms(tmp_path, SCENE)
    for i in range(9):
        write_photo(tmp_path / "images_4" / f"frame_{i:03d}.png", np.zeros((9, 12, 4), np.uint8))
    view = read_dataset(tmp_path, DataSettings(downscale=4.0)).train[0]
    assert view.image_path.parent.name == "images_4"
    assert (view.camera.width, view.camera.height) == (12, 9)


def test_listed_masks_are_used(tmp_path: Path) -> None:
    content = write_transforms(tmp_path, SCENE)
    (tmp_path / "masks").mkdir()
    for i, frame in enumerate(content["frames"]):
        frame["mask_path"] = f"masks/m{i}.png"
        if i != 4:
            Image.new("L", (48, 36), 255).save(tmp_path / "masks" / f"m{i}.png")
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    dataset = read_dataset(tmp_path)
    views = views_by_name(dataset)
    assert views["frame_003"].mask_path == tmp_path / "masks" / "m3.png"
    assert views["frame_004"].mask_path is None
    assert not dataset.has_background
    assert any("masks/m4.png" in warning for warning in dataset.warnings)


def test_masks_beside_the_images_are_found(tmp_path: Path) -> None:
    write_transforms(tmp_path, SCENE)
    (tmp_path / "masks").mkdir()
    for i in range(9):
        Image.new("L", (48, 36), 255).save(tmp_path / "masks" / f"frame_{i:03d}.png")
    assert all(view.mask_path is not None for view in read_dataset(tmp_path).train)


def test_own_split_by_file_names(tmp_path: Path) -> None:
    paths = [f"images/frame_{i:03d}.png" for i in range(9)]
    write_transforms(tmp_path, SCENE, train_filenames=paths[:6], test_filenames=paths[6:8])
    dataset = read_dataset(tmp_path)
    assert [view.name for view in dataset.test] == ["frame_006", "frame_007"]
    assert len(dataset.train) == 6


def test_validation_files_are_held_out_where_there_are_no_test_files(tmp_path: Path) -> None:
    paths = [f"images/frame_{i:03d}.png" for i in range(9)]
    write_transforms(
        tmp_path, SCENE, train_filenames=paths[:6], val_filenames=paths[6:], test_filenames=[]
    )
    assert len(read_dataset(tmp_path).test) == 3


def test_transforms_test_json_holds_the_test_views(tmp_path: Path) -> None:
    content = write_transforms(tmp_path, SCENE)
    frames = content["frames"]
    (tmp_path / "transforms_test.json").write_text(json.dumps({**content, "frames": frames[7:]}))
    (tmp_path / "transforms.json").write_text(json.dumps({**content, "frames": frames[:7]}))
    dataset = read_dataset(tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (7, 2)


def write_points(path: Path) -> None:
    vertices = np.zeros(
        len(SCENE.points),
        dtype=[(a, "f8") for a in "xyz"] + [(c, "u1") for c in ("red", "green", "blue")],
    )
    for i, axis in enumerate("xyz"):
        vertices[axis] = SCENE.points[:, i].numpy()
    vertices["green"] = 255
    PlyData([PlyElement.describe(vertices, "vertex")]).write(str(path))


def test_seed_points_are_in_the_frame_of_the_poses(tmp_path: Path) -> None:
    """applied_transform is not undone: poses and points are saved after it."""
    applied = [[1.0, 0.0, 0.0, 5.0], [0.0, 0.0, 1.0, 0.0], [0.0, -1.0, 0.0, 0.0]]
    write_transforms(tmp_path, SCENE, ply_file_path="points.ply", applied_transform=applied)
    write_points(tmp_path / "points.ply")
    dataset = read_dataset(tmp_path, INPUT)
    assert dataset.points is not None
    torch.testing.assert_close(dataset.points.positions, SCENE.points.float())
    assert dataset.points.colours_srgb[0].tolist() == [0.0, 1.0, 0.0]
    first = dataset.train[0].camera.T_camera_world
    torch.testing.assert_close(first, SCENE.cameras[1].T_camera_world.float())
    turned = read_dataset(tmp_path)
    assert turned.points is not None
    torch.testing.assert_close(
        turned.points.positions, transform_points(turned.S_world_input, SCENE.points).float()
    )


def test_missing_seed_points_are_a_warning(tmp_path: Path) -> None:
    write_transforms(tmp_path, SCENE, ply_file_path="points.ply")
    dataset = read_dataset(tmp_path)
    assert dataset.points is None
    assert "points.ply of transforms.json are missing" in dataset.warnings[0]


def test_rounded_matrices_are_made_rigid(tmp_path: Path) -> None:
    content = write_transforms(tmp_path, SCENE)
    for frame in content["frames"]:
        frame["transform_matrix"] = np.round(frame["transform_matrix"], 3).tolist()
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    for view in read_dataset(tmp_path, INPUT).train:
        R = view.camera.T_camera_world[:3, :3]
        torch.testing.assert_close(R @ R.mT, torch.eye(3), atol=1e-6, rtol=0)


def set_first(key: str, value: object) -> Callable[[dict], object]:
    return lambda content: content["frames"][0].update({key: value})


def change_matrix(change: Callable[[np.ndarray], object]) -> Callable[[dict], object]:
    def apply(content: dict) -> None:
        matrix = np.array(content["frames"][0]["transform_matrix"])
        change(matrix)
        content["frames"][0]["transform_matrix"] = matrix.tolist()

    return apply


def scale_matrix(matrix: np.ndarray) -> None:
    matrix[:3, :3] *= 2.0


def mirror_matrix(matrix: np.ndarray) -> None:
    matrix[:3, 0] *= -1.0


def shift_by_nan(matrix: np.ndarray) -> None:
    matrix[0, 3] = math.nan


def shift_by_infinity(matrix: np.ndarray) -> None:
    matrix[0, 3] = math.inf


def transpose_matrix(matrix: np.ndarray) -> None:
    matrix[:] = matrix.T.copy()


JSON_FAULTS: list[tuple[str, Callable[[dict], object], str]] = [
    ("no frames key", lambda c: c.pop("frames"), r"transforms\.json has no frames"),
    ("empty frames", lambda c: c.update(frames=[]), r"transforms\.json has no frames"),
    ("no file_path", lambda c: c["frames"][2].pop("file_path"), r"frame 2 has no file_path"),
    ("no matrix", lambda c: c["frames"][0].pop("transform_matrix"), r"has no transform_matrix"),
    ("ragged matrix", set_first("transform_matrix", [[1.0], [2.0, 3.0]]), r"not a 4x4 table"),
    ("2x4 matrix", set_first("transform_matrix", [[1, 0, 0, 0]] * 2), r"3x4 or 4x4 pose matrix"),
    ("words", set_first("transform_matrix", "identity"), r"transform_matrix is not"),
    ("NaN pose", change_matrix(shift_by_nan), r"frame_000.png: the pose holds NaN"),
    ("infinite pose", change_matrix(shift_by_infinity), r"frame_000.png: the pose holds NaN"),
    ("scaled pose", change_matrix(scale_matrix), r"not a rotation and a translation"),
    ("mirrored pose", change_matrix(mirror_matrix), r"not a rotation and a translation"),
    ("transposed pose", change_matrix(transpose_matrix), r"last row must be 0 0 0 1"),
    ("no focal length", lambda c: [c.pop("fl_x"), c.pop("fl_y")], r"no focal length.*fl_x"),
    ("zero focal length", lambda c: c.update(fl_x=0.0), r"focal length must be positive"),
    ("odd field of view", lambda c: [c.pop("fl_x"), c.update(camera_angle_x=4.0)], r"0 and pi"),
    ("a word for a number", lambda c: c.update(fl_x="long"), r"fl_x must be a number, got 'long'"),
    ("NaN intrinsics", lambda c: c.update(cx=math.nan), r"cx is not finite"),
    ("some frames' own", set_first("fl_x", 9.0), r"some frames have their own fl_x"),
    ("strange lens", lambda c: c.update(camera_model="FISHEYE624"), r"FISHEYE624 is not supported"),
    ("sphere", lambda c: c.update(camera_model="EQUIRECTANGULAR"), r"EQUIRECTANGULAR is not supp"),
    ("k4 of a plain lens", lambda c: c.update(k4=0.1), r"k4 = 0.1 with OPENCV is not supported"),
    ("a frame twice", lambda c: c["frames"].append(c["frames"][0]), r"frame_000.png twice"),
    ("other images", lambda c: c.update(w=40, h=36), r"has 48x36 pixels .* 40x36"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"), [f[1:] for f in JSON_FAULTS], ids=[f[0] for f in JSON_FAULTS]
)
def test_fault_gives_one_clear_error(
    change: Callable[[dict], object], message: str, tmp_path: Path
) -> None:
    write_transforms(tmp_path, SCENE)
    change_json(tmp_path / "transforms.json", change)
    with pytest.raises(ValueError, match=message) as raised:
        read_dataset(tmp_path)
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize("text", ["", "{", '{"frames": [', "[1, 2]", "\x00\x01"])
def test_broken_json_is_named(text: str, tmp_path: Path) -> None:
    write_transforms(tmp_path, SCENE)
    (tmp_path / "transforms.json").write_text(text)
    with pytest.raises(ValueError, match=r"transforms\.json (is not valid JSON|must hold a JSON)"):
        read_dataset(tmp_path)


def test_no_image_left_is_an_error(tmp_path: Path) -> None:
    write_transforms(tmp_path, SCENE)
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"none of the 9 images"):
        read_dataset(tmp_path)


def test_broken_points_are_an_error(tmp_path: Path) -> None:
    write_transforms(tmp_path, SCENE, ply_file_path="points.ply")
    (tmp_path / "points.ply").write_bytes(b"ply\nformat nonsense\n")
    with pytest.raises(ValueError, match=r"points\.ply cannot be read as a PLY"):
        read_dataset(tmp_path)
