"""How differently were the photos exposed, judged by the object that all of them show?"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from splatir.data.images import Photo
from splatir.optim.metal_evidence import collect_sightings
from splatir.optim.parameters import forget_moments
from splatir.raster.contract import RasterBackend
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.train.state import TrainState

# Gaussians that fill less of a photo than this many pixels say nothing of it.
_MIN_PIXELS = 0.5
# A photo that shows fewer of them keeps its gain.
_FEW = 50
# Colours darker than this are noise, linear.
_DARK = 5e-3
# Passes of each Gaussian's colour over photos and of each photo's gain over Gaussians.
_PASSES = 5
# Share of the Gaussians in so many photos that look the most alike in all of them: what is glossy
# is not among them.
_STEADY, _MANY = 0.25, 5


@torch.no_grad()
def object_log_gains(
    model: GaussianModel,
    cameras: Sequence[Camera],
    photo_of: Callable[[int], Photo],
    rasterizer: RasterBackend,
    before: Float[Tensor, "views 3"] | None = None,
) -> Float[Tensor, "views 3"]:
    """Log gains of linear light that make each Gaussian as bright in all photos, mean 0.

    The median over Gaussians of how far a photo is from their mean over photos: what changes with
    the view, as a highlight does, moves few of them. Then once more over those that change least.
    (Descent finds them less well: colours that depend on the view can look like gains that depend
    on where the camera stands.)

    Args:
        model: Gaussians of the object.
        cameras: Of the photos, on the model's device.
        photo_of: Photo of a view with the object's mask, by index.
        rasterizer: Backend.
        before: Kept for photos that show too little of the object; 0 if None.
    """
    with torch.enable_grad():
        sightings = collect_sightings(model, cameras, photo_of, rasterizer, len(cameras))
    is_seen = sightings.weights > _MIN_PIXELS
    # One look tells nothing of a difference.
    is_seen &= is_seen.sum(1, keepdim=True) > 1
    logs = sightings.colours.clamp_min(_DARK).log()
    gains = torch.zeros(len(cameras), 3) if before is None else before
    gains = _agreed(logs, is_seen, gains.to(logs))
    return _agreed(logs, is_seen & _is_steady(logs - gains, is_seen)[:, None], gains)


def _agreed(
    logs: Float[Tensor, "n views 3"],
    is_seen: Bool[Tensor, "n views"],
    gains: Float[Tensor, "views 3"],
) -> Float[Tensor, "views 3"]:
    """Gains and colours of Gaussians in turn, each as the others say."""
    gains, counts = gains.clone(), is_seen.sum(1, keepdim=True).clamp_min(1)
    for _ in range(_PASSES):
        mean = ((logs - gains) * is_seen[..., None]).sum(1) / counts
        errors = logs - mean[:, None]
        for index in range(len(gains)):
            seen = errors[is_seen[:, index], index]
            if len(seen) >= _FEW:
                gains[index] = seen.median(0).values
        gains -= gains.mean(0)
    return gains


def _is_steady(
    logs: Float[Tensor, "n views 3"], is_seen: Bool[Tensor, "n views"]
) -> Bool[Tensor, " n"]:
    """Those of the Gaussians in many photos whose colour changes least from photo to photo."""
    counts = is_seen.sum(1, keepdim=True).clamp_min(1)
    weights = is_seen[..., None] / counts[..., None]
    variance = (weights * logs.square()).sum(1) - (weights * logs).sum(1).square()
    largest = variance.amax(-1)
    is_known = counts[:, 0] >= _MANY
    if not bool(is_known.any()):
        return is_known
    return is_known & (largest <= largest[is_known].quantile(_STEADY))


def judge_exposures(
    state: TrainState,
    cameras: Sequence[Camera],
    photo_of: Callable[[int], Photo],
    rasterizer: RasterBackend,
) -> None:
    """Take the gains of a training's photos from its Gaussians, in place of what descent found.

    Args:
        state: With exposures; changed in place.
        cameras: As refined, on the training device.
        photo_of: Photo of a view with the object's mask, by index.
        rasterizer: Backend.
    """
    assert state.exposures is not None
    found = object_log_gains(
        state.model, cameras, photo_of, rasterizer, before=state.exposures.detach()
    )
    state.exposures.data.copy_(found)
    forget_moments(state.optimizer, ["exposures"])
