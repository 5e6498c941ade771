"""What depth images say: rays, normals by value, frames and the gradient."""

import pytest
import torch

from splatir.maths.frames import similarity, transform_points
from splatir.maths.rotations import rotation_from_quat
from splatir.render.geometry import camera_rays, normals_from_depth, pixels_of, ray_directions
from tests.scenes import axis_camera, random_camera
from tests.surfaces import plane_depth, sphere_depth


def test_rays_pass_through_pixel_centres() -> None:
    camera = random_camera(7, 5, seed=0)
    y, x = torch.meshgrid(torch.arange(5) + 0.5, torch.arange(7) + 0.5, indexing="ij")
    pixels = camera_rays(camera) @ camera.K.T
    assert torch.allclose(pixels, torch.stack([x, y, torch.ones_like(x)], -1), atol=1e-5)


@pytest.mark.parametrize("tilt", [(0.0, 0.0), (0.5, 0.0), (0.0, -0.7), (-0.4, 0.6)])
def test_plane_has_its_own_normal_everywhere(tilt: tuple[float, float]) -> None:
    """Also far from the axis, where the plane's depth is not linear in the pixel."""
    camera = random_camera(24, 20, seed=1).to(dtype=torch.float64)
    normal_camera = torch.tensor([*tilt, -1.0], dtype=torch.float64)
    normal_camera = normal_camera / normal_camera.norm()
    got = normals_from_depth(plane_depth(camera, normal_camera, 2.0), camera)
    expected = camera.T_world_camera[:3, :3] @ normal_camera
    inner = got[1:-1, 1:-1]
    assert torch.allclose(inner, expected.expand_as(inner), atol=1e-12)
    border = torch.ones(20, 24, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert not got[border].any()


def test_sphere_has_radial_normals_that_face_the_camera() -> None:
    camera = random_camera(200, 200, seed=2).to(dtype=torch.float64)
    centre_camera = torch.tensor([0.1, -0.2, 3.0], dtype=torch.float64)
    depth = sphere_depth(camera, centre_camera, 0.8)
    points_camera = camera_rays(camera) * depth
    radial_camera = (points_camera - centre_camera) / 0.8
    # Within 60 degrees of facing the camera; a difference over two pixels errs more further out.
    cosines = -(radial_camera * torch.nn.functional.normalize(points_camera, dim=-1)).sum(-1)
    front = (depth[..., 0] > 0.0) & (cosines > 0.5)
    assert front.sum() > 5000
    radial_world = radial_camera @ camera.T_camera_world[:3, :3]
    got = normals_from_depth(depth, camera)
    assert ((got - radial_world)[front].norm(dim=-1) < 2e-3).all()


def test_normals_turn_with_the_world_and_ignore_its_scale() -> None:
    """The same view in a turned, moved and larger world: lengths grow, normals turn along."""
    camera = random_camera(40, 30, seed=3).to(dtype=torch.float64)
    depth = sphere_depth(camera, torch.tensor([0.0, 0.0, 3.0], dtype=torch.float64), 1.5)
    depth = depth + 0.1 * (depth == 0.0)
    R = rotation_from_quat(torch.tensor([0.7, 0.3, -0.5, 0.4], dtype=torch.float64))
    shift = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)
    S_new_world = similarity(2.5, R, shift)
    got = normals_from_depth(2.5 * depth, camera.in_world(S_new_world))
    expected = normals_from_depth(depth, camera) @ R.T
    assert torch.allclose(got, expected, atol=1e-6)


def test_normals_face_the_camera_in_the_world_frame() -> None:
    camera = random_camera(30, 30, seed=4)
    depth = 2.0 + 0.2 * torch.rand(30, 30, 1, generator=torch.Generator().manual_seed(0))
    points_world = transform_points(camera.T_world_camera, camera_rays(camera) * depth)
    away = points_world - camera.position_world
    normals = normals_from_depth(depth, camera)
    assert ((normals * away).sum(-1)[1:-1, 1:-1] < 0.0).all()
    lengths = normals.norm(dim=-1)[1:-1, 1:-1]
    assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-5)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (5, 2), (1, 9), (9, 1)])
def test_image_without_inner_pixels_has_no_normals(width: int, height: int) -> None:
    normals = normals_from_depth(torch.ones(height, width, 1), axis_camera(width, height))
    assert normals.shape == (height, width, 3)
    assert not normals.any()


def test_neighbours_of_no_plane_give_no_normal_and_no_gradient() -> None:
    """Three of the four neighbours lie in the camera's centre, so one difference vanishes."""
    camera = axis_camera(3, 3)
    depth = torch.zeros(3, 3, 1)
    depth[1, 2] = 1.0
    depth.requires_grad_()
    normals = normals_from_depth(depth, camera)
    assert not normals.any()
    (gradient,) = torch.autograd.grad(normals.sum(), depth)
    assert not gradient.any()


def test_normals_have_the_right_gradient() -> None:
    camera = random_camera(6, 5, seed=5).to(dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    depth = 2.0 + 0.3 * torch.rand(5, 6, 1, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: normals_from_depth(z, camera), depth.requires_grad_())


def test_points_land_in_the_pixels_whose_rays_meet_them() -> None:
    camera = random_camera(24, 16, seed=2)
    rays = ray_directions(camera)
    points = camera.position_world + 3.0 * rays[5, 7:9]
    behind, beside = camera.position_world - rays[5, 7], camera.position_world + 50.0 * rays[0, 0]
    beside = beside - 9.0 * camera.T_camera_world[0, :3]
    pixels, is_seen = pixels_of(camera, torch.stack([*points, behind, beside]))
    torch.testing.assert_close(pixels[:2], torch.tensor([[7.5, 5.5], [8.5, 5.5]]))
    assert is_seen.tolist() == [True, True, False, False]
