"""Do single broken photographs cost a training no more than themselves, and are they named?"""

import re
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from splatir.codecs.exr import write_exr
from splatir.codecs.hdr import write_hdr
from splatir.commands.main import main
from splatir.data.broken import without_broken
from splatir.data.inspect import inspect_dataset
from splatir.data.recognise import read_dataset
from tests.captures import image_names, write_colmap
from tests.faults import SCENE, TINY, Change, shorten
from tests.test_faults import image

DEMO = Path(__file__).parents[1] / "assets" / "demo"


def jpeg_cut_short(path: Path) -> None:
    pixels = np.asarray(Image.open(path))
    path.unlink()
    Image.fromarray(pixels).save(path.with_suffix(".jpg"))
    shorten(path.with_suffix(".jpg"), 0.9)


def exr_with_nan(path: Path) -> None:
    path.unlink()
    rgb = np.full((36, 48, 3), 0.5, np.float32)
    rgb[3, 4, 1] = np.nan
    write_exr(path.with_suffix(".exr"), rgb)


def exr_cut_short(path: Path) -> None:
    path.unlink()
    noise = np.random.default_rng(0).random((36, 48, 3), np.float32)
    write_exr(path.with_suffix(".exr"), noise)
    shorten(path.with_suffix(".exr"))


def hdr_cut_short(path: Path) -> None:
    path.unlink()
    noise = np.random.default_rng(0).random((36, 48, 3), np.float32)
    write_hdr(path.with_suffix(".hdr"), noise)
    shorten(path.with_suffix(".hdr"))


def bomb(path: Path) -> None:
    """A PNG header that promises 10^10 pixels."""
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 100_000, 100_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


# Photographs that a training goes on without.
PHOTOS: dict[str, tuple[Change, str]] = {
    "image of words": (
        image(lambda p: p.write_text("version https://git-lfs")),
        r"frame_002\.png cannot be read as an image.*Replace or remove",
    ),
    "JPEG cut short": (image(jpeg_cut_short), r"frame_002\.jpg.*truncated.*copy or export it"),
    "held-out JPEG cut short": (
        image(jpeg_cut_short, "frame_000"),
        r"frame_000\.jpg.*truncated.*copy or export it",
    ),
    "PNG cut short": (image(shorten), r"frame_002\.png.*complete PNG.*copy or export it"),
    "zero-byte PNG": (
        image(lambda p: p.write_bytes(b"")),
        r"frame_002\.png cannot be read as an image.*Replace or remove",
    ),
    "PNG bomb": (image(bomb), r"frame_002\.png cannot be read.*exceeds limit"),
    "NaN in EXR": (image(exr_with_nan), r"frame_002\.exr holds NaN.*repaired"),
    "EXR cut short": (image(exr_cut_short), r"frame_002\.exr.*copy or export it"),
    "HDR cut short": (image(hdr_cut_short), r"frame_002\.hdr.*copy or export it"),
}


@pytest.mark.parametrize("fault", PHOTOS)
def test_a_broken_photo_is_named_and_left_out(fault: str, tmp_path: Path) -> None:
    make, message = PHOTOS[fault]
    make(tmp_path)
    dataset = without_broken(read_dataset(tmp_path))
    assert len(dataset.train) + len(dataset.test) == len(SCENE.cameras) - 1
    assert [w for w in dataset.warnings if re.search(message, w)], dataset.warnings
    report = inspect_dataset(read_dataset(tmp_path))
    assert [w for w in report.warnings if re.search(message, w)] and not report.errors


def test_training_goes_on_without_a_broken_photo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image(shorten)(tmp_path / "capture")
    words = ["train", *TINY, "--data", str(tmp_path / "capture"), "--output", str(tmp_path / "run")]
    assert main(words) == 0
    assert "left out, as it cannot be read: frame_002" in capsys.readouterr().err
    assert main(["eval", str(tmp_path / "run")]) == 0


def test_with_many_broken_photos_training_does_not_start(tmp_path: Path) -> None:
    write_colmap(tmp_path, SCENE)
    for name in image_names(6)[1:4]:
        shorten(tmp_path / "images" / name)
    with pytest.raises(ValueError, match=r"3 of 6 photographs .*frame_001, frame_002, frame_003"):
        without_broken(read_dataset(tmp_path))
    for name in image_names(6)[1:4]:
        (tmp_path / "images" / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"3 of 6 photographs .* cannot be read"):
        read_dataset(tmp_path)


def test_a_capture_with_every_fault_at_once_is_read_and_all_are_named(tmp_path: Path) -> None:
    """One broken, one blurred, one unrelated."""
    shutil.copytree(DEMO, tmp_path / "demo")
    images = tmp_path / "demo" / "images"
    shorten(images / "view_003.png")
    with Image.open(images / "view_005.png") as photo:
        blurred = photo.filter(ImageFilter.GaussianBlur(2.0))
    blurred.save(images / "view_005.png")
    Image.new("RGB", (64, 64), (9, 99, 9)).save(images / "unrelated.png")
    dataset = without_broken(read_dataset(tmp_path / "demo"))
    said = " ".join(dataset.warnings)
    assert re.search(r"left out, as it cannot be read: view_003", said), said
    assert re.search(r"look blurred \(view_005\)", said), said
    assert re.search(r"1 of 41 photographs have no pose .*: unrelated\.png", said), said
    assert len(dataset.train) + len(dataset.test) == 39
