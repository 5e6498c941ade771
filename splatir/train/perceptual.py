"""LPIPS as a term of the loss: where does its network come from, and when may it be used?"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.data.dataset import Dataset
from splatir.evaluate.lpips import Unavailable, lpips_metric
from splatir.train.settings import TrainSettings

# Distance of two pictures, sRGB in [0, 1].
PictureDistance = Callable[[Tensor, Tensor], Tensor]

# Smallest side that both networks of LPIPS take.
_MIN_SIDE = 32


def picture_distance(
    settings: TrainSettings, dataset: Dataset, device: torch.device
) -> PictureDistance | None:
    """LPIPS on the training device; None where no loss weighs it, and then nothing is loaded.

    Args:
        settings: Weights and the file of the network.
        dataset: Its training views must be large enough, also at the coarse size.
        device: Of the training.

    Raises:
        ValueError: The network's files are not there or broken, or photos are too small.
        FileNotFoundError: The settings name a file that is not there.
    """
    if not settings.loss.lpips and not settings.material_loss.lpips:
        return None
    metric = lpips_metric(settings.lpips_weights)
    if isinstance(metric, Unavailable):
        raise ValueError(
            f"LPIPS is weighed in the loss, but cannot be computed: {metric.reason}. "
            "Or set --loss.lpips 0 --material-loss.lpips 0."
        )
    divisor = settings.schedule.coarse_factor if settings.schedule.coarse_until > 0 else 1
    side = min(min(v.camera.width, v.camera.height) for v in dataset.train) // divisor
    if side < _MIN_SIDE:
        raise ValueError(
            f"LPIPS needs pictures of at least {_MIN_SIDE} pixels a side, also at the coarse size; "
            f"the smallest here has {side}. Set --loss.lpips 0 --material-loss.lpips 0."
        )
    return metric.to(device)


def distance_term(
    distance: PictureDistance,
    shown_srgb: Float[Tensor, "height width 3"],
    photo_srgb: Float[Tensor, "height width 3"],
    weight: float,
) -> dict[str, Float[Tensor, ""]]:
    """The weighted term, if it has a weight; both pictures are clipped at white.

    Args:
        distance: As `picture_distance` gives it.
        shown_srgb: Rendered view over the background. Differentiable where not clipped.
        photo_srgb: What it should be.
        weight: Of the term.
    """
    if not weight:
        return {}
    value = distance(shown_srgb.clamp(0.0, 1.0), photo_srgb.clamp(0.0, 1.0))
    return {"lpips": weight * value}
