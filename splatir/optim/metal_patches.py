"""How far does metal reach around what surely is of it, and which patches are chance?

As in hysteresis thresholding (Canny 1986): what is less sure counts where it touches what is sure.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

# A candidate joins once metal is such a share of what its neighbours show.
_MIN_SHARE = 0.25
# A grown patch is metal if its core is so much of it, and if it is so much of all that photos show:
# chance finds small cores amid much that might be metal as well, and small patches.
_MIN_CORE, _MIN_PATCH = 0.5, 0.01


def grown_patches(
    cores: Bool[Tensor, " n"],
    candidates: Bool[Tensor, " n"],
    weights: Float[Tensor, " n"],
    near: Int[Tensor, "n k"],
) -> Bool[Tensor, " n"]:
    """Let candidates join the cores beside them until none does; drop doubtful patches.

    Args:
        cores: What is surely metal.
        candidates: What is metal if what is around it is.
        weights: How much the photos show of each, not negative.
        near: Neighbours of each.

    Returns:
        The Gaussians of the patches that are left.
    """
    found = cores.clone()
    (waiting,) = torch.where(candidates & ~cores)
    beside = near[waiting]
    links = weights[beside]
    links = links / links.sum(1, keepdim=True).clamp_min(1e-8)
    joins = torch.ones_like(waiting, dtype=torch.bool)
    while bool(joins.any()):
        share = (links * found[beside]).sum(1)
        joins = (share > _MIN_SHARE) & ~found[waiting]
        found[waiting[joins]] = True
    patch, count = _patches(found, near)
    core = weights.new_zeros(count).index_add_(0, patch, weights * cores)
    whole = weights.new_zeros(count).index_add_(0, patch, weights * found)
    is_metal = (core > _MIN_CORE * whole) & (whole > _MIN_PATCH * weights.sum())
    return found & is_metal[patch]


def _patches(
    members: Bool[Tensor, " n"], near: Int[Tensor, "n k"]
) -> tuple[Int[Tensor, " n"], int]:
    """Each one's patch, and how many there are: members that are neighbours share one."""
    linked = (members[:, None] & members[near]).cpu().numpy()
    ends = np.nonzero(linked)[0], near.cpu().numpy()[linked]
    shape = (len(members), len(members))
    graph = coo_matrix((np.ones(len(ends[0]), bool), ends), shape=shape)
    count, patch = connected_components(graph, directed=False)
    return torch.from_numpy(patch).to(near), count
