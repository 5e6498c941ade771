"""Which light explains best how bright the surfaces are, if all were equally white?

Before materials are known, the light can be found from shadows: what a Gaussian sends out is a sum
over directions of visibility times cosine times light, linear in the light. Albedo that is flat in
brightness is wrong for most Gaussians, but its errors do not have the pattern of any direction's
shadows, so that least squares over all Gaussians, robust and not negative, finds a sun at once,
which descent from a uniform light never does: albedo takes up its shadows first.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import nnls
from torch import Tensor

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
) -> EnvironmentLight:
    """Grey environment under which matt surfaces look most like their radiance.

    Args:
        visibility: What the surfaces see; light between them is left out.
        radiance: Mean over views, linear.
        albedo: Guess, linear.
        weights: Importance of each, such as its area.
        height: Rows of the map.
    """
    angles = visibility.cells.solid_angles
    seen, guess = radiance.mean(-1), albedo.mean(-1)
    mean = (seen * weights).sum() / weights.sum().clamp_min(1e-12)
    floor = _DARK * mean.clamp_min(1e-12)
    robust = weights
    cells = torch.zeros_like(angles)
    for _ in range(_ROUNDS):
        cells = _least_squares(visibility, guess, seen, robust)
        predicted = _reflected(visibility, guess, cells * angles)
        error = ((seen - predicted) / predicted.clamp_min(floor)).abs()
        robust = weights / (1.0 + (error / _SOFT_ERROR).square()) / predicted.clamp_min(2.0 * floor)
    even = (cells * angles).sum() / (4.0 * math.pi)
    cells = torch.lerp(cells, even, _EVEN_SHARE)
    nearest = nearest_directions(len(cells), height, 2 * height).to(cells.device)
    # A surface that saw nothing says nothing: then all is even and dark.
    map_ = cells[nearest].view(height, 2 * height, 1).expand(-1, -1, 3)
    return EnvironmentLight(map_.clamp_min(1e-3 * float(even) + 1e-6).clone())


def _least_squares(
    visibility: Visibility,
    albedo: Float[Tensor, " n"],
    seen: Float[Tensor, " n"],
    weights: Float[Tensor, " n"],
) -> Float[Tensor, " d"]:
    """Radiance of the cells, not negative, that explains `seen` best."""
    angles = visibility.cells.solid_angles
    matrix = torch.zeros(len(angles), len(angles), dtype=torch.float64, device=angles.device)
    right = torch.zeros(len(angles), dtype=torch.float64, device=angles.device)
    for part in _parts(len(albedo)):
        rows = _responses(visibility, part) * (albedo[part, None] * angles)
        weighted = rows * weights[part, None]
        matrix += (weighted.mT @ rows).double()
        right += (weighted.mT @ seen[part]).double()
    ridge = _RIDGE * float(matrix.diagonal().mean()) + 1e-30
    # |A x - b|^2 + ridge |x|^2 as least squares with the Cholesky factor of its normal matrix.
    factor = np.linalg.cholesky(matrix.cpu().numpy() + ridge * np.eye(len(angles)))
    solution, _ = nnls(factor.T, np.linalg.solve(factor, right.cpu().numpy()))
    return torch.from_numpy(solution).to(angles)


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
