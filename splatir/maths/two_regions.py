"""Which pixels of a picture are inside, given how likely each is and where edges are?"""

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

# Both step sizes of the primal-dual method; the squared norm of the gradient operator is at most 8.
_STEP = 0.35
# Patches of a mask below this share of it are dust.
_DUST = 0.02


def two_regions(
    cost: Float[Tensor, "height width"],
    picture: Float[Tensor, "height width 3"],
    smoothness: float,
    iterations: int = 150,
) -> Float[Tensor, "height width"]:
    """The minimal cut of a picture by total variation (Chan, Esedoglu and Nikolova 2006).

    Minimises the sum of cost * x + smoothness * g * |dx| over x in [0, 1]: the continuous minimal
    cut, which has a global optimum. g falls with the contrast of neighbouring pixels (Boykov and
    Jolly 2001), so that outlines follow edges. Solved by Chambolle and Pock's primal-dual method
    (2011); anisotropic, not differentiable.

    Args:
        cost: Of being inside; negative where inside is likelier.
        picture: sRGB.
        smoothness: Weight of the outline's length.
        iterations: Of the solver.

    Returns:
        x, nearly 0 or 1; above 1/2 is inside.
    """
    limit_x, limit_y = (smoothness * weight for weight in _edge_weights(picture))
    inside = (cost < 0.0).to(cost)
    ahead = inside
    dual_x, dual_y = torch.zeros_like(cost), torch.zeros_like(cost)
    for _ in range(iterations):
        dx, dy = _differences(ahead)
        dual_x = torch.clamp(dual_x + _STEP * dx, -limit_x, limit_x)
        dual_y = torch.clamp(dual_y + _STEP * dy, -limit_y, limit_y)
        divergence = dual_x - functional.pad(dual_x[:, :-1], (1, 0))
        divergence = divergence + dual_y - functional.pad(dual_y[:-1], (0, 0, 1, 0))
        moved = (inside + _STEP * (divergence - cost)).clamp(0.0, 1.0)
        ahead = 2.0 * moved - inside
        inside = moved
    return inside


def _differences(x: Float[Tensor, "h w"]) -> tuple[Float[Tensor, "h w"], Float[Tensor, "h w"]]:
    """Forward differences along rows and columns; 0 at the far border."""
    dx = functional.pad(x[:, 1:] - x[:, :-1], (0, 1))
    dy = functional.pad(x[1:] - x[:-1], (0, 0, 0, 1))
    return dx, dy


def _edge_weights(
    picture: Float[Tensor, "h w 3"],
) -> tuple[Float[Tensor, "h w"], Float[Tensor, "h w"]]:
    """exp(-contrast^2 / (2 mean contrast^2)) to the right and below; 0 beyond the border."""
    right = (picture[:, 1:] - picture[:, :-1]).square().sum(-1)
    below = (picture[1:] - picture[:-1]).square().sum(-1)
    mean = torch.cat([right.flatten(), below.flatten()]).mean().clamp_min(1e-12)
    weights = [torch.exp(-squares / (2.0 * mean)) for squares in (right, below)]
    return functional.pad(weights[0], (0, 1)), functional.pad(weights[1], (0, 0, 0, 1))


def without_dust(mask: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """The mask without small patches; holes of such size are filled.

    Args:
        mask: In [0, 1].
    """
    inside = (mask > 0.5).numpy()
    for is_kept, value in ((inside, 0.0), (~inside, 1.0)):
        patches = np.empty(inside.shape, np.int32)
        ndimage.label(is_kept, output=patches)
        sizes = np.bincount(patches.ravel())
        is_small = sizes < _DUST * inside.sum()
        is_small[0] = False
        mask = mask.masked_fill(torch.from_numpy(is_small[patches]), value)
    return mask
