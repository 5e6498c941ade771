"""Is a COLMAP model whole? pycolmap may hang on a truncated .bin and drops duplicates silently.

Layouts: COLMAP's src/colmap/scene/reconstruction_io_binary.cc and its documentation of the output
format. Counts and lengths are followed to the end of each file; pycolmap then does the reading.
"""

import math
import struct
from collections import Counter
from pathlib import Path

import pycolmap


def check_model(folder: Path, extension: str) -> None:
    """Walk through the files of a model.

    Args:
        folder: Holds cameras, images and points3D, and in new models rigs and frames.
        extension: ".bin" or ".txt", as pycolmap would choose.

    Raises:
        ValueError: A file that ends early or goes on too long, a name that occurs twice, a pose
            that is not finite.
    """
    images = folder / f"images{extension}"
    if extension == ".bin":
        _check_cameras(folder / "cameras.bin")
        names = _check_images(images)
        _check_points(folder / "points3D.bin")
        for name, check in (("rigs.bin", _check_rigs), ("frames.bin", _check_frames)):
            if (folder / name).is_file():
                check(folder / name)
    else:
        names = _check_images_text(images)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(
            f"{images} lists {len(twice)} image names more than once (first: {twice[0]}). "
            "Give every image its own name and write the model again."
        )


class _Walk:
    """Reads a little-endian file forwards and says where it ends early."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content = path.read_bytes()
        self.position = 0

    def read(self, layout: str) -> tuple:
        size = struct.calcsize("<" + layout)
        self._need(size)
        values = struct.unpack_from("<" + layout, self.content, self.position)
        self.position += size
        return values

    def skip(self, size: int) -> None:
        self._need(size)
        self.position += size

    def text(self) -> str:
        end = self.content.find(b"\0", self.position)
        if end < 0:
            self._need(len(self.content) - self.position + 1)
        name = _decoded(self.content[self.position : end], self.path)
        self.position = end + 1
        return name

    def finish(self) -> None:
        rest = len(self.content) - self.position
        if rest:
            raise ValueError(
                f"{self.path} goes on for {rest} bytes after its last entry. "
                "It is damaged or not a COLMAP file; copy it again."
            )

    def _need(self, size: int) -> None:
        if self.position + size > len(self.content):
            raise ValueError(
                f"{self.path} ends early: {len(self.content)} bytes, at least "
                f"{self.position + size} expected. The file is truncated; copy it again."
            )


def _check_cameras(path: Path) -> None:
    walk = _Walk(path)
    (count,) = walk.read("Q")
    for _ in range(count):
        camera_id, model = walk.read("Ii")
        known = {int(m): m for m in pycolmap.CameraModelId.__members__.values()}
        if model not in known or model < 0:
            raise ValueError(
                f"{path}: camera {camera_id} has the unknown model number {model}. "
                "The file is damaged, or from a newer COLMAP than the installed pycolmap."
            )
        width, height = walk.read("QQ")
        blank = pycolmap.Camera.create_from_model_id(1, known[model], 1.0, width, height)
        walk.skip(8 * len(blank.params))
    walk.finish()


def _check_images(path: Path) -> list[str]:
    walk = _Walk(path)
    names = []
    (count,) = walk.read("Q")
    for _ in range(count):
        pose = walk.read("I7d")[1:]
        walk.skip(4)
        name = walk.text()
        _check_pose(pose, f"{path}: image {name}")
        names.append(name)
        (num_points,) = walk.read("Q")
        walk.skip(24 * num_points)
    walk.finish()
    return names


def _check_points(path: Path) -> None:
    walk = _Walk(path)
    (count,) = walk.read("Q")
    for _ in range(count):
        walk.skip(8 + 3 * 8 + 3 + 8)
        (track,) = walk.read("Q")
        walk.skip(8 * track)
    walk.finish()


def _check_rigs(path: Path) -> None:
    """The first sensor of a rig is its origin; the others may have a pose relative to it."""
    walk = _Walk(path)
    (count,) = walk.read("Q")
    for _ in range(count):
        rig_id, num_sensors = walk.read("II")
        walk.skip(8 if num_sensors else 0)
        for _ in range(1, num_sensors):
            *_, has_pose = walk.read("iIB")
            if has_pose:
                _check_pose(walk.read("7d"), f"{path}: rig {rig_id}")
    walk.finish()


def _check_frames(path: Path) -> None:
    walk = _Walk(path)
    (count,) = walk.read("Q")
    for _ in range(count):
        frame_id, _ = walk.read("II")
        _check_pose(walk.read("7d"), f"{path}: frame {frame_id}")
        (num_sensors,) = walk.read("I")
        walk.skip(16 * num_sensors)
    walk.finish()


def _check_images_text(path: Path) -> list[str]:
    """Every second line that is no comment holds a pose; points may be an empty line."""
    names = []
    lines = _decoded(path.read_bytes(), path).splitlines()
    rows = [line for line in lines if not line.lstrip().startswith("#")]
    while rows and not rows[-1].strip():
        rows.pop()
    for row in rows[::2]:
        if not row.strip():
            raise ValueError(
                f"{path}: an empty line stands where a pose is expected. Each image takes two "
                "lines: its pose, then its points (which may be empty)."
            )
        words = row.split(maxsplit=9)
        if len(words) < 10:
            raise ValueError(
                f"{path}: expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, got "
                f"{row[:80]!r}. The file is truncated or damaged."
            )
        try:
            pose = tuple(float(word) for word in words[1:8])
        except ValueError as error:
            raise ValueError(f"{path}: image {words[9]}: {error}.") from error
        _check_pose(pose, f"{path}: image {words[9]}")
        names.append(words[9])
    return names


def _decoded(content: bytes, path: Path) -> str:
    """Text, which pycolmap gives out only as UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} holds bytes that are no UTF-8 text ({error}). It is damaged, or image names "
            "have another encoding: rename the images and write the model again."
        ) from error


def _check_pose(pose: tuple, where: str) -> None:
    """Quaternion and translation, seven numbers."""
    if not all(math.isfinite(value) for value in pose):
        raise ValueError(
            f"{where}: the pose holds NaN or infinite values. Remove this image from the model."
        )
    if sum(value * value for value in pose[:4]) < 1e-12:
        raise ValueError(f"{where}: the rotation quaternion is zero. The file is damaged.")
