"""Where is an object, by what masks in many photos have in common, and where would it be seen?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from splatir.render.geometry import pixels_of, ray_directions
from splatir.scene.camera import Camera
from splatir.scene.hull import is_seen_enough
from splatir.scene.region import Region

# Voxels along an edge, samples along a ray through them, pixels of a silhouette along a ray's.
_SIZE, _SAMPLES, _STRIDE = 80, 64, 2
# This share of a voxel's views must have it in their mask: some masks lack a part, and others hold
# what lies behind.
_SHARE = 0.88
# Over this much of the share, occupancy goes from 0 to 1.
_SOFTNESS = 0.2


@dataclass(frozen=True)
class Occupancy:
    """A cube of voxels around a region.

    Attributes:
        values: In [0, 1], half on the surface.
        region: Whose sphere the cube encloses.
    """

    values: Float[Tensor, "size size size"]
    region: Region

    def at(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        """Occupancy of points, world frame; 0 outside the cube."""
        inner = (points - self.region.centre) / self.region.radius
        grid = inner.flip(-1).reshape(1, 1, 1, -1, 3)
        volume = self.values[None, None]
        found = functional.grid_sample(volume, grid, align_corners=False)
        return found.view(points.shape[:-1])

    def silhouette(self, camera: Camera) -> Float[Tensor, "height width"]:
        """The largest occupancy along each pixel's ray, at half the resolution."""
        small = camera.resized(-(-camera.width // _STRIDE), -(-camera.height // _STRIDE))
        directions = ray_directions(small)
        near, far = sphere_span(small, directions, self.region)
        hits = far > near
        steps = (torch.arange(_SAMPLES) + 0.5) / _SAMPLES
        distances = near[hits, None] + (far - near)[hits, None] * steps
        points = camera.position_world + distances[..., None] * directions[hits][:, None]
        largest = torch.zeros(small.height, small.width)
        largest[hits] = self.at(points).amax(-1)
        size = (camera.height, camera.width)
        return functional.interpolate(largest[None, None], size, mode="bilinear")[0, 0]


def common_occupancy(
    cameras: Sequence[Camera], masks: Sequence[Float[Tensor, "height width"]], region: Region
) -> Occupancy:
    """The largest connected shape that most masks agree about.

    A visual hull that forgives: one mask that lacks a part does not carve it away.

    Args:
        cameras: Views, world frame.
        masks: Of each in [0, 1]; views do not vote about what they do not show.
        region: Outside of it nothing is occupied.
    """
    ticks = (torch.arange(_SIZE) + 0.5) / _SIZE * 2.0 - 1.0
    voxels = torch.cartesian_prod(ticks, ticks, ticks) * region.radius + region.centre
    votes, views = torch.zeros(len(voxels)), torch.zeros(len(voxels), dtype=torch.int32)
    for camera, mask in zip(cameras, masks, strict=True):
        pixels, is_seen = pixels_of(camera, voxels)
        size = torch.tensor([camera.width, camera.height])
        grid = (pixels / size * 2.0 - 1.0)[None, None]
        vote = functional.grid_sample(
            mask[None, None], grid, padding_mode="border", align_corners=False
        )
        votes += is_seen * vote[0, 0, 0]
        views += is_seen
    share = votes / views.clamp_min(1)
    views = torch.where(region.contains(voxels), views, 0)
    inside = is_seen_enough(views, len(cameras))
    values = (((share - _SHARE) / _SOFTNESS + 0.5).clamp(0.0, 1.0) * inside).view((_SIZE,) * 3)
    labels = np.empty(values.shape, np.int32)
    ndimage.label((values >= 0.5).numpy(), output=labels)
    parts = torch.from_numpy(labels)
    if int(parts.max()) > 1:
        largest = int(torch.bincount(parts.flatten())[1:].argmax()) + 1
        values = torch.where(parts == largest, values, values.clamp_max(0.49))
    return Occupancy(values, region)


def may_show(camera: Camera, region: Region) -> Bool[Tensor, "height width"]:
    """Pixels whose rays pass through a region's sphere above its support.

    Args:
        camera: View, world frame.
        region: A box counts as the sphere around it.
    """
    directions = ray_directions(camera)
    near, far = sphere_span(camera, directions, region)
    hits = far > near
    if region.support is not None:
        normal = region.support.normal
        height = camera.position_world @ normal - region.support.height
        slope = directions @ normal
        hits &= torch.maximum(height + near * slope, height + far * slope) > 0.0
    return hits


def sphere_span(
    camera: Camera, directions: Float[Tensor, "*size 3"], region: Region
) -> tuple[Float[Tensor, "*size"], Float[Tensor, "*size"]]:
    """Distances at which rays enter and leave a region's sphere; equal where they miss it.

    Args:
        camera: View, world frame.
        directions: Of its rays, unit.
        region: A box counts as the sphere around it.
    """
    offset = camera.position_world - region.centre
    along = (directions * offset).sum(-1)
    squared = along.square() - offset.square().sum() + region.radius**2
    half = squared.clamp_min(0.0).sqrt()
    return (-along - half).clamp_min(0.0), (-along + half).clamp_min(0.0)
