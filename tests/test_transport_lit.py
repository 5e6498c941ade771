"""What reaches Gaussians under a light: as if alone on convex bodies, shadows and bounces else."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from splatir.maths.rotations import quat_from_normal
from splatir.maths.safe import safe_normalise
from splatir.scene.gaussians import Gaussians
from splatir.scene.lights import (
    DirectionalLight,
    EnvironmentLight,
    LightSum,
    PointLight,
    SphericalHarmonicLight,
    environment_directions,
)
from splatir.shade.lobe_energy import split_sum_terms
from splatir.shade.split_sum import SplitSum, specular_albedo
from splatir.shade.surface import SurfacePoints
from splatir.transport.lit import Bounced, CellLight, diffuse_ratio, light_gaussians
from splatir.transport.materials import SurfaceMaterials
from splatir.transport.scene import SceneTransport

UP = torch.tensor([0.0, 0.0, 1.0])


def flat(positions: Tensor, normals: Tensor, spacing: float) -> Gaussians:
    """Round flat Gaussians that cover a surface of this spacing."""
    count = len(positions)
    scales = torch.tensor([0.7 * spacing, 0.7 * spacing, 0.01 * spacing]).expand(count, 3)
    return Gaussians(positions, quat_from_normal(normals), scales, torch.full((count,), 0.95))


def joined(*parts: Gaussians) -> Gaussians:
    means, quats, scales, opacities = (
        torch.cat([getattr(part, key) for part in parts])
        for key in ("means", "quats", "scales", "opacities")
    )
    return Gaussians(means, quats, scales, opacities)


def plate(half: float, height: float, spacing: float, downwards: bool = False) -> Gaussians:
    """A square parallel to the ground."""
    steps = torch.arange(-half, half + 0.5 * spacing, spacing)
    x, y = torch.meshgrid(steps, steps, indexing="ij")
    positions = torch.stack([x, y, torch.full_like(x, height)], dim=-1).flatten(0, 1)
    normal = -UP if downwards else UP
    return flat(positions, normal.expand_as(positions), spacing)


def ball(count: int = 1500) -> Gaussians:
    index = torch.arange(count) + 0.5
    z, phi = 1.0 - 2.0 * index / count, math.pi * (1.0 + math.sqrt(5.0)) * index
    sine = (1.0 - z * z).sqrt()
    normals = torch.stack([sine * phi.cos(), sine * phi.sin(), z], dim=-1)
    return flat(normals, normals, math.sqrt(4.0 * math.pi / count))


def matt(count: int, albedo: float = 0.5, metallic: float = 0.0) -> SurfaceMaterials:
    return SurfaceMaterials(
        torch.full((count, 3), albedo),
        torch.full((count, 1), 0.6),
        torch.full((count, 1), metallic),
    )


def points_at(gaussians: Gaussians, normals: Tensor, camera: Tensor) -> SurfacePoints:
    materials = matt(len(normals))
    return SurfacePoints(
        gaussians.means,
        normals,
        safe_normalise(camera - gaussians.means),
        materials.albedo,
        materials.roughness,
        materials.metallic,
    )


def sky(height: int = 32) -> EnvironmentLight:
    """Brighter above, with a tint."""
    z = environment_directions(height, 2 * height)[..., 2:]
    return EnvironmentLight((1.2 + z) * torch.tensor([1.0, 0.9, 0.7]))


def test_a_convex_body_is_lit_as_if_it_were_alone() -> None:
    body = ball()
    scene = SceneTransport.of(body)
    lit = light_gaussians(scene, matt(len(body.means)), sky())
    camera = torch.tensor([0.0, -3.0, 0.5])
    channels = lit.channels(camera)
    seen = (safe_normalise(camera - body.means) * body.means).sum(-1) > 0.2
    points = points_at(body, scene.visibility.normals, camera)
    alone, found = SplitSum(sky()).shade(points), lit.shade(points, channels)
    torch.testing.assert_close(found.diffuse[seen], alone.diffuse[seen], rtol=0.02, atol=0.0)
    # Sums over cells also mend what split-sum gets wrong of wide lobes.
    torch.testing.assert_close(found.specular[seen], alone.specular[seen], rtol=0.2, atol=0.005)
    assert float(lit.bounced.irradiance.max()) < 0.02


def test_gaussians_just_behind_the_horizon_reflect_as_if_seen_from_it() -> None:
    """Under a lid, so that reflecting as if alone would be another thing."""
    ground = plate(0.5, 0.0, 0.08)
    scene = SceneTransport.of(joined(ground, plate(2.0, 0.5, 0.16, downwards=True)))
    lit = light_gaussians(scene, matt(len(scene.positions)), sky())
    middle = int(ground.means.norm(dim=-1).argmin())
    grazing, behind, below = (
        lit.channels(torch.tensor([3.0, 0.0, height]))[middle, 6:] for height in (0.003, -0.3, -2.0)
    )
    torch.testing.assert_close(behind, grazing, rtol=0.02, atol=1e-4)
    torch.testing.assert_close(below, torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]))
    assert float((grazing - below).abs().max()) > 0.2


def test_a_plate_shades_the_ground_below_it_from_a_small_sun() -> None:
    ground, lid = plate(2.0, 0.0, 0.08), plate(0.5, 1.0, 0.08)
    scene = SceneTransport.of(joined(ground, lid))
    radiance = torch.full((64, 128, 3), 1e-3)
    # A sun 37 degrees from the zenith, between directions of the cells.
    radiance[13, 64] = 2000.0
    light = EnvironmentLight(radiance)
    lit = light_gaussians(scene, matt(len(scene.positions)), light)
    towards = environment_directions(64, 128)[13, 64]
    shadow_centre = UP - towards / towards[2]
    away = (ground.means - shadow_centre)[:, :2].abs().amax(-1)
    ratio = lit.diffuse_ratio[: len(ground.means), 0]
    assert float(ratio[away < 0.38].max()) < 0.05
    assert float(ratio[away > 0.62].min()) > 0.95


def test_a_point_light_reaches_what_it_sees_and_lights_what_is_beyond_no_further() -> None:
    ground, lid = plate(2.0, 0.0, 0.08), plate(0.5, 1.0, 0.08)
    scene = SceneTransport.of(joined(ground, lid))
    above = PointLight(torch.tensor([0.0, 0.0, 3.0]), torch.ones(3))
    below = PointLight(torch.tensor([0.0, 0.0, 0.5]), torch.ones(3))
    # Similar triangles: the lid's shadow is 3 / 2 of its size.
    away = ground.means[:, :2].abs().amax(-1)
    seen = scene.sees(above)[: len(ground.means), 0]
    assert float(seen[away < 0.66].max()) == 0.0 and float(seen[away > 0.86].min()) == 1.0
    assert float(scene.sees(below)[: len(ground.means)].min()) == 1.0


def test_every_kind_of_light_has_its_shadow_channel() -> None:
    ground, lid = plate(1.0, 0.0, 0.1), plate(0.5, 0.6, 0.1, downwards=True)
    scene = SceneTransport.of(joined(ground, lid))
    sun = DirectionalLight(UP, torch.ones(3))
    lamp = PointLight(torch.tensor([0.0, 0.0, 0.3]), torch.ones(3))
    harmonics = SphericalHarmonicLight(torch.full((1, 3), 3.0))
    materials = matt(len(scene.positions))
    camera = torch.tensor([0.0, -4.0, 2.0])
    parts = []
    points = points_at(joined(ground, lid), scene.visibility.normals, camera)
    for light in (sun, lamp, harmonics, LightSum((sun, lamp, harmonics))):
        lit = light_gaussians(scene, materials, light)
        parts.append(lit.shade(points, lit.channels(camera)).diffuse)
    # Light adds up, shadows and bounces included.
    torch.testing.assert_close(parts[0] + parts[1] + parts[2], parts[3], rtol=1e-4, atol=1e-5)
    centre = ground.means[:, :2].norm(dim=-1).argmin()
    # The sun is behind the lid, but the lamp is below it: what the sun leaves is a bounce.
    assert float(parts[0][centre, 0]) < 0.02 < float(parts[1][centre, 0])


def test_a_red_wall_tints_the_ground_and_a_metal_wall_does_not_make_it_black() -> None:
    ground = plate(1.0, 0.0, 0.1)
    steps = torch.arange(-1.0, 1.01, 0.1)
    y, z = torch.meshgrid(steps, steps + 1.05, indexing="ij")
    wall_positions = torch.stack([torch.full_like(y, 1.05), y, z], dim=-1).flatten(0, 1)
    wall = flat(wall_positions, torch.tensor([-1.0, 0, 0]).expand_as(wall_positions), 0.1)
    scene = SceneTransport.of(joined(ground, wall))
    count, total = len(ground.means), len(scene.positions)
    near = (ground.means[:, 0] > 0.7) & (ground.means[:, 1].abs() < 0.5)
    for metallic in (0.0, 1.0):
        materials = matt(total, 0.8, metallic)
        materials.albedo[count:] = torch.tensor([0.9, 0.1, 0.1])
        lit = light_gaussians(scene, materials, EnvironmentLight(torch.ones(16, 32, 3)))
        bounced = lit.bounced.irradiance[:count][near].mean(0)
        assert float(bounced[0]) > 0.6 and float(bounced[0]) > 2.0 * float(bounced[1])
        # Half of the sky is behind the wall at its foot.
        assert 0.5 < float(lit.diffuse_ratio[:count][near].mean()) < 0.9


def test_in_an_even_room_pixels_reflect_its_radiance_by_their_own_material() -> None:
    outside = ball()
    room = flat(outside.means, -outside.means, math.sqrt(4.0 * math.pi / len(outside.means)))
    scene = SceneTransport.of(room)
    lit = light_gaussians(scene, matt(len(room.means), 0.8, 1.0), sky())
    even = torch.full_like(lit.bounced.radiance, 0.3)
    lit = replace(lit, bounced=Bounced(math.pi * even, even))
    camera = torch.tensor([0.2, 0.1, -0.3])
    channels = lit.channels(camera)
    # Some rays slip between the polygons.
    torch.testing.assert_close(channels[:, 9:12], even, rtol=0.03, atol=0.0)
    points = points_at(room, -outside.means, camera)
    for metallic, albedo in ((0.0, 0.5), (1.0, 0.5), (1.0, 0.9)):
        own = replace(
            points,
            albedo=torch.full_like(points.albedo, albedo),
            metallic=torch.full_like(points.metallic, metallic),
        )
        specular = lit.shade(own, channels).specular
        torch.testing.assert_close(specular, 0.3 * specular_albedo(own), rtol=0.1, atol=0.005)


def test_channels_of_one_view_equal_those_of_its_directions() -> None:
    scene = SceneTransport.of(joined(plate(1.0, 0.0, 0.1), plate(0.4, 0.5, 0.1)))
    lit = light_gaussians(scene, matt(len(scene.positions)), sky())
    camera = torch.tensor([0.5, -2.0, 3.0])
    who = torch.tensor([3, 77, 3, 200])
    views = safe_normalise(camera - scene.positions[who])
    torch.testing.assert_close(lit.channels_of(who, views), lit.channels(camera)[who])


def test_ratios_are_differentiable_in_the_light() -> None:
    scene = SceneTransport.of(joined(plate(0.3, 0.0, 0.15), plate(0.3, 0.3, 0.15)), 32)
    radiance = (0.5 + torch.rand(8, 16, 3, generator=torch.Generator().manual_seed(0))).double()

    def ratios(values: Tensor) -> Tensor:
        light = CellLight.of((EnvironmentLight(values.float()),), scene.visibility.cells)
        return diffuse_ratio(scene, light).double()

    direction = torch.rand(8, 16, 3, generator=torch.Generator().manual_seed(1)).double()
    radiance.requires_grad_()
    weights = torch.rand(len(scene.positions), 3, generator=torch.Generator().manual_seed(2))
    (ratios(radiance) * weights).sum().backward()
    assert radiance.grad is not None
    step = 1e-2
    with torch.no_grad():
        ahead, behind = (
            (ratios(radiance + sign * step * direction) * weights).sum() for sign in (1, -1)
        )
    expected = float(ahead - behind) / (2.0 * step)
    assert float((radiance.grad * direction).sum()) == pytest.approx(expected, rel=1e-2)


def test_total_albedo_of_black_metal_is_the_mean_of_its_reflection() -> None:
    """F0 = 0 leaves the grazing term alone: over the views, weighted by cosine."""
    roughness = torch.linspace(0.05, 1.0, 77)[:, None]
    black = SurfaceMaterials(torch.zeros(77, 3), roughness, torch.ones(77, 1))
    cosines = ((torch.arange(512) + 0.5) / 512).sqrt().expand(77, -1)[..., None]
    _, grazing = split_sum_terms(cosines, roughness[:, None].expand(-1, 512, 1))
    expected = grazing.mean(1).expand(-1, 3)
    torch.testing.assert_close(black.total_albedo(), expected, rtol=0.0, atol=0.002)


def test_total_albedo_of_white_metal_and_white_matt_is_near_one() -> None:
    white = SurfaceMaterials(
        torch.ones(2, 3), torch.full((2, 1), 0.3), torch.tensor([[0.0], [1.0]])
    )
    albedo = white.total_albedo()
    # A white dielectric adds its own reflection of 4 to 9 % to a white diffuse lobe.
    assert 1.0 < float(albedo[0, 0]) < 1.1 and 0.93 < float(albedo[1, 0]) <= 1.0
