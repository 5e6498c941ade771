"""Which light explains best how bright the surfaces are, if all were equally white?

Before materials are known, the light can be found from shadows: what a Gaussian sends out is a sum
over directions of visibility times cosine times light, linear in the light. Albedo that is flat in
brightness is wrong for most Gaussians, but its errors do not have the pattern of any direction's
shadows, so that least squares over all Gaussians, robust and not negative, finds a sun at once,
which descent from a uniform light never does: albedo takes up its shadows first.
"""

import math
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
    """Environment under which matt surfaces look most like their radiance; grey where not seen.

    Args:
        visibility: What the surfaces see; light between them is left out.
        radiance: Mean over views, linear.
        albedo: Guess, linear.
        weights: Importance of each, such as its area.
        height: Rows of the map.
        seen: What the photos show of the light itself, of the same height; that stays.
    """
    surfaces = _Surfaces(visibility, albedo.mean(-1), radiance.mean(-1), weights)
    if seen is None:
        cells = _robust_cells(surfaces, torch.zeros_like(visibility.cells.solid_angles), None)
        return _map_of(visibility, cells, height)
    cells = _robust_cells(surfaces, *_known_cells(visibility, seen))
    guess = _map_of(visibility, cells, height).radiance
    certainty = seen.certainty[..., None]
    shown = torch.where(
        seen.is_bound[..., None], torch.maximum(guess, seen.radiance), seen.radiance
    )
    return EnvironmentLight(torch.lerp(guess, shown, certainty))


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

    def under(self, cells: Float[Tensor, " d"]) -> Float[Tensor, " n"]:
        """What they send out under radiance from each cell."""
        return _reflected(self.visibility, self.albedo, cells * self.visibility.cells.solid_angles)


def _robust_cells(
    surfaces: _Surfaces, known: Float[Tensor, " d"], is_open: Bool[Tensor, " d"] | None
) -> Float[Tensor, " d"]:
    """Radiance of all cells: known ones as given, open ones (None: all) as they fit best."""
    floor = surfaces.floor
    rest = replace(surfaces, seen=surfaces.seen - surfaces.under(known))
    robust, cells = surfaces.weights, known
    for _ in range(_ROUNDS):
        cells = known + _least_squares(replace(rest, weights=robust), is_open)
        predicted = surfaces.under(cells)
        error = ((surfaces.seen - predicted) / predicted.clamp_min(floor)).abs()
        robust = surfaces.weights / (1.0 + (error / _SOFT_ERROR).square())
        robust = robust / predicted.clamp_min(2.0 * floor)
    found = torch.ones_like(known, dtype=torch.bool) if is_open is None else is_open
    angles = surfaces.visibility.cells.solid_angles * found
    even = (cells * angles).sum() / angles.sum().clamp_min(1e-12)
    return torch.where(found, torch.lerp(cells, even, _EVEN_SHARE), cells)


def _known_cells(
    visibility: Visibility, seen: SeenLight
) -> tuple[Float[Tensor, " d"], Bool[Tensor, " d"]]:
    """Grey radiance of the cells that were seen (0 elsewhere), and which were not."""
    cells = visibility.cells
    exact = seen.is_exact[..., None].to(seen.radiance)
    share = cells.light_from(EnvironmentLight(exact.expand(-1, -1, 3)))[:, 0] / cells.solid_angles
    light = cells.light_from(EnvironmentLight(seen.radiance * exact)).mean(-1) / cells.solid_angles
    is_open = share < 0.5
    return torch.where(is_open, 0.0, light / share.clamp_min(1e-6)), is_open


def _map_of(visibility: Visibility, cells: Float[Tensor, " d"], height: int) -> EnvironmentLight:
    """The cells as a grey map."""
    angles = visibility.cells.solid_angles
    even = (cells * angles).sum() / (4.0 * math.pi)
    nearest = nearest_directions(len(cells), height, 2 * height).to(cells.device)
    # A surface that saw nothing says nothing: then all is even and dark.
    map_ = cells[nearest].view(height, 2 * height, 1).expand(-1, -1, 3)
    return EnvironmentLight(map_.clamp_min(1e-3 * float(even) + 1e-6).clone())


def _least_squares(surfaces: _Surfaces, is_open: Bool[Tensor, " d"] | None) -> Float[Tensor, " d"]:
    """Radiance of the open cells, not negative, that explains `seen` best; 0 of the others."""
    visibility, albedo = surfaces.visibility, surfaces.albedo
    angles = visibility.cells.solid_angles
    matrix = torch.zeros(len(angles), len(angles), dtype=torch.float64, device=angles.device)
    right = torch.zeros(len(angles), dtype=torch.float64, device=angles.device)
    for part in _parts(len(albedo)):
        rows = _responses(visibility, part) * (albedo[part, None] * angles)
        weighted = rows * surfaces.weights[part, None]
        matrix += (weighted.mT @ rows).double()
        right += (weighted.mT @ surfaces.seen[part]).double()
    if is_open is not None:
        matrix, right = matrix[is_open][:, is_open], right[is_open]
    solution = torch.zeros_like(angles)
    if len(right):
        ridge = _RIDGE * float(matrix.diagonal().mean()) + 1e-30
        # |A x - b|^2 + ridge |x|^2 as least squares with the Cholesky factor of its normal matrix.
        factor = np.linalg.cholesky(matrix.cpu().numpy() + ridge * np.eye(len(right)))
        found, _ = nnls(factor.T, np.linalg.solve(factor, right.cpu().numpy()))
        solution[slice(None) if is_open is None else is_open] = torch.from_numpy(found).to(angles)
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
