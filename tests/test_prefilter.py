"""Convolved lights: constants, energy, quadrature, orientation, seams and gradients."""

import math

import pytest
import torch
from torch import Tensor

from splatir.scene.lights import EnvironmentLight, environment_directions, texel_solid_angles
from splatir.shade.prefilter import ROUGHNESS_LEVELS, PrefilteredLight, averaged_down, prefilter
from tests.spheres import unit


def colourful(height: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Smooth light that differs everywhere: a + b . d in each colour, with other axes."""
    directions = environment_directions(height, width, torch.empty(0, dtype=dtype))
    axes = torch.tensor([[0.6, 0.2, -0.3], [-0.2, 0.7, 0.1], [0.3, -0.4, 0.5]], dtype=dtype)
    return 1.0 + directions @ axes


def random_light(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.rand(height, width, 3, generator=generator, dtype=torch.float64)


def mean_over_sphere(radiance: Tensor) -> Tensor:
    angles = texel_solid_angles(*radiance.shape[:2], like=radiance)[:, None, None]
    return (radiance * angles).sum((0, 1)) / (4.0 * math.pi)


def at(light: PrefilteredLight, directions: Tensor, roughness: float) -> Tensor:
    return light.specular_at(directions, torch.full_like(directions[:, :1], roughness))


def ggx_lobe(cosine: Tensor, roughness: float) -> Tensor:
    """D(cos(t/2)) cos t, not normalised."""
    alpha2 = roughness**4
    return cosine.clamp_min(0.0) / ((1.0 + cosine) * 0.5 * (alpha2 - 1.0) + 1.0).square()


def integral_of_lobe(roughness: float | None) -> float:
    """Over the sphere; None is the cosine. The square resolves narrow peaks."""
    steps = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    theta = 0.5 * math.pi * steps.square()
    value = theta.cos() if roughness is None else ggx_lobe(theta.cos(), roughness)
    return float((value * theta.sin() * math.pi * steps).mean() * 2.0 * math.pi)


@pytest.mark.parametrize(("height", "width"), [(2, 4), (4, 8), (16, 32), (32, 64), (40, 80)])
def test_constant_light_stays_constant(height: int, width: int) -> None:
    colour = torch.tensor([0.2, 1.0, 30.0], dtype=torch.float64)
    light = prefilter(EnvironmentLight(colour.expand(height, width, 3)))
    torch.testing.assert_close(
        light.specular, colour.expand_as(light.specular), rtol=1e-5, atol=0.0
    )
    expected = (math.pi * colour).expand_as(light.irradiance)
    torch.testing.assert_close(light.irradiance, expected, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize(("height", "width"), [(16, 32), (32, 64), (64, 128)])
def test_no_level_gains_or_loses_energy(height: int, width: int) -> None:
    """A lobe that sums to one around every direction spreads light and keeps its mean."""
    radiance = random_light(height, width)
    radiance[height // 8, width // 3] = 200.0
    light = prefilter(EnvironmentLight(radiance))
    expected = mean_over_sphere(radiance)
    for level in light.specular:
        torch.testing.assert_close(mean_over_sphere(level), expected, rtol=0.01, atol=0.0)
    mean = mean_over_sphere(light.irradiance) / math.pi
    torch.testing.assert_close(mean, expected, rtol=0.005, atol=0.0)


@pytest.mark.parametrize("row", [0, 5, 15])
def test_one_bright_texel_is_spread_as_quadrature_says(row: int) -> None:
    """Share of the lobe around each texel centre that falls into the bright texel."""
    height, width, column, parts = 16, 32, 20, 200
    radiance = torch.zeros(height, width, 3, dtype=torch.float64)
    radiance[row, column] = 1.0
    light = prefilter(EnvironmentLight(radiance))
    inside = environment_directions(height * parts, width * parts, radiance)
    inside = inside[row * parts : (row + 1) * parts, column * parts : (column + 1) * parts]
    angles = texel_solid_angles(height * parts, width * parts, radiance)
    angles = angles[row * parts : (row + 1) * parts, None].expand(parts, parts)
    around = environment_directions(height, width, radiance)
    # Centres at and around the texel, and far from it.
    places = [(row, column), (row, column - 1), (min(row + 1, 15), column), (8, 19), (12, 4)]
    for i, j in places:
        cosine = inside @ around[i, j]
        for level, roughness in enumerate(ROUGHNESS_LEVELS):
            if roughness < 0.1:
                continue
            share = (ggx_lobe(cosine, roughness) * angles).sum() / integral_of_lobe(roughness)
            got = light.specular[level, i, j, 0]
            assert got.item() == pytest.approx(share.item(), rel=0.02, abs=2e-4), roughness
        irradiance = (cosine.clamp_min(0.0) * angles).sum()
        assert light.irradiance[i, j, 1].item() == pytest.approx(
            irradiance.item(), rel=0.01, abs=3e-5
        )


def test_linear_light_gives_the_irradiance_of_its_harmonics() -> None:
    """A light a + b . d has irradiance pi a + (2 pi / 3) b . n."""
    radiance = colourful(64, 128)
    light = prefilter(EnvironmentLight(radiance))
    expected = math.pi + 2.0 / 3.0 * math.pi * (radiance - 1.0)
    torch.testing.assert_close(light.irradiance, expected, atol=2e-3, rtol=0.0)
    normals = unit(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).double())
    axes = torch.tensor([[0.6, 0.2, -0.3], [-0.2, 0.7, 0.1], [0.3, -0.4, 0.5]]).double()
    expected = math.pi + 2.0 / 3.0 * math.pi * (normals @ axes)
    torch.testing.assert_close(light.irradiance_at(normals), expected, atol=5e-3, rtol=0.0)


@pytest.mark.parametrize("roughness", [0.0, 0.2, 1.0])
def test_axes_keep_their_colours(roughness: float) -> None:
    """Row 0 is +Z, the image's centre +X, a quarter of its width +Y."""
    radiance = torch.zeros(32, 64, 3, dtype=torch.float64)
    radiance[:4, :, 2] = 1.0
    radiance[14:18, 30:34, 0] = 1.0
    radiance[14:18, 14:18, 1] = 1.0
    light = prefilter(EnvironmentLight(radiance))
    axes = torch.eye(3, dtype=torch.float64)
    for values in (at(light, axes, roughness), light.irradiance_at(axes)):
        assert values.argmax(1).tolist() == [0, 1, 2]
        assert values.argmax(0).tolist() == [0, 1, 2]
    assert (at(light, -axes, 0.2).abs() < 0.05).all()


def test_lookups_pass_through_texel_centres() -> None:
    radiance = random_light(16, 32)
    light = prefilter(EnvironmentLight(radiance))
    directions = environment_directions(16, 32, radiance).reshape(-1, 3)
    for level, roughness in enumerate(ROUGHNESS_LEVELS):
        got = at(light, directions, roughness)
        torch.testing.assert_close(got, light.specular[level].reshape(-1, 3), atol=1e-6, rtol=0.0)
    got = light.irradiance_at(directions)
    torch.testing.assert_close(got, light.irradiance.reshape(-1, 3), atol=1e-6, rtol=0.0)


def test_roughness_between_two_levels_is_their_blend() -> None:
    light = prefilter(EnvironmentLight(random_light(16, 32)))
    directions = unit(torch.randn(50, 3, generator=torch.Generator().manual_seed(1)).double())
    lower, upper = at(light, directions, 0.3), at(light, directions, 0.4)
    torch.testing.assert_close(at(light, directions, 0.325), 0.75 * lower + 0.25 * upper)
    for outside, inside in ((-0.5, 0.0), (1.5, 1.0)):
        torch.testing.assert_close(at(light, directions, outside), at(light, directions, inside))


@pytest.mark.parametrize("roughness", [0.0, 0.5])
def test_the_seam_and_the_way_over_the_poles_are_continuous(roughness: float) -> None:
    light = prefilter(EnvironmentLight(random_light(16, 32)))
    z = torch.linspace(-2.5, 2.5, 9, dtype=torch.float64)
    seam = unit(torch.stack([-torch.ones_like(z), torch.full_like(z, 1e-7), z], -1))
    turns = torch.linspace(0.0, 6.0, 9, dtype=torch.float64)
    circle = 1e-5 * torch.stack([turns.cos(), turns.sin(), torch.zeros_like(turns)], -1)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    poles = unit(torch.cat([circle + up, circle - up]))
    near = torch.cat([seam, poles])
    opposite = torch.cat([seam * torch.tensor([1.0, -1.0, 1.0]), poles * (2.0 * up - 1.0)])
    for read in (lambda d: at(light, d, roughness), light.irradiance_at):
        torch.testing.assert_close(read(near), read(opposite), atol=2e-4, rtol=0.0)


def test_large_maps_are_averaged_down_by_solid_angle() -> None:
    radiance = colourful(32, 64)
    fine = radiance.repeat_interleave(16, 0).repeat_interleave(16, 1)
    pooled = averaged_down(fine, 32)
    torch.testing.assert_close(pooled, radiance)
    smooth = averaged_down(colourful(96, 192), 32)
    assert smooth.shape == (32, 64, 3)
    torch.testing.assert_close(mean_over_sphere(smooth), mean_over_sphere(colourful(96, 192)))


def test_gradient_reaches_the_light() -> None:
    radiance = random_light(2, 4).requires_grad_()

    def both(values: Tensor) -> tuple[Tensor, Tensor]:
        light = prefilter(EnvironmentLight(values))
        return light.specular[::4], light.irradiance

    assert torch.autograd.gradcheck(both, radiance, fast_mode=True)


def test_gradient_passes_pooling_and_resizing() -> None:
    """Linear in the light: the gradient times the light is the value."""
    radiance = random_light(40, 80).requires_grad_()
    light = prefilter(EnvironmentLight(radiance))
    weights = random_light(40, 80)
    value = (light.specular * weights).sum()
    (gradient,) = torch.autograd.grad(value, radiance)
    torch.testing.assert_close((gradient * radiance).sum(), value)
