"""Solids of Gaussians, for transport: what light they catch is known."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from splatir.scene.gaussians import GaussianModel
from splatir.scene.surface_samples import SurfaceSamples, model_from_samples
from splatir.shade.surface import SurfacePoints
from splatir.transport.materials import SurfaceMaterials
from splatir.transport.scene import SceneTransport


def surface(
    positions: Tensor,
    normals: Tensor,
    spacing: float,
    albedo: tuple[float, float, float] = (0.5, 0.5, 0.5),
    roughness: float = 1.0,
    metallic: float = 0.0,
) -> SurfaceSamples:
    """Opaque points of one material."""
    full = torch.full((len(positions),), 1.0)
    return SurfaceSamples(
        positions.float(),
        normals.float(),
        spacing * full,
        0.98 * full,
        torch.tensor(albedo).expand(len(positions), 3),
        roughness * full,
        metallic * full,
    )


def square(half: float, spacing: float, **material) -> SurfaceSamples:
    """The square |x|, |y| < half in z = 0, facing +Z."""
    count = round(2.0 * half / spacing)
    steps = ((torch.arange(count) + 0.5) / count * 2.0 - 1.0) * half
    x, y = (grid.flatten() for grid in torch.meshgrid(steps, steps, indexing="ij"))
    positions = torch.stack([x, y, torch.zeros_like(x)], dim=-1)
    normals = torch.tensor([0.0, 0.0, 1.0]).expand_as(positions)
    return surface(positions, normals, 2.0 * half / count, **material)


def disc(radius: float, height: float, spacing: float, **material) -> SurfaceSamples:
    """A disc about the z axis, facing +Z."""
    flat = square(radius, spacing, **material)
    inside = flat.positions.norm(dim=-1) < radius
    return moved(picked(flat, inside), (0.0, 0.0, height))


def sphere(
    radius: float, count: int, inwards: bool = False, part: float = 1.0, **material
) -> SurfaceSamples:
    """A sphere about the origin, or its lower part: so much of its height."""
    index = torch.arange(count, dtype=torch.float64) + 0.5
    z = -1.0 + 2.0 * part * index / count
    angle, ring = math.pi * (1.0 + math.sqrt(5.0)) * index, (1.0 - z * z).sqrt()
    normals = torch.stack([ring * angle.cos(), ring * angle.sin(), z], dim=-1)
    spacing = radius * math.sqrt(4.0 * math.pi * part / count)
    return surface(radius * normals, -normals if inwards else normals, spacing, **material)


def room(half: float, spacing: float, **material) -> SurfaceSamples:
    """The six walls of a cube about the origin, facing inwards."""
    floor = moved(square(half, spacing, **material), (0.0, 0.0, -half))
    walls = []
    for axis in range(3):
        turned = replace(
            floor,
            positions=floor.positions.roll(axis, -1),
            normals=floor.normals.roll(axis, -1),
        )
        walls += [turned, replace(turned, positions=-turned.positions, normals=-turned.normals)]
    return together(*walls)


def crate(half: float, spacing: float, **material) -> SurfaceSamples:
    """A cube that stands on the middle of z = 0, its sides facing outwards."""
    walls = room(half, spacing, **material)
    return moved(replace(walls, normals=-walls.normals), (0.0, 0.0, half))


def moved(samples: SurfaceSamples, by: tuple[float, float, float]) -> SurfaceSamples:
    return replace(samples, positions=samples.positions + torch.tensor(by))


def picked(samples: SurfaceSamples, which: Tensor) -> SurfaceSamples:
    return SurfaceSamples(**{key: value[which] for key, value in vars(samples).items()})


def together(*parts: SurfaceSamples) -> SurfaceSamples:
    return SurfaceSamples(
        **{key: torch.cat([getattr(part, key) for part in parts]) for key in vars(parts[0])}
    )


def model_of(*parts: SurfaceSamples) -> GaussianModel:
    return model_from_samples(together(*parts), "surfel", 0)


def transport_of(model: GaussianModel) -> tuple[SceneTransport, SurfaceMaterials]:
    return SceneTransport.of(model.gaussians), SurfaceMaterials.of(model).detach()


def points_of(samples: SurfaceSamples, views: Tensor | None = None) -> SurfacePoints:
    """The points themselves, seen from straight above each by default."""
    return SurfacePoints(
        samples.positions,
        samples.normals,
        samples.normals if views is None else views,
        samples.albedo,
        samples.roughness[:, None],
        samples.metallic[:, None],
    )
