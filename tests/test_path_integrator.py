"""Traced rays carry the light that geometry says: shadows, furnaces, mirrors, noise."""

import math

import pytest
import torch
from torch import Tensor

from splatir.scene.lights import (
    DirectionalLight,
    EnvironmentLight,
    LightSum,
    PointLight,
    environment_directions,
)
from splatir.shade.monte_carlo import MonteCarlo
from splatir.shade.surface import SurfacePoints
from splatir.transport.lit import light_gaussians
from splatir.transport.path_integrator import PathSettings, PathTracing
from tests.solids import (
    disc,
    model_of,
    moved,
    picked,
    points_of,
    room,
    sphere,
    square,
    surface,
    transport_of,
)

WHITE = EnvironmentLight(torch.ones(8, 16, 3))


def slope() -> EnvironmentLight:
    """Bright from above and +X."""
    directions = environment_directions(32, 64)
    radiance = 1.0 + directions @ torch.tensor([[0.5, 0.2, 0.1], [0.1, 0.1, 0.0], [0.4, 0.4, 0.6]])
    return EnvironmentLight(radiance.clamp_min(0.02))


def sizes(count: int, spacing: float) -> Tensor:
    return torch.full((count, 1), 0.75 * spacing)


@pytest.mark.parametrize("kind", ["point", "sun"])
def test_the_shadow_of_a_disc_ends_where_rays_past_its_rim_end(kind: str) -> None:
    spacing, radius, height = 0.03, 0.3, 0.5
    black = {"albedo": (0.0, 0.0, 0.0)}
    scene = model_of(square(1.0, 0.06), disc(radius, height, spacing, **black))
    light: PointLight | DirectionalLight = PointLight(
        torch.tensor([0.0, 0.0, 2.0]), torch.full((3,), 4.0)
    )
    enlargement = 2.0 / (2.0 - height)
    if kind == "sun":
        light, enlargement = DirectionalLight(torch.tensor([0.0, 0.0, 1.0]), torch.ones(3)), 1.0
    paths = PathTracing(*transport_of(scene), light, PathSettings(16, 0))
    distance = torch.linspace(0.0, 0.8, 161)
    for angle in (0.3, 2.0, 4.4):
        ray = torch.tensor([math.cos(angle), math.sin(angle), 0.0])
        floor = surface(distance[:, None] * ray, torch.tensor([[0.0, 0.0, 1.0]]).expand(161, 3), 1)
        points = points_of(floor)
        found = paths.shade(points, sizes(161, 0.06)).diffuse[:, 0]
        alone = MonteCarlo(light).shade(points).diffuse[:, 0]
        is_lit = found > 0.5 * alone
        edge = float(distance[is_lit][0])
        assert abs(edge - enlargement * radius) < enlargement * spacing
        assert not is_lit[distance < edge].any() and is_lit[distance >= edge].all()


def test_a_closed_room_stays_dark_under_any_sky() -> None:
    walls = room(0.5, 0.06)
    paths = PathTracing(*transport_of(model_of(walls)), WHITE, PathSettings(64, 1))
    found = paths.shade(points_of(walls), sizes(len(walls.positions), 0.06)).radiance
    assert found.mean() < 0.02 * 0.5


def test_a_convex_solid_hides_nothing_from_itself() -> None:
    ball = sphere(1.0, 3000)
    paths = PathTracing(*transport_of(model_of(ball)), slope(), PathSettings(64, 1))
    spacing = float(ball.spacings[0])
    found = paths.shade(points_of(ball), sizes(3000, spacing)).radiance
    alone = MonteCarlo(slope(), 64).shade(points_of(ball)).radiance
    assert (found / alone).mean() == pytest.approx(1.0, abs=0.02)
    assert ((found / alone - 1.0).abs() < 0.02).float().mean() > 0.95


@pytest.mark.parametrize("bounces", [0, 1, 2])
def test_a_bowl_in_uniform_light_multiplies_it_as_a_spherical_cavity_does(bounces: int) -> None:
    """Of a half sphere's irradiance one half comes from itself, at each of its points alike."""
    bowl = sphere(1.0, 2500, inwards=True, part=0.5)
    scene, materials = transport_of(model_of(bowl))
    paths = PathTracing(scene, materials, WHITE, PathSettings(64, bounces))
    inner = picked(bowl, bowl.positions[:, 2] < -0.1)
    found = paths.shade(points_of(inner), sizes(len(inner.positions), float(bowl.spacings[0])))
    total = materials.total_albedo()[0]
    expected = 0.5 * 0.5 / (1.0 - 0.5 * total)
    assert torch.allclose(found.diffuse.mean(0), expected, rtol=0.02)


def test_baked_light_in_a_closed_room_sums_to_what_the_lamp_sends() -> None:
    """Each reflection keeps the albedo's share, whatever the shape; four of them are baked."""
    walls = room(0.5, 0.05)
    scene, materials = transport_of(model_of(walls))
    lamp = PointLight(torch.tensor([0.1, -0.05, 0.2]), torch.tensor([1.0, 2.0, 3.0]))
    lit = light_gaussians(scene, materials, lamp)
    total = materials.total_albedo()[0]
    arriving = math.pi * lit.bounced.radiance / total
    area = walls.spacings.square()[:, None]
    power = 4.0 * math.pi * lamp.intensity * sum(total**k for k in range(5))
    assert torch.allclose((arriving * area).sum(0), power, rtol=0.02)


def test_the_reference_and_the_baked_light_agree_on_matt_surfaces() -> None:
    floor, ball = square(1.0, 0.06), moved(sphere(0.4, 1500, albedo=(0.7, 0.3, 0.2)), (0, 0, 0.4))
    scene, materials = transport_of(model_of(floor, ball))
    lit = light_gaussians(scene, materials, slope())
    who = torch.arange(0, len(scene.positions), 5)
    normals = scene.visibility.normals[who]
    points = SurfacePoints(
        scene.positions[who],
        normals,
        normals,
        materials.albedo[who],
        materials.roughness[who],
        materials.metallic[who],
    )
    baked = lit.shade(points, lit.channels_of(who, normals)).diffuse
    for bounces in (0, 1):
        paths = PathTracing(scene, materials, slope(), PathSettings(256, bounces))
        traced = paths.shade(points, paths.channels_of(who, normals)).diffuse
        error = (baked - traced).abs()
        assert error.mean() < 0.03 * traced.mean()
        assert baked.mean() == pytest.approx(float(traced.mean()), rel=0.01)
    alone = MonteCarlo(slope(), 256).shade(points).diffuse
    assert (alone - traced).abs().mean() > 0.1 * traced.mean()


def test_noise_falls_at_least_with_the_root_of_the_number_of_samples() -> None:
    floor, ball = square(0.8, 0.08), moved(sphere(0.4, 600, metallic=0.9), (0, 0, 0.4))
    scene, materials = transport_of(model_of(floor, ball))
    near = points_of(picked(floor, floor.positions.norm(dim=-1) < 0.6))
    near_sizes = sizes(len(near.normals), 0.08)

    def shaded(samples: int) -> Tensor:
        paths = PathTracing(scene, materials, slope(), PathSettings(samples, 1))
        return paths.shade(near, near_sizes).radiance

    exact = shaded(2048)
    few, many = ((shaded(count) - exact).norm() for count in (16, 128))
    assert many < few / math.sqrt(8.0)


def test_a_mirror_shows_the_colour_of_what_stands_before_it() -> None:
    mirror = square(1.0, 0.05, albedo=(0.95, 0.95, 0.95), roughness=0.1, metallic=1.0)
    ball = moved(sphere(0.3, 1500, albedo=(0.9, 0.05, 0.05)), (0.0, 0.0, 0.5))
    paths = PathTracing(*transport_of(model_of(mirror, ball)), WHITE, PathSettings(64, 1))
    places = torch.tensor([[-0.5, 0.0, 0.0], [0.7, 0.0, 0.0]])
    normals = torch.tensor([[0.0, 0.0, 1.0]]).expand(2, 3)
    views = torch.tensor([[-1.0, 0.0, 1.0], [1.0, 0.0, 1.0]]) / math.sqrt(2.0)
    # The left one mirrors the ball, the right one too; straight up the sky is free.
    points = points_of(surface(places, normals, 0.05, (0.95, 0.95, 0.95), 0.1, 1.0), views)
    red, _ = found = paths.shade(points, sizes(2, 0.05)).specular
    assert found.shape == (2, 3)
    assert red[0] > 4.0 * red[1] and red[0] == pytest.approx(0.9 * 0.95, rel=0.25)
    up = points_of(surface(places[1:], normals[1:], 0.05, (0.95, 0.95, 0.95), 0.1, 1.0))
    assert paths.shade(up, sizes(1, 0.05)).specular.mean() > 0.85


def test_lamps_without_a_sky_still_light_what_they_do_not_reach() -> None:
    """Behind a wall all light has been reflected; two equal lamps give twice of it."""
    walls = room(0.5, 0.08)
    scene, materials = transport_of(model_of(walls, disc(0.3, 0.0, 0.06)))
    lamp = PointLight(torch.tensor([0.0, 0.0, 0.3]), torch.ones(3))
    below = picked(walls, walls.positions[:, 2] < -0.49)
    hidden = points_of(picked(below, below.positions[:, :2].norm(dim=-1) < 0.2))
    count = len(hidden.normals)
    once = PathTracing(scene, materials, lamp, PathSettings(64, 1))
    twice = PathTracing(scene, materials, LightSum((lamp, lamp)), PathSettings(64, 1))
    found = once.shade(hidden, sizes(count, 0.08)).radiance
    assert found.min() > 0.01
    assert torch.allclose(twice.shade(hidden, sizes(count, 0.08)).radiance, 2 * found, rtol=1e-4)


def test_two_skies_collect_the_light_of_surfaces_once() -> None:
    bowl = sphere(1.0, 800, inwards=True, part=0.5)
    scene, materials = transport_of(model_of(bowl))
    halves = LightSum((EnvironmentLight(0.5 * WHITE.radiance),) * 2)
    points = points_of(picked(bowl, bowl.positions[:, 2] < -0.2))
    count = len(points.normals)
    one, two = (
        PathTracing(scene, materials, light, PathSettings(64, 0))
        .shade(points, sizes(count, float(bowl.spacings[0])))
        .radiance
        for light in (WHITE, halves)
    )
    assert torch.allclose(one, two, rtol=1e-3)


def test_no_points_and_no_gaussians_in_the_way() -> None:
    scene, materials = transport_of(model_of(square(0.2, 0.1)))
    paths = PathTracing(scene, materials, slope(), PathSettings(16, 2))
    nothing = points_of(picked(square(0.2, 0.1), torch.zeros(16, dtype=torch.bool)))
    assert paths.shade(nothing, sizes(0, 0.1)).radiance.shape == (0, 3)
