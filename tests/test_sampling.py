"""Are samples spread as their densities say?"""

import math

import pytest
import torch

from splatir.maths.sampling import (
    cosine_pdf,
    local_frame,
    low_discrepancy_points,
    rotate_points,
    sample_cosine,
    sample_vndf,
)
from splatir.shade.brdf import ggx_distribution, smith_g1
from tests.spheres import chi_squared_per_cell, coarse, sphere_grid, unit

ROWS, COLUMNS, FINE = 16, 16, 32


def random_uniforms(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(count, 2, dtype=torch.float64, generator=generator)


def test_cosine_samples_follow_their_density() -> None:
    samples = sample_cosine(random_uniforms(100_000))
    directions, area = sphere_grid(ROWS * FINE, COLUMNS * FINE)
    shares = coarse(cosine_pdf(directions[:, 2]) * area, ROWS, COLUMNS, FINE)
    assert shares.sum().item() == pytest.approx(1.0, abs=1e-4)
    # Of about 128 cells the mean of chi^2 is 1 +- 0.13.
    assert chi_squared_per_cell(samples, shares, ROWS, COLUMNS) < 1.5


@pytest.mark.parametrize("cosine", [0.02, 0.4, 1.0])
@pytest.mark.parametrize("alpha", [0.15, 0.7])
def test_visible_normals_follow_their_density(cosine: float, alpha: float) -> None:
    """Density of half vectors: G1(v) max(0, v.h) D(h) / n.v, Heitz 2018, eq. 1."""
    view = torch.tensor([0.6, 0.8, 0.0], dtype=torch.float64) * math.sqrt(1.0 - cosine**2)
    view[2] = cosine
    uniforms = random_uniforms(100_000)
    width = torch.full((len(uniforms), 1), alpha, dtype=torch.float64)
    samples = sample_vndf(view.expand(len(uniforms), 3), width, uniforms)
    directions, area = sphere_grid(ROWS * FINE, COLUMNS * FINE)
    a = torch.tensor(alpha, dtype=torch.float64)
    density = ggx_distribution(directions[:, 2], a) * (directions @ view).clamp_min(0.0)
    density = density * smith_g1(torch.tensor(cosine, dtype=torch.float64), a) / cosine
    shares = coarse(density * area, ROWS, COLUMNS, FINE)
    assert shares.sum().item() == pytest.approx(1.0, abs=2e-3)
    assert chi_squared_per_cell(samples, shares, ROWS, COLUMNS) < 1.5


def test_local_frames_are_rotations_whose_z_axis_is_the_normal() -> None:
    generator = torch.Generator().manual_seed(0)
    normals = unit(torch.randn(50, 3, dtype=torch.float64, generator=generator))
    poles = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]], dtype=torch.float64)
    frames = local_frame(torch.cat([normals, poles]))
    identity = torch.eye(3, dtype=torch.float64).expand_as(frames)
    assert torch.allclose(frames.mT @ frames, identity, atol=1e-12)
    assert torch.allclose(torch.linalg.det(frames), torch.ones(52, dtype=torch.float64))
    assert torch.equal(frames[..., 2], torch.cat([normals, poles]))


def test_low_discrepancy_points_integrate_better_than_random_ones() -> None:
    """x^2 y over the unit square is 1 / 6."""
    x, y = low_discrepancy_points(1024, 2, seed=4).unbind(-1)
    assert (x.square() * y).mean().item() == pytest.approx(1.0 / 6.0, abs=3e-4)


def test_the_seed_alone_chooses_the_points() -> None:
    torch.manual_seed(1)
    first = low_discrepancy_points(64, 3, seed=9)
    torch.manual_seed(2)
    assert torch.equal(first, low_discrepancy_points(64, 3, seed=9))
    assert not torch.equal(first, low_discrepancy_points(64, 3, seed=10))


def test_rotated_points_stay_in_the_square_and_differ_by_index() -> None:
    points = low_discrepancy_points(16, 2, seed=0)
    rotated = rotate_points(points, torch.arange(5, dtype=torch.float64))
    assert rotated.shape == (16, 5, 2)
    assert bool(((rotated >= 0.0) & (rotated < 1.0)).all())
    assert torch.equal(rotated[:, 0], points)
    difference = (rotated[:, 3] - points) % 1.0
    assert torch.allclose(difference, difference[:1].expand_as(difference), atol=1e-12)
    assert (rotated[:, 1] - rotated[:, 2]).abs().min() > 0.01
