"""Damaged COLMAP folders: each fault gives one clear error or warning, and none hangs."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from splatir.data.dataset import DataSettings
from splatir.data.recognise import read_dataset
from tests.captures import (
    SmallScene,
    image_names,
    small_scene,
    write_colmap,
    write_colmap_model,
)

SCENE = small_scene()


def test_listed_images_missing_are_skipped_with_a_warning(tmp_path: Path) -> None:
    names = write_colmap(tmp_path, SCENE)
    for name in names[:4]:
        (tmp_path / "images" / name).unlink()
    dataset = read_dataset(tmp_path)
    assert len(dataset.train) + len(dataset.test) == 5
    assert dataset.warnings == (
        "4 images of the model are missing and skipped: "
        "frame_000.png, frame_001.png, frame_002.png, ....",
    )


def remove_images(root: Path) -> None:
    for path in (root / "images").iterdir():
        path.unlink()


def keep_one_image(root: Path) -> None:
    for path in sorted((root / "images").iterdir())[1:]:
        path.unlink()


def replace_in(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / "sparse" / "0" / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


def rewrite(name: str, text: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / "sparse" / "0" / name).write_text(text)

    return change


def cut_last_words(root: Path) -> None:
    path = root / "sparse" / "0" / "images.txt"
    lines = path.read_text().rstrip().splitlines()
    lines[-1] = " ".join(lines[-1].split()[:5])
    path.write_text("\n".join(lines) + "\n")


def first_pose_number(value: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / "sparse" / "0" / "images.txt"
        lines = path.read_text().splitlines()
        words = lines[1].split()
        words[5] = value
        path.write_text("\n".join([lines[0], " ".join(words), *lines[2:]]) + "\n")

    return change


def damage_an_image(root: Path) -> None:
    (root / "images" / "frame_002.png").write_bytes(b"no picture at all")


def truncate_image_header(root: Path) -> None:
    path = root / "images" / "frame_002.png"
    path.write_bytes(path.read_bytes()[:20])


def zero_focal(root: Path) -> None:
    write_colmap_model(root / "sparse/0", SCENE, image_names(9), ["1 PINHOLE 48 36 0 0 24 18"])


def nan_focal(root: Path) -> None:
    write_colmap_model(root / "sparse/0", SCENE, image_names(9), ["1 PINHOLE 48 36 1 1 24 18"])
    rewrite("cameras.txt", "1 PINHOLE 48 36 nan 1 24 18\n")(root)


FAULTS: list[tuple[str, Callable[[Path], object], str]] = [
    ("no images at all", remove_images, r"none of the 9 images .* --images"),
    ("one image only", keep_one_image, r"one image only \(frame_000.png\)"),
    ("no points file", lambda r: (r / "sparse/0/points3D.txt").unlink(), r"no points3D\.txt"),
    ("no registered images", rewrite("images.txt", "# images\n"), r"no registered images"),
    ("unknown camera model", replace_in("cameras.txt", "PINHOLE", "FISHBOWL"), r"cannot be read"),
    ("too few parameters", rewrite("cameras.txt", "1 PINHOLE 48 36 50\n"), r"cannot be read"),
    ("no cameras", rewrite("cameras.txt", "# none\n"), r"cannot be read"),
    ("garbage", rewrite("images.txt", "hello world\n"), r"images\.txt: expected IMAGE_ID"),
    ("cut text", cut_last_words, r"images\.txt: expected IMAGE_ID .* truncated"),
    ("NaN pose", first_pose_number("nan"), r"image frame_000.png: the pose holds NaN"),
    ("infinite pose", first_pose_number("inf"), r"image frame_000.png: the pose holds NaN"),
    ("a word for a number", first_pose_number("left"), r"frame_000.png: could not convert"),
    ("a name twice", replace_in("images.txt", "frame_001", "frame_000"), r"more than once.*000"),
    ("zero focal length", zero_focal, r"focal length must be positive"),
    ("NaN focal length", nan_focal, r"NaN|cannot be read"),
    ("broken split", lambda r: (r / "split.json").write_text("{"), r"split.json is not valid JSON"),
    ("odd split", lambda r: (r / "split.json").write_text("[1]"), r"split.json must hold"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_fault_gives_one_clear_error(
    change: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    write_colmap(tmp_path, SCENE)
    change(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        read_dataset(tmp_path)
    assert str(tmp_path) in str(raised.value) or "frame_" in str(raised.value)


@pytest.mark.parametrize("name", ["cameras", "images", "points3D", "frames", "rigs"])
@pytest.mark.parametrize("keep", [0, 3, 11, 0.5, -1])
def test_truncated_binary_is_named_and_never_hangs(name: str, keep: float, tmp_path: Path) -> None:
    write_colmap(tmp_path, SCENE, binary=True)
    path = tmp_path / "sparse" / "0" / f"{name}.bin"
    content = path.read_bytes()
    size = int(len(content) * keep) if isinstance(keep, float) else keep % len(content)
    path.write_bytes(content[:size])
    with pytest.raises(ValueError, match=rf"{name}\.bin ends early.*truncated"):
        read_dataset(tmp_path)


def test_binary_with_bytes_to_spare_is_damaged(tmp_path: Path) -> None:
    write_colmap(tmp_path, SCENE, binary=True)
    with (tmp_path / "sparse/0/points3D.bin").open("ab") as file:
        file.write(b"12345")
    with pytest.raises(ValueError, match=r"points3D.bin goes on for 5 bytes"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("name", ["images", "frames"])
def test_nan_in_a_binary_pose_is_an_error(name: str, tmp_path: Path) -> None:
    write_colmap(tmp_path, SCENE, binary=True)
    path = tmp_path / "sparse" / "0" / f"{name}.bin"
    content = bytearray(path.read_bytes())
    # Count, then ids (images: one, frames: two), then quaternion and translation.
    struct.pack_into("<d", content, 8 + (4 if name == "images" else 8) + 32, float("nan"))
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}\.bin: .* NaN or infinite"):
        read_dataset(tmp_path)


def test_empty_point_cloud_is_a_warning(tmp_path: Path) -> None:
    scene = SmallScene(SCENE.cameras, SCENE.points[:0], SCENE.colours_srgb[:0])
    write_colmap(tmp_path, SCENE)
    write_colmap_model(tmp_path / "sparse/0", scene, image_names(9))
    dataset = read_dataset(tmp_path)
    assert dataset.points is None
    assert "holds no points" in dataset.warnings[0]


def test_a_second_model_is_mentioned(tmp_path: Path) -> None:
    write_colmap(tmp_path, SCENE)
    (tmp_path / "sparse" / "1").mkdir()
    assert "2 separate models" in read_dataset(tmp_path).warnings[0]


def test_named_folder_must_exist(tmp_path: Path) -> None:
    write_colmap(tmp_path, SCENE)
    with pytest.raises(FileNotFoundError, match=r"--images"):
        read_dataset(tmp_path, DataSettings(images="nowhere"))
    with pytest.raises(FileNotFoundError, match=r"--masks"):
        read_dataset(tmp_path, DataSettings(masks="nowhere"))
