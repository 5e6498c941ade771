"""Along which cameras is a scene filmed: a turntable, or a path read from a file?"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.frames import invert_rigid
from splatir.scene.camera import Camera
from splatir.scene.focus import common_sphere

# Video has chroma at half resolution, so sizes are multiples of this.
_EVEN = 2
_DEFAULT_FPS = 30.0
_DEFAULT_FOV = 50.0
# Looking straight down leaves nothing to hold the horizon by.
_MAX_ELEVATION = math.radians(80.0)
_MAX_SIZE = 16384.0
# Largest difference of a pose's columns from orthonormal ones; JSON files often have 6 digits.
_MAX_SHEAR = 1e-3
# OpenGL's camera looks along -z with +y up.
_OPENGL_FROM_OPENCV = (1.0, -1.0, -1.0)


@dataclass(frozen=True)
class CameraPath:
    """Cameras in the order in which they film.

    Attributes:
        cameras: At least one, all of one size, which is even; world frame.
        fps: Frames a second.
    """

    cameras: tuple[Camera, ...]
    fps: float


def turntable(
    cameras: Sequence[Camera], num_frames: int, size: int | None = None, fps: float = _DEFAULT_FPS
) -> CameraPath:
    """Circle about what the cameras look at, around +Z, from +X towards +Y.

    Distance, elevation and lens are medians of the cameras; the first frame has the first camera's
    azimuth.

    Args:
        cameras: Of the photographs, world frame.
        num_frames: In one turn.
        size: Longer side of the frames, pixels; as the photographs if None. Rounded to even.
        fps: Frames a second.

    Raises:
        ValueError: Less than one frame, or a size or rate that no video has.
    """
    if num_frames < 1:
        raise ValueError(f"a turntable needs at least one frame, got {num_frames}.")
    centre = common_sphere(cameras)[0].double()
    offsets = torch.stack([c.position_world for c in cameras]).double().cpu() - centre
    distances = offsets.norm(dim=-1)
    elevations = torch.asin((offsets[:, 2] / distances.clamp_min(1e-9)).clamp(-1.0, 1.0))
    elevation = float(elevations.median().clamp(-_MAX_ELEVATION, _MAX_ELEVATION))
    start = math.atan2(float(offsets[0, 1]), float(offsets[0, 0]))
    middle = sorted(cameras, key=lambda c: float(c.K[1, 1]) / c.height)[len(cameras) // 2]
    width, height = _fitting(middle.width, middle.height, size)
    focal = float(middle.K[1, 1]) * height / middle.height
    K = _intrinsics(focal, width, height)
    poses = []
    for frame in range(num_frames):
        azimuth = start + 2.0 * math.pi * frame / num_frames
        away = torch.tensor(
            [
                math.cos(elevation) * math.cos(azimuth),
                math.cos(elevation) * math.sin(azimuth),
                math.sin(elevation),
            ],
            dtype=torch.float64,
        )
        poses.append(_looking(centre + float(distances.median()) * away, -away))
    views = tuple(Camera(K, pose, width, height) for pose in poses)
    return CameraPath(views, _checked_fps(fps, "the turntable"))


def read_camera_path(
    path: Path, S_world_input: Float[Tensor, "4 4"], size: int | None = None
) -> CameraPath:
    """Read a camera path in the layout of nerfstudio's viewer: docs/use.md.

    Args:
        path: JSON file; poses are camera-to-world in OpenGL axes, in the input frame.
        S_world_input: Similarity from the input frame to the world.
        size: Longer side of the frames, pixels, instead of the file's.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not JSON, or not a camera path; says which entry and what is wrong.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no camera path {path}. Give a .json file, or --path turntable.")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    entries = record.get("camera_path") if isinstance(record, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} needs a list 'camera_path' with at least one pose: docs/use.md.")
    width = _number(record, "render_width", 800.0, path, 1.0, _MAX_SIZE)
    height = _number(record, "render_height", 800.0, path, 1.0, _MAX_SIZE)
    width, height = _fitting(round(width), round(height), size)
    default_fov = _number(record, "fov", _DEFAULT_FOV, path, 1.0, 179.0)
    cameras = []
    for index, entry in enumerate(entries):
        where = f"{path}: camera_path[{index}]"
        fields = entry if isinstance(entry, dict) else {"camera_to_world": entry}
        fov = math.radians(_number(fields, "fov", default_fov, where, 1.0, 179.0))
        K = _intrinsics(0.5 * height / math.tan(0.5 * fov), width, height)
        T_camera_input = _read_pose(fields.get("camera_to_world"), where)
        camera = Camera(K.double(), T_camera_input, width, height).in_world(S_world_input.double())
        cameras.append(camera.to(dtype=torch.float32))
    fps = _number(record, "fps", _DEFAULT_FPS, path, 0.01, 1000.0)
    return CameraPath(tuple(cameras), _checked_fps(fps, str(path)))


def _read_pose(value: Any, where: str) -> Float[Tensor, "4 4"]:
    """OpenCV world-to-camera transform of an OpenGL camera-to-world matrix, nested or flat."""
    try:
        matrix = torch.tensor(value, dtype=torch.float64).reshape(4, 4)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{where} needs 'camera_to_world', 4 x 4 numbers.") from error
    R = matrix[:3, :3]
    is_affine = matrix[3].tolist() == [0.0, 0.0, 0.0, 1.0]
    shear = float((R.mT @ R - torch.eye(3, dtype=R.dtype)).abs().max())
    if not matrix.isfinite().all() or not is_affine or not shear < _MAX_SHEAR:
        raise ValueError(
            f"{where} is no pose: 'camera_to_world' must be a rotation and a translation, with "
            f"last row 0 0 0 1, got {matrix.tolist()}."
        )
    if float(torch.linalg.det(R)) < 0.0:
        raise ValueError(f"{where} mirrors the scene: its rotation has determinant -1.")
    matrix[:3, :3] = R * R.new_tensor(_OPENGL_FROM_OPENCV)
    return invert_rigid(matrix)


def _number(
    fields: dict[str, Any], key: str, default: float, where: Path | str, low: float, high: float
) -> float:
    value = fields.get(key, default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        raise ValueError(f"{where}: '{key}' must be {low:g} to {high:g}, got {value!r}.")
    return float(value)


def _fitting(width: int, height: int, size: int | None) -> tuple[int, int]:
    """The size of frames with the given proportions: longer side `size`, both even."""
    if size is not None and not _EVEN <= size <= _MAX_SIZE:
        raise ValueError(f"--size must be {_EVEN} to {_MAX_SIZE:g} pixels, got {size}.")
    scale = 1.0 if size is None else size / max(width, height)

    def even(length: int) -> int:
        return max(_EVEN, _EVEN * math.floor(length * scale / _EVEN + 0.5))

    return even(width), even(height)


def _intrinsics(focal: float, width: int, height: int) -> Float[Tensor, "3 3"]:
    return torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def _looking(position: Float[Tensor, " 3"], forward: Float[Tensor, " 3"]) -> Float[Tensor, "4 4"]:
    """World-to-camera transform of an upright camera, float32; `forward` is unit, not vertical."""
    up = forward.new_tensor([0.0, 0.0, 1.0])
    right = torch.linalg.cross(forward, up)
    right = right / right.norm()
    down = torch.linalg.cross(forward, right)
    T_world_camera = torch.eye(4, dtype=forward.dtype)
    T_world_camera[:3, :3] = torch.stack([right, down, forward], dim=-1)
    T_world_camera[:3, 3] = position
    return invert_rigid(T_world_camera).float()


def _checked_fps(fps: float, where: str) -> float:
    if not 0.01 <= fps <= 1000.0:
        raise ValueError(f"frames a second of {where} must be 0.01 to 1000, got {fps}.")
    return fps
