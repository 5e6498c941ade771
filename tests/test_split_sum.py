"""Split-sum shading: values, gradients, comparison with Monte Carlo, native against torch."""

import dataclasses

import pytest
import torch
from torch import Tensor

from splatir.native.library import NativeLibrary
from splatir.scene.lights import (
    DirectionalLight,
    EnvironmentLight,
    LightSum,
    PointLight,
    SphericalHarmonicLight,
    environment_from_sh,
)
from splatir.shade.brdf import ShadingSettings, f0
from splatir.shade.lobe_energy import disney_albedo, mean_disney_albedo, split_sum_terms
from splatir.shade.monte_carlo import MonteCarlo
from splatir.shade.native_split_sum import shade_natively
from splatir.shade.prefilter import PrefilteredLight, prefilter
from splatir.shade.punctual import shade_punctual
from splatir.shade.split_sum import SplitSum, diffuse_albedo, shade_torch, specular_albedo
from splatir.shade.surface import Shading, SurfacePoints
from tests.gradients import assert_grads_agree
from tests.spheres import facing_points, sphere_points, unit

DIFFERENTIABLE = ("albedo", "roughness", "metallic", "normals")


def sunny_map(height: int = 16, width: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(height)
    radiance = torch.rand(height, width, 3, generator=generator, dtype=torch.float64)
    radiance[height // 4, width // 2 - 1] += 20.0
    return radiance


def random_points(count: int, seed: int = 0) -> SurfacePoints:
    """Everywhere on the sphere, seen at up to 80 degrees, all materials; float64 but float32's."""
    generator = torch.Generator().manual_seed(seed)

    def random(columns: int) -> Tensor:
        return torch.rand(count, columns, generator=generator)

    normals = unit(torch.randn(count, 3, generator=generator))
    aside = torch.linalg.cross(normals, unit(torch.randn(count, 3, generator=generator)))
    cosine = 0.17 + 0.82 * random(1)
    views = cosine * normals + (1.0 - cosine.square()).sqrt() * unit(aside)
    parts = (normals, normals, unit(views), random(3), 0.02 + 0.96 * random(1), random(1))
    return in_dtype(SurfacePoints(*parts), torch.float64)


def in_dtype(points: SurfacePoints, dtype: torch.dtype) -> SurfacePoints:
    values = {key: value.to(dtype) for key, value in vars(points).items() if value is not None}
    return SurfacePoints(**values)


def light_in(light: PrefilteredLight, dtype: torch.dtype) -> PrefilteredLight:
    return PrefilteredLight(light.specular.to(dtype), light.irradiance.to(dtype))


def with_gradients(
    points: SurfacePoints, light: PrefilteredLight
) -> tuple[SurfacePoints, PrefilteredLight]:
    """Copies whose materials, normals and maps are leaves."""
    values = {
        key: value.detach().clone() for key, value in vars(points).items() if value is not None
    }
    for name in DIFFERENTIABLE:
        values[name].requires_grad_()
    maps = (image.detach().clone().requires_grad_() for image in (light.specular, light.irradiance))
    return SurfacePoints(**values), PrefilteredLight(*maps)


def gradients_of(
    shading: Shading, points: SurfacePoints, light: PrefilteredLight
) -> dict[str, Tensor]:
    """Of a sum of both lobes with weights that differ everywhere."""
    generator = torch.Generator().manual_seed(7)
    shape = (2, *shading.diffuse.shape)
    weights = torch.randn(shape, generator=generator).to(shading.diffuse)
    value = (shading.diffuse * weights[0] + shading.specular * weights[1]).sum()
    leaves = {name: getattr(points, name) for name in DIFFERENTIABLE}
    leaves |= {"specular maps": light.specular, "irradiance": light.irradiance}
    gradients = torch.autograd.grad(value, list(leaves.values()))
    return dict(zip(leaves, gradients, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_light_shows_albedo_and_energy_of_the_lobe(dtype: torch.dtype) -> None:
    points = in_dtype(random_points(40), dtype)
    radiance = torch.tensor([0.5, 1.0, 4.0], dtype=dtype)
    light = EnvironmentLight(radiance.expand(8, 16, 3))
    shading = SplitSum(light, ShadingSettings("lambert")).shade(points)
    assert shading.diffuse.dtype == dtype
    n_dot_v = (points.normals * points.views).sum(-1, keepdim=True)
    a, b = split_sum_terms(n_dot_v, points.roughness)
    expected = (f0(points.albedo, points.metallic) * a + b) * radiance
    torch.testing.assert_close(shading.specular, expected, rtol=2e-5, atol=1e-6)
    expected = points.albedo * (1.0 - points.metallic) * radiance
    torch.testing.assert_close(shading.diffuse, expected, rtol=2e-5, atol=1e-6)


def test_a_smooth_metal_mirrors_the_light() -> None:
    radiance = sunny_map()
    points = facing_points([0.95, 0.6, 0.3], roughness=0.0, metallic=1.0, albedo=(1.0, 1.0, 1.0))
    light = prefilter(EnvironmentLight(radiance))
    mirrored = points.views * torch.tensor([-1.0, -1.0, 1.0])
    expected = light.specular_at(mirrored, points.roughness)
    got = SplitSum(EnvironmentLight(radiance)).shade(points).specular
    torch.testing.assert_close(got, expected, rtol=0.01, atol=0.0)


def smooth_light() -> EnvironmentLight:
    rows = torch.linspace(0.0, 1.0, 32, dtype=torch.float64)[:, None]
    columns = torch.linspace(0.0, 6.1, 64, dtype=torch.float64)[None]
    radiance = torch.stack([1.2 + columns.sin() * (3.1 * rows).sin(), 2.0 - rows + 0.0 * columns])
    return EnvironmentLight(torch.cat([radiance, radiance[:1]]).movedim(0, -1).contiguous())


VARIANTS = (ShadingSettings(), ShadingSettings("lambert"), ShadingSettings("lambert", "correlated"))


@pytest.mark.parametrize(
    ("roughness", "metallic", "settings"),
    [
        (0.15, 1.0, VARIANTS[0]),
        (0.5, 0.0, VARIANTS[0]),
        (0.5, 0.0, VARIANTS[1]),
        (0.5, 1.0, VARIANTS[0]),
    ],
)
def test_split_sum_is_near_monte_carlo(
    roughness: float, metallic: float, settings: ShadingSettings
) -> None:
    """Diffuse up to noise; the rest up to what the approximation loses under a smooth light."""
    light = smooth_light()
    points = sphere_points(10, roughness, metallic)
    fast = SplitSum(light, settings).shade(points)
    exact = MonteCarlo(light, 512, settings=settings).shade(points)
    for lobe, tolerance in (("diffuse", 0.02), ("specular", 0.05)):
        got, expected = getattr(fast, lobe), getattr(exact, lobe)
        assert (got - expected).abs().sum() <= tolerance * expected.sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("settings", VARIANTS)
def test_variants_are_exact_under_white_light_natively_and_in_torch(
    settings: ShadingSettings, dtype: torch.dtype
) -> None:
    points = in_dtype(random_points(40), dtype)
    shading = SplitSum(EnvironmentLight(torch.ones(4, 8, 3, dtype=dtype)), settings).shade(points)
    n_dot_v = (points.normals * points.views).sum(-1, keepdim=True)
    a, b = split_sum_terms(n_dot_v, points.roughness, settings.masking)
    expected = f0(points.albedo, points.metallic) * a + b
    torch.testing.assert_close(shading.specular, expected, rtol=2e-5, atol=1e-6)
    expected, tolerance = points.albedo * (1.0 - points.metallic), 2e-5
    if settings.diffuse == "disney":
        # Its map of moments has texels of eleven degrees.
        expected, tolerance = expected * disney_albedo(n_dot_v, points.roughness), 2e-3
    torch.testing.assert_close(shading.diffuse, expected, rtol=tolerance, atol=1e-6)


def test_a_sum_of_lights_is_the_sum_of_its_parts() -> None:
    points = in_dtype(random_points(30), torch.float32)
    sky = EnvironmentLight(sunny_map(8, 16).float())
    harmonics = SphericalHarmonicLight(torch.tensor([[2.0] * 3, [0.3] * 3, [0.1] * 3, [0.0] * 3]))
    sun = DirectionalLight(torch.tensor([0.0, 0.0, 1.0]), torch.tensor([3.0, 2.0, 1.0]))
    lamp = PointLight(torch.tensor([2.0, 2.0, 2.0]), torch.ones(3))
    settings = ShadingSettings("disney")
    shading = SplitSum(LightSum((sky, LightSum((harmonics, sun)), lamp)), settings).shade(points)
    parts = [
        SplitSum(sky, settings).shade(points),
        SplitSum(environment_from_sh(harmonics), settings).shade(points),
        shade_punctual(points, sun, settings),
        shade_punctual(points, lamp, settings),
    ]
    for lobe in ("diffuse", "specular"):
        expected = torch.stack([getattr(part, lobe) for part in parts]).sum(0)
        torch.testing.assert_close(getattr(shading, lobe), expected)


def test_no_light_shows_nothing() -> None:
    points = random_points(3)
    shading = SplitSum(LightSum(())).shade(points)
    assert shading.radiance.shape == (3, 3) and not shading.radiance.any()


def test_gradients_reach_every_light_of_a_sum() -> None:
    points = in_dtype(random_points(30), torch.float32)
    leaves = [
        torch.ones(4, 8, 3, requires_grad=True),
        torch.ones(4, 3, requires_grad=True),
        torch.ones(3, requires_grad=True),
    ]
    sun = DirectionalLight(torch.tensor([0.0, 0.0, 1.0]), leaves[2])
    light = LightSum((EnvironmentLight(leaves[0]), SphericalHarmonicLight(leaves[1]), sun))
    shading = SplitSum(light).shade(points)
    assert all(bool(g.any()) for g in torch.autograd.grad(shading.radiance.sum(), leaves))


def test_mean_disney_albedo_is_the_mean_over_views() -> None:
    cosines = ((torch.arange(2000, dtype=torch.float64) + 0.5) / 2000).sqrt()[:, None]
    roughness = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    mean = disney_albedo(cosines, roughness).mean(0)
    torch.testing.assert_close(mean_disney_albedo(roughness), mean, rtol=1e-5, atol=0.0)
    assert torch.autograd.gradcheck(mean_disney_albedo, roughness.requires_grad_())


@pytest.mark.parametrize("settings", VARIANTS)
def test_diffuse_albedo_is_what_the_lobe_reflects_of_white_light(settings: ShadingSettings) -> None:
    points = dataclasses.replace(random_points(200), sheen=random_points(200).roughness)
    white = EnvironmentLight(torch.ones(32, 64, 3, dtype=torch.float64))
    expected = SplitSum(white, settings).shade(points).diffuse
    torch.testing.assert_close(diffuse_albedo(points, settings), expected, rtol=2e-3, atol=1e-6)


def test_the_specular_lobe_alone_is_that_of_both() -> None:
    points = random_points(30)
    shader = SplitSum(LightSum((smooth_light(), EnvironmentLight(sunny_map()))))
    torch.testing.assert_close(shader.specular(points), shader.shade(points).specular)


def test_disney_albedo_has_the_gradient_of_its_value() -> None:
    points = random_points(5)
    cosine = (points.normals * points.views).sum(-1, keepdim=True).requires_grad_()
    roughness = points.roughness.clone().requires_grad_()
    assert torch.autograd.gradcheck(disney_albedo, (cosine, roughness))


def test_gradients_in_float64() -> None:
    points = random_points(5)
    light = prefilter(EnvironmentLight(sunny_map(8, 16)))
    points, light = with_gradients(points, light)

    def shade(*leaves: Tensor) -> tuple[Tensor, Tensor]:
        values = dict(zip(DIFFERENTIABLE, leaves[:4], strict=True))
        shading = shade_torch(dataclasses.replace(points, **values), PrefilteredLight(*leaves[4:]))
        return shading.diffuse, shading.specular

    leaves = [getattr(points, name) for name in DIFFERENTIABLE]
    leaves += [light.specular, light.irradiance]
    assert torch.autograd.gradcheck(shade, leaves, fast_mode=True)


@pytest.mark.parametrize(("count", "height", "width"), [(1, 2, 4), (37, 16, 32), (600, 24, 40)])
def test_native_equals_torch(build: NativeLibrary, count: int, height: int, width: int) -> None:
    points = random_points(count)
    light = prefilter(EnvironmentLight(sunny_map(height, width)))
    light = light_in(light_in(light, torch.float32), torch.float64)
    points64, light64 = with_gradients(points, light)
    points32, light32 = with_gradients(
        in_dtype(points, torch.float32), light_in(light, torch.float32)
    )
    expected, got = shade_torch(points64, light64), shade_natively(points32, light32, build)
    for lobe in ("diffuse", "specular"):
        torch.testing.assert_close(
            getattr(got, lobe).double(), getattr(expected, lobe), rtol=2e-5, atol=2e-5
        )
    assert_grads_agree(
        gradients_of(got, points32, light32), gradients_of(expected, points64, light64)
    )


def test_native_equals_torch_at_poles_seams_and_ends_of_ranges(build: NativeLibrary) -> None:
    """Axes as normals, grazing and hidden views, roughness 0 and 1, materials 0 and 1."""
    axes = torch.cat([torch.eye(3), -torch.eye(3)]).double()
    normals, views = (
        grid.reshape(-1, 3) for grid in (axes.repeat(6, 1), axes.repeat_interleave(6, 0))
    )
    views = unit(views + 0.3 * normals + torch.tensor([0.02, 0.03, 0.05]).double())
    ends = (torch.arange(36) % 2).double()[:, None]
    points = SurfacePoints(normals, normals, views, ends.expand(36, 3), ends.roll(6, 0), 1.0 - ends)
    light = prefilter(EnvironmentLight(sunny_map()))
    got = shade_natively(
        in_dtype(points, torch.float32), light_in(light, torch.float32), library=build
    )
    expected = shade_torch(points, light)
    torch.testing.assert_close(got.diffuse.double(), expected.diffuse, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.specular.double(), expected.specular, rtol=1e-3, atol=1e-3)


def test_threads_do_not_change_a_bit(build: NativeLibrary) -> None:
    threads = torch.get_num_threads()
    points = in_dtype(random_points(3000), torch.float32)
    light = light_in(prefilter(EnvironmentLight(sunny_map())), torch.float32)
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        leaves = with_gradients(points, light)
        shading = shade_natively(*leaves, build)
        gradients = gradients_of(shading, *leaves)
        results.append([shading.diffuse, shading.specular, *gradients.values()])
    torch.set_num_threads(threads)
    for one, *others in zip(*results, strict=True):
        assert all(torch.equal(one, other) for other in others)


def test_broken_points_stay_inside_the_maps(build: NativeLibrary) -> None:
    """NaN and infinite normals, views and roughness give no picture, but no crash either."""
    points = in_dtype(random_points(64), torch.float32)
    points.normals[3], points.views[10], points.roughness[20] = torch.nan, torch.inf, torch.nan
    points.normals[40], points.roughness[50] = 1e30, 1e30
    points.normals[41] = 0.0
    leaves = with_gradients(
        points, light_in(prefilter(EnvironmentLight(sunny_map())), torch.float32)
    )
    shading = shade_natively(*leaves, build)
    assert shading.diffuse[3].isnan().all() and shading.specular[20].isnan().all()
    assert shading.radiance[:3].isfinite().all() and shading.radiance[51:].isfinite().all()
    gradients_of(shading, *leaves)


def test_no_points_have_no_shading(build: NativeLibrary) -> None:
    points = in_dtype(random_points(0), torch.float32)
    light = light_in(prefilter(EnvironmentLight(sunny_map(4, 8))), torch.float32)
    leaves = with_gradients(points, light)
    shading = shade_natively(*leaves, build)
    assert shading.diffuse.shape == (0, 3)
    assert not any(gradient.any() for gradient in gradients_of(shading, *leaves).values())


def test_the_native_kernel_is_used_where_it_can_be(build: NativeLibrary) -> None:
    """A float32 gradient to the views needs torch, and must not be lost."""
    del build
    points = in_dtype(random_points(20), torch.float32)
    shader = SplitSum(EnvironmentLight(sunny_map().float()), ShadingSettings("lambert"))
    native = shader.shade(dataclasses.replace(points, albedo=points.albedo.requires_grad_()))
    assert "SplitSum" in type(native.diffuse.grad_fn).__name__
    views = points.views.clone().requires_grad_()
    shading = shader.shade(dataclasses.replace(points, views=views))
    (gradient,) = torch.autograd.grad(shading.specular.sum(), views)
    assert gradient.any()
    torch.testing.assert_close(shading.specular, native.specular, rtol=1e-4, atol=1e-5)


def test_specular_albedo_is_what_the_lobe_reflects_of_white_light() -> None:
    points = random_points(200)
    white = EnvironmentLight(torch.ones(16, 32, 3, dtype=torch.float64))
    specular = SplitSum(white).shade(points).specular
    torch.testing.assert_close(specular_albedo(points), specular, rtol=1e-4, atol=1e-5)
    few = random_points(5, seed=1)
    leaves = [getattr(few, name).requires_grad_() for name in DIFFERENTIABLE]

    def reflected(*leaves: Tensor) -> Tensor:
        named = dict(zip(DIFFERENTIABLE, leaves, strict=True))
        return specular_albedo(dataclasses.replace(few, **named))

    assert torch.autograd.gradcheck(reflected, leaves)
