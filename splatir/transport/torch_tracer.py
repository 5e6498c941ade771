"""Which Gaussian does a ray hit first, on machines without Embree and on GPUs? In plain torch.

Triangles lie in leaves along a space-filling curve, eight neighbours under a box, eight boxes under
a larger one. Pairs of a ray and a box go down level by level; what is too much at once goes down in
pieces, so that memory is bounded.
"""

import functools
import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from splatir.transport.occluder import Occluder
from splatir.transport.tracing import FREE, EmbreeTracer, RayTracer, middle_of

# Triangles of a leaf, and boxes under a larger one.
_LEAF, _BRANCHES = 6, 8
# Pairs of rays and boxes handled at once: each takes about 2 kB.
_MAX_PAIRS = 1 << 15
# Boxes grow by this, more than rounding moves a ray; the scene's largest coordinate is 1.
_MARGIN = 1e-6
# Components of directions are at least so large, so that their inverse is finite.
_MIN_COMPONENT = 1e-12
# Numbers of rows in a triangle's matrix: normal and the two edges' coordinates.
_ROWS = 3


def tracer_for(occluder: Occluder) -> RayTracer:
    """The tracer for where an occluder lies: Embree on the CPU, torch on other devices.

    Where embreex is not installed, torch is used on the CPU too, with one warning.

    Args:
        occluder: Polygons of the Gaussians.
    """
    if occluder.centres.device.type != "cpu":
        return TorchTracer(occluder)
    try:
        return EmbreeTracer(occluder)
    except ImportError:
        _warn_of_missing_embree()
        return TorchTracer(occluder)


@functools.cache
def _warn_of_missing_embree() -> None:
    warnings.warn(
        "embreex is not installed: rays are traced in torch, tens of times slower. "
        "Install it where there are wheels for it (x86-64): pip install embreex",
        stacklevel=4,
    )


@dataclass(frozen=True)
class _Rays:
    """Rays in a scene from -1 to 1, and the nearest hits found so far."""

    origins: Float[Tensor, "r 3"]
    directions: Float[Tensor, "r 3"]
    inverse: Float[Tensor, "r 3"]
    back_reach: Float[Tensor, " r"]
    distance: Float[Tensor, " r"]
    hits: Int[Tensor, " r"]


class TorchTracer:
    """Rays against triangles, on the device of the occluder; the same hits on every run."""

    def __init__(self, occluder: Occluder) -> None:
        """Sort the triangles and build the boxes about them.

        Args:
            occluder: Stays where it is.
        """
        self._middle = middle_of(occluder)
        corners = (occluder.vertices.float() - self._middle)[occluder.faces]
        tiny = torch.finfo(corners.dtype).tiny
        size = corners.abs().amax().clamp_min(tiny) if len(corners) else corners.new_ones(())
        self._scale = 1.0 / size
        corners = corners * self._scale
        order = _morton_order(corners.mean(1))
        corners, self._owners = corners[order], occluder.owners[order].long()
        normals = occluder.normals[self._owners].float()
        self._triangles = _in_leaves(_triangle_matrices(corners, normals))
        self._levels = _box_levels(corners)

    @torch.no_grad()
    def first_hits(
        self,
        origins: Float[Tensor, "r 3"],
        directions: Float[Tensor, "r 3"],
        back_reach: Float[Tensor, " r"],
        reach: Float[Tensor, " r"] | None = None,
    ) -> Int[Tensor, " r"]:
        """See `RayTracer.first_hits`; rays are brought to the occluder's device and back."""
        device = self._middle.device
        hits = torch.full((len(origins),), FREE, dtype=torch.int32, device=device)
        if len(self._owners):
            for start in range(0, len(origins), _MAX_PAIRS):
                part = slice(start, start + _MAX_PAIRS)
                far = None if reach is None else reach[part]
                rays = self._rays(origins[part], directions[part], back_reach[part], far)
                everyone = torch.arange(len(rays.hits), device=device)
                self._descend(rays, len(self._levels) - 1, everyone, torch.zeros_like(everyone))
                hits[part] = rays.hits.to(torch.int32)
        return hits.to(origins.device)

    def _rays(
        self, origins: Tensor, directions: Tensor, back_reach: Tensor, reach: Tensor | None
    ) -> _Rays:
        towards = directions.to(self._middle)
        tiny = torch.full_like(towards, _MIN_COMPONENT)
        far = torch.full_like(towards[:, 0], torch.inf)
        return _Rays(
            (origins.to(self._middle) - self._middle) * self._scale,
            towards,
            torch.where(towards.abs() < _MIN_COMPONENT, tiny, towards).reciprocal(),
            back_reach.to(self._middle) * self._scale,
            far if reach is None else reach.to(self._middle) * self._scale,
            torch.full_like(far, FREE, dtype=torch.long),
        )

    def _descend(
        self, rays: _Rays, level: int, which: Int[Tensor, " p"], groups: Int[Tensor, " p"]
    ) -> None:
        """Follow pairs of a ray and a group of boxes of a level down to the triangles."""
        for start in range(0, len(which), _MAX_PAIRS):
            part = slice(start, start + _MAX_PAIRS)
            low, high = self._levels[level]
            meets = _meets(rays, which[part], low[groups[part]], high[groups[part]])
            pair, child = meets.nonzero().unbind(-1)
            met = which[part][pair], groups[part][pair] * _BRANCHES + child
            if level:
                self._descend(rays, level - 1, *met)
            else:
                self._hit(rays, *met)

    def _hit(self, rays: _Rays, which: Int[Tensor, " p"], leaves: Int[Tensor, " p"]) -> None:
        """Shorten rays to the nearest triangles of some leaves."""
        for start in range(0, len(which), _MAX_PAIRS):
            part = which[start : start + _MAX_PAIRS]
            own = leaves[start : start + _MAX_PAIRS]
            origins, towards = rays.origins[part], rays.directions[part]
            # Homogeneous points and directions, by the rows of each triangle.
            ends = torch.stack([_with_last(origins, 1.0), _with_last(towards, 0.0)], dim=1)
            from_origin, along = (
                (ends @ self._triangles[own]).unflatten(-1, (_ROWS, _LEAF)).unbind(1)
            )
            distance = -from_origin[:, 0] / along[:, 0]
            u, v = (from_origin[:, 1:] + distance[:, None] * along[:, 1:]).unbind(1)
            is_near_back = (along[:, 0] > 0.0) & (distance < rays.back_reach[part, None])
            counts = (u >= 0.0) & (v >= 0.0) & (u + v <= 1.0) & (distance >= 0.0)
            counts &= (distance < rays.distance[part, None]) & ~is_near_back
            pair, triangle = counts.nonzero().unbind(-1)
            self._keep_nearest(
                rays, part[pair], distance[pair, triangle], own[pair] * _LEAF + triangle
            )

    def _keep_nearest(
        self,
        rays: _Rays,
        which: Int[Tensor, " h"],
        distance: Float[Tensor, " h"],
        triangles: Int[Tensor, " h"],
    ) -> None:
        """Enter hits nearer than what rays have; of equal ones that with the smallest owner."""
        rays.distance.scatter_reduce_(0, which, distance, "amin")
        is_nearest = distance == rays.distance[which]
        which, owners = which[is_nearest], self._owners[triangles[is_nearest]]
        rays.hits[which] = torch.iinfo(torch.long).max
        rays.hits.scatter_reduce_(0, which, owners, "amin")


def _with_last(vectors: Float[Tensor, "p 3"], last: float) -> Float[Tensor, "p 4"]:
    return torch.nn.functional.pad(vectors, (0, 1), value=last)


def _meets(
    rays: _Rays, which: Int[Tensor, " p"], low: Float[Tensor, "p b 3"], high: Float[Tensor, "p b 3"]
) -> Bool[Tensor, "p b"]:
    """Whether rays meet boxes before what they have hit: slabs, Kay and Kajiya 1986."""
    origins, inverse = rays.origins[which, None], rays.inverse[which, None]
    a, b = (low - origins) * inverse, (high - origins) * inverse
    enter = torch.minimum(a, b).amax(-1).clamp_min(0.0)
    leave = torch.maximum(a, b).amin(-1)
    return (enter <= leave) & (enter <= rays.distance[which, None])


def _triangle_matrices(
    corners: Float[Tensor, "f 3 3"], outwards: Float[Tensor, "f 3"]
) -> Float[Tensor, "f 4 rows"]:
    """Columns that take (x, 1) to the height over a triangle and to its two coordinates.

    Triangles without area get NaN, which nothing hits.
    """
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normals = torch.linalg.cross(first, second)
    squared = normals.square().sum(-1, keepdim=True)
    sign = torch.where((normals * outwards).sum(-1, keepdim=True) < 0.0, -1.0, 1.0)
    slopes = torch.stack(
        [
            sign * normals * squared.rsqrt(),
            torch.linalg.cross(second, normals) / squared,
            torch.linalg.cross(normals, first) / squared,
        ],
        dim=-1,
    )
    offsets = -(corners[:, 0, None] @ slopes)
    return torch.cat([slopes, offsets], dim=1)


def _in_leaves(triangles: Float[Tensor, "f 4 rows"]) -> Float[Tensor, "leaves 4 columns"]:
    """Matrices of the triangles of a leaf side by side, all of one row together."""
    padding = -len(triangles) % _LEAF
    filled = torch.cat([triangles, triangles.new_full((padding, 4, _ROWS), torch.nan)])
    return filled.unflatten(0, (-1, _LEAF)).permute(0, 2, 3, 1).flatten(2)


def _box_levels(
    corners: Float[Tensor, "f 3 3"],
) -> list[tuple[Float[Tensor, "groups b 3"], Float[Tensor, "groups b 3"]]]:
    """Boxes in groups of eight, of leaves first; the last level has one group."""
    low, high = _grouped(corners.amin(1) - _MARGIN, corners.amax(1) + _MARGIN, _LEAF)
    levels = []
    while not levels or len(low) > 1:
        low, high = _grouped(low.amin(1), high.amax(1), _BRANCHES)
        # No ray is found to meet a box of NaN.
        is_empty = low > high
        levels.append((low.masked_fill(is_empty, torch.nan), high.masked_fill(is_empty, torch.nan)))
    return levels


def _grouped(
    low: Float[Tensor, "f 3"], high: Float[Tensor, "f 3"], size: int
) -> tuple[Float[Tensor, "groups size 3"], Float[Tensor, "groups size 3"]]:
    """Boxes in groups; the last is filled with boxes that contain nothing."""
    empty = low.new_full((-len(low) % size, 3), torch.inf)
    low, high = torch.cat([low, empty]), torch.cat([high, -empty])
    return low.unflatten(0, (-1, size)), high.unflatten(0, (-1, size))


def _morton_order(points: Float[Tensor, "f 3"]) -> Int[Tensor, " f"]:
    """Order along Morton's curve through a grid of 2^20 cells to the side."""
    if not len(points):
        return torch.zeros(0, dtype=torch.long, device=points.device)
    low = points.amin(0)
    side = (points.amax(0) - low).amax().clamp_min(torch.finfo(points.dtype).tiny)
    cells = ((points - low) / side * (2**20 - 1)).long()
    codes = torch.zeros_like(cells[:, 0])
    for bit in range(20):
        for axis in range(3):
            codes |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return codes.argsort(stable=True)
