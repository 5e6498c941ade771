"""Where Gaussians start: from points with or without normals, or from nothing but the cameras."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy.spatial import KDTree
from torch import Tensor

from splatir.maths.frames import transform_points
from splatir.maths.rotations import quat_from_normal
from splatir.maths.spherical_harmonics import MAX_DEGREE, SH_DC
from splatir.scene.camera import Camera
from splatir.scene.focus import common_sphere
from splatir.scene.gaussians import (
    PARAMETER_SPACES,
    SURFEL_LOG_THICKNESS,
    GaussianModel,
    Primitive,
)
from splatir.settings import Settings, check_range

# Surroundings begin and end at so many camera distances. Nearer ones are a fog before cameras that
# stand further back than most; what lies beyond moves too little to be placed.
_SURROUNDINGS_START, _SURROUNDINGS_REACH = 1.5, 6.0
# None is nearer to a camera than this part of the camera's distance from what it looks at.
_FREE_SPACE = 0.5
# Draws per point wanted: most are where fewer than two cameras look.
_DRAWS = 8


@dataclass(frozen=True)
class InitialisationSettings(Settings):
    """How the first Gaussians are made.

    Attributes:
        num_points: Points sampled on the visual hull, or in the cameras' common volume where there
            is neither hull nor enough sparse points.
        num_surroundings: Points sampled around a capture with a background, at most.
        opacity: Opacity of the Gaussians at the start, but for surroundings.
        surroundings_opacity: Opacity at the start of those around a capture with a background.
            Nothing says where they belong: faint ones stay where photos want them, and let through
            what lies behind them elsewhere.
        scale: Standard deviation in mean distances to the three nearest neighbours.
        sh_degree: Highest spherical-harmonic degree of the radiance.
    """

    num_points: int = 16_000
    num_surroundings: int = 4_000
    opacity: float = 0.2
    surroundings_opacity: float = 0.05
    scale: float = 0.8
    sh_degree: int = 3

    def __post_init__(self) -> None:
        """Refuse values that make no Gaussians.

        Raises:
            SettingsError: A value out of range.
        """
        check_range(self, "num_points", 1, group="init")
        check_range(self, "num_surroundings", 0, group="init")
        check_range(self, "opacity surroundings_opacity", 0, 1, open_ends=True, group="init")
        check_range(self, "scale", 0, open_ends=True, group="init")
        check_range(self, "sh_degree", 0, MAX_DEGREE, group="init")


@dataclass(frozen=True)
class SeedPoints:
    """Points that Gaussians are made from.

    Attributes:
        positions: World frame.
        colours_srgb: In [0, 1].
        normals: Unit, world frame; zero where unknown.
        is_surrounding: Placed around a capture with no evidence that anything is there.
    """

    positions: Float[Tensor, "n 3"]
    colours_srgb: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]
    is_surrounding: Bool[Tensor, " n"]


def model_from_points(
    points: SeedPoints, primitive: Primitive, settings: InitialisationSettings, seed: int
) -> GaussianModel:
    """One Gaussian per point, as wide as the points are apart.

    Args:
        points: At least one point.
        primitive: Surfels lie in the plane across the normal; a random one where it is unknown.
        settings: Opacities, width and SH degree.
        seed: For random orientations.

    Raises:
        ValueError: No points, or positions that are not finite.
    """
    n = points.positions.shape[0]
    if n == 0 or not points.positions.isfinite().all():
        raise ValueError(f"need at least one point with finite coordinates, got {n} points.")
    generator = torch.Generator().manual_seed(seed)
    known = points.normals.norm(dim=-1, keepdim=True) > 0.5
    random_quats = torch.nn.functional.normalize(torch.randn(n, 4, generator=generator), dim=-1)
    scales = (settings.scale * neighbour_distance(points.positions))[:, None].repeat(1, 3)
    raw_scales = scales.log()
    if primitive == "surfel":
        raw_scales[:, 2] = SURFEL_LOG_THICKNESS
    num_sh = (settings.sh_degree + 1) ** 2
    opacities = torch.full((n,), settings.opacity)
    opacities[points.is_surrounding] = settings.surroundings_opacity
    params = {
        "means": points.positions,
        "quats": torch.where(known, quat_from_normal(points.normals), random_quats),
        "scales": raw_scales,
        "opacities": PARAMETER_SPACES["opacities"].invert(opacities),
        "sh0": ((points.colours_srgb - 0.5) / SH_DC)[:, None, :],
        "shN": torch.zeros(n, num_sh - 1, 3),
    }
    return GaussianModel({key: value.float() for key, value in params.items()}, primitive)


def neighbour_distance(positions: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Mean distance of each point to its three nearest neighbours, in scene units.

    Coincident points get the smallest positive distance of the set, a lone point 1e-2: a standard
    deviation must be positive.
    """
    n = positions.shape[0]
    if n == 1:
        return torch.full((1,), 1e-2)
    tree = KDTree(positions.numpy())
    distances, _ = tree.query(positions.numpy(), k=min(4, n))
    mean = torch.from_numpy(distances[:, 1:]).float().mean(dim=1)
    positive = mean[mean > 0]
    floor = float(positive.min()) if len(positive) else 1e-2
    # Far outliers of a sparse model would start as splats that cover the whole view.
    ceiling = 10.0 * float(mean.median()) if float(mean.median()) > 0 else float(mean.max())
    return mean.clamp(floor, max(floor, ceiling))


def random_points(cameras: Sequence[Camera], count: int, seed: int) -> SeedPoints:
    """Grey points, uniform in the cameras' common sphere."""
    centre, radius = common_sphere(cameras)
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(count, 3, generator=generator)
    directions = torch.nn.functional.normalize(directions, dim=-1)
    distances = radius * torch.rand(count, 1, generator=generator) ** (1.0 / 3.0)
    return SeedPoints(
        positions=centre + directions * distances,
        colours_srgb=torch.full((count, 3), 0.5),
        normals=torch.zeros(count, 3),
        is_surrounding=torch.zeros(count, dtype=torch.bool),
    )


def surrounding_points(cameras: Sequence[Camera], count: int, seed: int) -> SeedPoints:
    """Grey points well beyond the cameras, where at least two of them look.

    Walls and far backgrounds have few triangulated points, and densification cannot reach far from
    where there are none. Nothing is put between the cameras and what they look at, or where a
    camera might stand: there, a point at a wrong depth becomes a fog that hides the subject from
    other views.

    Args:
        cameras: Views, in the world frame.
        count: Points at most; fewer where little is seen beyond the cameras.
        seed: For the draw.
    """
    positions = torch.stack([camera.position_world for camera in cameras])
    centre, _ = common_sphere(cameras)
    reach = float((positions - centre).norm(dim=-1).median())
    generator = torch.Generator().manual_seed(seed)
    drawn = _DRAWS * count
    directions = torch.randn(drawn, 3, generator=generator)
    directions = torch.nn.functional.normalize(directions, dim=-1)
    growth = (_SURROUNDINGS_REACH / _SURROUNDINGS_START) ** torch.rand(
        drawn, 1, generator=generator
    )
    points = centre + directions * reach * _SURROUNDINGS_START * growth
    views = torch.zeros(drawn, dtype=torch.int32)
    is_free = torch.zeros(drawn, dtype=torch.bool)
    for camera, position in zip(cameras, positions, strict=True):
        free_radius = _FREE_SPACE * float((position - centre).norm())
        is_free |= (points - position).norm(dim=-1) < free_radius
        in_camera = transform_points(camera.T_camera_world, points)
        pixels = (in_camera @ camera.K.mT)[:, :2] / in_camera[:, 2:].clamp_min(1e-6)
        size = torch.tensor([camera.width, camera.height])
        views += (in_camera[:, 2] > 0) & ((pixels >= 0) & (pixels < size)).all(dim=-1)
    kept = points[(views >= 2) & ~is_free][:count]
    is_surrounding = torch.ones(len(kept), dtype=torch.bool)
    return SeedPoints(kept, torch.full_like(kept, 0.5), torch.zeros_like(kept), is_surrounding)
