"""From which directions does transport collect light, and how much of a light belongs to each?"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import KDTree
from torch import Tensor

from splatir.scene.lights import (
    EnvironmentLight,
    environment_directions,
    environment_radiance,
    texel_solid_angles,
)

# Maps with fewer rows are interpolated before their texels are dealt out to cells.
_MIN_HEIGHT = 64


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
            light: Differentiable.
        """
        radiance, cells, texel_angles = self._texels(light)
        sums = radiance.new_zeros(len(self.directions), 3)
        return sums.index_add(0, cells, radiance * texel_angles[:, None])

    def centroids_of(self, light: EnvironmentLight) -> Float[Tensor, "d 3"]:
        """Mean direction of each cell's light, by brightness; unit, a constant.

        Args:
            light: Map.
        """
        with torch.no_grad():
            radiance, cells, texel_angles = self._texels(light)
            height = _working_height(light.radiance.shape[0])
            width = len(radiance) // height
            towards = environment_directions(height, width, radiance).flatten(0, 1)
            power = (radiance.mean(-1) * texel_angles)[:, None]
            sums = torch.zeros_like(self.directions).index_add(0, cells, towards * power)
            # A dark cell keeps its own direction.
            sums += 1e-12 * self.directions
            return torch.nn.functional.normalize(sums, dim=-1)

    def _texels(
        self, light: EnvironmentLight
    ) -> tuple[Float[Tensor, "t 3"], Int[Tensor, " t"], Float[Tensor, " t"]]:
        """Radiance of texels, the cell of each and its solid angle."""
        height, width = light.radiance.shape[:2]
        radiance = light.radiance.to(self.directions)
        factor = _working_height(height) // height
        if factor > 1:
            fine = environment_directions(factor * height, factor * width, radiance)
            radiance = environment_radiance(radiance, fine)
            height, width = radiance.shape[:2]
        cells = nearest_directions(len(self.directions), height, width)
        angles = texel_solid_angles(height, width, radiance)
        angles = angles[:, None].expand(height, width).flatten()
        return radiance.flatten(0, 1), cells.to(radiance.device), angles


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


def _working_height(height: int) -> int:
    return height * max(1, -(-_MIN_HEIGHT // height))


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
    """By counting the texels of a fine map."""
    height = 256
    angles = texel_solid_angles(height, 2 * height, torch.empty(0, dtype=torch.float64))
    cells = nearest_directions(count, height, 2 * height)
    return np.bincount(cells.numpy(), angles.repeat_interleave(2 * height).numpy(), count)
