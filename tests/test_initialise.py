import math
from dataclasses import replace

import pytest
import torch

from splatir.maths.rotations import rotation_from_quat
from splatir.maths.spherical_harmonics import SH_DC
from splatir.scene.camera import Camera
from splatir.scene.focus import common_sphere, focus_point
from splatir.scene.hull import is_seen_enough, visual_hull_points
from splatir.scene.initialise import (
    InitialisationSettings,
    SeedPoints,
    model_from_points,
    neighbour_distance,
    random_points,
    surrounding_points,
)


def look_at(position: list[float], target: list[float], size: int = 64) -> Camera:
    """A camera that looks at a target with the world's +z up in the image."""
    eye = torch.tensor(position)
    forward = torch.nn.functional.normalize(torch.tensor(target) - eye, dim=0)
    right = torch.linalg.cross(forward, torch.tensor([0.0, 0.0, 1.0]))
    right = torch.nn.functional.normalize(right, dim=0)
    down = torch.linalg.cross(forward, right)
    T = torch.eye(4)
    T[:3, :3] = torch.stack([right, down, forward])
    T[:3, 3] = -T[:3, :3] @ eye
    K = torch.tensor([[size * 1.2, 0.0, size / 2], [0.0, size * 1.2, size / 2], [0.0, 0.0, 1.0]])
    return Camera(K, T, size, size)


def ring(target: list[float], count: int = 10, radius: float = 3.0) -> list[Camera]:
    cameras = []
    for i in range(count):
        azimuth = 2 * math.pi * i / count
        height = 1.5 * math.sin(3.1 * i)
        offset = [radius * math.cos(azimuth), radius * math.sin(azimuth), height]
        cameras.append(look_at([t + o for t, o in zip(target, offset, strict=True)], target))
    return cameras


def sphere_mask(camera: Camera, centre: torch.Tensor, radius: float) -> torch.Tensor:
    """Exact silhouette of a sphere."""
    ys, xs = torch.meshgrid(
        torch.arange(camera.height) + 0.5, torch.arange(camera.width) + 0.5, indexing="ij"
    )
    rays = torch.stack(
        [(xs - camera.K[0, 2]) / camera.K[0, 0], (ys - camera.K[1, 2]) / camera.K[1, 1],
         torch.ones_like(xs)], dim=-1
    )  # fmt: skip
    rays = torch.nn.functional.normalize(rays, dim=-1)
    centre_camera = camera.T_camera_world[:3, :3] @ centre + camera.T_camera_world[:3, 3]
    along = rays @ centre_camera
    return (centre_camera.square().sum() - along**2 < radius**2).float()[..., None]


def test_centre_of_the_common_sphere_is_where_the_axes_meet() -> None:
    centre, _ = common_sphere(ring([0.3, -0.2, 0.5]))
    torch.testing.assert_close(centre, torch.tensor([0.3, -0.2, 0.5]), atol=1e-4, rtol=0)


def test_common_sphere_of_parallel_axes_lies_ahead_of_the_cameras() -> None:
    cameras = [look_at([float(x), -3.0, 0.0], [float(x), 0.0, 0.0]) for x in range(3)]
    positions = torch.stack([camera.position_world for camera in cameras])
    forwards = torch.stack([camera.forward_world for camera in cameras])
    assert focus_point(positions, forwards) is None
    centre, radius = common_sphere(cameras)
    torch.testing.assert_close(centre, torch.tensor([1.0, -2.0, 0.0]))
    assert 0.1 < radius < 1.0


def test_common_sphere_projects_inside_every_image_of_a_ring() -> None:
    cameras = ring([0.0, 0.0, 0.0])
    centre, radius = common_sphere(cameras)
    directions = torch.nn.functional.normalize(torch.randn(500, 3), dim=-1)
    points = centre + 0.95 * radius * directions
    inside = 0
    for camera in cameras:
        p = points @ camera.T_camera_world[:3, :3].mT + camera.T_camera_world[:3, 3]
        pixels = (p @ camera.K.mT)[:, :2] / p[:, 2:]
        inside += bool(((pixels >= 0) & (pixels <= 64)).all())
    assert inside >= len(cameras) // 2


def test_hull_of_a_sphere_lies_on_it_with_outward_normals() -> None:
    centre = torch.tensor([0.2, 0.1, -0.1])
    cameras = ring(centre.tolist(), count=24)
    alphas = [sphere_mask(camera, centre, 0.6) for camera in cameras]
    points = visual_hull_points(cameras, alphas, 2000, seed=0)
    assert points is not None
    offsets = points.positions - centre
    # Masks of 64 pixels resolve 0.04; the hull of a ring bulges towards the unseen poles.
    assert (offsets.norm(dim=-1) - 0.6).abs().median() < 0.05
    outward = torch.nn.functional.normalize(offsets, dim=-1)
    assert (outward * points.normals).sum(-1).median() > 0.9


def test_what_few_cameras_see_before_their_masks_is_no_part_of_the_hull() -> None:
    """Two cameras stand close above the object, where no frame of the others reaches."""
    positions = [(math.cos(a), math.sin(a), 0.3) for a in torch.arange(0.0, 6.28, 0.3).tolist()]
    cameras = [look_at([*position], [0.0, 0.0, -0.2]) for position in positions]
    cameras += [look_at([x, -0.05, 0.9], [0.0, 0.0, 0.0]) for x in (-0.04, 0.04)]
    alphas = [sphere_mask(camera, torch.zeros(3), 0.2) for camera in cameras]
    points = visual_hull_points(cameras, alphas, 2000, seed=0)
    assert points is not None
    assert points.positions.norm(dim=-1).max() < 0.3


def test_places_that_few_cameras_see_are_told_from_others() -> None:
    few = is_seen_enough(torch.tensor([0, 1, 2, 4, 20]), 20)
    assert few.tolist() == [False, False, False, True, True]
    assert is_seen_enough(torch.tensor([0, 1, 2]), 2).tolist() == [False, False, True]
    assert is_seen_enough(torch.tensor([0, 1]), 1).tolist() == [False, True]
    assert is_seen_enough(torch.zeros(0, dtype=torch.int32), 3).shape == (0,)


def test_contradicting_masks_have_no_hull() -> None:
    cameras = ring([0.0, 0.0, 0.0])
    assert visual_hull_points(cameras, [torch.zeros(64, 64, 1)] * 10, 100, seed=0) is None


def test_surfels_start_flat_across_their_normals_with_the_points_colours() -> None:
    normals = torch.nn.functional.normalize(torch.randn(50, 3), dim=-1)
    colours = torch.rand(50, 3)
    seeds = SeedPoints(torch.randn(50, 3), colours, normals, torch.zeros(50, dtype=torch.bool))
    settings = InitialisationSettings(opacity=0.3, sh_degree=2)
    model = model_from_points(seeds, "surfel", settings, seed=0)
    axes = rotation_from_quat(model.params["quats"])[:, :, 2]
    torch.testing.assert_close(axes.detach(), normals, atol=1e-5, rtol=0)
    torch.testing.assert_close(0.5 + SH_DC * model.params["sh0"][:, 0].detach(), colours)
    torch.testing.assert_close(model.opacities.detach(), torch.full((50,), 0.3))
    assert model.sh_degree == 2
    assert model.scales.detach()[:, 2].max() < 1e-5


def test_neighbour_distance_on_a_grid_is_its_spacing() -> None:
    axis = torch.arange(6) * 0.25
    grid = torch.cartesian_prod(axis, axis, axis)
    torch.testing.assert_close(neighbour_distance(grid), torch.full((216,), 0.25))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_or_coincident_points_still_give_positive_sizes(count: int) -> None:
    assert (neighbour_distance(torch.zeros(count, 3)) > 0).all()
    assert (neighbour_distance(torch.rand(count, 3)) > 0).all()


def test_no_points_is_an_error() -> None:
    nowhere = torch.zeros(0, 3)
    empty = SeedPoints(nowhere, nowhere, nowhere, torch.zeros(0, dtype=torch.bool))
    with pytest.raises(ValueError, match="at least one point"):
        model_from_points(empty, "surfel", InitialisationSettings(), seed=0)


def test_random_points_repeat_for_a_seed() -> None:
    cameras = ring([0.0, 0.0, 0.0])
    a, b = random_points(cameras, 100, 5), random_points(cameras, 100, 5)
    assert torch.equal(a.positions, b.positions)
    centre, radius = common_sphere(cameras)
    assert (a.positions - centre).norm(dim=-1).max() <= radius


def test_surroundings_lie_beyond_the_cameras_where_two_of_them_look() -> None:
    cameras = ring([0.0, 0.0, 0.0], count=12)
    # One stands further back than the rest: nothing may stand before it either.
    T = cameras[0].T_camera_world.clone()
    T[2, 3] *= 1.6
    cameras.append(replace(cameras[0], T_camera_world=T))
    positions = torch.stack([camera.position_world for camera in cameras])
    distances = positions.norm(dim=-1)
    points = surrounding_points(cameras, count=1000, seed=0)
    assert 300 < len(points.positions) <= 1000
    assert points.positions.norm(dim=-1).min() >= 1.5 * distances.median() - 1e-3
    gaps = torch.cdist(points.positions, positions)
    assert (gaps >= 0.5 * distances - 1e-3).all()
    views = torch.zeros(len(points.positions))
    for camera in cameras:
        p = points.positions @ camera.T_camera_world[:3, :3].mT + camera.T_camera_world[:3, 3]
        pixels = (p @ camera.K.mT)[:, :2] / p[:, 2:]
        views += (p[:, 2] > 0) & ((pixels >= 0) & (pixels < 64)).all(dim=-1)
    assert views.min() >= 2
    settings = InitialisationSettings(opacity=0.4, surroundings_opacity=0.03)
    model = model_from_points(points, "surfel", settings, seed=0)
    torch.testing.assert_close(model.opacities, torch.full_like(model.opacities, 0.03))
