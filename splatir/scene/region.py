"""Which part of a capture is the object, and which is what stands around it?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from splatir.maths.frames import invert_similarity, transform_points
from splatir.scene.camera import Camera
from splatir.scene.focus import common_sphere

# Sparse points count for the object within so many radii of what all cameras see.
_SEARCH_RADII = 2.0
# The sphere holds this share of them, and is larger by this factor than they need.
_POINT_SHARE, _MARGIN = 0.98, 1.3
# The object's sphere stays this part of the distance away from most cameras.
_MAX_DISTANCE_SHARE = 0.6
# Fewer points than this say nothing of its size.
_FEW_POINTS = 50
# The sphere grows by this factor while the shell beyond holds more surface than this share of its
# own area: what leaves the pictures has few points.
_GROWTH, _EMPTY = 1.15, 0.01
# A support is looked for up to so many radii, and must go on beyond the sphere in so many of 16
# sectors around it.
_SUPPORT_REACH, _NUM_SECTORS, _MIN_SECTORS = 1.6, 16, 9
# Planes that are tried; their half thickness, and what is cut off above them, in radii.
_TRIALS, _THICKNESS, _CUT = 1000, 0.04, 0.04
_REFINEMENTS = 10
# Less of what surrounds the sphere in its plane than this is no support.
_MIN_PLANE = 0.3
# Smallest z of a support's normal: tables are level once captures are turned upright.
_MIN_UPRIGHT = 0.9


@dataclass(frozen=True)
class Plane:
    """A plane; what is above it is where its normal points.

    Attributes:
        normal: Unit, world frame.
        height: Of the plane along its normal, scene units.
    """

    normal: Float[Tensor, " 3"]
    height: float

    def heights(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Signed distances of points, positive above."""
        return points @ self.normal.to(points) - self.height


@dataclass(frozen=True)
class Region:
    """A sphere or a box, perhaps cut by the plane that the object stands on.

    Attributes:
        centre: World frame.
        half_size: Radius of a sphere, or half the edges of a box along `axes`.
        axes: Unit rows, the box's axes in the world frame; None for a sphere.
        support: Only what is above it belongs to the region, or None.
        clearance: By how much above it, scene units: Gaussians of a table are not exactly in it.
    """

    centre: Float[Tensor, " 3"]
    half_size: Float[Tensor, " 3"]
    axes: Float[Tensor, "3 3"] | None = None
    support: Plane | None = None
    clearance: float = 0.0

    @classmethod
    def sphere(cls, centre: Float[Tensor, " 3"], radius: float) -> "Region":
        """A sphere, world frame."""
        return cls(centre, torch.full((3,), radius))

    def enlarged(self, factor: float) -> "Region":
        """The region with its sphere or box larger by a factor; its support stays."""
        return replace(self, half_size=factor * self.half_size)

    @property
    def radius(self) -> float:
        """Of the sphere, or of the one around the box."""
        if self.axes is None:
            return float(self.half_size[0])
        return float(self.half_size.norm())

    def contains(self, points: Float[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
        """Which points belong to the region.

        Args:
            points: World frame.
        """
        offsets = points - self.centre.to(points)
        if self.axes is None:
            inside = offsets.norm(dim=-1) <= self.radius
        else:
            inside = ((offsets @ self.axes.to(points).mT).abs() <= self.half_size.to(points)).all(
                -1
            )
        if self.support is None:
            return inside
        return inside & (self.support.heights(points) > self.clearance)


def parse_region(text: str, S_world_input: Float[Tensor, "4 4"]) -> Region:
    """A region as the user gives it, in the capture's own frame.

    Args:
        text: "x,y,z,radius" of a sphere, or "x0,y0,z0,x1,y1,z1", two corners of a box.
        S_world_input: From the capture's frame to the world.

    Raises:
        ValueError: Neither, or of no size.
    """
    wanted = (
        f'--roi takes "x,y,z,radius" (a sphere) or "x0,y0,z0,x1,y1,z1" (two corners of a box), in '
        f"the capture's own frame; got {text!r}."
    )
    try:
        numbers = torch.tensor([float(part) for part in text.split(",")], dtype=torch.float64)
    except ValueError:
        raise ValueError(wanted) from None
    if len(numbers) not in (4, 6) or not bool(numbers.isfinite().all()):
        raise ValueError(wanted)
    S = S_world_input.double()
    scale = float(S[:3, :3].det()) ** (1.0 / 3.0)
    if len(numbers) == 4:
        radius = float(numbers[3])
        if radius <= 0.0:
            raise ValueError(f"--roi needs a radius above 0, got {radius}.")
        centre = transform_points(S, numbers[None, :3])[0]
        return Region.sphere(centre.float(), scale * radius)
    low, high = torch.minimum(numbers[:3], numbers[3:]), torch.maximum(numbers[:3], numbers[3:])
    if bool((low == high).any()):
        raise ValueError(f"--roi needs a box with three edges above 0, got {text!r}.")
    centre = transform_points(S, (0.5 * (low + high))[None])[0]
    # Rows of the rotation's transpose: the input's axes in the world.
    axes = (S[:3, :3] / scale).mT
    return Region(centre.float(), (0.5 * scale * (high - low)).float(), axes.float())


def describe_region(region: Region, S_world_input: Float[Tensor, "4 4"]) -> str:
    """The sphere around a region in the capture's own frame, as `--roi` takes it."""
    S = invert_similarity(S_world_input.double())
    centre = transform_points(S, region.centre.double()[None])[0]
    radius = region.radius * float(S[:3, :3].det()) ** (1.0 / 3.0)
    return ",".join(f"{value:.4g}" for value in (*centre.tolist(), radius))


def find_region(
    cameras: Sequence[Camera],
    points: Float[Tensor, "n 3"] | None,
    surface: Float[Tensor, "m 3"],
    weights: Float[Tensor, " m"],
    seed: int,
) -> Region:
    """The object that the cameras look at, without what it stands on.

    Args:
        cameras: Views, world frame.
        points: Sparse points, or None.
        surface: Points on the surfaces of the whole capture, such as trained Gaussians.
        weights: Area that each stands for.
        seed: For the planes that are tried.
    """
    focus, common = common_sphere(cameras)
    far = torch.stack([camera.position_world for camera in cameras]) - focus
    limit = _MAX_DISTANCE_SHARE * float(far.norm(dim=-1).quantile(0.1))
    if points is None or len(points) < _FEW_POINTS:
        points = surface
    near = points[(points - focus).norm(dim=-1) < _SEARCH_RADII * common]
    whole = _sphere_about(near, focus, common, limit)
    support = _find_support(whole, surface, weights, seed)
    if support is None:
        return _grown(whole, surface, weights, limit)
    # What is above a table was in the middle of the pictures: its points tell its size.
    clearance = _CUT * whole.radius
    upper = _sphere_about(near[support.heights(near) > clearance], focus, common, limit)
    return replace(upper, support=support, clearance=clearance)


def _sphere_about(
    points: Float[Tensor, "n 3"], focus: Float[Tensor, " 3"], common: float, limit: float
) -> Region:
    """A sphere that holds most of the points."""
    if len(points) < _FEW_POINTS:
        return Region.sphere(focus, min(common, limit))
    low, high = points.quantile(1.0 - _POINT_SHARE, dim=0), points.quantile(_POINT_SHARE, dim=0)
    centre = 0.5 * (low + high)
    radius = _MARGIN * float((points - centre).norm(dim=-1).quantile(_POINT_SHARE))
    return Region.sphere(centre, min(radius, limit))


def _grown(
    region: Region, surface: Float[Tensor, "m 3"], weights: Float[Tensor, " m"], limit: float
) -> Region:
    """A sphere large enough that its rim lies in free space, or as large as may be."""
    distance = (surface - region.centre).norm(dim=-1)
    radius = region.radius
    while _GROWTH * radius < limit:
        is_shell = (distance > radius) & (distance < _GROWTH * radius)
        if float(weights[is_shell].sum()) < _EMPTY * 4.0 * math.pi * radius**2:
            break
        radius *= _GROWTH
    return Region.sphere(region.centre, radius)


def _find_support(
    sphere: Region, surface: Float[Tensor, "m 3"], weights: Float[Tensor, " m"], seed: int
) -> Plane | None:
    """The level plane that goes on all around the sphere, and of which most is near to it."""
    radius = sphere.radius
    offsets = surface - sphere.centre
    distance = offsets.norm(dim=-1)
    is_ring = (distance > radius) & (distance < _SUPPORT_REACH * radius)
    ring, mass = offsets[is_ring], weights[is_ring]
    if len(ring) < _FEW_POINTS or float(mass.sum()) <= 0.0:
        return None
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(mass, 3 * _TRIALS, replacement=True, generator=generator)
    a, b, c = ring[drawn].view(_TRIALS, 3, 3).unbind(1)
    normals = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
    normals = normals * normals[:, 2:].sign()
    heights = (normals * a).sum(-1)
    # The object stands on it: it passes through the sphere below its middle.
    is_level = (normals[:, 2] > _MIN_UPRIGHT) & (heights < 0.3 * radius) & (heights > -radius)
    if not bool(is_level.any()):
        return None
    normals, heights = normals[is_level], heights[is_level]
    is_near = (ring @ normals.mT - heights).abs() < _THICKNESS * radius
    best = int((mass @ is_near.to(mass)).argmax())
    normal, height = _refined(ring, mass, normals[best], float(heights[best]), radius)
    is_plane = (ring @ normal - height).abs() < 2.0 * _THICKNESS * radius
    is_level_still = float(normal[2]) > _MIN_UPRIGHT
    if not is_level_still or float(mass[is_plane].sum()) < _MIN_PLANE * float(mass.sum()):
        return None
    inliers = ring[is_plane]
    angle = torch.atan2(inliers[:, 1], inliers[:, 0]) / (2.0 * math.pi) + 0.5
    sectors = (angle * _NUM_SECTORS).long().clamp(0, _NUM_SECTORS - 1).unique()
    if len(sectors) < _MIN_SECTORS:
        return None
    return Plane(normal, height + float(normal @ sphere.centre))


def _refined(
    points: Float[Tensor, "n 3"],
    weights: Float[Tensor, " n"],
    normal: Float[Tensor, " 3"],
    height: float,
    radius: float,
) -> tuple[Float[Tensor, " 3"], float]:
    """A plane after least squares with Cauchy's weights: what lies off it counts little."""
    for _ in range(_REFINEMENTS):
        error = (points @ normal - height) / (_THICKNESS * radius)
        w = (weights / (1.0 + error.square()))[:, None].double()
        mean = (w * points).sum(0) / w.sum()
        offsets = points.double() - mean
        _, axes = torch.linalg.eigh(offsets.mT @ (w * offsets))
        normal = axes[:, 0].to(points) * axes[2, 0].sign().to(points)
        height = float(normal.double() @ mean)
    return normal, height
