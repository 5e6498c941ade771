"""From which directions does transport collect light, and how much of a light belongs to each?"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import KDTree
from torch import Tensor
from torch.nn import functional

from splatir.maths.safe import safe_normalise
from splatir.scene.lights import EnvironmentLight, environment_directions, texel_solid_angles

# Rows of the grid by which texels are dealt out to cells: those of coarser maps are divided, those
# of finer ones averaged down, as prefiltering does.
_HEIGHT = 256
# Light of a cell below which its direction stays, in parts of the brightest texel's.
_DARK = 1e-9


@dataclass(frozen=True)
class DirectionCells:
    """Directions spread over the sphere; a cell is what lies nearest to its direction.

    Attributes:
        directions: Unit, world frame.
        solid_angles: Of the cells, steradians; sum to 4 pi.
    """

    directions: Float[Tensor, "d 3"]
    solid_angles: Float[Tensor, " d"]

    def light_from(self, light: EnvironmentLight) -> Float[Tensor, "d 3"]:
        """Integral of an environment's radiance over each cell; no power is lost between cells.

        Args:
            light: Differentiable; constant within each texel.
        """
        powers, parts = self._powers(light)
        sums = powers.new_zeros(len(self.directions), 3)
        return sums.index_add(0, parts.cells, powers)

    @torch.no_grad()
    def centroids_of(self, light: EnvironmentLight) -> Float[Tensor, "d 3"]:
        """Mean direction of each cell's light, by brightness; unit, a constant.

        Args:
            light: Map.
        """
        powers, parts = self._powers(light)
        brightness = powers.mean(-1, keepdim=True)
        # In proportion to the light, so that no unit of radiance makes it vanish.
        brightness = brightness / brightness.amax().clamp_min(torch.finfo(powers.dtype).tiny)
        sums = torch.zeros_like(self.directions)
        sums = sums.index_add(0, parts.cells, parts.directions * brightness)
        # A dark cell keeps its own direction.
        return safe_normalise(sums + _DARK * self.directions)

    def _powers(self, light: EnvironmentLight) -> tuple[Float[Tensor, "e 3"], "_Parts"]:
        """Integral of a map over the parts into which cells cut its texels."""
        like = self.directions
        radiance = _averaged(light.radiance.to(like))
        height, width = radiance.shape[:2]
        parts = _parts_of(len(like), height, width, like.dtype, like.device)
        # Embedding's backward adds in a fixed order on the CPU, plain indexing's does not.
        texels = functional.embedding(parts.texels, radiance.flatten(0, 1))
        return texels * parts.solid_angles[:, None], parts


def spherical_cells(count: int, like: Tensor) -> DirectionCells:
    """Directions of a Fibonacci lattice: z = 1 - (2 i + 1) / count, golden-angle turns about it.

    Args:
        count: Number of directions, at least 1.
        like: Gives dtype and device.

    Raises:
        ValueError: No directions.
    """
    if count < 1:
        raise ValueError(f"transport needs at least 1 direction, got {count}.")
    return DirectionCells(
        torch.from_numpy(_lattice(count)).to(like), torch.from_numpy(_solid_angles(count)).to(like)
    )


def _lattice(count: int) -> np.ndarray:
    index = np.arange(count)
    z = 1.0 - (2.0 * index + 1.0) / count
    phi = index * math.pi * (1.0 + math.sqrt(5.0))
    sine = np.sqrt(1.0 - z * z)
    return np.stack([sine * np.cos(phi), sine * np.sin(phi), z], axis=-1)


@functools.lru_cache(maxsize=16)
def nearest_directions(count: int, height: int, width: int) -> Int[Tensor, " t"]:
    """Which of the lattice's directions each texel of a map is nearest to, row by row.

    Args:
        count: Number of directions.
        height: Rows of the map.
        width: Columns.
    """
    texels = environment_directions(height, width, torch.empty(0, dtype=torch.float64))
    return torch.from_numpy(KDTree(_lattice(count)).query(texels.reshape(-1, 3))[1])


@functools.lru_cache(maxsize=16)
def _solid_angles(count: int) -> np.ndarray:
    parts = _parts_of(count, _HEIGHT, 2 * _HEIGHT, torch.float64, torch.device("cpu"))
    return np.bincount(parts.cells.numpy(), parts.solid_angles.numpy(), count)


@dataclass(frozen=True)
class _Parts:
    """Pieces into which the cells cut the texels of a map.

    Attributes:
        texels: Of which texel, row by row.
        cells: In which cell.
        solid_angles: Steradians; those of a texel sum to its own.
        directions: Unit, to their middles.
    """

    texels: Int[Tensor, " e"]
    cells: Int[Tensor, " e"]
    solid_angles: Float[Tensor, " e"]
    directions: Float[Tensor, "e 3"]


@functools.lru_cache(maxsize=16)
def _parts_of(
    count: int, height: int, width: int, dtype: torch.dtype, device: torch.device
) -> _Parts:
    factor = -(-_HEIGHT // height)
    rows, columns = factor * height, factor * width
    like = torch.empty(0, dtype=torch.float64)
    cells = nearest_directions(count, rows, columns)
    texels = (torch.arange(rows) // factor * width)[:, None] + torch.arange(columns) // factor
    pieces, which = torch.unique(texels.flatten() * count + cells, return_inverse=True)
    angles = texel_solid_angles(rows, columns, like).repeat_interleave(columns)
    towards = environment_directions(rows, columns, like).flatten(0, 1) * angles[:, None]
    sums = like.new_zeros(len(pieces), 4)
    sums.index_add_(0, which, torch.cat([towards, angles[:, None]], dim=-1))
    return _Parts(
        (pieces // count).to(device),
        (pieces % count).to(device),
        sums[:, 3].to(device, dtype),
        functional.normalize(sums[:, :3], dim=-1).to(device, dtype),
    )


def _averaged(radiance: Float[Tensor, "height width 3"]) -> Float[Tensor, "rows columns 3"]:
    """A map of at most about twice as many rows as the grid, of the same power."""
    height, width = radiance.shape[:2]
    factor = height // _HEIGHT
    while factor > 1 and (height % factor or width % factor):
        factor -= 1
    if factor <= 1:
        return radiance
    angles = texel_solid_angles(height, width, radiance)[:, None, None]
    blocks = (radiance * angles).unflatten(1, (-1, factor)).sum(2).unflatten(0, (-1, factor)).sum(1)
    pooled = texel_solid_angles(height // factor, width // factor, radiance)
    return blocks / pooled[:, None, None]
