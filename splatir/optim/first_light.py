"""Which light explains best what the surfaces send out, if all were of one paint?

Before materials are known, the light can be found from shadows: what a Gaussian sends out is a sum
over directions of visibility times cosine times light, linear in the light. Albedo that is flat in
brightness is wrong for most Gaussians, but its errors do not have the pattern of any direction's
shadows, so that least squares over all Gaussians, robust and not negative, finds a sun at once,
which descent from a uniform light never does: albedo takes up its shadows first. Likewise with
colours: a warm sun and a blue sky would be left to the paint.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import nnls
from torch import Tensor

from splatir.optim.seen_light import SeenLight
from splatir.scene.lights import EnvironmentLight
from splatir.transport.bake import Visibility
from splatir.transport.directions import nearest_directions
from splatir.transport.tracing import FREE

# Rounds of reweighting, and the relative error at which a Gaussian counts half: Cauchy's weights.
_ROUNDS, _SOFT_ERROR = 6, 0.3
# Ridge on the radiance of cells, relative to the mean of the normal matrix's diagonal.
_RIDGE = 1e-3
# Rounds in which the tints of light and of all paint are told apart.
_TINT_ROUNDS = 2
# Share of the light that is spread evenly: descent moves no texel that is black.
_EVEN_SHARE = 0.2
# Radiance below which relative errors mean nothing, relative to the mean.
_DARK = 0.05
_CHUNK = 1 << 14


@torch.no_grad()
def light_from_radiance(
    visibility: Visibility,
    radiance: Float[Tensor, "n 3"],
    albedo: Float[Tensor, "n 3"],
    weights: Float[Tensor, " n"],
    height: int,
    seen: SeenLight | None = None,
) -> EnvironmentLight:
    """Environment under which matt surfaces look most like their radiance.

    In the mean, what was not seen of the light itself is grey: nothing tells its tint from that of
    all paint.

    Args:
        visibility: What the surfaces see; light between them is left out.
        radiance: Mean over views, linear.
        albedo: Guess, linear.
        weights: Importance of each, such as its area.
        height: Rows of the map.
        seen: What the photos show of the light itself, of the same height; that stays.
    """
    surfaces = _Surfaces(visibility, albedo.mean(-1), radiance.mean(-1), weights)
    known, is_open = _known_cells(visibility, seen)
    grey, robust = _robust_cells(surfaces, known.mean(-1), is_open)
    fitted = replace(surfaces, weights=robust)
    guess = _map_of(visibility, _coloured_cells(fitted, radiance, grey, known, is_open), height)
    if seen is None:
        return guess
    certainty = seen.certainty[..., None]
    shown = torch.where(
        seen.is_bound[..., None], torch.maximum(guess.radiance, seen.radiance), seen.radiance
    )
    return EnvironmentLight(torch.lerp(guess.radiance, shown, certainty))


@dataclass(frozen=True)
class _Surfaces:
    """Matt surfaces and what they send out, in grey."""

    visibility: Visibility
    albedo: Float[Tensor, " n"]
    seen: Float[Tensor, " n"]
    weights: Float[Tensor, " n"]

    @property
    def floor(self) -> Tensor:
        """Radiance below which relative errors mean nothing."""
        mean = (self.seen * self.weights).sum() / self.weights.sum().clamp_min(1e-12)
        return _DARK * mean.clamp_min(1e-12)

    def rows(self) -> Iterator[tuple[Tensor, Tensor, slice]]:
        """What they send out per radiance of each cell, and their weights, part by part."""
        angles = self.visibility.cells.solid_angles
        for part in _parts(len(self.albedo)):
            rows = _responses(self.visibility, part) * (self.albedo[part, None] * angles)
            yield rows, self.weights[part, None], part

    def under(self, cells: Float[Tensor, " d"]) -> Float[Tensor, " n"]:
        """What they send out under radiance from each cell."""
        return _reflected(self.visibility, self.albedo, cells * self.visibility.cells.solid_angles)


def _robust_cells(
    surfaces: _Surfaces, known: Float[Tensor, " d"], is_open: Bool[Tensor, " d"]
) -> tuple[Float[Tensor, " d"], Float[Tensor, " n"]]:
    """Radiance of all cells, known ones as given and open ones as they fit best.

    Also the weights of the surfaces that the fit ended with.
    """
    floor = surfaces.floor
    rest = surfaces.seen - surfaces.under(known)
    robust, cells = surfaces.weights, known
    for _ in range(_ROUNDS):
        weighted = replace(surfaces, weights=robust)
        cells = known + _LeastSquares.of(weighted, is_open).cells(rest)
        predicted = surfaces.under(cells)
        error = ((surfaces.seen - predicted) / predicted.clamp_min(floor)).abs()
        robust = surfaces.weights / (1.0 + (error / _SOFT_ERROR).square())
        robust = robust / predicted.clamp_min(2.0 * floor)
    return torch.where(is_open, _evened(surfaces, cells, is_open), cells), robust


def _coloured_cells(
    surfaces: _Surfaces,
    radiance: Float[Tensor, "n 3"],
    grey: Float[Tensor, " d"],
    known: Float[Tensor, "d 3"],
    is_open: Bool[Tensor, " d"],
) -> Float[Tensor, "d 3"]:
    """The fit for each channel, with as much light from the open cells as in the grey one.

    What a channel of the surfaces has more or less than this light explains is their paint.
    """
    angles = surfaces.visibility.cells.solid_angles * is_open
    power, channels = (grey * angles).sum(), []
    fit = _LeastSquares.of(surfaces, is_open)
    for seen, given in zip(radiance.unbind(-1), known.unbind(-1), strict=True):
        cells = torch.where(is_open, grey, given)
        for _ in range(_TINT_ROUNDS):
            predicted = (surfaces.weights * surfaces.under(cells)).sum()
            paint = (surfaces.weights * seen).sum() / predicted.clamp_min(1e-20)
            rest = seen / paint.clamp_min(1e-6) - surfaces.under(given)
            found = _evened(surfaces, fit.cells(rest), is_open)
            own = (found * angles).sum()
            if not own > 0.0:
                break
            cells = torch.where(is_open, found * power / own, given)
        channels.append(cells)
    return torch.stack(channels, dim=-1)


def _evened(
    surfaces: _Surfaces, cells: Float[Tensor, " d"], is_open: Bool[Tensor, " d"]
) -> Float[Tensor, " d"]:
    """Cells of which a share of the light is spread over all open ones."""
    angles = surfaces.visibility.cells.solid_angles * is_open
    even = (cells * angles).sum() / angles.sum().clamp_min(1e-12)
    return torch.lerp(cells, even, _EVEN_SHARE)


def _known_cells(
    visibility: Visibility, seen: SeenLight | None
) -> tuple[Float[Tensor, "d 3"], Bool[Tensor, " d"]]:
    """Radiance of the cells that were seen (0 elsewhere), and which were not."""
    cells = visibility.cells
    angles = cells.solid_angles[:, None]
    if seen is None:
        return torch.zeros_like(cells.directions), torch.ones_like(angles[:, 0], dtype=torch.bool)
    exact = seen.is_exact[..., None].to(seen.radiance)
    share = cells.light_from(EnvironmentLight(exact.expand(-1, -1, 3)))[:, :1] / angles
    light = cells.light_from(EnvironmentLight(seen.radiance * exact)) / angles
    is_open = share < 0.5
    return torch.where(is_open, 0.0, light / share.clamp_min(1e-6)), is_open[:, 0]


def _map_of(visibility: Visibility, cells: Float[Tensor, "d 3"], height: int) -> EnvironmentLight:
    """The cells as a map."""
    angles = visibility.cells.solid_angles
    even = (cells.mean(-1) * angles).sum() / (4.0 * math.pi)
    nearest = nearest_directions(len(cells), height, 2 * height).to(cells.device)
    # A surface that saw nothing says nothing: then all is even and dark.
    map_ = cells[nearest].view(height, 2 * height, 3)
    return EnvironmentLight(map_.clamp_min(1e-3 * float(even) + 1e-6).clone())


@dataclass(frozen=True)
class _LeastSquares:
    """Which radiance of the open cells explains best what weighted surfaces send out?

    Attributes:
        surfaces: Whose `seen` does not matter.
        is_open: The cells.
        factor: Cholesky factor of the normal matrix.
    """

    surfaces: _Surfaces
    is_open: Bool[Tensor, " d"]
    factor: np.ndarray

    @classmethod
    def of(cls, surfaces: _Surfaces, is_open: Bool[Tensor, " d"]) -> "_LeastSquares":
        """Factorise; the same for whatever is seen."""
        count = len(is_open)
        matrix = torch.zeros(count, count, dtype=torch.float64, device=is_open.device)
        for rows, weights, _ in surfaces.rows():
            matrix += ((rows * weights).mT @ rows).double()
        matrix = matrix[is_open][:, is_open].cpu().numpy()
        ridge = _RIDGE * float(np.diagonal(matrix).mean()) + 1e-30 if len(matrix) else 0.0
        return cls(surfaces, is_open, np.linalg.cholesky(matrix + ridge * np.eye(len(matrix))))

    def cells(self, seen: Float[Tensor, " n"]) -> Float[Tensor, " d"]:
        """Radiance of the cells, not negative; 0 of those that are not open."""
        right = torch.zeros(len(self.is_open), dtype=torch.float64, device=seen.device)
        for rows, weights, part in self.surfaces.rows():
            right += ((rows * weights).mT @ seen[part]).double()
        solution = torch.zeros(len(self.is_open), device=seen.device).to(seen)
        if len(self.factor):
            # |A x - b|^2 + ridge |x|^2 as least squares with the factor of its normal matrix.
            aim = np.linalg.solve(self.factor, right[self.is_open].cpu().numpy())
            found, _ = nnls(self.factor.T, aim)
            solution[self.is_open] = torch.from_numpy(found).to(solution)
        return solution


def _reflected(
    visibility: Visibility, albedo: Float[Tensor, " n"], arriving: Float[Tensor, " d"]
) -> Float[Tensor, " n"]:
    parts = [_responses(visibility, part) @ arriving for part in _parts(len(albedo))]
    return albedo * torch.cat(parts)


def _responses(visibility: Visibility, part: slice) -> Float[Tensor, "n d"]:
    """What white matt surfaces send out per light from each direction."""
    cosines = (visibility.normals[part] @ visibility.cells.directions.mT).clamp_min(0.0)
    return cosines * (visibility.hits[part] == FREE) / math.pi


def _parts(count: int) -> list[slice]:
    return [slice(start, start + _CHUNK) for start in range(0, max(count, 1), _CHUNK)]
