"""Which pinhole camera does a lens model become once its distortion is undone?"""

import math

import numpy as np
import pycolmap
import torch
from jaxtyping import Float
from torch import Tensor

from splatir.data.dataset import Distortion

# Models whose distortion terms all zero mean a pinhole camera; a fisheye with zeros is no pinhole.
_PINHOLE_WHEN_ZERO = {"SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV"}

# Larger sizes and parameters are damage: no image has a million pixels a side.
_MAX_SIZE = 1_000_000
_MAX_PARAMETER = 1e9


def lens_from_colmap(camera: pycolmap.Camera) -> Distortion:
    """A pycolmap camera as plain values."""
    params = tuple(float(p) for p in camera.params)
    return Distortion(camera.model.name, params, camera.width, camera.height)


def colmap_camera(lens: Distortion) -> pycolmap.Camera:
    """The same lens as a pycolmap camera."""
    return pycolmap.Camera(
        model=lens.model, width=lens.width, height=lens.height, params=list(lens.params)
    )


def check_lens(lens: Distortion, where: str) -> None:
    """Refuse what no image can be formed with.

    Args:
        lens: Any COLMAP model.
        where: File and camera, for messages.

    Raises:
        ValueError: Unknown or spherical model, wrong number of parameters, values that are not
            finite, or a focal length or size that is not positive.
    """
    if lens.model not in pycolmap.CameraModelId.__members__ or lens.model == "INVALID":
        raise ValueError(
            f"{where}: unknown camera model {lens.model!r}. Known: "
            f"{sorted(set(pycolmap.CameraModelId.__members__) - {'INVALID'})}."
        )
    if not (1 <= lens.width <= _MAX_SIZE and 1 <= lens.height <= _MAX_SIZE):
        raise ValueError(
            f"{where}: the image size must be positive and at most {_MAX_SIZE} pixels a side, got "
            f"{lens.width:.7g}x{lens.height:.7g}."
        )
    if not (np.abs(lens.params) <= _MAX_PARAMETER).all():
        raise ValueError(
            f"{where}: the camera holds NaN, infinite or absurd values: {lens.params}. "
            "The file is damaged."
        )
    camera = colmap_camera(lens)
    if not camera.verify_params():
        raise ValueError(
            f"{where}: camera model {lens.model} takes ({camera.params_info}), "
            f"got {len(lens.params)} values."
        )
    if camera.is_spherical():
        raise ValueError(
            f"{where}: {lens.model} images cannot become pinhole images. "
            "Cut perspective views out of the panoramas first."
        )
    if min(camera.focal_length_x, camera.focal_length_y) <= 0:
        raise ValueError(
            f"{where}: the focal length must be positive, got {camera.focal_length_x} and "
            f"{camera.focal_length_y}."
        )


def focal_length(angle: float, pixels: int, where: str) -> float:
    """Focal length in pixels of a field of view.

    Args:
        angle: Full field of view, radians.
        pixels: Image size along it.
        where: File and key, for messages.

    Raises:
        ValueError: The angle does not lie between 0 and pi.
    """
    if not 0.0 < angle < math.pi:
        raise ValueError(f"{where} must lie between 0 and pi, got {angle}.")
    return 0.5 * pixels / math.tan(0.5 * angle)


def is_pinhole(lens: Distortion) -> bool:
    """Whether the image needs no undistortion."""
    if lens.model in _PINHOLE_WHEN_ZERO:
        return not any(lens.params[i] for i in colmap_camera(lens).extra_params_idxs())
    return lens.model in ("SIMPLE_PINHOLE", "PINHOLE")


def rescaled(lens: Distortion, width: int, height: int) -> Distortion:
    """The same lens for the same picture stored with another number of pixels."""
    camera = colmap_camera(lens)
    camera.rescale(width, height)
    return lens_from_colmap(camera)


def pinhole(lens: Distortion) -> tuple[Float[Tensor, "3 3"], int, int]:
    """Intrinsics, width and height of the undistorted image.

    A lens without distortion keeps its size. Otherwise the camera is that of
    `pycolmap.undistort_camera` with default options: same focal length, another size and
    principal point, no blank pixels.
    """
    camera = colmap_camera(lens)
    if not is_pinhole(lens):
        camera = pycolmap.undistort_camera(pycolmap.UndistortCameraOptions(), camera)
    K = torch.tensor(
        [
            [camera.focal_length_x, 0.0, camera.principal_point_x],
            [0.0, camera.focal_length_y, camera.principal_point_y],
            [0.0, 0.0, 1.0],
        ],
        dtype=torch.float64,
    )
    return K, camera.width, camera.height
