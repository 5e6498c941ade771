"""Does the BRDF have its closed-form values, its symmetries, and samples of its density?"""

import dataclasses
import itertools
import math

import pytest
import torch
from torch import Tensor

from splatir.shade.brdf import (
    DIELECTRIC_F0,
    Masking,
    ShadingSettings,
    alpha_from_roughness,
    disney_factor,
    evaluate,
    f0,
    fresnel_schlick,
    ggx_distribution,
    pdf,
    sample,
    smith_correlated,
    smith_g1,
    smith_separable,
)
from splatir.shade.lobe_energy import directional_albedo, integrate_lobe, split_sum_terms
from splatir.shade.surface import SurfacePoints
from tests.spheres import chi_squared_per_cell, coarse, facing_points, sphere_grid, unit

VARIANTS = [
    ShadingSettings(diffuse, masking)
    for diffuse, masking in itertools.product(("lambert", "disney"), ("separable", "correlated"))
]


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def random_directions(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    directions = unit(torch.randn(count, 3, dtype=torch.float64, generator=generator))
    return torch.cat([directions[:, :2], directions[:, 2:].abs()], dim=-1)


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.5, 1.0])
def test_ggx_is_normalised(alpha: float) -> None:
    """The projected microfacet area over the hemisphere is 1."""
    n = 200_000
    theta = (torch.arange(n, dtype=torch.float64) + 0.5) / n * (math.pi / 2)
    density = ggx_distribution(theta.cos(), scalar(alpha))
    area = (density * theta.cos() * theta.sin()).sum() * (math.pi / 2 / n) * 2 * math.pi
    assert area.item() == pytest.approx(1.0, abs=1e-5)


def test_ggx_peaks_at_one_over_pi_alpha_squared_also_in_float32() -> None:
    for alpha in (2e-3, 0.1, 1.0):
        peak = ggx_distribution(torch.tensor(1.0), torch.tensor(alpha))
        assert peak.item() == pytest.approx(1.0 / (math.pi * alpha**2), rel=1e-5)


def test_ggx_is_zero_behind_the_surface() -> None:
    assert ggx_distribution(scalar(-0.3), scalar(0.5)).item() == 0.0


def test_smith_by_value() -> None:
    """At alpha 1, G1 = 2 c / (1 + c); both maskings agree where one direction is the normal."""
    c = torch.linspace(0.05, 1.0, 10, dtype=torch.float64)
    assert torch.allclose(smith_g1(c, scalar(1.0)), 2 * c / (1 + c))
    one, alpha = torch.ones_like(c), scalar(0.6)
    assert torch.allclose(smith_separable(c, one, alpha), smith_g1(c, alpha) / (4 * c))
    assert torch.allclose(smith_correlated(c, one, alpha), smith_g1(c, alpha) / (4 * c))


def test_correlated_masking_darkens_less() -> None:
    c = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    light, view = (grid.flatten() for grid in torch.meshgrid(c, c, indexing="ij"))
    for alpha in (0.1, 0.5, 1.0):
        separable = smith_separable(light, view, scalar(alpha))
        correlated = smith_correlated(light, view, scalar(alpha))
        assert bool((correlated >= separable * (1 - 1e-12)).all())
        assert bool((correlated * 4 * light * view <= 1.0).all())


def test_masking_is_finite_at_the_horizon() -> None:
    zero, alpha = scalar(0.0), scalar(0.25)
    assert smith_separable(zero, zero, alpha).item() == pytest.approx(1.0 / 0.25**2)
    assert smith_correlated(zero, scalar(0.5), alpha).isfinite()
    assert smith_correlated(zero, zero, alpha).item() == 0.0


def test_fresnel_goes_from_f0_to_one() -> None:
    reflectance = torch.tensor([0.04, 0.5, 0.9], dtype=torch.float64)
    assert torch.equal(fresnel_schlick(reflectance, torch.ones(1).double()), reflectance)
    assert torch.equal(
        fresnel_schlick(reflectance, torch.zeros(1).double()), torch.ones(3).double()
    )
    middle = fresnel_schlick(reflectance, torch.tensor([0.5]).double())
    assert torch.allclose(middle, reflectance + (1 - reflectance) / 32)


def test_f0_of_metal_is_its_colour_and_of_plastic_is_grey() -> None:
    albedo = torch.tensor([0.9, 0.6, 0.1], dtype=torch.float64)
    assert torch.allclose(f0(albedo, torch.ones(1).double()), albedo)
    plastic = f0(albedo, torch.zeros(1).double())
    assert torch.allclose(plastic, torch.full((3,), DIELECTRIC_F0).double())


def test_disney_diffuse_by_value() -> None:
    """Nothing but Lambert along the normal; Burley's halving at grazing light when smooth."""
    one, zero = torch.ones(1).double(), torch.zeros(1).double()
    assert disney_factor(one, one, one, one).item() == pytest.approx(1 / math.pi)
    assert disney_factor(zero, one, one, zero).item() == pytest.approx(0.5 / math.pi)
    assert disney_factor(zero, one, one, one).item() == pytest.approx(2.5 / math.pi)


@pytest.mark.parametrize("settings", VARIANTS)
def test_light_and_view_can_be_swapped(settings: ShadingSettings) -> None:
    """Helmholtz reciprocity of the BRDF itself, without the cosine."""
    light, view = random_directions(40, 1), random_directions(40, 2)
    points = dataclasses.replace(facing_points([0.5] * 40), views=view)
    swapped = dataclasses.replace(points, views=light)
    for there, back in zip(
        evaluate(points, light, settings), evaluate(swapped, view, settings), strict=True
    ):
        assert torch.allclose(there / light[:, 2:], back / view[:, 2:], rtol=1e-9)


@pytest.mark.parametrize("settings", VARIANTS)
def test_light_from_below_reflects_nothing(settings: ShadingSettings) -> None:
    below = -random_directions(8)
    for lobe in evaluate(facing_points([0.3] * 8), below, settings):
        assert torch.equal(lobe, torch.zeros_like(lobe))


@pytest.mark.parametrize("roughness", [0.4, 0.6, 1.0])
@pytest.mark.parametrize("settings", VARIANTS)
def test_white_furnace_loses_light_and_never_makes_it(
    settings: ShadingSettings, roughness: float
) -> None:
    """A white metal under white light; the table of lobes agrees with plain quadrature."""
    cosines = [0.1, 0.5, 1.0]
    points = facing_points(cosines, roughness, 1.0, (1.0, 1.0, 1.0))
    directions, area = sphere_grid(512, 512)
    _, specular = evaluate(points, directions[:, None].expand(-1, 3, -1), settings)
    reflected = area @ specular[..., 0]
    assert bool((reflected <= 1.0 + 1e-3).all())
    _, tabulated = directional_albedo(
        torch.tensor(cosines, dtype=torch.float64), scalar(roughness), 1.0, settings
    )
    assert torch.allclose(reflected, tabulated, atol=2e-3)


@pytest.mark.parametrize("settings", VARIANTS)
def test_diffuse_albedo_agrees_with_quadrature(settings: ShadingSettings) -> None:
    cosines = [0.1, 0.6, 1.0]
    points = facing_points(cosines, 0.7, 0.0, (1.0, 1.0, 1.0))
    directions, area = sphere_grid(256, 64)
    diffuse, _ = evaluate(points, directions[:, None].expand(-1, 3, -1), settings)
    expected, _ = directional_albedo(
        torch.tensor(cosines, dtype=torch.float64), scalar(0.7), 1.0, settings
    )
    assert torch.allclose(area @ diffuse[..., 0], expected, atol=5e-5)


@pytest.mark.parametrize("masking", ["separable", "correlated"])
def test_split_sum_table_is_near_its_integral(masking: Masking) -> None:
    generator = torch.Generator().manual_seed(0)
    for roughness in (0.13, 0.377, 0.81):
        cosines = 0.02 + 0.98 * torch.rand(20, dtype=torch.float64, generator=generator)
        rough = scalar(roughness)
        for table, integral in zip(
            split_sum_terms(cosines[:, None], rough.expand(20, 1), masking),
            integrate_lobe(cosines, rough, masking),
            strict=True,
        ):
            assert torch.allclose(table[:, 0], integral, atol=3e-3)


def test_split_sum_terms_of_a_mirror_are_fresnel_weights() -> None:
    cosine = torch.tensor([[0.2], [0.6], [1.0]], dtype=torch.float64)
    a, b = split_sum_terms(cosine, torch.zeros_like(cosine))
    assert torch.allclose(b, (1.0 - cosine) ** 5, atol=2e-3)
    assert torch.allclose(a + b, torch.ones_like(a), atol=2e-3)


def test_split_sum_terms_take_the_ends_of_their_ranges() -> None:
    ends = torch.tensor([[0.0], [1.0], [-0.5], [1.5]])
    for term in split_sum_terms(ends, ends):
        assert term.isfinite().all()
    assert split_sum_terms(ends[1:2], ends[1:2])[0] == split_sum_terms(ends[3:], ends[3:])[0]


@pytest.mark.parametrize("roughness", [0.3, 1.0])
@pytest.mark.parametrize("cosine", [0.15, 0.5, 1.0])
def test_samples_follow_their_density(roughness: float, cosine: float) -> None:
    """Chi-squared over the whole sphere, and the density integrates to 1."""
    rows, columns, fine = 16, 16, 32
    generator = torch.Generator().manual_seed(5)
    uniforms = torch.rand(100_000, 1, 3, dtype=torch.float64, generator=generator)
    points = facing_points([cosine], roughness)
    samples = sample(points, uniforms)[:, 0]
    directions, area = sphere_grid(rows * fine, columns * fine)
    shares = pdf(points, directions[:, None])[:, 0] * area
    assert shares.sum().item() == pytest.approx(1.0, abs=2e-3)
    expected = coarse(shares, rows, columns, fine)
    assert chi_squared_per_cell(samples, expected, rows, columns) < 1.4


def test_samples_are_in_the_world_frame() -> None:
    """Turning the whole surface turns the samples: mean direction near the normal's side."""
    normal = unit(torch.tensor([[-0.3, 0.8, -0.6]], dtype=torch.float64))
    points = dataclasses.replace(facing_points([1.0], 0.2), normals=normal, views=normal)
    generator = torch.Generator().manual_seed(5)
    uniforms = torch.rand(4000, 1, 3, dtype=torch.float64, generator=generator)
    mean = unit(sample(points, uniforms).mean(0))
    assert (mean * normal).sum().item() > 0.999


@pytest.mark.parametrize("settings", VARIANTS)
def test_gradients_of_the_brdf(settings: ShadingSettings) -> None:
    light = random_directions(3, 7)
    points = dataclasses.replace(facing_points([0.3, 0.6, 0.9]), views=random_directions(3, 8))

    def both(
        normals: Tensor, views: Tensor, albedo: Tensor, roughness: Tensor, metallic: Tensor
    ) -> tuple[Tensor, Tensor]:
        surface = SurfacePoints(points.positions, normals, views, albedo, roughness, metallic)
        return evaluate(surface, light, settings)

    inputs = (points.normals, points.views, points.albedo, points.roughness, points.metallic)
    leaves = [value.clone().requires_grad_() for value in inputs]
    assert torch.autograd.gradcheck(both, leaves)


def test_gradients_of_the_split_sum_terms() -> None:
    cosine = torch.tensor([[0.31], [0.77]], dtype=torch.float64, requires_grad=True)
    roughness = torch.tensor([[0.22], [0.63]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(split_sum_terms, (cosine, roughness))


@pytest.mark.parametrize("settings", VARIANTS)
def test_gradients_stay_finite_at_the_ends(settings: ShadingSettings) -> None:
    """Mirror direction, grazing view and light, roughness 0: float32 as in training."""
    x = torch.tensor([1.0, 0.0, 0.0])
    z = torch.tensor([0.0, 0.0, 1.0])
    normals = torch.stack([z, z, z, z]).requires_grad_()
    views, lights = torch.stack([z, x, x, z]), torch.stack([z, -x, z, -z])
    roughness = torch.zeros(4, 1, requires_grad=True)
    albedo = torch.full((4, 3), 0.5)
    surface = SurfacePoints(normals, normals, views, albedo, roughness, torch.zeros(4, 1))
    diffuse, specular = evaluate(surface, lights, settings)
    (diffuse + specular).sum().backward()
    assert specular.isfinite().all()
    for leaf in (normals, roughness):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_alpha_is_floored() -> None:
    assert alpha_from_roughness(torch.tensor(0.0)).item() == pytest.approx(2e-3)
    assert alpha_from_roughness(torch.tensor(0.5)).item() == 0.25
