"""What do photographs say of themselves: exposure, turn, linear light, sharpness?"""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import IFDRational

from splatir.codecs.exr import write_exr
from splatir.codecs.raw import read_raw
from splatir.commands.main import main
from splatir.data.exif import exif_from_tags, read_exif, turned
from splatir.data.image_files import image_size
from splatir.data.images import load_photo, read_photo_file
from splatir.data.recognise import read_dataset
from splatir.data.sharpness import are_blurred, sharpness
from tests.captures import image_names, small_scene, write_colmap, write_colmap_model
from tests.raw_files import write_dng

SCENE = small_scene(num_cameras=6)
TIME, STOP, ISO, FOCAL_35 = 33434, 33437, 34855, 41989


def with_exif(path: Path, tags: dict[int, object], orientation: int = 1) -> None:
    """Write the photo again as JPEG with tags."""
    exif = Image.Exif()
    exif[0x112] = orientation
    exif.get_ifd(0x8769).update(tags)
    with Image.open(path) as image:
        image.convert("RGB").save(path, exif=exif, quality=100, subsampling=0)


def test_exposure_is_time_times_iso_over_the_square_of_the_f_number(tmp_path: Path) -> None:
    names = image_names(6, ".jpg")
    write_colmap(tmp_path, SCENE, names=names)
    for i, name in enumerate(names[:5]):
        tags = {TIME: IFDRational(1, 50 * 2**i), STOP: IFDRational(4, 1), ISO: 200}
        with_exif(tmp_path / "images" / name, tags)
    dataset = read_dataset(tmp_path)
    exposures = {view.name: view.exposure for view in [*dataset.train, *dataset.test]}
    first = exposures["frame_000"]
    assert first is not None and first == pytest.approx(1 / 50 * 2 / 16)
    assert exposures["frame_003"] == pytest.approx(first / 8)
    assert exposures["frame_005"] is None


def test_tags_that_make_no_sense_say_nothing() -> None:
    tags = {TIME: IFDRational(1, 0), STOP: "f/4", ISO: (0,), 0x112: 99, FOCAL_35: -3}
    exif = exif_from_tags(dict(tags))
    assert exif.exposure is None and exif.orientation == 1 and exif.focal_ratio is None
    sound = exif_from_tags(
        {TIME: 0.5, STOP: 1.0, ISO: (400, 0), FOCAL_35: 27, 271: "A\0", 272: "B"}
    )
    assert sound.exposure == pytest.approx(2.0)
    assert sound.focal_ratio == pytest.approx(0.75)
    assert sound.device == "A B"


def test_a_file_without_a_header_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    assert read_exif(tmp_path / "a.jpg") == exif_from_tags({})


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_is_what_the_exif_code_means(orientation: int) -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    image = Image.fromarray(pixels)
    image.getexif()[0x112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))
    found = turned(torch.from_numpy(pixels)[..., None].float(), orientation)
    assert (found[..., 0].numpy() == expected).all()


def test_a_photo_is_turned_where_only_then_it_fits_its_camera(tmp_path: Path) -> None:
    """Poses that were computed from upright pixels, for files that are stored sideways."""
    names = image_names(6, ".jpg")
    write_colmap(tmp_path, SCENE, names=names)
    path = tmp_path / "images" / names[2]
    before = read_photo_file(path).rgb
    with Image.open(path) as image:
        sideways = image.transpose(Image.Transpose.ROTATE_90)
    sideways.save(path, quality=100, subsampling=0)
    with_exif(path, {}, orientation=6)
    dataset = read_dataset(tmp_path)
    view = next(v for v in [*dataset.train, *dataset.test] if v.name == "frame_002")
    assert view.orientation == 6
    assert any("turned as their EXIF headers say" in w for w in dataset.warnings)
    assert float((load_photo(view).rgb - before).abs().mean()) < 0.03


def test_turns_do_not_matter_where_stored_pixels_fit(tmp_path: Path) -> None:
    names = image_names(6, ".jpg")
    write_colmap(tmp_path, SCENE, names=names)
    with_exif(tmp_path / "images" / names[2], {}, orientation=3)
    dataset = read_dataset(tmp_path)
    assert all(view.orientation == 1 for view in [*dataset.train, *dataset.test])
    assert dataset.warnings == ()


def test_linear_photos_of_a_colmap_model_are_not_clipped(tmp_path: Path) -> None:
    write_colmap(tmp_path, SCENE)
    names = image_names(6, ".exr")
    write_colmap_model(tmp_path / "sparse/0", SCENE, names)
    for path in list((tmp_path / "images").iterdir()):
        rgb = np.asarray(Image.open(path), np.float32) / 255.0 * 8.0
        write_exr(path.with_suffix(".exr"), np.ascontiguousarray(rgb))
        path.unlink()
    photo = load_photo(read_dataset(tmp_path).train[0])
    assert photo.encoding == "linear" and float(photo.rgb.max()) > 4.0


def test_raw_without_rawpy_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)
    write_colmap_model(tmp_path / "sparse/0", SCENE, image_names(6, ".dng"))
    (tmp_path / "images").mkdir()
    for name in image_names(6, ".dng"):
        write_dng(tmp_path / "images" / name, np.full((36, 48), 20_000))
    assert main(["info", str(tmp_path)]) == 1
    assert "pip install 'splatir[raw]'" in capsys.readouterr().err


def test_raw_is_linear_and_keeps_exposure_and_orientation(tmp_path: Path) -> None:
    pytest.importorskip("rawpy", reason="rawpy (splatir[raw]) is not installed")
    mosaic = np.full((36, 48), 16_384)
    mosaic[:, 24:] = 49_152
    path = tmp_path / "a.dng"
    write_dng(path, mosaic, orientation=6)
    assert image_size(path) == (48, 36)
    photo = read_photo_file(path)
    assert photo.encoding == "linear" and photo.rgb.shape == (36, 48, 3)
    assert torch.allclose(photo.rgb[18, 6], torch.full((3,), 0.25), atol=2e-3)
    assert torch.allclose(photo.rgb[18, 42], torch.full((3,), 0.75), atol=2e-3)
    assert read_exif(path).exposure == pytest.approx(0.01 * 2 / 16, rel=1e-5)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"cannot read image .*a\.dng"):
        read_raw(path)


def test_sharpness_falls_with_blur_and_not_with_exposure_or_texture() -> None:
    generator = np.random.default_rng(0)
    picture = generator.random((60, 80)).astype(np.float32)
    picture = np.kron(picture, np.ones((4, 4), np.float32))
    sharp = sharpness(picture)
    assert sharpness(0.2 * picture + 0.1) == pytest.approx(sharp, rel=1e-3)
    # Half of the picture without any texture.
    smooth = picture.copy()
    smooth[:120] = 0.5
    assert sharpness(smooth) == pytest.approx(sharp, rel=0.3)
    blurred = np.asarray(Image.fromarray(picture))
    for _ in range(3):
        blurred = (blurred + np.roll(blurred, 1, 0) + np.roll(blurred, 1, 1)) / 3.0
    assert sharpness(blurred) < 0.3 * sharp
    assert sharpness(np.ones((8, 8), np.float32)) == 0.0


def test_blur_is_relative_to_the_other_photos() -> None:
    values = [1.0, 1.2, 0.9, 0.15, 1.1, 0.8]
    assert are_blurred(values).tolist() == [False, False, False, True, False, False]
    # A capture that varies by itself accuses nobody.
    assert not are_blurred([4.0, 0.5, 2.0, 0.25, 1.0, 0.2]).any()
    assert not are_blurred([1.0, 0.01, 1.0]).any()
