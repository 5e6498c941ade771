"""What did the cameras see of the light that comes from beyond the object?

A capture shows much of its own light: whatever is around the object. Matt surfaces tell only the
product of albedo and light; pixels beyond the object tell the light itself, in the photos' own
units, and so fix its scale, its tint and its structure where they look. Photos end at white: there
they say how bright the light is at least.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from splatir.data.images import Photo
from splatir.maths.colour import linear_from_srgb
from splatir.maths.safe import safe_normalise
from splatir.render.geometry import camera_rays, ray_directions
from splatir.scene.camera import Camera
from splatir.scene.lights import EnvironmentLight, environment_coordinates, texel_solid_angles

# Directions are counted on a grid so much finer than the map: a texel may be seen in part.
_FINENESS = 4
# Radiance relative to the mean of what was seen below which relative errors mean nothing.
_DARK = 0.02
# Relative spread of what a direction showed at which it counts half: things that are near show
# other sides of themselves to other cameras.
_HALF_SPREAD = 0.5
# Display value from which a channel counts as white.
_WHITE = 0.995

# Share of the sphere from which on what was seen decides the scale of the light.
ENOUGH_SEEN = 0.1


@dataclass(frozen=True)
class SeenPixels:
    """Pixels that show something beyond the object.

    Attributes:
        directions: Where from, as the object sees it; unit, world frame.
        radiance: Linear.
        is_white: Some channel ends at white: the radiance is that or more.
    """

    directions: Float[Tensor, "n 3"]
    radiance: Float[Tensor, "n 3"]
    is_white: Bool[Tensor, " n"]


@dataclass(frozen=True)
class NearSurroundings:
    """Where a photo's pixels lie that show something near.

    Attributes:
        centre: Of the object that the light falls on, world frame.
        depth: Camera z, scene units; 0 for what is far away.
    """

    centre: Float[Tensor, " 3"]
    depth: Float[Tensor, "h w 1"]


@dataclass(frozen=True)
class SeenLight:
    """An environment map with what is known of each texel.

    Attributes:
        radiance: Mean of what was seen, linear; 0 where nothing was.
        certainty: From 0 (nothing seen of the texel) to 1 (all of it, the same from everywhere).
        is_bound: Part of the texel is white in the photos: its radiance is that or more.
    """

    radiance: Float[Tensor, "h w 3"]
    certainty: Float[Tensor, "h w"]
    is_bound: Bool[Tensor, "h w"]

    @property
    def is_exact(self) -> Bool[Tensor, "h w"]:
        """Texels whose radiance is known: mostly seen, and below white."""
        return (self.certainty > 0.5) & ~self.is_bound

    @property
    def share(self) -> float:
        """Share of the sphere whose radiance is known."""
        height, width = self.certainty.shape
        angles = texel_solid_angles(height, width, self.certainty)[:, None]
        return float((angles * self.is_exact).sum()) / (4.0 * math.pi)

    @property
    def agreement(self) -> float:
        """Mean certainty over the sphere: higher where directions are right."""
        height, width = self.certainty.shape
        angles = texel_solid_angles(height, width, self.certainty)[:, None]
        return float((angles * self.certainty).sum()) / (4.0 * math.pi)

    def to(self, device: torch.device) -> "SeenLight":
        """The same on another device."""
        parts = (self.radiance, self.certainty, self.is_bound)
        return SeenLight(*(part.to(device) for part in parts))


@torch.no_grad()
def gather_seen_light(views: Iterable[SeenPixels], height: int) -> SeenLight:
    """Collect what views show of the light.

    Args:
        views: Pixels of each.
        height: Rows of the map; it has twice as many columns.
    """
    rows, columns = _FINENESS * height, 2 * _FINENESS * height
    # Radiance, its square, white, and count.
    sums = torch.zeros(rows * columns, 8, dtype=torch.float64)
    for view in views:
        u, v = environment_coordinates(view.directions)
        row = (v * rows).long().clamp(0, rows - 1)
        index = row * columns + (u * columns).long().clamp(0, columns - 1)
        ones = torch.ones_like(view.radiance[:, :1])
        parts = [view.radiance, view.radiance.square(), view.is_white[:, None].to(ones), ones]
        sums.index_add_(0, index.cpu(), torch.cat(parts, dim=-1).double().cpu())
    count = sums[:, 7:]
    mean, square, white = (sums[:, :7] / count.clamp_min(1.0)).split([3, 3, 1], dim=-1)
    spread = (square - mean.square()).clamp_min(0.0).mean(-1, keepdim=True).sqrt()
    relative = spread / mean.mean(-1, keepdim=True).clamp_min(1e-6)
    is_seen = (count > 0).double()
    # One look at a direction shows no spread; that is a look all the same.
    agreement = is_seen / (1.0 + (relative / _HALF_SPREAD).square())
    table = torch.cat([mean * is_seen, white * is_seen, is_seen, agreement], dim=-1)
    blocks = table.view(height, _FINENESS, 2 * height, _FINENESS, 6).mean(dim=(1, 3)).float()
    covered = blocks[..., 4]
    radiance = blocks[..., :3] / covered.clamp_min(1e-6)[..., None]
    return SeenLight(radiance, covered * blocks[..., 5], blocks[..., 3] > 0.02)


def seen_light_error(light: EnvironmentLight, seen: SeenLight) -> Float[Tensor, ""]:
    """Mean squared error of the logarithm of the light, weighted by certainty and solid angle.

    Where the photos are white, only light that is too dark is an error.

    Args:
        light: Map of the same size.
        seen: What is known of it.
    """
    height, width = seen.certainty.shape
    floor = _DARK * seen.radiance[seen.certainty > 0].mean().nan_to_num(1.0).clamp_min(1e-6)
    error = (light.radiance + floor).log() - (seen.radiance + floor).log()
    error = torch.where(seen.is_bound[..., None], error.clamp_max(0.0), error)
    angles = texel_solid_angles(height, width, like=light.radiance)[:, None]
    weights = angles * seen.certainty.square()
    return (weights[..., None] * error.square()).sum() / (3.0 * angles.sum() * width)


@torch.no_grad()
def pixels_beyond(
    camera: Camera,
    photo: Photo,
    is_beyond: Bool[Tensor, "h w"],
    white: float = 1.0,
    near: NearSurroundings | None = None,
) -> SeenPixels:
    """What a photo shows beyond the object.

    Args:
        camera: Of the photo, any device.
        photo: Pixels.
        is_beyond: Pixels that show nothing of the object.
        white: What white of the file is in it, if its exposure was taken out.
        near: Where that is, if it is not far away.
    """
    rgb = photo.rgb[is_beyond]
    is_srgb = photo.encoding == "srgb"
    linear = linear_from_srgb(rgb) if is_srgb else rgb
    is_white = (rgb.amax(-1) >= _WHITE * white) & is_srgb
    camera = camera.to("cpu")
    directions = ray_directions(camera)
    if near is not None:
        rays = camera_rays(camera) @ camera.T_camera_world[:3, :3]
        towards = camera.position_world - near.centre + near.depth * rays
        directions = torch.where(near.depth > 0.0, safe_normalise(towards), directions)
    return SeenPixels(directions[is_beyond], linear, is_white)
