"""NeRF-synthetic and TensoIR folders, folders of no known layout, and settings out of range."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from splatir.data.dataset import Dataset, DataSettings, View
from splatir.data.recognise import read_dataset
from splatir.settings import SettingsError
from tests.captures import (
    change_json,
    small_scene,
    write_nerf_synthetic,
    write_photo,
    write_tensoir,
    write_transforms,
)

SCENE = small_scene()


def views_by_name(dataset: Dataset) -> dict[str, View]:
    return {view.name: view for view in (*dataset.train, *dataset.test)}


# NeRF-synthetic.


def test_only_listed_files_are_views(tmp_path: Path) -> None:
    write_nerf_synthetic(tmp_path, SCENE)
    write_photo(tmp_path / "test" / "r_0_normal.png", SCENE.photo(SCENE.cameras[0]))
    dataset = read_dataset(tmp_path)
    assert [view.name for view in dataset.test] == ["test/r_0", "test/r_1"]
    assert len(dataset.train) == 7


def test_without_test_file_some_views_are_held_out(tmp_path: Path) -> None:
    write_nerf_synthetic(tmp_path, SCENE, num_test=0)
    dataset = read_dataset(tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (7, 2)


def test_validation_file_serves_where_there_is_no_test_file(tmp_path: Path) -> None:
    write_nerf_synthetic(tmp_path, SCENE)
    (tmp_path / "transforms_test.json").rename(tmp_path / "transforms_val.json")
    assert len(read_dataset(tmp_path).test) == 2


def test_views_in_both_parts_are_an_error(tmp_path: Path) -> None:
    write_nerf_synthetic(tmp_path, SCENE)
    (tmp_path / "transforms_test.json").write_text((tmp_path / "transforms_train.json").read_text())
    with pytest.raises(ValueError, match=r"holds out images that .* trains on"):
        read_dataset(tmp_path)


def test_masks_in_a_folder_of_their_own(tmp_path: Path) -> None:
    """Stanford-ORB keeps the masks of train/ in train_mask/."""
    write_nerf_synthetic(tmp_path, SCENE)
    for part, count in (("train", 7), ("test", 2)):
        (tmp_path / f"{part}_mask").mkdir()
        for i in range(count):
            Image.new("L", (48, 36), 255).save(tmp_path / f"{part}_mask" / f"r_{i}.png")
    dataset = read_dataset(tmp_path)
    assert all(view.mask_path is not None for view in views_by_name(dataset).values())


def test_renderings_without_alpha_have_a_background(tmp_path: Path) -> None:
    write_nerf_synthetic(tmp_path, SCENE)
    for path in tmp_path.glob("*/r_*.png"):
        Image.open(path).convert("RGB").save(path)
    assert read_dataset(tmp_path).has_background


def test_a_sibling_folder_is_no_downscaled_one(tmp_path: Path) -> None:
    """scene_2 beside scene is another scene, not scene at half size."""
    write_nerf_synthetic(tmp_path / "scene", SCENE)
    write_nerf_synthetic(tmp_path / "scene_2", small_scene(width=24, height=18))
    view = read_dataset(tmp_path / "scene", DataSettings(downscale=2.0)).train[0]
    assert view.image_path.is_relative_to(tmp_path / "scene")


# TensoIR.


def test_light_is_chosen_by_name(tmp_path: Path) -> None:
    write_tensoir(tmp_path, SCENE, lights=("city", "bridge"))
    dataset = read_dataset(tmp_path)
    assert dataset.train[0].image_path.name == "rgba_bridge.png"
    assert "several lights (bridge, city)" in dataset.warnings[0]
    dataset = read_dataset(tmp_path, DataSettings(light="city"))
    assert dataset.train[0].image_path.name == "rgba_city.png"
    with pytest.raises(FileNotFoundError, match=r"rgba_moon\.png"):
        read_dataset(tmp_path, DataSettings(light="moon"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("cam_transform_mat"), r"metadata\.json has no cam_transform_mat"),
        (lambda c: c.update(cam_transform_mat="1,2,3"), r"16 numbers with commas, got 3"),
        (lambda c: c.update(cam_transform_mat="a,b"), r"a value is not a number"),
        (lambda c: c.update(cam_transform_mat=",".join(["nan"] * 16)), r"pose holds NaN"),
        (lambda c: c.update(cam_angle_x=0.0), r"between 0 and pi"),
        (lambda c: c.update(imw=0), r"image size must be positive"),
        (lambda c: c.update(imw=40), r"has 48x36 pixels .* 40x36"),
    ],
)
def test_broken_metadata_is_named(
    change: Callable[[dict], object], message: str, tmp_path: Path
) -> None:
    write_tensoir(tmp_path, SCENE)
    change_json(tmp_path / "train_003" / "metadata.json", change)
    with pytest.raises(ValueError, match=message) as raised:
        read_dataset(tmp_path)
    assert "train_003" in str(raised.value)


def test_view_folder_without_its_image_is_skipped(tmp_path: Path) -> None:
    write_tensoir(tmp_path, SCENE)
    (tmp_path / "train_002" / "rgba.png").unlink()
    dataset = read_dataset(tmp_path)
    assert len(dataset.train) == 6
    assert dataset.warnings == ("1 view folders have no rgba.png and are skipped: train_002.",)


# Folders and settings.


def test_folder_faults(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="is empty"):
        read_dataset(tmp_path)
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="is a file, not a folder"):
        read_dataset(photo)
    with pytest.raises(ValueError, match=r"no known layout. Looked for .* found a\.jpg"):
        read_dataset(tmp_path)


def test_format_can_be_forced(tmp_path: Path) -> None:
    write_transforms(tmp_path, SCENE)
    with pytest.raises(FileNotFoundError, match="no COLMAP model"):
        read_dataset(tmp_path, DataSettings(format="colmap"))
    with pytest.raises(FileNotFoundError, match="transforms_train"):
        read_dataset(tmp_path, DataSettings(format="nerf-synthetic"))
    with pytest.raises(FileNotFoundError, match="no view folders"):
        read_dataset(tmp_path, DataSettings(format="tensoir"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DataSettings(downscale=0.5), "downscale must be at least 1"),
        (lambda: DataSettings(downscale=math.nan), "downscale must be at least 1"),
        (lambda: DataSettings(max_size=0), "max_size"),
        (lambda: DataSettings(test_every=1), "test_every"),
        (lambda: DataSettings(test_every=-8), "test_every"),
    ],
)
def test_settings_out_of_range(make: Callable[[], DataSettings], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make()


def test_transforms_of_two_images_train(tmp_path: Path) -> None:
    scene = small_scene(num_cameras=2)
    content = write_transforms(tmp_path, scene)
    assert len(read_dataset(tmp_path).train) == 2
    content["frames"] = content["frames"][:1]
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="one image only"):
        read_dataset(tmp_path)
