"""How are an image's pixels moved to a smaller or undistorted pinhole camera?"""

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from splatir.data.dataset import Distortion, View
from splatir.data.lens import colmap_camera, rescaled
from splatir.scene.camera import Camera

# Share of a file pixel that the sampling grid may be coarser; the file is not that sharp anyway.
_UNDERSAMPLING = 0.25


def check_matches_camera(view: View, width: int, height: int) -> None:
    """Check that a file of this size can serve the view's camera.

    Args:
        view: The view.
        width: Width of the image file, pixels.
        height: Its height.

    Raises:
        ValueError: The file has another shape than the calibration describes, or is smaller than
            the camera it must fill.
    """
    camera = view.camera
    expected_w, expected_h = camera.width, camera.height
    if view.distortion is not None:
        expected_w, expected_h = view.distortion.width, view.distortion.height
    # Sizes that were downscaled and rounded may be off by one pixel of the smaller image.
    scale = max(expected_w / width, width / expected_w)
    same_shape = abs(height * expected_w - width * expected_h) <= scale * max(
        min(width, expected_w), min(height, expected_h)
    )
    if not same_shape:
        turned = abs(width * expected_w - height * expected_h) <= max(width, height) * 2
        raise ValueError(
            f"{view.image_path} is {width}x{height} pixels, its camera was calibrated for "
            f"{expected_w}x{expected_h}, another shape. "
            + ("The image looks turned by 90 degrees: " if turned else "")
            + "use the very files that the camera poses were computed from."
        )
    if view.distortion is None and (width < camera.width or height < camera.height):
        raise ValueError(
            f"{view.image_path} is {width}x{height} pixels, smaller than its camera "
            f"({camera.width}x{camera.height}). Read the data set with this image folder's scale."
        )


def area_average(
    values: Float[Tensor, "h w c"], width: int, height: int
) -> Float[Tensor, "{height} {width} c"]:
    """Mean over the exact area of each new pixel; block means where sizes divide.

    Args:
        values: Pixels.
        width: New width, in pixels, not above the old one.
        height: New height.
    """
    old_height, old_width = values.shape[:2]
    if old_height % height == 0 and old_width % width == 0:
        block = (old_height // height, old_width // width)
        return F.avg_pool2d(values.permute(2, 0, 1), block).permute(1, 2, 0).contiguous()
    return _average_axis(_average_axis(values, height, 0), width, 1).contiguous()


def resize(
    values: Float[Tensor, "h w c"], width: int, height: int
) -> Float[Tensor, "{height} {width} c"]:
    """Area means where the image shrinks, bilinear interpolation where it grows.

    Args:
        values: Pixels.
        width: New width.
        height: New height.
    """
    old_height, old_width = values.shape[:2]
    shrunk = area_average(values, min(width, old_width), min(height, old_height))
    grown = F.interpolate(shrunk.permute(2, 0, 1)[None], (height, width), mode="bilinear")
    return grown[0].permute(1, 2, 0).contiguous()


def _average_axis(values: Tensor, size: int, axis: int) -> Tensor:
    """Area means along one axis, summed over the few old pixels that meet each new one."""
    old_size = values.shape[axis]
    ratio = old_size / size
    low = torch.arange(size, dtype=torch.float64) * ratio
    first = low.floor()
    shape = [1, 1, 1]
    shape[axis] = size
    total = None
    for tap in range(math.ceil(ratio) + 1):
        start = first + tap
        overlap = torch.minimum(start + 1, low + ratio) - torch.maximum(start, low)
        weight = (overlap.clamp_min(0.0) / ratio).to(values.dtype).reshape(shape)
        index = start.long().clamp_max(old_size - 1)
        term = values.index_select(axis, index) * weight
        total = term if total is None else total + term
    assert total is not None
    return total


def undistort(
    values: Float[Tensor, "h w c"], distortion: Distortion, camera: Camera
) -> tuple[Float[Tensor, "h2 w2 c"], Float[Tensor, "h2 w2 1"]]:
    """Sample a distorted image at the pixels of a pinhole camera.

    Samples bilinearly on a grid about as fine as the file, then averages blocks of it, so that
    undistorting and shrinking at once does not alias.

    Args:
        values: Pixels of the file, of the size `distortion` describes or a scaled version of it.
        distortion: The lens.
        camera: The pinhole camera; only its intrinsics matter.

    Returns:
        Values on the camera's pixels, with edge pixels repeated outside the file; and the share of
        each pixel that lies inside the file, in [0, 1].
    """
    height, width = values.shape[:2]
    lens = rescaled(distortion, width, height)
    ratio = colmap_camera(lens).focal_length_x / float(camera.K[0, 0])
    factor = max(1, math.ceil(ratio - _UNDERSAMPLING))
    K = tuple(float(k) for k in camera.K.double().flatten())
    grid = _sampling_grid(lens, K, camera.width, camera.height, factor)
    sampled = F.grid_sample(
        values.permute(2, 0, 1)[None], grid[None], padding_mode="border", align_corners=False
    )[0].permute(1, 2, 0)
    inside = (grid.abs() <= 1.0).all(dim=-1, keepdim=True).to(values.dtype)
    size = (camera.width, camera.height)
    return area_average(sampled, *size), area_average(inside, *size)


# Views of one lens share the grid; more than one would hold hundreds of megabytes.
@functools.lru_cache(maxsize=1)
def _sampling_grid(
    lens: Distortion, K: tuple[float, ...], width: int, height: int, factor: int
) -> Float[Tensor, "h2 w2 2"]:
    """Where each sub-pixel of the pinhole camera lies in the file: [-1, 1] from edge to edge."""
    camera = colmap_camera(lens)
    fx, cx, fy, cy = K[0], K[2], K[4], K[5]
    x = ((np.arange(width * factor) + 0.5) / factor - cx) / fx
    y = ((np.arange(height * factor) + 0.5) / factor - cy) / fy
    grid = np.empty((len(y), len(x), 2), dtype=np.float32)
    rays = np.stack([x, np.empty_like(x), np.ones_like(x)], axis=-1)
    for row, value in enumerate(y):
        rays[:, 1] = value
        pixels = np.asarray(camera.img_from_cam(rays))
        grid[row] = pixels / (0.5 * lens.width, 0.5 * lens.height) - 1.0
    # Rays beyond what the lens model can image have no pixel: far outside.
    return torch.from_numpy(np.nan_to_num(grid, nan=2.0, posinf=2.0, neginf=-2.0))
