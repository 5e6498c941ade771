"""The region of interest: given, or found among surfaces with a table under them."""

import math
from dataclasses import replace

import pytest
import torch

from splatir.maths.frames import similarity
from splatir.scene.camera import Camera
from splatir.scene.region import Plane, Region, describe_region, find_region, parse_region
from tests.captures import look_at

S = similarity(2.0, torch.eye(3).double(), torch.tensor([1.0, 0.0, -1.0]).double())


def sphere_points(count: int, radius: float, centre: tuple[float, float, float]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    return radius * directions + torch.tensor(centre)


def table_points(half: float, height: float, tilt: float = 0.0) -> torch.Tensor:
    axis = torch.linspace(-half, half, 60)
    x, y = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y, height + tilt * x], dim=-1).reshape(-1, 3)


def cameras() -> list[Camera]:
    """A ring that looks down at the origin from a distance of 1; 40 degrees wide."""
    K = torch.tensor([[137.0, 0.0, 50.0], [0.0, 137.0, 50.0], [0.0, 0.0, 1.0]])
    found = []
    for index in range(12):
        angle = 2.0 * math.pi * index / 12
        position = torch.tensor([0.8 * math.cos(angle), 0.8 * math.sin(angle), 0.6])
        found.append(Camera(K, look_at(position, torch.zeros(3)), 100, 100))
    return found


def test_a_given_sphere_is_in_the_captures_frame() -> None:
    region = parse_region("1,2,3,0.5", S)
    torch.testing.assert_close(region.centre, torch.tensor([3.0, 4.0, 5.0]))
    assert region.radius == pytest.approx(1.0)
    assert describe_region(region, S) == "1,2,3,0.5"


def test_a_given_box_holds_its_corners_and_no_more() -> None:
    region = parse_region("1,1,1,0,0,0", S)
    corners = torch.tensor([[1.0, 0.0, -1.0], [3.0, 2.0, 1.0], [2.0, 1.0, 0.0]])
    assert bool(region.contains(0.999 * (corners - corners[2]) + corners[2]).all())
    assert not bool(region.contains(torch.tensor([[3.1, 1.0, 0.0], [2.0, 1.0, -1.1]])).any())


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,x", "1,2,3,-1", "0,0,0,1,1,0", "1,2,3,inf"])
def test_anything_else_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="--roi"):
        parse_region(text, S)


def test_a_lone_object_is_held_with_free_space_around_it() -> None:
    surface = sphere_points(3000, 0.2, (0.02, 0.0, 0.01))
    region = find_region(cameras(), surface[::3], surface, torch.full((3000,), 1e-4), 0)
    assert region.support is None
    assert bool(region.contains(surface).all())
    assert region.radius < 0.45


def test_an_object_is_cut_from_the_table_that_it_stands_on() -> None:
    ball = sphere_points(3000, 0.15, (0.0, 0.0, 0.0))
    table = table_points(0.8, -0.15, tilt=0.08)
    surface = torch.cat([ball, table])
    weights = torch.cat([torch.full((3000,), 1e-4), torch.full((len(table),), 7e-4)])
    region = find_region(cameras(), ball[::3], surface, weights, 0)
    assert region.support is not None
    slope = region.support.normal / region.support.normal[2]
    torch.testing.assert_close(slope, torch.tensor([-0.08, 0.0, 1.0]), atol=0.01, rtol=0.0)
    inside = region.contains(surface)
    assert region.support.height == pytest.approx(-0.15, abs=0.01)
    assert float(inside[:3000].float().mean()) > 0.9
    assert not bool(inside[3000:].any())


def test_a_floor_that_ends_with_the_object_belongs_to_it() -> None:
    ball = sphere_points(3000, 0.15, (0.0, 0.0, 0.0))
    surface = torch.cat([ball, table_points(0.2, -0.15)])
    weights = torch.full((len(surface),), 1e-4)
    region = find_region(cameras(), surface[::3], surface, weights, 0)
    assert region.support is None
    assert bool(region.contains(surface).all())


def test_the_sphere_grows_to_where_the_object_ends() -> None:
    """Few sparse points lie on what leaves the pictures."""
    surface = sphere_points(6000, 0.3, (0.0, 0.0, 0.0))
    weights = torch.full((6000,), 4.0 * math.pi * 0.09 / 6000)
    seen = surface[surface[:, 2] > 0.2]
    region = find_region(cameras(), seen, surface, weights, 0)
    assert float(region.contains(surface).float().mean()) > 0.95


def test_what_is_under_the_support_or_hardly_above_it_is_outside() -> None:
    plane = Plane(torch.tensor([0.0, 0.0, 1.0]), 0.1)
    region = replace(Region.sphere(torch.zeros(3), 1.0), support=plane, clearance=0.05)
    points = torch.tensor([[0.0, 0.0, 0.2], [0.0, 0.0, 0.05], [0.0, 0.0, 0.12], [0.0, 0.0, 1.1]])
    assert region.contains(points).tolist() == [True, False, False, False]
