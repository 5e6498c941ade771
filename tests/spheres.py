"""Sphere grids and surface points for the tests of shading."""

import math

import torch
from torch import Tensor

from splatir.shade.surface import SurfacePoints


def sphere_grid(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Directions at the midpoints of cells uniform in angles, and the solid angle of each cell."""
    theta = math.pi * (torch.arange(rows, dtype=torch.float64) + 0.5) / rows
    phi = 2.0 * math.pi * (torch.arange(columns, dtype=torch.float64) + 0.5) / columns
    theta, phi = (grid.flatten() for grid in torch.meshgrid(theta, phi, indexing="ij"))
    directions = [theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()]
    half = 0.5 * math.pi / rows
    areas = ((theta - half).cos() - (theta + half).cos()) * 2.0 * math.pi / columns
    return torch.stack(directions, dim=-1), areas


def cell_of(directions: Tensor, rows: int, columns: int) -> Tensor:
    """Index of the cell of `sphere_grid` that holds each direction."""
    theta = directions[..., 2].clamp(-1.0, 1.0).acos()
    row = (theta / math.pi * rows).long().clamp(0, rows - 1)
    phi = torch.atan2(directions[..., 1], directions[..., 0]) % (2.0 * math.pi)
    column = (phi / (2.0 * math.pi) * columns).long().clamp(0, columns - 1)
    return row * columns + column


def chi_squared_per_cell(samples: Tensor, shares: Tensor, rows: int, columns: int) -> float:
    """Mean of (observed - expected)^2 / expected over the cells that expect 5 samples or more."""
    observed = torch.bincount(cell_of(samples, rows, columns), minlength=rows * columns).double()
    expected = shares * len(samples)
    is_filled = expected >= 5.0
    deviation = (observed - expected)[is_filled].square() / expected[is_filled]
    return float(deviation.mean())


def coarse(values: Tensor, rows: int, columns: int, factor: int) -> Tensor:
    """Sums over blocks of `factor` x `factor` cells of a grid with rows x columns blocks."""
    return values.reshape(rows, factor, columns, factor).sum((1, 3)).flatten()


def unit(vectors: Tensor) -> Tensor:
    """Vectors over their lengths."""
    return vectors / vectors.norm(dim=-1, keepdim=True)


def facing_points(
    n_dot_v: list[float],
    roughness: float = 0.4,
    metallic: float = 0.3,
    albedo: tuple[float, float, float] = (0.8, 0.5, 0.2),
) -> SurfacePoints:
    """Points with +Z as normal, seen at given cosines from +X; float64."""
    cosine = torch.tensor(n_dot_v, dtype=torch.float64)
    zero, count = torch.zeros_like(cosine), len(n_dot_v)
    views = torch.stack([(1.0 - cosine.square()).sqrt(), zero, cosine], dim=-1)
    normals = torch.stack([zero, zero, zero + 1.0], dim=-1)
    return SurfacePoints(
        normals,
        normals,
        views,
        torch.tensor(albedo, dtype=torch.float64).expand(count, 3),
        torch.full((count, 1), roughness, dtype=torch.float64),
        torch.full((count, 1), metallic, dtype=torch.float64),
    )


def sphere_points(
    size: int,
    roughness: float,
    metallic: float,
    albedo: tuple[float, float, float] = (0.8, 0.5, 0.2),
) -> SurfacePoints:
    """The unit sphere seen by a parallel camera on +X, one point per pixel that hits; float64."""
    steps = (torch.arange(size, dtype=torch.float64) + 0.5) / size * 2.0 - 1.0
    z, y = (grid.flatten() for grid in torch.meshgrid(-steps, steps, indexing="ij"))
    hit = y.square() + z.square() < 0.97
    x = (1.0 - y.square() - z.square()).clamp_min(0.0).sqrt()
    normals = torch.stack([x, y, z], dim=-1)[hit]
    count = len(normals)
    views = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).expand(count, 3)
    return SurfacePoints(
        normals,
        normals,
        views,
        torch.tensor(albedo, dtype=torch.float64).expand(count, 3),
        torch.full((count, 1), roughness, dtype=torch.float64),
        torch.full((count, 1), metallic, dtype=torch.float64),
    )
