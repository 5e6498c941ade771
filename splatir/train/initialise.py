"""Which points a training starts from, given what the capture has."""

import torch

from splatir.data.cache import PhotoSource
from splatir.data.dataset import Dataset
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.hull import visual_hull_points
from splatir.scene.initialise import (
    SeedPoints,
    model_from_points,
    random_points,
    surrounding_points,
)
from splatir.train.settings import TrainSettings

# Sparse points below this number cover too little of a scene to start from alone.
_ENOUGH_POINTS = 500
# Views that carve the hull; more hardly change it and each costs a decoded photo.
_HULL_VIEWS = 60


def initial_model(dataset: Dataset, photos: PhotoSource, settings: TrainSettings) -> GaussianModel:
    """Gaussians on the visual hull (where photos have alpha) and on the sparse points.

    A real background gets some all around the sparse points. With neither hull nor points, they
    fill the space that the cameras have in common.

    Args:
        dataset: Capture.
        photos: Pixels of the training views, in their order.
        settings: Number of points, primitive, seed.
    """
    parts = []
    if not dataset.has_background:
        hull = _hull(dataset, photos, settings)
        if hull is not None:
            parts.append(hull)
    if dataset.points is not None and len(dataset.points.positions):
        positions, colours = dataset.points.positions, dataset.points.colours_srgb
        placed = torch.zeros(len(positions), dtype=torch.bool)
        parts.append(SeedPoints(positions, colours, torch.zeros_like(positions), placed))
    cameras = [view.camera for view in dataset.train]
    if dataset.has_background and parts:
        parts.append(surrounding_points(cameras, settings.init.num_surroundings, settings.seed))
    if sum(len(part.positions) for part in parts) < _ENOUGH_POINTS:
        parts.append(random_points(cameras, settings.init.num_points, settings.seed))
    merged = SeedPoints(
        torch.cat([part.positions for part in parts]),
        torch.cat([part.colours_srgb for part in parts]),
        torch.cat([part.normals for part in parts]),
        torch.cat([part.is_surrounding for part in parts]),
    )
    return model_from_points(merged, settings.primitive, settings.init, settings.seed)


def _hull(dataset: Dataset, photos: PhotoSource, settings: TrainSettings) -> SeedPoints | None:
    stride = -(-len(dataset.train) // _HULL_VIEWS)
    cameras: list[Camera] = []
    alphas = []
    for index in range(0, len(dataset.train), stride):
        alpha = photos[index].alpha
        if alpha is not None:
            cameras.append(dataset.train[index].camera)
            alphas.append(alpha)
    if len(cameras) < 3:
        return None
    return visual_hull_points(cameras, alphas, settings.init.num_points, settings.seed)
