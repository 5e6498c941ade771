"""Burley's diffuse lobe of environments, from moments of the light."""

import pytest
import torch
from torch import Tensor

from splatir.maths.safe import safe_normalise
from splatir.scene.lights import EnvironmentLight, environment_directions, texel_solid_angles
from splatir.shade.brdf import ShadingSettings, evaluate
from splatir.shade.disney_light import DisneyLight
from splatir.shade.surface import SurfacePoints
from tests.spheres import facing_points

LAMBERT, DISNEY = ShadingSettings("lambert"), ShadingSettings("disney")


def sky(height: int = 64) -> Tensor:
    """A gradient and a sun twelve degrees above the horizon."""
    directions = environment_directions(height, 2 * height)
    sun = safe_normalise(torch.tensor([0.9, 0.3, 0.2]))
    bright = 300.0 * (40.0 * ((directions @ sun) - 1.0)).exp()
    return bright[..., None] * torch.tensor([1.0, 0.8, 0.5]) + 0.5 + 0.3 * directions[..., 2:]


def spread_points(count: int, roughness: float) -> SurfacePoints:
    """Surfaces and views in all directions, the views above their horizons."""
    generator = torch.Generator().manual_seed(0)
    normals, views = (safe_normalise(torch.randn(count, 3, generator=generator)) for _ in range(2))
    below = (normals * views).sum(-1, keepdim=True) < 0.0
    ones = torch.ones(count, 1)
    return SurfacePoints(
        torch.zeros(count, 3),
        normals,
        torch.where(below, -views, views),
        0.5 * ones.expand(-1, 3),
        roughness * ones,
        0.0 * ones,
    )


def summed(points: SurfacePoints, radiance: Tensor, settings: ShadingSettings) -> Tensor:
    """The diffuse lobe, added up over the texels of a fine map."""
    height, width = radiance.shape[:2]
    directions = environment_directions(height, width).reshape(-1, 1, 3)
    directions = directions.expand(-1, len(points.normals), 3)
    angles = texel_solid_angles(height, width).repeat_interleave(width)
    arriving = radiance.reshape(-1, 3) * angles[:, None]
    diffuse, _ = evaluate(points, directions, settings)
    return (diffuse * arriving[:, None]).sum(0)


@pytest.mark.parametrize("roughness", [0.0, 0.4, 1.0])
def test_the_ratio_is_that_of_the_sums_over_all_directions(roughness: float) -> None:
    points, radiance = spread_points(100, roughness), sky()
    lambert, disney = (summed(points, radiance, each) for each in (LAMBERT, DISNEY))
    found = DisneyLight.of(EnvironmentLight(radiance)).ratio(points)
    wrong = (found * lambert - disney).abs().sum() / disney.sum()
    unlike = (lambert - disney).abs().sum() / disney.sum()
    assert wrong < 0.1 * unlike


def test_rough_surfaces_send_light_back_to_where_it_came_from() -> None:
    normal, sun = torch.tensor([0.0, 0.0, 1.0]), safe_normalise(torch.tensor([0.9, 0.3, 0.2]))
    views = torch.stack([sun, sun * torch.tensor([-1.0, -1.0, 1.0])])
    ones = torch.ones(2, 1)
    points = SurfacePoints(
        torch.zeros(2, 3), normal.expand(2, 3), views, ones.expand(2, 3), ones, 0.0 * ones
    )
    back, forth = DisneyLight.of(EnvironmentLight(sky())).ratio(points)
    assert (back > 1.5 * forth).all()


def test_any_resolution_of_the_same_light_gives_the_same() -> None:
    points = spread_points(50, 0.7)
    ratios = [DisneyLight.of(EnvironmentLight(sky(height))).ratio(points) for height in (32, 128)]
    torch.testing.assert_close(*ratios, rtol=0.02, atol=0.0)


def test_no_light_is_reflected_without_a_nan() -> None:
    points = spread_points(5, 0.7)
    assert DisneyLight.of(EnvironmentLight(torch.zeros(8, 16, 3))).ratio(points).isfinite().all()


def test_gradients() -> None:
    points = facing_points([0.9, 0.5], roughness=0.6, metallic=0.0, albedo=(0.5, 0.5, 0.5))
    radiance = (1.0 + torch.rand(4, 8, 3, dtype=torch.float64)).requires_grad_()
    normals, views, roughness = (
        value.double().clone().requires_grad_()
        for value in (points.normals + 0.1 * points.views, points.views, points.roughness)
    )

    def ratio(radiance: Tensor, normals: Tensor, views: Tensor, roughness: Tensor) -> Tensor:
        turned = SurfacePoints(
            points.positions.double(),
            safe_normalise(normals),
            views,
            points.albedo.double(),
            roughness,
            points.metallic.double(),
        )
        return DisneyLight.of(EnvironmentLight(radiance)).ratio(turned)

    assert torch.autograd.gradcheck(ratio, (radiance, normals, views, roughness))
