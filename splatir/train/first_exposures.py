"""With which exposure does each photo start, before training learns it?"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.data.dataset import View


def first_log_gains(views: Sequence[View]) -> Float[Tensor, "views 3"]:
    """Log gains of linear light as the camera noted them, mean 0; those that noted nothing get 0.

    Args:
        views: Training views, at least one.
    """
    noted = [None if v.exposure is None else math.log(v.exposure) for v in views]
    known = [value for value in noted if value is not None]
    mean = sum(known) / max(len(known), 1)
    gains = torch.tensor([0.0 if value is None else value - mean for value in noted])
    return gains[:, None].repeat(1, 3)
