"""Which side of each Gaussian is the outside of the surface?"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.rotations import quat_from_normal, quat_multiply, rotation_from_quat
from splatir.maths.safe import safe_normalise
from splatir.maths.spherical_harmonics import spread_directions
from splatir.raster.contract import RasterBackend
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel, Gaussians
from splatir.scene.normals import normal_axes, normal_axis_indices

# Views that vote and their longer side: what is seen at all is seen in some of these.
_MAX_VIEWS = 48
_MAX_SIZE = 256
# Cameras all around the model, the weight of their votes, and their distance in its radii.
_NUM_SURROUNDING = 32
_SURROUNDING_WEIGHT = 0.1
_SURROUNDING_DISTANCE = 3.0


def orient_outwards(
    model: GaussianModel, cameras: Sequence[Camera], rasterizer: RasterBackend
) -> GaussianModel:
    """Turn each Gaussian's normal axis to the side from which cameras see it; pictures stay.

    A Gaussian is symmetric, so half a turn about another of its axes changes the normal's sign
    alone. Each camera votes with the Gaussian's share of its image times the cosine to the normal.
    Cameras all around the model vote too, with a tenth of the weight: they decide what photographs
    see through gaps only. What none sees looks to the mean place of the photographs' cameras.

    Args:
        model: Any.
        cameras: World frame, at least one: those of the photographs. At most 48 of them vote.
        rasterizer: Decides what hides what.

    Raises:
        ValueError: No cameras.
    """
    if not cameras:
        raise ValueError("outward normals need cameras; none were given.")
    gaussians = model.gaussians.detach()
    votes = _votes(gaussians, cameras[:: -(-len(cameras) // _MAX_VIEWS)], rasterizer)
    votes += _SURROUNDING_WEIGHT * _votes(gaussians, surrounding_cameras(model), rasterizer)
    places = torch.stack([camera.position_world for camera in cameras])
    votes = torch.where(votes == 0.0, _cosine(gaussians, places.mean(0)), votes)
    params = {key: value.detach().clone() for key, value in model.params.items()}
    turned = _half_turned(params["quats"], gaussians)
    params["quats"] = torch.where((votes < 0.0)[:, None], turned, params["quats"])
    return GaussianModel(params, model.primitive)


def _votes(
    gaussians: Gaussians, cameras: Sequence[Camera], rasterizer: RasterBackend
) -> Float[Tensor, " n"]:
    """Parts of images that show the front of each normal less those of its back, by cosine."""
    votes = torch.zeros_like(gaussians.opacities)
    for camera in cameras:
        small = _shrunk(camera).to(votes.device)
        votes += _share(gaussians, small, rasterizer) * _cosine(gaussians, small.position_world)
    return votes


def surrounding_cameras(model: GaussianModel) -> list[Camera]:
    """Cameras all around a model that look at it.

    Args:
        model: Of an object; the walls of a room they see from outside.
    """
    means = model.means.detach().double().cpu()
    centre, radius = means.new_zeros(3), 1.0
    if len(means):
        centre = means.median(0).values
        distances = (means - centre).norm(dim=-1)
        radius = float(distances.kthvalue(math.ceil(0.95 * len(means))).values)
    distance = _SURROUNDING_DISTANCE * max(radius, 1e-6)
    focal = 0.5 * _MAX_SIZE * math.sqrt(_SURROUNDING_DISTANCE**2 - 1.0)
    K = torch.tensor([[focal, 0, _MAX_SIZE / 2], [0, focal, _MAX_SIZE / 2], [0, 0, 1]])
    cameras = []
    for R_world_camera in rotation_from_quat(quat_from_normal(spread_directions(_NUM_SURROUNDING))):
        T = torch.eye(4, dtype=torch.float64)
        T[:3, :3] = R_world_camera.mT
        T[:3, 3] = -R_world_camera.mT @ centre
        T[2, 3] += distance
        cameras.append(Camera(K, T.float(), _MAX_SIZE, _MAX_SIZE))
    return cameras


def _shrunk(camera: Camera) -> Camera:
    factor = min(1.0, _MAX_SIZE / max(camera.width, camera.height))
    width, height = round(camera.width * factor), round(camera.height * factor)
    return camera.resized(max(1, width), max(1, height))


def _share(gaussians: Gaussians, camera: Camera, rasterizer: RasterBackend) -> Float[Tensor, " n"]:
    """Part of an image that each Gaussian makes up: the mean of its compositing weights."""
    ones = torch.ones_like(gaussians.means[:, :1]).requires_grad_()
    with torch.enable_grad():
        image = rasterizer.rasterize(gaussians, camera, ones).features
        (weights,) = torch.autograd.grad(image.mean(), ones)
    return weights[:, 0]


def _cosine(gaussians: Gaussians, place: Float[Tensor, " 3"]) -> Float[Tensor, " n"]:
    towards = safe_normalise(place.to(gaussians.means) - gaussians.means)
    return (towards * normal_axes(gaussians)).sum(-1)


def _half_turned(quats: Float[Tensor, "n 4"], gaussians: Gaussians) -> Float[Tensor, "n 4"]:
    """Quaternions after half a turn about an axis that is not the normal's."""
    other = (normal_axis_indices(gaussians) + 1) % 3
    half_turns = torch.nn.functional.one_hot(other + 1, 4).to(quats)
    return quat_multiply(quats, half_turns)
