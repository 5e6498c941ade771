"""Burley's diffuse lobe of environments, from moments of the light."""

import pytest
import torch
from torch import Tensor

from splatir.maths.safe import safe_normalise
from splatir.native.library import NativeLibrary
from splatir.scene.lights import EnvironmentLight, environment_directions, texel_solid_angles
from splatir.shade.brdf import ShadingSettings, evaluate
from splatir.shade.disney_light import DisneyLight, reflect_torch
from splatir.shade.native_disney_light import reflect_natively
from splatir.shade.surface import SurfacePoints
from tests.gradients import assert_grads_agree

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


def lobes_of(points: SurfacePoints) -> tuple[Tensor, Tensor, Tensor]:
    return points.normals, points.views, points.roughness


def ratio_of(radiance: Tensor, points: SurfacePoints) -> Tensor:
    return DisneyLight.of(EnvironmentLight(radiance)).ratio(*lobes_of(points))


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
    found = ratio_of(radiance, points)
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
    back, forth = ratio_of(sky(), points)
    assert (back > 1.5 * forth).all()


def test_any_resolution_of_the_same_light_gives_the_same() -> None:
    points = spread_points(50, 0.7)
    ratios = [ratio_of(sky(height), points) for height in (32, 128)]
    torch.testing.assert_close(*ratios, rtol=0.02, atol=0.0)


def test_no_light_is_reflected_without_a_nan() -> None:
    points = spread_points(5, 0.7)
    assert ratio_of(torch.zeros(8, 16, 3), points).isfinite().all()


def test_gradients() -> None:
    radiance = (1.0 + torch.rand(4, 8, 3, dtype=torch.float64)).requires_grad_()
    normals, views, roughness = (
        value[:3].double().requires_grad_() for value in lobes_of(spread_points(3, 0.6))
    )

    def ratio(radiance: Tensor, normals: Tensor, views: Tensor, roughness: Tensor) -> Tensor:
        light = DisneyLight.of(EnvironmentLight(radiance))
        return light.ratio(safe_normalise(normals), views, roughness)

    assert torch.autograd.gradcheck(ratio, (radiance, normals, views, roughness))


def random_leaves(count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Moments, normals, views and roughness of any points, float64 but float32's values."""
    points = spread_points(count, 0.5)
    generator = torch.Generator().manual_seed(1)
    roughness = torch.rand(count, 1, generator=generator)
    moments = DisneyLight.of(EnvironmentLight(sky(16))).moments.double()
    return moments, points.normals.double(), points.views.double(), roughness.double()


@pytest.mark.parametrize("count", [1, 37, 600])
def test_native_equals_torch(build: NativeLibrary, count: int) -> None:
    moments, normals, views, roughness = random_leaves(count)
    weights = torch.linspace(0.5, 1.5, 3 * count).view(count, 3)
    found = {}
    for dtype in (torch.float64, torch.float32):
        free = {
            "moments": moments.to(dtype, copy=True).requires_grad_(),
            "normals": normals.to(dtype, copy=True).requires_grad_(),
            "roughness": roughness.to(dtype, copy=True).requires_grad_(),
        }
        leaves = (free["moments"], free["normals"], views.to(dtype), free["roughness"])
        is_native = dtype == torch.float32
        ratio = reflect_natively(*leaves, build) if is_native else reflect_torch(*leaves)
        slopes = torch.autograd.grad((ratio * weights.to(ratio)).sum(), list(free.values()))
        found[dtype] = ratio.detach(), dict(zip(free, slopes, strict=True))
    (expected, slopes64), (got, slopes32) = found.values()
    torch.testing.assert_close(got.double(), expected, rtol=2e-5, atol=2e-5)
    assert_grads_agree(slopes32, slopes64)


def test_threads_do_not_change_a_bit(build: NativeLibrary) -> None:
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        moments, normals, views, roughness = (v.float() for v in random_leaves(3000))
        leaves = [v.requires_grad_() for v in (moments, normals, roughness)]
        ratio = reflect_natively(moments, normals, views, roughness, build)
        results.append([ratio, *torch.autograd.grad(ratio.sum(), leaves)])
    torch.set_num_threads(threads)
    for one, *others in zip(*results, strict=True):
        assert all(torch.equal(one, other) for other in others)


def test_broken_points_stay_inside_the_map(build: NativeLibrary) -> None:
    """NaN, infinite and zero normals and views give no ratio, but no crash either."""
    moments, normals, views, roughness = (v.float() for v in random_leaves(64))
    normals[3], views[10], roughness[20] = torch.nan, torch.inf, torch.nan
    normals[40], normals[41], roughness[50] = 1e30, 0.0, 1e30
    leaves = [v.requires_grad_() for v in (moments, normals, roughness)]
    ratio = reflect_natively(moments, normals, views, roughness, build)
    assert ratio[3].isnan().all() and ratio[20].isnan().all()
    assert ratio[:3].isfinite().all() and ratio[51:].isfinite().all()
    torch.autograd.grad(ratio.nansum(), leaves)


def test_no_points_and_no_light_are_nothing(build: NativeLibrary) -> None:
    moments, normals, views, roughness = (v.float() for v in random_leaves(5))
    free = moments.clone().requires_grad_()
    ratio = reflect_natively(free, normals[:0], views[:0], roughness[:0], build)
    assert ratio.shape == (0, 3)
    assert not torch.autograd.grad(ratio.sum(), free)[0].any()
    dark = torch.zeros_like(moments).requires_grad_()
    ratio = reflect_natively(dark, normals, views, roughness, build)
    assert not ratio.any()


def test_the_native_kernel_is_used_where_it_can_be(build: NativeLibrary) -> None:
    """A float32 gradient to the views needs torch, and must not be lost."""
    del build
    light = DisneyLight.of(EnvironmentLight(sky()))
    normals, views, roughness = lobes_of(spread_points(20, 0.5))
    native = light.ratio(normals, views, roughness.requires_grad_())
    assert "DisneyRatio" in type(native.grad_fn).__name__
    free = views.clone().requires_grad_()
    ratio = light.ratio(normals, free, roughness)
    assert torch.autograd.grad(ratio.sum(), free)[0].any()
    torch.testing.assert_close(ratio, native, rtol=1e-4, atol=1e-5)
