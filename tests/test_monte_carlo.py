"""Does the reference integrator integrate?"""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

import splatir.shade.monte_carlo
from splatir.maths.spherical_harmonics import SH_DC
from splatir.scene.lights import (
    DirectionalLight,
    EnvironmentLight,
    LightSum,
    PointLight,
    SphericalHarmonicLight,
    environment_radiance,
)
from splatir.shade.brdf import ShadingSettings, evaluate, f0
from splatir.shade.environment_sampling import EnvironmentSampler
from splatir.shade.lobe_energy import split_sum_terms
from splatir.shade.monte_carlo import MonteCarlo
from splatir.shade.punctual import shade_punctual
from splatir.shade.surface import Shading, SurfacePoints
from tests.spheres import (
    chi_squared_per_cell,
    coarse,
    facing_points,
    sphere_grid,
    sphere_points,
    unit,
)

MATERIALS = ("normals", "albedo", "roughness", "metallic")


def sunny_map(height: int = 16, width: int = 32) -> Tensor:
    """A dim sky with a lamp of one texel, which is near the map's seam."""
    generator = torch.Generator().manual_seed(0)
    radiance = torch.rand(height, width, 3, dtype=torch.float64, generator=generator)
    radiance[4, width - 1] = torch.tensor([900.0, 700.0, 400.0])
    return radiance


def quadrature(points: SurfacePoints, radiance: Tensor, settings: ShadingSettings) -> Shading:
    directions, areas = sphere_grid(256, 512)
    arriving = environment_radiance(radiance, directions) * areas[:, None]
    lobes = evaluate(points, directions[:, None].expand(-1, len(points.normals), -1), settings)
    return Shading(*((lobe * arriving[:, None]).sum(0) for lobe in lobes))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_light_on_lambert_gives_the_albedo(dtype: torch.dtype) -> None:
    points = sphere_points(12, 0.5, 0.0)
    parts = {key: value.to(dtype) for key, value in vars(points).items() if value is not None}
    points = SurfacePoints(**parts)
    light = EnvironmentLight(torch.full((8, 16, 3), 2.0, dtype=dtype))
    shading = MonteCarlo(light, 1024, settings=ShadingSettings("lambert")).shade(points)
    assert shading.diffuse.dtype == dtype
    assert torch.allclose(shading.diffuse, 2.0 * points.albedo, rtol=0.02)
    assert shading.diffuse.mean(0) / 2.0 == pytest.approx(points.albedo[0].tolist(), rel=1e-3)


@pytest.mark.parametrize("roughness", [0.1, 0.5, 1.0])
def test_constant_light_on_ggx_gives_the_split_sum_terms(roughness: float) -> None:
    points = sphere_points(12, roughness, 0.6)
    shading = MonteCarlo(EnvironmentLight(torch.ones(8, 16, 3).double()), 1024).shade(points)
    n_dot_v = (points.normals * points.views).sum(-1, keepdim=True)
    a, b = split_sum_terms(n_dot_v, points.roughness)
    expected = f0(points.albedo, points.metallic) * a + b
    assert torch.allclose(shading.specular, expected, rtol=0.04)
    assert shading.specular.mean().item() == pytest.approx(expected.mean().item(), rel=2e-3)


def test_a_smooth_metal_mirrors_the_map() -> None:
    """Towards roughness 0 the specular lobe is F(n.v) times what the mirror direction sees."""
    points = sphere_points(10, 0.02, 1.0)
    radiance = 1.0 + torch.linspace(0, 1, 64).double()[:, None, None].expand(64, 128, 3)
    shading = MonteCarlo(EnvironmentLight(radiance), 1024).shade(points)
    n_dot_v = (points.normals * points.views).sum(-1, keepdim=True)
    mirrored = 2.0 * n_dot_v * points.normals - points.views
    fresnel = points.albedo + (1.0 - points.albedo) * (1.0 - n_dot_v) ** 5
    expected = fresnel * environment_radiance(radiance, mirrored)
    assert torch.allclose(shading.specular, expected, rtol=0.03)


@pytest.mark.parametrize("roughness", [0.4, 0.9])
@pytest.mark.parametrize("settings", [ShadingSettings(), ShadingSettings("disney", "correlated")])
def test_a_sky_with_a_lamp_agrees_with_quadrature(
    roughness: float, settings: ShadingSettings
) -> None:
    """Fails if a density is wrong: of the lobes, of the map, at its seam or of their mixture."""
    points = facing_points([0.2, 0.6, 1.0], roughness)
    expected = quadrature(points, sunny_map(), settings)
    light = EnvironmentLight(sunny_map())
    shading = MonteCarlo(light, 1 << 14, settings=settings).shade(points)
    assert torch.allclose(shading.diffuse, expected.diffuse, rtol=2e-3)
    assert torch.allclose(shading.specular, expected.specular, rtol=6e-3)


def test_more_samples_give_less_noise() -> None:
    points = sphere_points(8, 0.4, 0.5)
    light = EnvironmentLight(sunny_map())
    exact = MonteCarlo(light, 1 << 12, seed=9).shade(points).radiance
    errors = [
        float((MonteCarlo(light, count, seed=1).shade(points).radiance - exact).norm())
        for count in (8, 64, 512)
    ]
    assert errors[0] > 2.0 * errors[1] > 4.0 * errors[2]


def test_environment_samples_follow_their_density() -> None:
    rows, columns, fine = 16, 32, 8
    sampler = EnvironmentSampler(sunny_map())
    generator = torch.Generator().manual_seed(5)
    samples = sampler.sample(torch.rand(200_000, 2, dtype=torch.float64, generator=generator))
    directions, areas = sphere_grid(rows * fine, columns * fine)
    shares = coarse(sampler.pdf(directions) * areas, rows, columns, fine)
    assert shares.sum().item() == pytest.approx(1.0, abs=1e-9)
    assert chi_squared_per_cell(samples, shares, rows, columns) < 1.3


def test_environment_density_covers_all_light() -> None:
    """Wherever interpolated radiance is above 0, so is the density: no light goes missing."""
    radiance = torch.zeros(8, 16, 3, dtype=torch.float64)
    radiance[0, 0] = radiance[5, 15] = 1.0
    directions, _ = sphere_grid(100, 200)
    is_lit = environment_radiance(radiance, directions)[:, 0] > 1e-12
    assert bool((EnvironmentSampler(radiance).pdf(directions)[is_lit] > 0.0).all())


def test_a_black_map_reflects_nothing() -> None:
    shading = MonteCarlo(EnvironmentLight(torch.zeros(4, 8, 3).double())).shade(
        facing_points([0.5])
    )
    assert torch.equal(shading.radiance, torch.zeros(1, 3).double())


def test_one_large_sun_texel_keeps_its_energy_in_float32() -> None:
    """A sun of 1e5 in a 1k map under a diffuse surface: irradiance by sum over the texels."""
    radiance = torch.zeros(512, 1024, 3)
    radiance[200, 300] = 1e5
    normal = unit(torch.tensor([[0.2, 0.9, 0.4]]))
    points = SurfacePoints(
        normal, normal, normal, torch.ones(1, 3), torch.ones(1, 1), torch.zeros(1, 1)
    )
    theta, phi = math.pi * 200.5 / 512, 2 * math.pi * (0.5 - 300.5 / 1024)
    sine = math.sin(theta)
    sun = torch.tensor([sine * math.cos(phi), sine * math.sin(phi), math.cos(theta)])
    solid_angle = 2 * math.pi / 1024 * math.pi / 512 * sine
    expected = 1e5 * solid_angle * float(normal[0] @ sun) / math.pi
    shading = MonteCarlo(EnvironmentLight(radiance), 4096).shade(points)
    assert shading.diffuse[0, 0].item() == pytest.approx(expected, rel=0.01)


def test_directional_light_by_value() -> None:
    """Lambert along the normal: albedo (1 - metallic) E / pi; the specular peak D / 4 with F0."""
    points = facing_points([1.0], 0.5, 0.0, (0.6, 0.6, 0.6))
    light = DirectionalLight(torch.tensor([0.0, 0, 1]).double(), torch.full((3,), math.pi).double())
    shading = shade_punctual(points, light)
    assert shading.diffuse[0].tolist() == pytest.approx([0.6] * 3)
    peak = 1.0 / (math.pi * 0.25**2)
    assert shading.specular[0].tolist() == pytest.approx([0.04 * peak / 4 * math.pi] * 3)


def test_point_light_falls_with_the_square_of_distance() -> None:
    points = facing_points([1.0, 1.0])
    points = dataclasses.replace(points, positions=torch.tensor([[0.0, 0, 1], [0, 0, -1]]).double())
    light = PointLight(torch.tensor([0.0, 0, 3]).double(), torch.ones(3).double())
    near, far = MonteCarlo(light).shade(points).radiance
    assert torch.allclose(near, 4.0 * far)


def test_a_small_lamp_in_a_map_is_a_directional_light() -> None:
    radiance = torch.zeros(256, 512, 3, dtype=torch.float64)
    radiance[90, 200] = 5e3
    theta, phi = math.pi * 90.5 / 256, 2 * math.pi * (0.5 - 200.5 / 512)
    direction = [math.sin(theta) * math.cos(phi), math.sin(theta) * math.sin(phi), math.cos(theta)]
    irradiance = 5e3 * math.sin(theta) * (math.pi / 256) ** 2
    sun = DirectionalLight(torch.tensor(direction).double(), torch.full((3,), irradiance).double())
    points = facing_points([0.4, 0.8], 0.6)
    from_map = MonteCarlo(EnvironmentLight(radiance), 1 << 14).shade(points).radiance
    assert torch.allclose(from_map, MonteCarlo(sun).shade(points).radiance, rtol=0.01)


def test_a_sum_of_lights_adds_their_reflections() -> None:
    points = facing_points([0.3, 0.9])
    coefficients = torch.zeros(4, 3, dtype=torch.float64)
    coefficients[0] = 1.0 / SH_DC
    parts = (
        EnvironmentLight(sunny_map()),
        SphericalHarmonicLight(coefficients),
        PointLight(torch.tensor([1.0, 0, 3]).double(), torch.ones(3).double()),
    )
    together = MonteCarlo(LightSum(parts)).shade(points)
    alone = [MonteCarlo(part).shade(points) for part in parts]
    assert torch.allclose(together.diffuse, sum((s.diffuse for s in alone), torch.zeros(2, 3)))
    assert torch.allclose(together.specular, sum((s.specular for s in alone), torch.zeros(2, 3)))


def test_no_light_reflects_nothing() -> None:
    shading = MonteCarlo(LightSum(())).shade(facing_points([0.3, 0.9]))
    assert torch.equal(shading.radiance, torch.zeros(2, 3).double())


def test_no_points_are_shaded_to_no_points() -> None:
    shading = MonteCarlo(EnvironmentLight(sunny_map())).shade(facing_points([]))
    assert shading.radiance.shape == (0, 3)


def loss_and_gradients(points: SurfacePoints) -> tuple[Tensor, list[Tensor]]:
    leaves = {name: getattr(points, name).clone().requires_grad_() for name in MATERIALS}
    radiance = sunny_map().requires_grad_()
    shading = MonteCarlo(EnvironmentLight(radiance), 64).shade(
        dataclasses.replace(points, **leaves)
    )
    loss = shading.radiance.square().mean()
    return loss.detach(), list(torch.autograd.grad(loss, [*leaves.values(), radiance]))


def test_chunks_change_neither_picture_nor_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    points = sphere_points(6, 0.5, 0.3)
    whole, whole_gradients = loss_and_gradients(points)
    monkeypatch.setattr(splatir.shade.monte_carlo, "_CHUNK", 300)
    chunked, chunked_gradients = loss_and_gradients(points)
    assert torch.allclose(whole, chunked)
    for one, other in zip(whole_gradients, chunked_gradients, strict=True):
        assert one.norm() > 0.0
        assert torch.allclose(one, other)


def test_the_seed_fixes_the_picture() -> None:
    points, light = facing_points([0.4, 0.8]), EnvironmentLight(sunny_map())
    first, again, other = (MonteCarlo(light, 64, seed).shade(points).radiance for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", MATERIALS)
def test_gradients_are_those_of_the_integral(name: str) -> None:
    """The estimator's directions depend on the material, its gradient must not: compare with
    finite differences of quadrature, which has no samples."""
    points = facing_points([0.4, 0.9], 0.6)
    generator = torch.Generator().manual_seed(6)
    value = getattr(points, name)
    step = 1e-4 * torch.randn(value.shape, dtype=torch.float64, generator=generator)
    up = dataclasses.replace(points, **{name: value + step})
    down = dataclasses.replace(points, **{name: value - step})
    settings = ShadingSettings()
    difference = (
        quadrature(up, sunny_map(), settings).radiance.sum()
        - quadrature(down, sunny_map(), settings).radiance.sum()
    )
    leaf = value.clone().requires_grad_()
    shading = MonteCarlo(EnvironmentLight(sunny_map()), 1 << 13).shade(
        dataclasses.replace(points, **{name: leaf})
    )
    (gradient,) = torch.autograd.grad(shading.radiance.sum(), leaf)
    assert 2.0 * (gradient * step).sum().item() == pytest.approx(difference.item(), rel=0.02)


def test_gradients_of_punctual_lights() -> None:
    points = facing_points([0.4, 0.9])

    def reflected(position: Tensor, intensity: Tensor, normals: Tensor) -> Tensor:
        surface = dataclasses.replace(points, normals=normals)
        return shade_punctual(surface, PointLight(position, intensity)).radiance

    leaves = [
        torch.tensor([0.5, -0.4, 2.0], dtype=torch.float64),
        torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64),
        points.normals.clone(),
    ]
    assert torch.autograd.gradcheck(reflected, [leaf.requires_grad_() for leaf in leaves])


def test_too_few_samples_and_broken_lights_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4"):
        MonteCarlo(EnvironmentLight(sunny_map()), 3)
    with pytest.raises(ValueError, match="NaN"):
        MonteCarlo(EnvironmentLight(sunny_map() * math.nan))
