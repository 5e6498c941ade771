"""The similarity that turns captures upright: right for rings, walls, turned and stray cameras."""

import math

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from splatir.data.world_frame import similarity_from_cameras, up_direction
from splatir.maths.frames import (
    invert_rigid,
    similarity,
    similarity_scale,
    transform_points,
)
from splatir.maths.rotations import rotation_from_quat
from splatir.scene.focus import focus_point
from tests.captures import look_at, small_scene


def ring() -> Float[Tensor, "n 4 4"]:
    return torch.stack([camera.T_camera_world for camera in small_scene(24).cameras])


def moved(T_camera_world: Float[Tensor, "n 4 4"], S_input_world: Tensor) -> Float[Tensor, "n 4 4"]:
    """The same cameras described in another frame."""
    scale = similarity_scale(S_input_world)
    T_world_camera = invert_rigid(T_camera_world)
    moved_poses = torch.eye(4, dtype=torch.float64).repeat(len(T_world_camera), 1, 1)
    moved_poses[:, :3, :3] = S_input_world[:3, :3] / scale @ T_world_camera[:, :3, :3]
    moved_poses[:, :3, 3] = transform_points(S_input_world, T_world_camera[:, :3, 3])
    return invert_rigid(moved_poses)


def rolled(T_camera_world: Float[Tensor, "n 4 4"], angle: float) -> Float[Tensor, "n 4 4"]:
    turn = torch.eye(4, dtype=torch.float64)
    turn[0, 0] = turn[1, 1] = math.cos(angle)
    turn[1, 0] = math.sin(angle)
    turn[0, 1] = -turn[1, 0]
    return turn @ T_camera_world


def angle_between(a: Tensor, b: Tensor) -> float:
    return math.degrees(math.acos(min(1.0, float(a @ b / (a.norm() * b.norm())))))


@pytest.mark.parametrize("seed", range(4))
def test_ring_comes_back_from_any_frame_and_unit(seed: int) -> None:
    """Only the heading about +Z stays open."""
    generator = torch.Generator().manual_seed(seed)
    quat = torch.randn(4, generator=generator, dtype=torch.float64)
    shift = 50.0 * torch.randn(3, generator=generator, dtype=torch.float64)
    S_input_world = similarity(10.0 ** (seed - 2), rotation_from_quat(quat), shift)
    S_world_input = similarity_from_cameras(moved(ring(), S_input_world), None)
    both = S_world_input @ S_input_world
    up, origin = both[:3, :3] @ torch.tensor([0, 0, 1]).double(), both[:3, 3]
    torch.testing.assert_close(up, torch.tensor([0, 0, 0.25]).double())
    torch.testing.assert_close(origin, torch.zeros(3).double(), atol=1e-6, rtol=0)
    assert similarity_scale(both) == pytest.approx(0.25)
    assert float(torch.linalg.det(both[:3, :3])) > 0


def test_up_is_not_pulled_towards_the_side_with_more_photos() -> None:
    poses = torch.cat([ring(), *[ring()[:4]] * 5])
    up = up_direction(poses[:, :3, :3].mT)
    mean_up = -poses[:, 1, :3].mean(dim=0)
    z = torch.tensor([0, 0, 1]).double()
    assert angle_between(mean_up, z) > 10
    assert angle_between(up, z) < 0.5


@pytest.mark.parametrize("angle", [math.pi / 2, -math.pi / 2])
def test_photos_taken_sideways_do_not_tilt_the_world(angle: float) -> None:
    poses = ring()
    poses[::3] = rolled(poses[::3], angle)
    up = up_direction(poses[:, :3, :3].mT)
    assert angle_between(up, torch.tensor([0, 0, 1]).double()) < 3


def test_stray_cameras_do_not_move_the_origin() -> None:
    poses = ring()
    for i in (0, 7, 15):
        position = -(poses[i, :3, :3].mT @ poses[i, :3, 3])
        target = torch.tensor([20.0, -15.0, 3.0 * i]).double()
        poses[i] = look_at(position, target)
    positions, forwards = -(poses[:, :3, :3].mT @ poses[:, :3, 3:]).squeeze(-1), poses[:, 2, :3]
    point = focus_point(positions, forwards)
    assert point is not None
    assert float(point.norm()) < 0.02


def wall_poses() -> Float[Tensor, "n 4 4"]:
    """Twelve cameras side by side that look along +y."""
    positions = [torch.tensor([0.1 * i, 0.0, 1.0]).double() for i in range(12)]
    return torch.stack([look_at(p, p + torch.tensor([0.0, 5.0, 0.0]).double()) for p in positions])


def test_parallel_cameras_are_scaled_by_what_they_see() -> None:
    points = torch.tensor([[0.5, 10.0, 1.0]]).double().expand(5, 3)
    S_world_input = similarity_from_cameras(wall_poses(), points)
    assert similarity_scale(S_world_input) == pytest.approx(0.1, rel=0.01)
    up = S_world_input[:3, :3] @ torch.tensor([0, 0, 1]).double()
    torch.testing.assert_close(up / up.norm(), torch.tensor([0, 0, 1]).double())


def test_parallel_cameras_without_points_are_scaled_by_their_spread() -> None:
    scale = similarity_scale(similarity_from_cameras(wall_poses(), None))
    assert scale == pytest.approx(1 / 0.3, rel=0.2)


def test_cameras_that_look_outwards_have_no_focus() -> None:
    poses = []
    for i in range(12):
        angle = 2 * math.pi * i / 12
        out = torch.tensor([math.cos(angle), math.sin(angle), 0.1]).double()
        poses.append(look_at(0.2 * out, 5.0 * out))
    stacked = torch.stack(poses)
    points = 8.0 * torch.nn.functional.normalize(torch.randn(50, 3).double(), dim=-1)
    S_world_input = similarity_from_cameras(stacked, points)
    assert similarity_scale(S_world_input) == pytest.approx(1 / 8, rel=0.1)


def test_two_cameras_in_one_place_keep_a_finite_scale() -> None:
    poses = wall_poses()[:1].repeat(2, 1, 1)
    S_world_input = similarity_from_cameras(poses, None)
    assert bool(torch.isfinite(S_world_input).all())
    assert similarity_scale(S_world_input) == pytest.approx(1.0)


def test_upside_down_input_is_a_half_turn_not_a_mirror() -> None:
    flip = similarity(
        1.0, torch.diag(torch.tensor([1.0, -1.0, -1.0]).double()), torch.zeros(3).double()
    )
    S_world_input = similarity_from_cameras(moved(ring(), flip), None)
    both = S_world_input @ flip
    assert float(both[2, 2]) == pytest.approx(0.25)
    assert float(torch.linalg.det(both[:3, :3])) > 0
