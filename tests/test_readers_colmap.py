"""COLMAP folders: layouts, lenses, downscaled files, masks, splits, and what can be wrong."""

import json
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image

from splatir.codecs.exr import write_exr
from splatir.codecs.hdr import write_hdr
from splatir.data.dataset import Dataset, DataSettings, View
from splatir.data.images import load_photo
from splatir.data.recognise import read_dataset
from tests.captures import (
    image_names,
    project,
    small_scene,
    write_colmap,
    write_colmap_model,
    write_photo,
)

SCENE = small_scene()
INPUT = DataSettings(world="input")


def views_by_name(dataset: Dataset) -> dict[str, View]:
    return {view.name: view for view in (*dataset.train, *dataset.test)}


@pytest.mark.parametrize("folder", ["sparse/0", "sparse", "colmap/sparse/0", "."])
@pytest.mark.parametrize("binary", [False, True])
def test_model_is_found(folder: str, binary: bool, tmp_path: Path) -> None:
    write_colmap(tmp_path, SCENE, folder, binary=binary)
    dataset = read_dataset(tmp_path)
    assert dataset.kind == "colmap"
    assert len(views_by_name(dataset)) == 9
    assert dataset.warnings == ()


def test_model_folder_itself_finds_images_two_levels_up(tmp_path: Path) -> None:
    write_colmap(tmp_path, SCENE)
    assert len(views_by_name(read_dataset(tmp_path / "sparse" / "0"))) == 9


def test_subfolders_stay_in_names(tmp_path: Path) -> None:
    names = [f"{'left' if i % 2 else 'right'}/{i}.png" for i in range(9)]
    write_colmap(tmp_path, SCENE, names=names)
    assert set(views_by_name(read_dataset(tmp_path))) == {n.removesuffix(".png") for n in names}


def test_names_that_differ_in_extension_alone_keep_it(tmp_path: Path) -> None:
    names = [*image_names(7), "same.png", "same.jpg"]
    write_colmap(tmp_path, SCENE, names=names)
    assert {"same.png", "same.jpg"} <= set(views_by_name(read_dataset(tmp_path)))


def test_names_cannot_leave_the_output_folder(tmp_path: Path) -> None:
    names = [*image_names(8), "../outside.png"]
    write_colmap(tmp_path, SCENE, names=names)
    assert "outside" in views_by_name(read_dataset(tmp_path))


def test_each_image_has_its_own_camera(tmp_path: Path) -> None:
    names = image_names(9)
    lines = [f"{i + 1} SIMPLE_PINHOLE 48 36 {50 + i} 24 18" for i in range(9)]
    write_colmap(tmp_path, SCENE)
    write_colmap_model(tmp_path / "sparse/0", SCENE, names, lines)
    views = views_by_name(read_dataset(tmp_path))
    for i in range(9):
        K = views[f"frame_{i:03d}"].camera.K
        assert K[0, 0].item() == K[1, 1].item() == 50 + i


DISTORTED = [
    ("SIMPLE_RADIAL", "60 24 18 0.1"),
    ("RADIAL", "60 24 18 0.1 0.02"),
    ("OPENCV", "60 61 24 18 0.1 0.02 0.001 0.002"),
    ("OPENCV_FISHEYE", "60 61 24 18 0.05 0.01 0 0"),
    ("FULL_OPENCV", "60 61 24 18 0.1 0.02 0.001 0.002 0.01 0 0 0"),
    ("FOV", "60 61 24 18 0.3"),
    ("SIMPLE_RADIAL_FISHEYE", "60 24 18 0.05"),
    ("RADIAL_FISHEYE", "60 24 18 0.05 0.01"),
    ("THIN_PRISM_FISHEYE", "60 61 24 18 0.05 0.01 0.001 0.001 0 0 0 0"),
    ("SIMPLE_DIVISION", "60 24 18 -0.05"),
    ("DIVISION", "60 61 24 18 -0.05"),
    ("SIMPLE_FISHEYE", "60 24 18"),
    ("FISHEYE", "60 61 24 18"),
    ("EUCM", "60 61 24 18 0.4 1.1"),
    ("RAD_TAN_THIN_PRISM_FISHEYE", "60 61 24 18 0.05 0.01 0 0 0 0 0.001 0.001 0 0 0 0"),
]


@pytest.mark.parametrize(("model", "params"), DISTORTED)
def test_undistorted_camera_sees_points_where_the_lens_does(
    model: str, params: str, tmp_path: Path
) -> None:
    """Photos are painted through the lens; undistorted, the points are where K says."""
    names = image_names(9)
    lens = pycolmap.Camera(
        model=model, width=48, height=36, params=[float(word) for word in params.split()]
    )
    write_colmap_model(tmp_path / "sparse/0", SCENE, names, [f"1 {model} 48 36 {params}"])
    paint_through_lens(tmp_path / "images", names, lens)
    dataset = read_dataset(tmp_path, INPUT)
    seen = 0
    for view in views_by_name(dataset).values():
        assert view.distortion is not None and view.distortion.model == model
        photo = load_photo(view).rgb
        assert photo.shape == (view.camera.height, view.camera.width, 3)
        pixels, depths = project(view.camera, SCENE.points.float())
        nearest = int(depths.argmin())
        column, row = (int(c) for c in pixels[nearest])
        if 1 <= row < photo.shape[0] - 1 and 1 <= column < photo.shape[1] - 1:
            expected = SCENE.colours_srgb[nearest].float()
            torch.testing.assert_close(photo[row, column], expected, atol=0.06, rtol=0)
            seen += 1
    assert seen >= 6


def paint_through_lens(folder: Path, names: list[str], lens: pycolmap.Camera) -> None:
    rows, columns = np.mgrid[0 : lens.height, 0 : lens.width] + 0.5
    for camera, name in zip(SCENE.cameras, names, strict=True):
        T = camera.T_camera_world
        points = (SCENE.points @ T[:3, :3].mT + T[:3, 3]).numpy()
        image = np.zeros((lens.height, lens.width, 4), np.uint8)
        for i in np.argsort(-points[:, 2]):
            pixel = lens.img_from_cam(points[i])
            assert pixel is not None
            x, y = pixel
            inside = (columns - x) ** 2 + (rows - y) ** 2 <= 9.0
            image[inside, :3] = (SCENE.colours_srgb[i].numpy() * 255).round()
        write_photo(folder / name, image, keep_alpha=False)


def test_lens_without_distortion_keeps_its_size(tmp_path: Path) -> None:
    write_colmap(tmp_path, SCENE)
    write_colmap_model(
        tmp_path / "sparse/0", SCENE, image_names(9), ["1 OPENCV 48 36 60 61 24 18 0 0 0 0"]
    )
    view = read_dataset(tmp_path).train[0]
    assert view.distortion is None
    assert (view.camera.width, view.camera.height) == (48, 36)


def test_spherical_images_are_refused(tmp_path: Path) -> None:
    write_colmap(tmp_path, SCENE)
    write_colmap_model(
        tmp_path / "sparse/0", SCENE, image_names(9), ["1 EQUIRECTANGULAR 48 36 48 36"]
    )
    with pytest.raises(ValueError, match=r"EQUIRECTANGULAR images cannot become pinhole"):
        read_dataset(tmp_path)


def test_rigs_of_several_cameras_load(tmp_path: Path) -> None:
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 2, 3, 4
    options.num_points3D = 20
    model = pycolmap.synthesize_dataset(options)
    (tmp_path / "sparse").mkdir()
    model.write_binary(str(tmp_path / "sparse"))
    for image in model.images.values():
        camera = model.cameras[image.camera_id]
        path = tmp_path / "images" / image.name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (camera.width // 8, camera.height // 8)).save(path)
    dataset = read_dataset(tmp_path, INPUT)
    views = views_by_name(dataset)
    assert len(views) == 24
    for image in model.images.values():
        view = views[str(Path(image.name).with_suffix(""))]
        expected = torch.from_numpy(np.array(image.cam_from_world().matrix())).float()
        torch.testing.assert_close(view.camera.T_camera_world[:3], expected)


# Downscaling.


def test_downscale_halves_camera_and_keeps_the_file(tmp_path: Path) -> None:
    write_colmap(tmp_path, SCENE)
    view = read_dataset(tmp_path, DataSettings(downscale=2.0, world="input")).train[0]
    assert view.image_path.parent.name == "images"
    assert (view.camera.width, view.camera.height) == (24, 18)
    torch.testing.assert_close(view.camera.K[:2], SCENE.cameras[0].K[:2].float() / 2)


def test_downscaled_folder_is_used_even_with_another_extension(tmp_path: Path) -> None:
    names = write_colmap(tmp_path, SCENE)
    for name in names:
        small = Image.open(tmp_path / "images" / name).resize((24, 18))
        (tmp_path / "images_2").mkdir(exist_ok=True)
        small.save(tmp_path / "images_2" / name.replace(".png", ".jpg"))
    dataset = read_dataset(tmp_path, DataSettings(downscale=2.0, world="input"))
    for view in dataset.train:
        assert view.image_path.parent.name == "images_2"
        assert (view.camera.width, view.camera.height) == (24, 18)
        torch.testing.assert_close(view.camera.K[:2], SCENE.cameras[0].K[:2].float() / 2)
        assert load_photo(view).rgb.shape == (18, 24, 3)
    assert dataset.warnings == ()
    assert read_dataset(tmp_path).train[0].image_path.parent.name == "images"


def test_downscaled_folder_of_the_wrong_size_is_not_used(tmp_path: Path) -> None:
    names = write_colmap(tmp_path, SCENE)
    for name in names:
        write_photo(tmp_path / "images_2" / name, np.zeros((9, 12, 4), np.uint8), keep_alpha=False)
    dataset = read_dataset(tmp_path, DataSettings(downscale=2.0))
    assert dataset.train[0].image_path.parent.name == "images"
    assert "9 files in images_2 are not 1/2 of the full size" in dataset.warnings[0]


def test_downscaled_files_of_a_lens_are_undistorted_at_their_size(tmp_path: Path) -> None:
    names = write_colmap(tmp_path, SCENE)
    line = "1 OPENCV 48 36 60 61 24 18 0.1 0.02 0.001 0.002"
    write_colmap_model(tmp_path / "sparse/0", SCENE, names, [line])
    full = read_dataset(tmp_path, DataSettings(downscale=2.0, world="input")).train[0].camera
    for name in names:
        (tmp_path / "images_2").mkdir(exist_ok=True)
        Image.open(tmp_path / "images" / name).resize((24, 18)).save(tmp_path / "images_2" / name)
    view = read_dataset(tmp_path, DataSettings(downscale=2.0, world="input")).train[0]
    assert view.distortion is not None
    assert (view.distortion.width, view.distortion.height) == (24, 18)
    # Sizes are whole pixels, so the two ways may differ by one.
    assert abs(view.camera.width - full.width) <= 1 and abs(view.camera.height - full.height) <= 1
    torch.testing.assert_close(view.camera.K, full.K, rtol=0.05, atol=0.6)
    load_photo(view)


def test_max_size_limits_the_longer_side(tmp_path: Path) -> None:
    write_colmap(tmp_path, SCENE)
    camera = read_dataset(tmp_path, DataSettings(max_size=16)).train[0].camera
    assert (camera.width, camera.height) == (16, 12)
    camera = read_dataset(tmp_path, DataSettings(max_size=1000)).train[0].camera
    assert (camera.width, camera.height) == (48, 36)


def test_halves_of_odd_sizes_round_up(tmp_path: Path) -> None:
    write_colmap(tmp_path, small_scene(width=49, height=37))
    camera = read_dataset(tmp_path, DataSettings(downscale=2.0)).train[0].camera
    assert (camera.width, camera.height) == (25, 19)


def test_smaller_images_scale_the_intrinsics_with_a_warning(tmp_path: Path) -> None:
    names = write_colmap(tmp_path, SCENE)
    for name in names:
        Image.open(tmp_path / "images" / name).resize((24, 18)).save(tmp_path / "images" / name)
    dataset = read_dataset(tmp_path, INPUT)
    assert "9 images have another size than their cameras" in dataset.warnings[0]
    torch.testing.assert_close(dataset.train[0].camera.K[:2], SCENE.cameras[0].K[:2].float() / 2)


def test_turned_images_are_an_error_with_both_sizes(tmp_path: Path) -> None:
    names = write_colmap(tmp_path, SCENE)
    Image.new("RGB", (36, 48)).save(tmp_path / "images" / names[3])
    with pytest.raises(ValueError, match=r"frame_003.png has 36x48 pixels .* 48x36"):
        read_dataset(tmp_path)


def test_exif_rotation_is_not_applied(tmp_path: Path) -> None:
    """COLMAP matches stored pixels; turning the photo would break every pose."""
    names = write_colmap(tmp_path, SCENE, names=image_names(9, ".jpg"))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in names:
        photo = Image.open(tmp_path / "images" / name).copy()
        photo.save(tmp_path / "images" / name, exif=exif)
    view = read_dataset(tmp_path).train[0]
    assert (view.camera.width, view.camera.height) == (48, 36)
    assert load_photo(view).rgb.shape == (36, 48, 3)


# Masks, alpha, splits.


@pytest.mark.parametrize("name", ["{name}.png", "{stem}.png"])
def test_masks_beside_the_images(name: str, tmp_path: Path) -> None:
    names = write_colmap(tmp_path, SCENE, names=[f"a/{i}.jpg" for i in range(9)])
    for image in names:
        path = tmp_path / "masks" / name.format(name=image, stem=image.removesuffix(".jpg"))
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (48, 36), 255).save(path)
    dataset = read_dataset(tmp_path)
    assert all(view.mask_path is not None for view in dataset.train)
    assert not dataset.has_background
    assert not dataset.train[0].invert_mask
    assert read_dataset(tmp_path, DataSettings(invert_masks=True)).train[0].invert_mask


def test_inverted_masks_keep_what_is_black(tmp_path: Path) -> None:
    names = write_colmap(tmp_path, SCENE)
    for name in names:
        mask = np.zeros((36, 48), np.uint8)
        mask[:, :24] = 255
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "masks" / name)
    view = read_dataset(tmp_path, DataSettings(invert_masks=True)).train[0]
    alpha = load_photo(view).alpha
    assert alpha is not None
    assert float(alpha[:, :24].max()) == 0.0 and float(alpha[:, 24:].min()) == 1.0


def test_masked_images_use_the_full_files(tmp_path: Path) -> None:
    """Masks have the full size; the downscaled photo would not fit them."""
    names = write_colmap(tmp_path, SCENE)
    for name in names:
        for folder, size in (("images_2", (24, 18)), ("masks", (48, 36))):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new("RGB", size, "white").save(tmp_path / folder / name)
    view = read_dataset(tmp_path, DataSettings(downscale=2.0)).train[0]
    photo = load_photo(view)
    assert photo.alpha is not None and photo.alpha.shape == (18, 24, 1)


def test_some_masks_missing_is_a_warning(tmp_path: Path) -> None:
    names = write_colmap(tmp_path, SCENE)
    (tmp_path / "masks").mkdir()
    for name in names[:7]:
        Image.new("L", (48, 36), 255).save(tmp_path / "masks" / name)
    warnings = read_dataset(tmp_path).warnings
    assert warnings == ("2 images have no mask and are kept whole: frame_007.png, frame_008.png.",)


def test_mask_of_another_size_is_an_error(tmp_path: Path) -> None:
    names = write_colmap(tmp_path, SCENE)
    (tmp_path / "masks").mkdir()
    Image.new("L", (40, 36), 255).save(tmp_path / "masks" / names[0])
    with pytest.raises(ValueError, match=r"mask .* has 40x36 pixels, its image .* has 48x36"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(("alpha", "has_background"), [(255, True), (0, False)])
def test_opaque_alpha_is_no_mask(alpha: int, has_background: bool, tmp_path: Path) -> None:
    names = write_colmap(tmp_path, SCENE)
    for name in names:
        photo = Image.open(tmp_path / "images" / name)
        photo.putalpha(Image.new("L", (48, 36), alpha))
        photo.save(tmp_path / "images" / name)
    assert read_dataset(tmp_path).has_background is has_background


def test_every_eighth_view_is_held_out(tmp_path: Path) -> None:
    write_colmap(tmp_path, SCENE)
    dataset = read_dataset(tmp_path)
    assert [view.name for view in dataset.test] == ["frame_000", "frame_008"]
    assert len(read_dataset(tmp_path, DataSettings(test_every=0)).test) == 0
    assert len(read_dataset(tmp_path, DataSettings(test_every=3)).test) == 3


def test_own_split_is_kept(tmp_path: Path) -> None:
    names = write_colmap(tmp_path, SCENE)
    split = {"train": names[:6], "test": names[6:8]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    dataset = read_dataset(tmp_path)
    assert [view.name for view in dataset.test] == ["frame_006", "frame_007"]
    assert len(dataset.train) == 6
    assert "1 images are in no list" in dataset.warnings[0]


def test_two_images_train_without_held_out_views(tmp_path: Path) -> None:
    write_colmap(tmp_path, small_scene(num_cameras=2))
    dataset = read_dataset(tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (2, 0)
    assert "too few to hold some out" in dataset.warnings[0]


@pytest.mark.parametrize("extension", [".exr", ".hdr"])
def test_float_images_are_measured_without_decoding(extension: str, tmp_path: Path) -> None:
    write_colmap(tmp_path, SCENE, names=image_names(9))
    names = image_names(9, extension)
    write_colmap_model(tmp_path / "sparse/0", SCENE, names)
    for path in list((tmp_path / "images").iterdir()):
        rgb = np.asarray(Image.open(path), np.float32) / 255.0
        write = write_exr if extension == ".exr" else write_hdr
        write(path.with_suffix(extension), np.ascontiguousarray(rgb))
        path.unlink()
    dataset = read_dataset(tmp_path)
    assert dataset.has_background
    assert load_photo(dataset.train[0]).encoding == "linear"
    (tmp_path / "images" / names[2]).write_bytes(b"#?RADIANCE\nnothing else")
    left = read_dataset(tmp_path)
    assert len(left.train) + len(left.test) == 8
    assert any(f"{names[2]} cannot be read as an image" in warning for warning in left.warnings)


def test_another_image_folder_can_be_named(tmp_path: Path) -> None:
    write_colmap(tmp_path, SCENE, image_folder="photos")
    assert len(views_by_name(read_dataset(tmp_path, DataSettings(images="photos")))) == 9
