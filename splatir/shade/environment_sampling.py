"""How are directions drawn in proportion to the light of an environment map?"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from splatir.scene.lights import environment_coordinates, texel_solid_angles


class EnvironmentSampler:
    """Draws directions with a density that is constant in each texel; a constant of its map.

    The share of a texel is the light's mean over colours and over the 3 x 3 texels around it, times
    its solid angle. The neighbours matter: interpolation spreads a sun over them, and a density
    without the spread gives fireflies there.
    """

    def __init__(self, radiance: Float[Tensor, "height width 3"]) -> None:
        """Tabulate.

        Args:
            radiance: Environment map, not negative.
        """
        brightness = radiance.detach().double().mean(-1)
        height, width = brightness.shape
        # Interpolation wraps around and goes on over the poles.
        first, last = (brightness[i : i + 1].roll(width // 2, dims=1) for i in (0, height - 1))
        around = torch.cat([first, brightness, last], dim=0)
        around = torch.cat([around[:, -1:], around, around[:, :1]], dim=1)
        filtered = torch.nn.functional.avg_pool2d(around[None, None], 3, stride=1)[0, 0]
        angles = texel_solid_angles(height, width, brightness)[:, None]
        weights = filtered * angles
        if float(weights.sum()) <= 0.0:
            weights = angles.expand(height, width)
        shares = weights / weights.sum()
        self._density = (shares / angles).flatten()
        self._rows = _cumulative(shares.sum(1))
        within = shares / shares.sum(1, keepdim=True).clamp_min(1e-300)
        # One ascending table of all rows: row index + share of the row's light up to a column.
        offsets = torch.arange(height, dtype=within.dtype, device=within.device)[:, None]
        self._columns = (_cumulative(within) + offsets).flatten()
        self._height, self._width = height, width

    def sample(self, uniforms: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 3"]:
        """Unit world directions.

        Args:
            uniforms: In [0, 1).
        """
        u = uniforms.double()
        row, v_share = _invert(self._rows, u[..., 0].contiguous())
        first = row * self._width
        index, u_share = _invert(self._columns, u[..., 1] + row)
        column = (index - first).clamp(0, self._width - 1)
        phi = 2.0 * math.pi * (0.5 - (column + u_share) / self._width)
        # Rows are uniform in cos, as solid angle is.
        top = (math.pi * row / self._height).cos()
        bottom = (math.pi * (row + 1) / self._height).cos()
        z = top + v_share * (bottom - top)
        sine = (1.0 - z.square()).clamp_min(0.0).sqrt()
        return torch.stack([sine * phi.cos(), sine * phi.sin(), z], dim=-1).to(uniforms)

    def pdf(self, directions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        """Density of `sample` per steradian; a constant.

        Args:
            directions: Unit, world.
        """
        u, v = environment_coordinates(directions.detach())
        column = (u * self._width).long().clamp(0, self._width - 1)
        row = (v * self._height).long().clamp(0, self._height - 1)
        return self._density[row * self._width + column].to(directions)


def _cumulative(shares: Tensor) -> Tensor:
    """Running sums along the last axis that end at exactly 1."""
    sums = shares.cumsum(-1)
    return sums / sums[..., -1:].clamp_min(1e-300)


def _invert(
    cumulative: Float[Tensor, " n"], values: Float[Tensor, "*batch"]
) -> tuple[Int[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Interval that holds each value, and how far into it the value is, in [0, 1]."""
    index = torch.searchsorted(cumulative, values, right=True).clamp_max(len(cumulative) - 1)
    upper = cumulative[index]
    lower = torch.where(index > 0, cumulative[(index - 1).clamp_min(0)], 0.0)
    share = (values - lower) / (upper - lower).clamp_min(1e-300)
    return index, share.clamp(0.0, 1.0)
