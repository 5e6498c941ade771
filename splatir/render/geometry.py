"""What a depth image says about the surface: positions and normals per pixel."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from splatir.maths.frames import transform_points
from splatir.maths.safe import safe_normalise
from splatir.scene.camera import Camera

# Points nearer to the plane through the camera than this, scene units, lie in no pixel.
_MIN_DEPTH = 1e-6
# Square of the length below which a cross product spans no plane: pixels of 1e-6 scene units.
_MIN_SQUARED = 1e-24


def camera_rays(camera: Camera) -> Float[Tensor, "height width 3"]:
    """Directions through the pixel centres, camera frame, with z = 1 (not unit)."""
    K = camera.K
    x = torch.arange(camera.width, dtype=K.dtype, device=K.device) + 0.5
    y = torch.arange(camera.height, dtype=K.dtype, device=K.device) + 0.5
    x = ((x - K[0, 2]) / K[0, 0])[None, :].expand(camera.height, -1)
    y = ((y - K[1, 2]) / K[1, 1])[:, None].expand(-1, camera.width)
    return torch.stack([x, y, torch.ones_like(x)], dim=-1)


def ray_directions(camera: Camera) -> Float[Tensor, "height width 3"]:
    """Unit directions through the pixel centres, world frame."""
    return safe_normalise(camera_rays(camera) @ camera.T_camera_world[:3, :3])


def pixels_of(
    camera: Camera, points: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n 2"], Bool[Tensor, " n"]]:
    """Where points appear in a view, in pixels, and which of them lie in front and in its frame.

    Args:
        camera: View.
        points: World frame.
    """
    seen = transform_points(camera.T_camera_world, points)
    pixels = seen @ camera.K.mT
    pixels = pixels[:, :2] / pixels[:, 2:].clamp_min(_MIN_DEPTH)
    size = pixels.new_tensor([camera.width, camera.height])
    inside = ((pixels >= 0.0) & (pixels < size)).all(-1)
    return pixels, inside & (seen[:, 2] > _MIN_DEPTH)


def normals_from_depth(
    depth: Float[Tensor, "height width 1"], camera: Camera
) -> Float[Tensor, "height width 3"]:
    """Unit surface normals from central differences of the back-projected depth.

    Args:
        depth: Camera z, scene units; differentiable in it.
        camera: View of the depth image.

    Returns:
        Normals in the world frame, facing the camera; zero, with zero gradient, on the one-pixel
        border and where the four neighbours span no plane.
    """
    positions = camera_rays(camera).to(depth) * depth
    right = positions[1:-1, 2:] - positions[1:-1, :-2]
    down = positions[2:, 1:-1] - positions[:-2, 1:-1]
    # +x right and +y down: down x right points back at the camera.
    cross = torch.linalg.cross(down, right)
    squared = cross.square().sum(-1, keepdim=True)
    # Not `normalize`: where differences are parallel, its gradient is 1e12 times theirs.
    is_degenerate = squared <= _MIN_SQUARED
    unit = cross * squared.masked_fill(is_degenerate, 1.0).rsqrt()
    unit = unit.masked_fill(is_degenerate, 0.0)
    normals = torch.zeros_like(positions)
    normals[1:-1, 1:-1] = unit @ camera.T_camera_world[:3, :3].to(depth)
    return normals
