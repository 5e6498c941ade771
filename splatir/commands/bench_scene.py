"""What the rasteriser benchmark draws: a built-in object, or a scene file."""

import math
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.rotations import quat_from_rotation
from splatir.scene.camera import Camera
from splatir.scene.gaussians import Gaussians, Primitive

# Tensors of `Gaussians`.
GEOMETRY = ("means", "quats", "scales", "opacities")

_VIEW_ANGLE = math.radians(50.0)
_DISTANCE = 2.6

# Arrays of a scene file and their shapes; -1 is the number of splats, None any number.
_SCENE_ARRAYS: dict[str, tuple[int | None, ...]] = {
    "means": (-1, 3),
    "quats": (-1, 4),
    "scales": (-1, 3),
    "opacities": (-1,),
    "features": (-1, None),
    "T_camera_world": (4, 4),
    "K": (3, 3),
    "width": (),
    "height": (),
}


@dataclass(frozen=True)
class BenchScene:
    """What one call of a rasteriser takes.

    Attributes:
        gaussians: Geometry, world frame.
        features: Channels per Gaussian.
        camera: View.
    """

    gaussians: Gaussians
    features: Float[Tensor, "n channels"]
    camera: Camera

    def to(self, device: torch.device) -> "BenchScene":
        """The same scene on another device."""
        moved = {key: getattr(self.gaussians, key).to(device) for key in GEOMETRY}
        return BenchScene(
            replace(self.gaussians, **moved), self.features.to(device), self.camera.to(device)
        )


def knot_scene(
    num_splats: int, width: int, height: int, channels: int, primitive: Primitive, seed: int = 0
) -> BenchScene:
    """Flat splats on a bumpy torus knot that fills most of the image, as after training.

    Args:
        num_splats: How many.
        width: Image width, pixels.
        height: Image height, pixels.
        channels: Features per splat.
        primitive: Shape of the splats.
        seed: Of the random placement.
    """
    generator = np.random.default_rng(seed)
    points, tangents, normals = _sample_knot(num_splats, generator)
    # Mean distance to the three nearest neighbours, for points spread over 9.1 square units.
    spacing = 0.75 * math.sqrt(9.1 / max(num_splats, 1))
    turn = generator.uniform(0, 2 * math.pi, num_splats)[:, None]
    first = np.cos(turn) * tangents + np.sin(turn) * np.cross(normals, tangents)
    rotations = np.stack([first, np.cross(normals, first), normals], -1)
    scales = spacing * np.exp(0.35 * generator.standard_normal((num_splats, 3)))
    scales[:, 2] = 0.3 * spacing
    opacities = np.clip(generator.beta(2.0, 1.0, num_splats), 0.02, 0.995)
    features = generator.random((num_splats, channels))
    gaussians = Gaussians(
        means=torch.tensor(points, dtype=torch.float32),
        quats=quat_from_rotation(torch.tensor(rotations, dtype=torch.float32)),
        scales=torch.tensor(scales, dtype=torch.float32),
        opacities=torch.tensor(opacities, dtype=torch.float32),
        primitive=primitive,
    )
    return BenchScene(
        gaussians, torch.tensor(features, dtype=torch.float32), _knot_camera(width, height)
    )


def _sample_knot(
    count: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points on a (2, 3) torus knot's tube, unit tangents and normals, evenly spread."""
    # Density over (u, v) is the length of the axis times the tube's: rejected against a bound.
    u = generator.uniform(0, 2 * math.pi, 3 * count + 64)
    v = generator.uniform(0, 2 * math.pi, len(u))
    speed = np.linalg.norm(_knot_axis(u + 1e-4) - _knot_axis(u - 1e-4), axis=-1) / 2e-4
    kept = np.flatnonzero(generator.uniform(0, 7.0, len(u)) < speed)[:count]
    kept = np.concatenate([kept, np.zeros(count - len(kept), np.int64)])
    u, v = u[kept], v[kept]
    tangents = _knot_axis(u + 1e-4) - _knot_axis(u - 1e-4)
    tangents /= np.linalg.norm(tangents, axis=-1, keepdims=True)
    sideways = np.cross(tangents, [0.0, 0.0, 1.0])
    sideways /= np.linalg.norm(sideways, axis=-1, keepdims=True)
    upward = np.cross(tangents, sideways)
    normals = np.cos(v)[:, None] * sideways + np.sin(v)[:, None] * upward
    radius = 0.62 * (1 + 0.12 * np.sin(9 * u) * np.cos(5 * v))
    return (_knot_axis(u) + radius[:, None] * normals) / 3.7, tangents, normals


def _knot_axis(u: np.ndarray) -> np.ndarray:
    r = 2 + np.cos(3 * u)
    return np.stack([r * np.cos(2 * u), r * np.sin(2 * u), -np.sin(3 * u)], -1)


def _knot_camera(width: int, height: int) -> Camera:
    azimuth, elevation = 0.6, 0.5
    towards_eye = np.array(
        [
            math.cos(elevation) * math.cos(azimuth),
            math.cos(elevation) * math.sin(azimuth),
            math.sin(elevation),
        ]
    )
    right = np.cross(-towards_eye, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    T_camera_world = np.eye(4)
    T_camera_world[:3, :3] = np.stack([right, np.cross(-towards_eye, right), -towards_eye])
    T_camera_world[2, 3] = _DISTANCE
    focal = 0.5 * min(width, height) / math.tan(_VIEW_ANGLE / 2)
    K = torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    return Camera(K, torch.tensor(T_camera_world, dtype=torch.float32), width, height)


def read_scene(path: Path, primitive: Primitive) -> BenchScene:
    """Read a scene file: `.npz` with the arrays that the benchmark's help lists.

    Args:
        path: The file.
        primitive: Shape of its splats.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not an .npz, an array is missing, or has a wrong shape, type or range.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no scene file {path}.")
    try:
        # Opened here because numpy leaves damaged archives open.
        with path.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} is not a readable .npz scene of plain arrays. "
            f"Write it with numpy.savez: {', '.join(_SCENE_ARRAYS)}."
        ) from error
    missing = [name for name in _SCENE_ARRAYS if name not in arrays]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it needs {', '.join(_SCENE_ARRAYS)}.")
    count = arrays["means"].shape[0] if arrays["means"].ndim else 0
    for name, shape in _SCENE_ARRAYS.items():
        _check_array(path, name, arrays[name], tuple(count if n == -1 else n for n in shape))
    _check_ranges(path, arrays)
    tensors = {name: torch.tensor(arrays[name].astype(np.float32)) for name in _SCENE_ARRAYS}
    gaussians = Gaussians(
        tensors["means"], tensors["quats"], tensors["scales"], tensors["opacities"], primitive
    )
    size = int(arrays["width"]), int(arrays["height"])
    camera = Camera(tensors["K"], tensors["T_camera_world"], *size)
    return BenchScene(gaussians, tensors["features"], camera)


def _check_array(path: Path, name: str, array: np.ndarray, shape: tuple[int | None, ...]) -> None:
    fits = len(array.shape) == len(shape) and all(
        want is None or want == got for want, got in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = "[" + ", ".join("any" if n is None else str(n) for n in shape) + "]"
        raise ValueError(f"{path}: {name} must have shape {wanted}, got {list(array.shape)}.")
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{path}: {name} must hold numbers, got {array.dtype}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: {name} holds NaN or infinite values.")


def _check_ranges(path: Path, arrays: dict[str, np.ndarray]) -> None:
    opacities, scales = arrays["opacities"], arrays["scales"]
    if opacities.size and (opacities.min() < 0 or opacities.max() > 1):
        raise ValueError(
            f"{path}: opacities must lie in 0 .. 1, got {opacities.min():.3g} .. "
            f"{opacities.max():.3g}. If they are logits, apply the sigmoid."
        )
    if scales.size and scales.min() < 0:
        raise ValueError(
            f"{path}: scales must be positive lengths, got {scales.min():.3g}. "
            "If they are logarithms, apply the exponential."
        )
    if arrays["quats"].size and not np.linalg.norm(arrays["quats"], axis=-1).min() > 0:
        raise ValueError(f"{path}: quats must not be zero.")
    for name in ("width", "height"):
        if arrays[name] < 1 or arrays[name] != int(arrays[name]):
            raise ValueError(
                f"{path}: {name} must be a positive number of pixels, got {arrays[name]}."
            )
