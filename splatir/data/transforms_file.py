"""One transforms*.json: its frames, poses and intrinsics, each value checked.

Field names: nerfstudio's data conventions, instant-ngp's and NeRF's Blender files.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.data.capture import pose_from_opengl
from splatir.data.dataset import Distortion
from splatir.data.lens import check_lens, focal_length

_INTRINSICS = (
    "fl_x", "fl_y", "cx", "cy", "w", "h", "k1", "k2", "k3", "k4", "p1", "p2",
    "camera_model", "camera_angle_x", "camera_angle_y",
)  # fmt: skip
_RADIAL_TANGENTIAL = ("OPENCV", "SIMPLE_RADIAL", "RADIAL", "FULL_OPENCV")
_FISHEYE = ("OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")


@dataclass(frozen=True)
class TransformsFile:
    """A parsed file.

    Attributes:
        path: Where it was read.
        top: Its top-level object.
        frames: Its frames, at least one, each with a `file_path`.
        per_frame: Intrinsics that frames carry themselves; they count instead of the top-level.
    """

    path: Path
    top: dict[str, Any]
    frames: tuple[dict[str, Any], ...]
    per_frame: frozenset[str]

    def pose(self, frame: dict[str, Any]) -> Float[Tensor, "4 4"]:
        """T_camera_input of a frame, OpenCV axes; the file has camera-to-world in OpenGL axes.

        Raises:
            ValueError: No matrix, or not a rigid one.
        """
        where = f"{self.path}: frame {frame['file_path']}"
        try:
            matrix = torch.tensor(frame["transform_matrix"], dtype=torch.float64)
        except KeyError as error:
            raise ValueError(f"{where} has no transform_matrix.") from error
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise ValueError(f"{where}: transform_matrix is not a 4x4 table ({error}).") from error
        if matrix.ndim != 2 or matrix.shape[1] != 4:
            raise ValueError(f"{where}: transform_matrix is not 4x4 but {tuple(matrix.shape)}.")
        return pose_from_opengl(matrix, where)

    def lens(self, frame: dict[str, Any], size: tuple[int, int]) -> Distortion:
        """Camera of a frame.

        Args:
            frame: One of `frames`.
            size: Width and height of its image file, for files without `w` and `h`.

        Raises:
            ValueError: No focal length, a camera model that is not supported, bad values.
        """
        where = f"{self.path}: frame {frame['file_path']}"
        width = round(self._number(frame, "w", float(size[0])))
        height = round(self._number(frame, "h", float(size[1])))
        fx, fy = self._focal_lengths(frame, width, height, where)
        cx = self._number(frame, "cx", width / 2.0)
        cy = self._number(frame, "cy", height / 2.0)
        default = "OPENCV_FISHEYE" if self.top.get("is_fisheye") is True else "OPENCV"
        model = str(self._value(frame, "camera_model") or default).upper()
        k1, k2, k3, k4, p1, p2 = (
            self._number(frame, key, 0.0) for key in ("k1", "k2", "k3", "k4", "p1", "p2")
        )
        if model in ("PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE"):
            lens = Distortion("PINHOLE", (fx, fy, cx, cy), width, height)
        elif model in _FISHEYE:
            lens = Distortion("OPENCV_FISHEYE", (fx, fy, cx, cy, k1, k2, k3, k4), width, height)
        elif model in _RADIAL_TANGENTIAL and k4 == 0.0:
            params = (fx, fy, cx, cy, k1, k2, p1, p2)
            if k3 == 0.0:
                lens = Distortion("OPENCV", params, width, height)
            else:
                lens = Distortion("FULL_OPENCV", (*params, k3, 0.0, 0.0, 0.0), width, height)
        else:
            reason = f"k4 = {k4} with" if model in _RADIAL_TANGENTIAL else "camera_model"
            raise ValueError(
                f"{where}: {reason} {model} is not supported. "
                "Undistort the images and write camera_model PINHOLE."
            )
        check_lens(lens, where)
        return lens

    def _focal_lengths(
        self, frame: dict[str, Any], width: int, height: int, where: str
    ) -> tuple[float, float]:
        """Focal lengths in pixels, from fl_x and fl_y or from the fields of view in radians."""
        focal = {}
        for axis, pixels in (("x", width), ("y", height)):
            focal[axis] = self._number(frame, f"fl_{axis}", math.nan)
            angle = self._number(frame, f"camera_angle_{axis}", math.nan)
            if math.isnan(focal[axis]) and not math.isnan(angle):
                focal[axis] = focal_length(angle, pixels, f"{where}: camera_angle_{axis}")
        fx = focal["y"] if math.isnan(focal["x"]) else focal["x"]
        # Square pixels where the vertical focal length is not said.
        fy = fx if math.isnan(focal["y"]) else focal["y"]
        if math.isnan(fx):
            raise ValueError(f"{where}: no focal length: expected fl_x, or camera_angle_x.")
        return fx, fy

    def _value(self, frame: dict[str, Any], key: str) -> Any:
        return frame.get(key) if key in self.per_frame else self.top.get(key)

    def _number(self, frame: dict[str, Any], key: str, default: float) -> float:
        value = self._value(frame, key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{self.path}: {key} must be a number, got {value!r}.")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise ValueError(f"{self.path}: {key} is not finite.")
        return number


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file whose top level is an object.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not JSON, or another type at the top.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}). Is the file complete?") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got a {type(content).__name__}.")
    return content


def read_transforms_file(path: Path) -> TransformsFile:
    """Read and check the outline of a transforms file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Broken JSON, no frames, frames without `file_path`, an intrinsic value that
            some frames have and others not.
    """
    top = read_json(path)
    frames = top.get("frames")
    if not isinstance(frames, list) or not frames:
        raise ValueError(f'{path} has no frames: expected "frames": [{{"file_path": ...}}, ...].')
    for index, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise ValueError(f"{path}: frame {index} has no file_path.")
    per_frame = frozenset(key for key in _INTRINSICS if any(key in frame for frame in frames))
    for key in sorted(per_frame):
        without = next((frame["file_path"] for frame in frames if key not in frame), None)
        if without is not None:
            raise ValueError(
                f"{path}: some frames have their own {key} but {without} has not. "
                "Give it to all frames, or once for all."
            )
    return TransformsFile(path, top, tuple(frames), per_frame)
