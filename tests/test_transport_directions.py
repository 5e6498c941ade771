"""Directions of transport and how light is dealt out to their cells."""

import math

import pytest
import torch
from torch import Tensor

from splatir.scene.lights import (
    EnvironmentLight,
    environment_directions,
    environment_radiance,
    texel_solid_angles,
)
from splatir.transport.directions import nearest_directions, spherical_cells

DOUBLE = torch.empty(0, dtype=torch.float64)
# Coarser and finer than the grid of the cells, divisors of it and not, averaged down and not.
SIZES = [
    (1, 2),
    (3, 6),
    (8, 16),
    (15, 30),
    (64, 128),
    (100, 200),
    (256, 512),
    (512, 1024),
    (514, 7),
]


def random_map(height: int, width: int) -> Tensor:
    """A few texels hold most of the light."""
    generator = torch.Generator().manual_seed(height)
    return torch.rand(height, width, 3, generator=generator).double() ** 12 + 1e-3


def power(radiance: Tensor) -> Tensor:
    angles = texel_solid_angles(*radiance.shape[:2], like=radiance)
    return (radiance * angles[:, None, None]).sum((0, 1))


@pytest.mark.parametrize("count", [1, 2, 7, 16, 128, 256])
def test_cells_share_out_the_sphere(count: int) -> None:
    cells = spherical_cells(count, DOUBLE)
    assert cells.directions.shape == (count, 3)
    torch.testing.assert_close(cells.directions.norm(dim=-1), torch.ones(count).double())
    assert cells.solid_angles.sum().item() == pytest.approx(4.0 * math.pi, abs=1e-9)
    # The lattice's cells are of nearly one size.
    ratio = cells.solid_angles * count / (4.0 * math.pi)
    assert ratio.min() > 0.9 and ratio.max() < 1.1


def test_directions_balance_and_turn_no_light() -> None:
    """Mean and second moments of the cells are those of the sphere."""
    cells = spherical_cells(256, DOUBLE)
    weighted = cells.directions * cells.solid_angles[:, None] / (4.0 * math.pi)
    assert weighted.sum(0).norm() < 2e-3
    moments = weighted.mT @ cells.directions
    torch.testing.assert_close(moments, torch.eye(3).double() / 3.0, atol=2e-3, rtol=0.0)


@pytest.mark.parametrize("count", [0, -1])
def test_no_directions_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="at least 1 direction"):
        spherical_cells(count, DOUBLE)


def test_nearest_direction_is_the_nearest() -> None:
    cells = spherical_cells(50, DOUBLE)
    texels = environment_directions(9, 18, DOUBLE).reshape(-1, 3)
    want = (texels @ cells.directions.mT).argmax(-1)
    assert torch.equal(nearest_directions(50, 9, 18), want)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("count", [1, 256])
def test_cells_keep_the_power_of_any_map(height: int, width: int, count: int) -> None:
    radiance = random_map(height, width)
    sums = spherical_cells(count, DOUBLE).light_from(EnvironmentLight(radiance))
    torch.testing.assert_close(sums.sum(0), power(radiance), rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("height", [4, 16, 64, 256, 512])
def test_uniform_light_is_the_solid_angle_of_each_cell(height: int) -> None:
    """So that ratios of sums under uniform light are exact."""
    cells = spherical_cells(256, DOUBLE)
    uniform = EnvironmentLight(torch.full((height, 2 * height, 3), 2.5).double())
    want = 2.5 * cells.solid_angles[:, None].expand(-1, 3)
    torch.testing.assert_close(cells.light_from(uniform), want, rtol=1e-9, atol=0.0)


def test_a_lamp_lights_the_cell_that_holds_it() -> None:
    cells = spherical_cells(128, DOUBLE)
    radiance = torch.zeros(128, 256, 3).double()
    radiance[40, 100] = torch.tensor([3.0, 2.0, 1.0]).double()
    towards = environment_directions(128, 256, DOUBLE)[40, 100]
    sums = cells.light_from(EnvironmentLight(radiance))
    torch.testing.assert_close(sums.sum(0), power(radiance))
    assert int(sums.sum(-1).argmax()) == int((cells.directions @ towards).argmax())
    assert (sums.sum(-1) > 0.0).sum() <= 3


def test_light_is_linear_in_the_map() -> None:
    cells = spherical_cells(64, DOUBLE)
    first, second = random_map(20, 40), random_map(21, 40)[:20]
    mixed = cells.light_from(EnvironmentLight(2.0 * first + second))
    parts = [cells.light_from(EnvironmentLight(image)) for image in (first, second)]
    torch.testing.assert_close(mixed, 2.0 * parts[0] + parts[1])


@pytest.mark.parametrize("height", [3, 300])
def test_gradient_to_the_map_passes_gradcheck(height: int) -> None:
    cells = spherical_cells(12, DOUBLE)
    radiance = random_map(height, 4).requires_grad_()
    weights = torch.rand(12, 3, generator=torch.Generator().manual_seed(0)).double()

    def total(image: Tensor) -> Tensor:
        return (cells.light_from(EnvironmentLight(image)) * weights).sum()

    (gradient,) = torch.autograd.grad(total(radiance), radiance)
    # Linear, so one difference over a long way is exact.
    step = random_map(height, 4)
    change = total(radiance.detach() + step) - total(radiance.detach())
    torch.testing.assert_close((gradient * step).sum(), change)


def test_float32_loses_nothing_worth_mentioning() -> None:
    radiance = random_map(64, 128)
    want = spherical_cells(256, DOUBLE).light_from(EnvironmentLight(radiance))
    got = spherical_cells(256, torch.empty(0)).light_from(EnvironmentLight(radiance.float()))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_centroids_point_to_the_light_of_their_cells(scale: float) -> None:
    """Whatever the unit of radiance."""
    cells = spherical_cells(128, torch.empty(0))
    radiance = torch.full((256, 512, 3), 1e-6)
    radiance[70, 300] = 1e4
    sun = environment_directions(256, 512)[70, 300]
    centroids = cells.centroids_of(EnvironmentLight(radiance * scale))
    torch.testing.assert_close(centroids.norm(dim=-1), torch.ones(128))
    lit = int((cells.directions @ sun).argmax())
    assert (centroids[lit] @ sun).acos() < 1e-3
    others = torch.arange(128) != lit
    assert ((centroids * cells.directions).sum(-1)[others] > 0.99).all()


def test_centroids_of_a_dark_map_are_the_directions() -> None:
    cells = spherical_cells(128, torch.empty(0))
    centroids = cells.centroids_of(EnvironmentLight(torch.zeros(16, 32, 3)))
    torch.testing.assert_close(centroids, cells.directions)


def test_centroids_stay_in_their_cells_under_a_coarse_map() -> None:
    """A texel larger than a cell sends light from all over it, not from its middle."""
    cells = spherical_cells(256, torch.empty(0))
    centroids = cells.centroids_of(EnvironmentLight(random_map(4, 8).float()))
    nearest = (centroids @ cells.directions.mT).argmax(-1)
    assert torch.equal(nearest, torch.arange(256))


def test_cells_light_a_surface_as_the_map_does() -> None:
    """Irradiance of all normals from the cells is that of the texels, to the cells' coarseness."""
    smooth = environment_radiance(random_map(6, 12), environment_directions(64, 128, DOUBLE))
    cells = spherical_cells(256, DOUBLE)
    normals = spherical_cells(40, DOUBLE).directions
    towards = environment_directions(64, 128, DOUBLE).flatten(0, 1)
    weights = texel_solid_angles(64, 128, DOUBLE).repeat_interleave(128)[:, None]
    want = (normals @ towards.mT).clamp_min(0.0) @ (smooth.flatten(0, 1) * weights)
    got = (normals @ cells.directions.mT).clamp_min(0.0) @ cells.light_from(
        EnvironmentLight(smooth)
    )
    assert ((got - want).norm() / want.norm()) < 0.02
