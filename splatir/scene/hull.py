"""The visual hull: the largest shape that object masks allow, as points with normals."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from splatir.maths.frames import transform_points
from splatir.scene.camera import Camera
from splatir.scene.focus import common_sphere
from splatir.scene.initialise import SeedPoints

# Voxels along each edge of the object's bounding cube, and of the cube that it is looked for in.
GRID_SIZE, _SEARCH_SIZE = 112, 48
# Cameras that must see a place before masks may keep it: so many, and such a part of those that see
# the best seen one. What only one or two see, close before them, their masks allow all the way.
_MIN_VIEWS, _MIN_SHARE = 2, 0.2
# Free voxels around the object's bounding box.
_MARGIN = 4
# Blur of the occupancy that the surface is taken from, and of the one for normals, in voxels. More
# erodes thin parts.
_SURFACE_BLUR, _NORMAL_BLUR = 0.8, 1.6
# Newton steps onto the surface; each moves a point by a voxel at most.
_PROJECTIONS = 6


def visual_hull_points(
    cameras: Sequence[Camera],
    alphas: Sequence[Float[Tensor, "height width 1"]],
    count: int,
    seed: int,
) -> SeedPoints | None:
    """Sample points on the surface of the visual hull (Laurentini 1994).

    Args:
        cameras: Views, in the world frame.
        alphas: Object coverage of each view in [0, 1], sampled on the camera's pixels.
        count: Number of points.
        seed: For sampling and jitter.

    Returns:
        Points with outward normals and grey colour; None where the masks have no common inside.
    """
    centre, radius = common_sphere(cameras)
    # The sphere fills the shorter image side; its bounding cube covers objects that fill corners.
    for half_size in (radius, 1.5 * radius):
        found = _carve(cameras, alphas, centre, half_size, _SEARCH_SIZE)
        if (found >= 0.5).any() and not _touches_border(found):
            break
    if not (found >= 0.5).any():
        return None
    centre, half_size = _bounding_cube(found, centre, half_size)
    field = _carve(cameras, alphas, centre, half_size, GRID_SIZE)
    if not (field >= 0.5).any():
        return None
    return _surface_points(field, centre, half_size, count, seed)


def is_seen_enough(seen: Int[Tensor, "*places"], num_cameras: int) -> Bool[Tensor, "*places"]:
    """Whether so many cameras see a place that masks say something about it.

    Args:
        seen: Number of cameras that see each place.
        num_cameras: Of all.
    """
    if not seen.numel():
        return torch.zeros_like(seen, dtype=torch.bool)
    return seen >= max(min(_MIN_VIEWS, num_cameras), _MIN_SHARE * int(seen.max()))


def _bounding_cube(
    field: Float[Tensor, "x y z"], centre: Float[Tensor, " 3"], half_size: float
) -> tuple[Float[Tensor, " 3"], float]:
    """Centre and half the edge of a cube around what is occupied, with a margin."""
    size = field.shape[0]
    index = (field > 0.0).nonzero().float()
    low, high = index.amin(0) - 1.0, index.amax(0) + 1.0
    new_half = float((high - low).amax() + 1.0) / size * half_size
    new_half *= GRID_SIZE / (GRID_SIZE - 2 * _MARGIN)
    return _grid_positions((low + high) / 2.0, centre, half_size, size), new_half


def _grid_positions(
    index: Float[Tensor, "n 3"] | Float[Tensor, " 3"],
    centre: Float[Tensor, " 3"],
    half_size: float,
    size: int,
) -> Float[Tensor, "*n 3"]:
    return centre + ((index + 0.5) / size * 2.0 - 1.0) * half_size


def _carve(
    cameras: Sequence[Camera],
    alphas: Sequence[Tensor],
    centre: Float[Tensor, " 3"],
    half_size: float,
    size: int,
) -> Float[Tensor, "x y z"]:
    """Smallest coverage that any view gives each voxel's centre; 0 where too few views see it.

    Views that do not see a voxel do not vote.
    """
    axis = torch.arange(size)
    index = torch.cartesian_prod(axis, axis, axis)
    seen = torch.zeros(len(index), dtype=torch.int32)
    least = torch.ones(len(index))
    for camera, alpha in zip(cameras, alphas, strict=True):
        points = transform_points(
            camera.T_camera_world, _grid_positions(index.float(), centre, half_size, size)
        )
        in_front = points[:, 2] > 1e-6
        pixels = points @ camera.K.mT
        pixels = pixels[:, :2] / pixels[:, 2:].clamp_min(1e-6)
        extent = torch.tensor([camera.width, camera.height])
        inside = in_front & ((pixels >= 0) & (pixels < extent)).all(dim=-1)
        grid = (pixels / extent * 2.0 - 1.0)[None, None]
        coverage = torch.nn.functional.grid_sample(
            alpha[None, ..., 0][None], grid, padding_mode="border", align_corners=False
        )[0, 0, 0]
        least = torch.where(inside, torch.minimum(least, coverage), least)
        keep = least > 0.0
        index, seen, least = index[keep], (seen + inside)[keep], least[keep]
    enough = is_seen_enough(seen, len(cameras))
    field = torch.zeros(size, size, size)
    field[tuple(index[enough].T)] = least[enough]
    return field


def _touches_border(field: Float[Tensor, "x y z"]) -> bool:
    size = field.shape[0]
    return any(bool((field.select(d, i) >= 0.5).any()) for d in range(3) for i in (0, size - 1))


def _surface_points(
    field: Float[Tensor, "x y z"],
    centre: Float[Tensor, " 3"],
    half_size: float,
    count: int,
    seed: int,
) -> SeedPoints:
    """Points on the level 1/2 of the blurred field, normals down its gradient."""
    occupied = field >= 0.5
    eroded = -torch.nn.functional.max_pool3d(-occupied[None, None].float(), 3, stride=1, padding=1)
    shell = (occupied & (eroded[0, 0] < 0.5)).nonzero()
    generator = torch.Generator().manual_seed(seed)
    if count <= len(shell):
        chosen = shell[torch.randperm(len(shell), generator=generator)[:count]]
    else:
        chosen = shell[torch.randint(len(shell), (count,), generator=generator)]
    points = chosen + torch.rand(count, 3, generator=generator) - 0.5
    surface = _field_and_gradient(field, _SURFACE_BLUR)
    for _ in range(_PROJECTIONS):
        value, gradient = _sampled(surface, points).split([1, 3], dim=-1)
        step = (value - 0.5) * gradient / gradient.square().sum(-1, keepdim=True).clamp_min(1e-6)
        points = points - step / step.norm(dim=-1, keepdim=True).clamp_min(1.0)
    normals = -_sampled(_field_and_gradient(field, _NORMAL_BLUR), points)[:, 1:]
    return SeedPoints(
        positions=_grid_positions(points, centre, half_size, field.shape[0]),
        colours_srgb=torch.full((count, 3), 0.5),
        normals=torch.nn.functional.normalize(normals, dim=-1),
        is_surrounding=torch.zeros(count, dtype=torch.bool),
    )


def _field_and_gradient(
    field: Float[Tensor, "x y z"], blur: float
) -> Float[Tensor, "channels x y z"]:
    """The field after a Gaussian blur, and its gradient per voxel."""
    offsets = torch.arange(-math.ceil(3 * blur), math.ceil(3 * blur) + 1)
    kernel = torch.softmax(-0.5 * (offsets / blur) ** 2, dim=0)
    blurred = field[None, None]
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = len(kernel)
        padding = [len(kernel) // 2 if a == axis else 0 for a in range(3)]
        blurred = torch.nn.functional.conv3d(blurred, kernel.view(shape), padding=padding)
    return torch.cat([blurred[0], torch.stack(torch.gradient(blurred[0, 0]))])


def _sampled(
    volume: Float[Tensor, "channels x y z"], points: Float[Tensor, "n 3"]
) -> Float[Tensor, "n channels"]:
    """A volume at voxel coordinates, trilinear."""
    size = volume.shape[1]
    # grid_sample wants the last axis first.
    grid = (points.flip(-1) / (size - 1) * 2.0 - 1.0)[None, None, None]
    sampled = torch.nn.functional.grid_sample(
        volume[None], grid, padding_mode="border", align_corners=True
    )
    return sampled[0, :, 0, 0].T
