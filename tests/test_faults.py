"""Whatever is wrong with a capture: one line that helps, a failing exit code, nothing destroyed."""

import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splatir.commands.main import main
from tests.captures import (
    SmallScene,
    image_names,
    write_colmap,
    write_nerf_synthetic,
    write_tensoir,
    write_transforms,
)
from tests.faults import (
    SCENE,
    TINY,
    Change,
    FailingCommand,
    edit,
    replacing,
    shorten,
)


def nothing(root: Path) -> None:
    pass


def remove_folder(root: Path) -> None:
    root.rmdir()


def a_file(root: Path) -> None:
    root.rmdir()
    root.write_text("not a folder")


def photos_only(root: Path) -> None:
    Image.new("RGB", (8, 8)).save(root / "a.png")


def colmap(change: Change, binary: bool = False) -> Change:
    def make(root: Path) -> None:
        write_colmap(root, SCENE, binary=binary)
        change(root / "sparse" / "0")

    return make


def text_model(name: str, pattern: str, replacement: str) -> Change:
    return colmap(lambda model: edit(model / name, pattern, replacement))


def image(change: Change, name: str = "frame_002") -> Change:
    """A capture whose image `name` is changed (or written with another extension)."""
    return colmap(lambda model: change(model.parents[1] / "images" / f"{name}.png"))


def resized(width: int, height: int) -> Change:
    return lambda path: Image.open(path).resize((width, height)).save(path)


def small_mask(model: Path) -> None:
    folder = model.parents[1] / "masks"
    folder.mkdir()
    Image.new("L", (24, 18), 255).save(folder / "frame_001.png")


def one_image(root: Path) -> None:
    first = SmallScene(SCENE.cameras[:1], SCENE.points, SCENE.colours_srgb)
    write_colmap(root, first)


def one_place(root: Path) -> None:
    same = SmallScene(SCENE.cameras[:1] * 6, SCENE.points, SCENE.colours_srgb)
    write_colmap(root, same)


def transforms(**changes: object) -> Change:
    return lambda root: write_transforms(root, SCENE, **changes)


def frame(change: Callable[[dict], object]) -> Change:
    """A transforms.json whose second frame is changed."""

    def make(root: Path) -> None:
        content = write_transforms(root, SCENE)
        change(content["frames"][1])
        (root / "transforms.json").write_text(json.dumps(content))

    return make


def json_text(text: str) -> Change:
    def make(root: Path) -> None:
        write_transforms(root, SCENE)
        (root / "transforms.json").write_text(text)

    return make


def matrix(*rows: list[float]) -> Change:
    return frame(lambda f: f.update(transform_matrix=list(rows)))


def broken_points(root: Path) -> None:
    write_transforms(root, SCENE, ply_file_path="points.ply")
    (root / "points.ply").write_bytes(b"ply\nformat ascii 1.0\nelement vertex 9\nend_header\n")


def tensoir(text: str) -> Change:
    def make(root: Path) -> None:
        write_tensoir(root, SCENE)
        (root / "train_001" / "metadata.json").write_text(text)

    return make


def shared_views(root: Path) -> None:
    write_nerf_synthetic(root, SCENE)
    shutil.copy(root / "transforms_train.json", root / "transforms_test.json")


X, Y, Z, W = [1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]
FOCAL = r"^1 PINHOLE 48 36 \S+"

# Each entry: what is wrong, how it is made below an empty folder, what is said about it.
CAPTURES: dict[str, tuple[Change, str]] = {
    "no such folder": (remove_folder, r"data folder .*capture does not exist.*Expected a COLMAP"),
    "a file": (a_file, r"capture is a file, not a folder"),
    "empty folder": (nothing, r"capture is empty\. Expected"),
    "unknown layout": (photos_only, r"1 readable photographs in .*at least 3"),
    "cameras.bin cut short": (
        colmap(lambda m: shorten(m / "cameras.bin"), binary=True),
        r"cameras\.bin ends early.*copy it again",
    ),
    "images.bin cut short": (
        colmap(lambda m: shorten(m / "images.bin"), binary=True),
        r"images\.bin ends early.*copy it again",
    ),
    "points3D.bin cut short": (
        colmap(lambda m: shorten(m / "points3D.bin"), binary=True),
        r"points3D\.bin ends early.*copy it again",
    ),
    "images.bin empty": (
        colmap(lambda m: (m / "images.bin").write_bytes(b""), binary=True),
        r"images\.bin ends early: 0 bytes",
    ),
    "images.bin with an absurd count": (
        colmap(lambda m: (m / "images.bin").write_bytes(b"\xff" * 64), binary=True),
        r"images\.bin ends early|images\.bin: image .* NaN",
    ),
    "cameras.bin of random bytes": (
        colmap(
            lambda m: (m / "cameras.bin").write_bytes(struct.pack("<QIi", 1, 1, 77) + b"7" * 99),
            binary=True,
        ),
        r"cameras\.bin.*unknown model number 77",
    ),
    "no points3D": (
        colmap(lambda m: (m / "points3D.txt").unlink()),
        r"no points3D\.txt\. Copy the whole model",
    ),
    "cameras.txt of words": (
        colmap(lambda m: (m / "cameras.txt").write_text("once upon a time\n")),
        r"model in .*sparse/0 cannot be read.*damaged",
    ),
    "images.txt of words": (
        colmap(lambda m: (m / "images.txt").write_text("once upon a time\n\n")),
        r"images\.txt: expected IMAGE_ID QW.*truncated or damaged",
    ),
    "points3D.txt of words": (
        colmap(lambda m: (m / "points3D.txt").write_text("once upon a time\n")),
        r"model in .*sparse/0 cannot be read",
    ),
    "NaN pose": (
        text_model("images.txt", r"^2 \S+", "2 nan"),
        r"images\.txt: image frame_001\.png: the pose holds NaN.*Remove",
    ),
    "infinite pose": (
        text_model("images.txt", r"^2 (\S+) (\S+) (\S+) (\S+) \S+", r"2 \1 \2 \3 \4 inf"),
        r"images\.txt: image frame_001\.png: the pose holds NaN or infinite",
    ),
    "zero focal length in COLMAP": (
        text_model("cameras.txt", FOCAL, "1 PINHOLE 48 36 0"),
        r"camera 1: the focal length must be positive",
    ),
    "no registered images": (
        colmap(lambda m: (m / "images.txt").write_text("# none\n")),
        r"sparse/0 holds no registered images.*Run COLMAP's mapper again",
    ),
    "one image only": (one_image, r"one image only.*frame_000\.png.*at least two"),
    "all cameras at one place": (one_place, r"all 5 training cameras of .*capture stand at the"),
    "all images missing": (
        colmap(lambda m: shutil.rmtree(m.parents[1] / "images")),
        r"none of the 6 images of .*sparse/0 is in .*--images",
    ),
    "one name twice": (
        text_model("images.txt", r"frame_003\.png", "frame_002.png"),
        r"images\.txt lists .*more than once.*frame_002\.png",
    ),
    "split.json broken": (
        lambda root: colmap(lambda m: (root / "split.json").write_text("{"))(root),
        r"split\.json is not valid JSON",
    ),
    "image of another aspect": (
        image(resized(48, 30)),
        r"frame_002\.png has 48x30 pixels but .* 48x36\. Use the images",
    ),
    "image turned": (image(resized(36, 48)), r"frame_002\.png has 36x48.*not rotated"),
    "mask of another size": (colmap(small_mask), r"mask .*frame_001\.png has 24x18.*as large as"),
    "broken JSON": (json_text('{"frames": ['), r"transforms\.json is not valid JSON.*complete\?"),
    "JSON too deep": (json_text("[" * 100_000), r"transforms\.json is not valid JSON"),
    "JSON of a list": (json_text("[1, 2]"), r"transforms\.json must hold a JSON object"),
    "no intrinsics": (
        transforms(fl_x=None, fl_y=None, cx=None, cy=None, w=None, h=None, camera_model=None),
        r"transforms\.json: frame images/frame_000\.png: no focal length: expected fl_x",
    ),
    "no frames": (transforms(frames=[]), r"transforms\.json has no frames: expected"),
    "frames of words": (transforms(frames=["a"]), r"transforms\.json: frame 0 has no file_path"),
    "focal length 0": (transforms(fl_x=0.0, fl_y=0.0), r"focal length must be positive"),
    "absurd image width": (
        transforms(w=10**400),
        r"transforms\.json: w is not finite",
    ),
    "absurd image height": (
        transforms(h=1e200),
        r"frame_000\.png: the image size must be positive and at most 1000000",
    ),
    "camera beyond all bounds": (
        matrix([1.0, 0, 0, 1e40], Y, Z, W),
        r"frame images/frame_001\.png: the pose lies at .*1e\+40.*damaged",
    ),
    "image name in another encoding": (
        colmap(lambda m: (m / "images.txt").write_bytes(b"1 1 0 0 0 0 0 1 1 \xe4.png\n\n")),
        r"images\.txt holds bytes that are no UTF-8.*rename the images",
    ),
    "focal length of a word": (transforms(fl_x="wide"), r"fl_x must be a number, got 'wide'"),
    "sheared matrix": (
        matrix([1.0, 0.5, 0, 0], Y, Z, W),
        r"frame images/frame_001\.png: .*not a rotation.*Remove scale, shear",
    ),
    "3x3 matrix": (
        matrix([1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]),
        r"frame images/frame_001\.png: transform_matrix is not 4x4 but \(3, 3\)",
    ),
    "NaN matrix": (
        matrix([float("nan"), 0, 0, 0], Y, Z, W),
        r"frame images/frame_001\.png: the pose holds NaN",
    ),
    "matrix of words": (
        frame(lambda f: f.update(transform_matrix="identity")),
        r"frame images/frame_001\.png",
    ),
    "own focal length in one frame": (
        frame(lambda f: f.update(fl_x=50.0)),
        r"some frames have their own fl_x but images/frame_000\.png has not",
    ),
    "broken points": (broken_points, r"points\.ply cannot be read.*remove ply_file_path"),
    "test views among training views": (shared_views, r"transforms_test\.json holds out.*Remove"),
    "TensoIR: broken JSON": (tensoir("{"), r"train_001/metadata\.json is not valid JSON"),
    "TensoIR: nothing said": (tensoir("{}"), r"train_001/metadata\.json has no imw"),
    "TensoIR: short matrix": (
        tensoir('{"imw": 48, "imh": 36, "cam_angle_x": 0.8, "cam_transform_mat": "1,2,3"}'),
        r"train_001/metadata\.json: cam_transform_mat must be 16 numbers.*got 3",
    ),
}


@pytest.mark.parametrize("fault", CAPTURES)
def test_a_broken_capture_ends_in_one_line_and_leaves_the_earlier_run(
    fault: str, results: Path, tmp_path: Path, command: FailingCommand
) -> None:
    make, message = CAPTURES[fault]
    data = tmp_path / "capture"
    data.mkdir()
    make(data)
    line = command(*replacing(results, data))
    assert re.search(message, line), line


def test_masks_of_inverted_polarity_are_pointed_out_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_colmap(tmp_path / "capture", SCENE)
    (tmp_path / "capture" / "masks").mkdir()
    mask = np.full((36, 48), 255, np.uint8)
    mask[8:28, 10:38] = 0
    for name in image_names(len(SCENE.cameras)):
        Image.fromarray(mask).save(tmp_path / "capture" / "masks" / name)
    words = ["train", *TINY, "--data", str(tmp_path / "capture"), "--output"]
    assert main([*words, str(tmp_path / "inverted")]) == 0
    err = capsys.readouterr().err
    assert err.count("warning:") == 1 and "white must mark the object" in err
    assert main([*words, str(tmp_path / "right"), "--invert-masks"]) == 0
    assert "warning:" not in capsys.readouterr().err


def test_names_from_files_cannot_steer_the_terminal(
    results: Path, tmp_path: Path, command: FailingCommand
) -> None:
    content = write_transforms(tmp_path / "capture", SCENE)
    content["frames"][0]["file_path"] = "images/\x1b[2J\nerror: fine\x07"
    content["frames"][0]["transform_matrix"] = "none"
    (tmp_path / "capture" / "transforms.json").write_text(json.dumps(content))
    line = command(*replacing(results, tmp_path / "capture"))
    assert "\x1b" not in line and "\\x1b[2J error: fine\\x07" in line
