"""What would a plane look like without the object that stands on it, given photos all around?"""

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
from splatir.scene.region import Plane

# Cells along an edge of the plate.
_SIZE = 160
# Steep views are hidden least by what stands on a plane: weights are this power of the sine.
_STEEPNESS = 3.0
# Fewer photos than this say nothing of a cell.
_MIN_PHOTOS = 3
# Passes of median over photos and of each photo's brightness over cells.
_PASSES = 3


@dataclass(frozen=True)
class Plate:
    """A square of a plane as photos show it, whatever stands on it taken away.

    Attributes:
        colours: Features of each cell, rows along `axes[0]`; the last is a logarithm of brightness.
        is_known: Cells that photos or their neighbours tell.
        axes: Two unit vectors in the plane, world frame.
        middle: Of the square, world frame.
        normal: Of the plane, unit.
        half_size: Half the edge of the square, scene units.
        log_gains: How much brighter than the plate each photo is.
    """

    colours: Float[Tensor, "size size features"]
    is_known: Bool[Tensor, "size size"]
    axes: Float[Tensor, "2 3"]
    middle: Float[Tensor, " 3"]
    normal: Float[Tensor, " 3"]
    half_size: float
    log_gains: Float[Tensor, " views"]

    def seen(
        self, camera: Camera, view_index: int
    ) -> tuple[Float[Tensor, "height width features"], Bool[Tensor, "height width"]]:
        """Features of the bare plane in each pixel of a view, and which pixels look at it.

        Args:
            camera: View, world frame.
            view_index: Of the photo, for its brightness.
        """
        directions = ray_directions(camera)
        origin = camera.position_world
        distance = ((self.middle - origin) @ self.normal) / (directions @ self.normal)
        offsets = origin + distance[..., None] * directions - self.middle
        along = offsets @ self.axes.mT / self.half_size
        hits = (distance > 0.0) & (along.abs() < 1.0).all(-1)
        stacked = torch.cat([self.colours, self.is_known[..., None].to(self.colours)], -1)
        grid = along.nan_to_num(0.0).flip(-1)[None]
        found = functional.grid_sample(
            stacked.permute(2, 0, 1)[None], grid, padding_mode="border", align_corners=False
        )
        found = found[0].permute(1, 2, 0)
        features = found[..., :-1].clone()
        features[..., -1] += self.log_gains[view_index]
        return features, hits & (found[..., -1] > 0.99)


def bare_plane(
    cameras: Sequence[Camera],
    features: Sequence[Float[Tensor, "height width features"]],
    hidden: Sequence[Bool[Tensor, "height width"]] | None,
    plane: Plane,
    footprint: tuple[Float[Tensor, " 3"], float],
    half_size: float,
) -> Plate:
    """The median over photos of what each shows of a plane.

    Args:
        cameras: Views, world frame.
        features: Of the photos' pixels; the last is a logarithm of brightness.
        hidden: Pixels of each that show the object instead, or None where that is not known.
        plane: Of a table, say.
        footprint: Centre (world frame) and radius of what is left to its surroundings: there, the
            object hides the plane from most photos. Radius 0 for none.
        half_size: Half the edge of the square about that centre, scene units.
    """
    normal = plane.normal
    middle = footprint[0] - (footprint[0] @ normal - plane.height) * normal
    helper = torch.eye(3)[int(normal.abs().argmin())]
    first = functional.normalize(torch.linalg.cross(normal, helper), dim=0)
    axes = torch.stack([first, torch.linalg.cross(normal, first)])
    ticks = ((torch.arange(_SIZE) + 0.5) / _SIZE * 2.0 - 1.0) * half_size
    cells = torch.cartesian_prod(ticks, ticks) @ axes + middle
    values, weights = [], []
    for index, (camera, picture) in enumerate(zip(cameras, features, strict=True)):
        value, weight = _cells_in_photo(
            camera, picture, None if hidden is None else hidden[index], cells, normal
        )
        values.append(value)
        weights.append(weight)
    value, weight = torch.stack(values), torch.stack(weights)
    colours, log_gains = _median_over_photos(value, weight)
    is_known = ((weight > 0.0).sum(0) >= _MIN_PHOTOS) & (
        (cells - middle).norm(dim=-1) >= footprint[1]
    )
    colours, known = _filled(colours.view(_SIZE, _SIZE, -1), is_known.view(_SIZE, _SIZE))
    return Plate(colours, known, axes, middle, normal, half_size, log_gains)


def _cells_in_photo(
    camera: Camera,
    picture: Float[Tensor, "h w f"],
    hidden: Bool[Tensor, "h w"] | None,
    cells: Float[Tensor, "n 3"],
    normal: Float[Tensor, " 3"],
) -> tuple[Float[Tensor, "n f"], Float[Tensor, " n"]]:
    """Features of the photo where each cell lies in it, and how far to trust them."""
    pixels, is_seen = pixels_of(camera, cells)
    size = torch.tensor([camera.width, camera.height])
    grid = (pixels / size * 2.0 - 1.0)[None, None]
    if hidden is not None:
        stacked = torch.cat([picture, hidden[..., None].to(picture)], -1)
    else:
        stacked = torch.cat([picture, torch.zeros_like(picture[..., :1])], -1)
    found = functional.grid_sample(
        stacked.permute(2, 0, 1)[None], grid, padding_mode="border", align_corners=False
    )[0, :, 0].mT
    steep = (functional.normalize(camera.position_world - cells, dim=-1) @ normal).clamp_min(0.0)
    return found[:, :-1], steep**_STEEPNESS * (is_seen & (found[:, -1] < 0.01))


def _median_over_photos(
    values: Float[Tensor, "views n f"], weights: Float[Tensor, "views n"]
) -> tuple[Float[Tensor, "n f"], Float[Tensor, " views"]]:
    """Weighted median of each cell, and the brightness of each photo against it."""
    log_gains = torch.zeros(len(values))
    median = values[0]
    for _ in range(_PASSES):
        even = values.clone()
        even[..., -1] -= log_gains[:, None]
        order = even.argsort(0)
        ordered = even.gather(0, order)
        mass = weights[..., None].expand_as(even).gather(0, order).cumsum(0)
        middle = (mass >= 0.5 * mass[-1:]).to(torch.uint8).argmax(0)
        median = ordered.gather(0, middle[None])[0]
        for index, weight in enumerate(weights):
            if bool((weight > 0.0).any()):
                error = (values[index, :, -1] - median[:, -1])[weight > 0.0]
                log_gains[index] = error.median()
    return median, log_gains


def _filled(
    colours: Float[Tensor, "size size f"], is_known: Bool[Tensor, "size size"]
) -> tuple[Float[Tensor, "size size f"], Bool[Tensor, "size size"]]:
    """Cells inside the known ones filled with a blur of them; cells beyond stay unknown."""
    known = is_known.numpy()
    if not known.any():
        return colours, is_known
    weight = known.astype(np.float32)
    values = np.where(known[..., None], colours.numpy(), 0.0)
    filled, done = colours.numpy().copy(), known.copy()
    sigma = 1.0
    while not done.all() and sigma < _SIZE:
        mass = ndimage.gaussian_filter(weight, sigma, mode="constant")
        near = (mass > 0.05) & ~done
        for channel in range(values.shape[-1]):
            smooth = ndimage.gaussian_filter(values[..., channel], sigma, mode="constant")
            filled[near, channel] = smooth[near] / mass[near]
        done |= near
        sigma *= 2.0
    inner = ndimage.binary_fill_holes(known)
    return torch.from_numpy(filled.astype(np.float32)), torch.from_numpy(inner)
