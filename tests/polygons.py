"""Gaussians for the tests of transport: discs, spheres and boxes that rays are traced against."""

import math

import torch
from torch import Tensor

from splatir.maths.rotations import quat_from_normal
from splatir.scene.gaussians import Gaussians
from splatir.transport.directions import spherical_cells
from splatir.transport.tracing import RayTracer
from tests.spheres import unit


def discs(
    centres: Tensor, normals: Tensor, size: float | Tensor, opacity: float = 0.95
) -> Gaussians:
    """Surfels that look along unit normals; `size` is a standard deviation."""
    scales = torch.as_tensor(size).expand(len(centres))[:, None].expand(-1, 3).contiguous()
    return Gaussians(
        centres.float(),
        quat_from_normal(normals.float()),
        scales.float(),
        torch.full((len(centres),), opacity),
        "surfel",
    )


def sphere(count: int, radius: float = 1.0, inwards: bool = False) -> Gaussians:
    """Overlapping surfels on a sphere."""
    towards = spherical_cells(count, torch.empty(0)).directions
    spacing = radius * math.sqrt(4.0 * math.pi / count)
    return discs(radius * towards, -towards if inwards else towards, 0.7 * spacing)


def box(cells: int, sides: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Gaussians:
    """The inside of a box about the origin, `cells` by `cells` surfels per wall; walls in order
    -x, +x, -y, +y, -z, +z."""
    steps = (torch.arange(cells) + 0.5) / cells - 0.5
    first, second = (grid.flatten() for grid in torch.meshgrid(steps, steps, indexing="ij"))
    extent = torch.tensor(sides)
    centres, normals = [], []
    for axis in range(3):
        for sign in (-0.5, 0.5):
            wall = torch.empty(cells * cells, 3)
            wall[:, axis] = sign
            wall[:, (axis + 1) % 3], wall[:, (axis + 2) % 3] = first, second
            normal = torch.zeros(cells * cells, 3)
            normal[:, axis] = -2.0 * sign
            centres.append(wall * extent)
            normals.append(normal)
    return discs(torch.cat(centres), torch.cat(normals), 0.75 * max(sides) / cells)


def soup(count: int, seed: int = 0) -> Gaussians:
    """Discs of many sizes, everywhere in a ball and looking everywhere."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(count, 3, generator=generator)
    normals = unit(torch.randn(count, 3, generator=generator))
    sizes = 0.1 * torch.rand(count, generator=generator).exp()
    return discs(centres, normals, sizes)


def scaled(gaussians: Gaussians, factor: float, shift: float = 0.0) -> Gaussians:
    """The same scene in another unit of length, about another place."""
    means = gaussians.means * factor + shift
    return Gaussians(
        means, gaussians.quats, gaussians.scales * factor, gaussians.opacities, gaussians.primitive
    )


def rays(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Origins in and about a unit ball, unit directions."""
    generator = torch.Generator().manual_seed(seed)
    origins = 1.5 * torch.randn(count, 3, generator=generator)
    return origins, unit(torch.randn(count, 3, generator=generator))


def hits_of(
    tracer: RayTracer, origin: list[float], towards: list[float], back_reach: float = 0.0
) -> int:
    """What one ray hits."""
    found = tracer.first_hits(
        torch.tensor([origin]), unit(torch.tensor([towards])), torch.tensor([back_reach])
    )
    return int(found[0])
