"""The visual hull: the largest shape that object masks allow, as points with normals."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from splatir.maths.frames import transform_points
from splatir.scene.camera import Camera
from splatir.scene.focus import common_sphere
from splatir.scene.initialise import SeedPoints

# Voxels along each edge: fine enough that a hull point lies within a percent of the object's size.
GRID_SIZE = 112
# Cameras that must see a voxel before masks may keep it.
_MIN_VIEWS = 2


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
        occupied = _carve(cameras, alphas, centre, half_size)
        if occupied.any() and not _touches_border(occupied):
            break
    if not occupied.any():
        return None
    return _surface_points(occupied, centre, half_size, count, seed)


def _grid_positions(
    index: Float[Tensor, "n 3"], centre: Float[Tensor, " 3"], half_size: float
) -> Float[Tensor, "n 3"]:
    return centre + ((index + 0.5) / GRID_SIZE * 2.0 - 1.0) * half_size


def _carve(
    cameras: Sequence[Camera],
    alphas: Sequence[Tensor],
    centre: Float[Tensor, " 3"],
    half_size: float,
) -> Bool[Tensor, "x y z"]:
    """Voxels whose centre no mask rejects; views that do not see a voxel do not vote."""
    axis = torch.arange(GRID_SIZE)
    index = torch.cartesian_prod(axis, axis, axis)
    seen = torch.zeros(len(index), dtype=torch.int32)
    for camera, alpha in zip(cameras, alphas, strict=True):
        points = transform_points(
            camera.T_camera_world, _grid_positions(index.float(), centre, half_size)
        )
        in_front = points[:, 2] > 1e-6
        pixels = points @ camera.K.mT
        pixels = (pixels[:, :2] / pixels[:, 2:].clamp_min(1e-6)).floor().long()
        size = torch.tensor([camera.width, camera.height])
        inside = in_front & ((pixels >= 0) & (pixels < size)).all(dim=-1)
        column = pixels[:, 0].clamp(0, camera.width - 1)
        row = pixels[:, 1].clamp(0, camera.height - 1)
        rejected = inside & (alpha[row, column, 0] < 0.5)
        index, seen = index[~rejected], (seen + inside)[~rejected]
    index = index[seen >= min(_MIN_VIEWS, len(cameras))]
    occupied = torch.zeros(GRID_SIZE, GRID_SIZE, GRID_SIZE, dtype=torch.bool)
    occupied[index[:, 0], index[:, 1], index[:, 2]] = True
    return occupied


def _touches_border(occupied: Bool[Tensor, "x y z"]) -> bool:
    return any(bool(occupied.select(d, i).any()) for d in range(3) for i in (0, GRID_SIZE - 1))


def _surface_points(
    occupied: Bool[Tensor, "x y z"],
    centre: Float[Tensor, " 3"],
    half_size: float,
    count: int,
    seed: int,
) -> SeedPoints:
    """Occupied voxels beside empty ones; normals against the gradient of blurred occupancy."""
    field = occupied.float()[None, None]
    eroded = -torch.nn.functional.max_pool3d(-field, 3, stride=1, padding=1)[0, 0]
    shell = (occupied & (eroded < 0.5)).nonzero()
    blurred = field
    for _ in range(3):
        blurred = torch.nn.functional.avg_pool3d(
            blurred, 3, stride=1, padding=1, count_include_pad=True
        )
    gradient = torch.stack(torch.gradient(blurred[0, 0]), dim=-1)
    generator = torch.Generator().manual_seed(seed)
    if count <= len(shell):
        chosen = shell[torch.randperm(len(shell), generator=generator)[:count]]
    else:
        chosen = shell[torch.randint(len(shell), (count,), generator=generator)]
    jitter = torch.rand(count, 3, generator=generator) - 0.5
    normals = -gradient[chosen[:, 0], chosen[:, 1], chosen[:, 2]]
    return SeedPoints(
        positions=_grid_positions(chosen + jitter, centre, half_size),
        colours_srgb=torch.full((count, 3), 0.5),
        normals=torch.nn.functional.normalize(normals, dim=-1),
        is_surrounding=torch.zeros(count, dtype=torch.bool),
    )
