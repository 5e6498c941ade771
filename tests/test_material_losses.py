"""The terms of the materials stage: values, what they must not depend on, gradients."""

from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from splatir.data.maps import SurfaceMaps
from splatir.maths.colour import srgb_from_hdr, srgb_from_linear
from splatir.maths.safe import safe_normalise
from splatir.optim.losses import Target
from splatir.optim.material_losses import (
    MaterialLossWeights,
    display_colour,
    light_priors,
    material_losses,
    material_priors,
    paint_guide,
    shown_over,
)
from splatir.render.deferred import RenderOutput
from splatir.render.gbuffer import GBuffer
from splatir.scene.lights import EnvironmentLight
from splatir.settings import SettingsError
from tests.scenes import axis_camera

HEIGHT, WIDTH = 16, 20
ALL = MaterialLossWeights(
    ssim=0.0,
    albedo_smooth=1.0,
    roughness_smooth=1.0,
    metallic=1.0,
    white_light=1.0,
    light_smooth=1.0,
)


def uniform_gbuffer(alpha: float = 1.0, metallic: float = 0.0) -> GBuffer:
    """The same surface everywhere."""

    def plane(*values: float) -> Tensor:
        return torch.tensor(values).expand(HEIGHT, WIDTH, len(values)).clone()

    return GBuffer(
        alpha=plane(alpha),
        albedo=plane(0.5, 0.4, 0.3),
        roughness=plane(0.5),
        metallic=plane(metallic),
        normals=plane(0.0, 0.0, -1.0),
        depth=plane(2.0),
        camera=axis_camera(WIDTH, HEIGHT),
    )


def white_photo() -> Tensor:
    return torch.ones(HEIGHT, WIDTH, 3)


def test_display_colour_is_srgb_up_to_white_and_keeps_a_slope_above() -> None:
    linear = torch.tensor([[0.0, 0.2, 1.0], [1.5, 3.0, 1.0]], dtype=torch.float64)
    shown = display_colour(linear)
    assert torch.allclose(shown[0], srgb_from_linear(linear[0]))
    assert shown[1, 1] > shown[1, 0] > shown[1, 2]
    # Little above white: else a highlight would pull more than all the rest.
    assert shown[1, 1] < 1.1


def test_display_colour_has_the_gradient_of_its_values() -> None:
    linear = torch.tensor([[0.002, 0.2, 0.9], [1.1, 2.0, 0.5]], dtype=torch.float64)
    assert torch.autograd.gradcheck(display_colour, linear.requires_grad_())


def test_the_hdr_curve_goes_on_above_white_without_a_kink_in_equal_steps_for_equal_ratios() -> None:
    linear = torch.tensor([0.001, 0.5, 1.0], dtype=torch.float64)
    assert torch.allclose(srgb_from_hdr(linear), srgb_from_linear(linear))
    bright = srgb_from_hdr(torch.tensor([2.0, 20.0, 200.0], dtype=torch.float64))
    assert torch.allclose(bright.diff(), bright.diff()[0].expand(2))
    assert srgb_from_hdr(torch.tensor(1000.0)).item() == pytest.approx(4.036, abs=1e-3)
    around = torch.tensor([1.0 - 1e-6, 1.0, 1.0 + 1e-6], dtype=torch.float64)
    slopes = srgb_from_hdr(around).diff() / 1e-6
    assert torch.allclose(slopes, slopes[0].expand(2), rtol=1e-5)
    points = torch.tensor([0.002, 0.2, 1.1, 300.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(srgb_from_hdr, points)


@pytest.mark.parametrize(
    ("photometric", "is_linear", "expected"),
    [("auto", True, True), ("auto", False, False), ("ldr", True, False), ("hdr", False, True)],
)
def test_which_photos_are_compared_above_white(
    photometric: Literal["auto", "ldr", "hdr"], is_linear: bool, expected: bool
) -> None:
    weights = MaterialLossWeights(photometric=photometric)
    assert weights.compares_as_hdr(is_linear) is expected


def test_display_colour_of_black_has_a_finite_gradient() -> None:
    black = torch.zeros(1, 3, requires_grad=True)
    display_colour(black).sum().backward()
    assert black.grad is not None and bool(black.grad.isfinite().all())


def test_a_uniform_surface_of_either_kind_costs_nothing() -> None:
    for metallic in (0.0, 1.0):
        terms = material_priors(uniform_gbuffer(metallic=metallic), white_photo(), ALL)
        assert all(float(term) == 0.0 for term in terms.values())


def test_a_surface_half_metal_costs_most() -> None:
    cost = [
        float(material_priors(uniform_gbuffer(metallic=m), white_photo(), ALL)["metallic"])
        for m in (0.3, 0.5, 0.7)
    ]
    assert cost[1] == pytest.approx(0.25)
    assert cost[0] == pytest.approx(cost[2]) == pytest.approx(0.21)


def test_metallic_and_roughness_are_both_smoothed() -> None:
    for name in ("roughness", "metallic"):
        gbuffer = uniform_gbuffer()
        getattr(gbuffer, name)[:, 10:] += 0.25
        term = material_priors(gbuffer, white_photo(), ALL)["roughness_smooth"]
        # One column of pairs, the mean of two channels.
        assert float(term) == pytest.approx(0.5 * 0.25 / WIDTH)


def test_a_uniform_white_light_costs_nothing_and_a_tint_the_same_at_any_brightness() -> None:
    grey = EnvironmentLight(torch.full((8, 16, 3), 0.7))
    assert all(float(term) == pytest.approx(0.0) for term in light_priors(grey, ALL).values())
    tinted = torch.tensor([1.2, 1.0, 0.8]).expand(8, 16, 3).clone()
    costs = [
        float(light_priors(EnvironmentLight(scale * tinted), ALL)["white_light"])
        for scale in (1.0, 50.0)
    ]
    assert costs[0] == pytest.approx(costs[1])
    assert costs[0] == pytest.approx(0.4 / 3 + 0.1 * 0.08 / 3)


def test_a_warm_sun_under_a_blue_sky_costs_less_than_a_tint_of_everything() -> None:
    warm, cool = torch.tensor([1.3, 1.0, 0.7]), torch.tensor([0.7, 1.0, 1.3])
    mixed = torch.stack([warm, cool]).repeat(8, 1).expand(8, 16, 3)
    whole = warm.expand(8, 16, 3)
    few, many = (
        float(light_priors(EnvironmentLight(radiance), ALL)["white_light"])
        for radiance in (mixed, whole)
    )
    assert few == pytest.approx(0.1 * 0.06, rel=1e-4)
    assert many == pytest.approx(0.2 + 0.1 * 0.06, rel=1e-4)


def test_texels_turn_white_though_all_light_together_is_white() -> None:
    warm, cool = torch.tensor([1.3, 1.0, 0.7]), torch.tensor([0.7, 1.0, 1.3])
    log = torch.stack([warm, cool]).log().repeat(8, 1).repeat(8, 1, 1).requires_grad_()
    light_priors(EnvironmentLight(log.exp()), ALL)["white_light"].backward()
    assert log.grad is not None
    red, _, blue = log.grad.unbind(-1)
    assert bool((red[:, ::2] > 0.0).all()) and bool((red[:, 1::2] < 0.0).all())
    assert bool((blue[:, ::2] < 0.0).all()) and bool((blue[:, 1::2] > 0.0).all())


def test_smoothness_of_light_is_the_same_at_any_brightness_and_turn_about_the_vertical() -> None:
    radiance = torch.rand(8, 16, 3, generator=torch.Generator().manual_seed(2)) + 0.1
    found = [
        float(light_priors(EnvironmentLight(r), ALL)["light_smooth"])
        for r in (radiance, 20.0 * radiance, radiance.roll(5, 1))
    ]
    assert found[0] == pytest.approx(found[1]) == pytest.approx(found[2])


def test_light_priors_have_the_gradient_of_their_values() -> None:
    generator = torch.Generator().manual_seed(3)
    log = torch.rand(4, 8, 3, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: tuple(light_priors(EnvironmentLight(x.exp()), ALL).values()), log
    )


def shaded(gbuffer: GBuffer, linear: float) -> RenderOutput:
    rgb = torch.full((HEIGHT, WIDTH, 3), linear)
    return RenderOutput(rgb, rgb, torch.zeros_like(rgb), gbuffer)


def shadowed(metallic: float = 0.0) -> tuple[RenderOutput, Tensor, Tensor]:
    """A surface of one paint, half of it in a shadow that shading knows; its photo."""
    gbuffer = uniform_gbuffer(metallic=metallic)
    light = torch.ones(HEIGHT, WIDTH, 1)
    light[:, WIDTH // 2 :] = 0.2
    diffuse, specular = gbuffer.albedo * light, torch.full((HEIGHT, WIDTH, 3), 0.05)
    photo = srgb_from_linear(diffuse + specular)
    return RenderOutput(diffuse + specular, diffuse, specular, gbuffer), photo, gbuffer.albedo


def test_known_shadows_and_highlights_are_no_edges_of_the_paint() -> None:
    image, photo, albedo = shadowed()
    torch.testing.assert_close(
        paint_guide(image, photo), srgb_from_linear(albedo), atol=1e-4, rtol=0
    )


def test_shadows_that_shading_does_not_know_stay_edges() -> None:
    image, photo, _ = shadowed()
    lit = RenderOutput(image.rgb, image.gbuffer.albedo.clone(), image.specular, image.gbuffer)
    guide = paint_guide(lit, photo)
    assert float((guide[:, 0] - guide[:, -1]).abs().min()) > 0.2


def test_metal_and_what_is_hardly_covered_keep_the_photo() -> None:
    image, photo, _ = shadowed(metallic=1.0)
    torch.testing.assert_close(paint_guide(image, photo), photo)
    image, photo, _ = shadowed()
    faint = replace(image, gbuffer=replace(image.gbuffer, alpha=0.3 * image.gbuffer.alpha))
    torch.testing.assert_close(paint_guide(faint, photo), photo)


def losses_over(
    image: RenderOutput,
    target: Target,
    background: Tensor,
    light: EnvironmentLight | None,
    weights: MaterialLossWeights,
) -> dict[str, Tensor]:
    shown = shown_over(image, background, target.is_hdr)
    return material_losses(image, shown, target, light, weights)


@pytest.mark.parametrize("is_hdr", [False, True])
def test_light_adds_up_at_an_outline_and_display_values_elsewhere(is_hdr: bool) -> None:
    image = shaded(uniform_gbuffer(), 0.8)
    half = replace(image, gbuffer=replace(image.gbuffer, alpha=0.5 * image.gbuffer.alpha))
    black = torch.zeros_like(image.rgb)
    is_rim = torch.zeros_like(image.alpha, dtype=torch.bool)
    is_rim[:, 0] = True
    shown = shown_over(half, black, is_hdr, is_rim)
    covered = half.alpha > 0.0
    light = display_colour(half.alpha * image.rgb, is_hdr)
    value = half.alpha * display_colour(image.rgb, is_hdr)
    torch.testing.assert_close(shown, torch.where(is_rim, light, value))
    at_rim = (is_rim & covered).expand_as(light)
    assert bool(at_rim.any()) and bool((light > value + 0.02)[at_rim].all())
    torch.testing.assert_close(shown_over(half, black, is_hdr), value)


def test_bent_normals_cost_where_the_guide_is_flat() -> None:
    gbuffer = uniform_gbuffer()
    bent = gbuffer.normals.clone()
    bent[:, WIDTH // 2 :] = torch.tensor([0.6, 0.0, -0.8])
    costs = [
        float(material_priors(g, white_photo(), MaterialLossWeights())["normal_smooth"])
        for g in (gbuffer, replace(gbuffer, normals=bent))
    ]
    assert costs[0] == pytest.approx(0.0, abs=1e-6) and costs[1] > 1e-3


def test_a_picture_like_its_photo_costs_only_its_priors() -> None:
    image, background = shaded(uniform_gbuffer(), 0.25), torch.ones(3)
    target = Target(srgb_from_linear(image.rgb), torch.ones(HEIGHT, WIDTH, 1))
    terms = losses_over(image, target, background, None, ALL)
    assert float(terms["photometric"]) == pytest.approx(0.0, abs=1e-6)
    assert not any("light" in name for name in terms)
    known = losses_over(image, target, background, EnvironmentLight(torch.ones(8, 16, 3)), ALL)
    assert {"white_light", "light_smooth"} <= known.keys()


def test_albedo_maps_are_compared_where_they_say_something() -> None:
    image = shaded(uniform_gbuffer(), 0.25)
    known = image.gbuffer.albedo + 0.2
    known[:, : WIDTH // 2] = -1.0
    photo = (srgb_from_linear(image.rgb), torch.ones(HEIGHT, WIDTH, 1))
    for is_free, expected in ((False, 0.2), (True, None)):
        maps = SurfaceMaps(albedo=known, albedo_scale_is_free=is_free)
        terms = losses_over(image, Target(*photo, maps=maps), torch.ones(3), None, ALL)
        if expected is None:
            assert 0.0 < float(terms["albedo_map"]) < 0.1
        else:
            assert float(terms["albedo_map"]) == pytest.approx(expected)
    off = replace(ALL, albedo_map=0.0)
    terms = losses_over(image, Target(*photo, maps=maps), torch.ones(3), None, off)
    assert "albedo_map" not in terms


def test_squared_errors_count_beside_the_photometric_loss() -> None:
    image = shaded(uniform_gbuffer(), 0.25)
    photo = srgb_from_linear(image.rgb) + 0.1
    target = Target(photo.requires_grad_(), torch.ones(HEIGHT, WIDTH, 1))
    weights = replace(ALL, squared=16.0)
    terms = losses_over(image, target, torch.ones(3), None, weights)
    assert float(terms["squared"].detach()) == pytest.approx(16.0 * 0.01, rel=1e-5)
    # Photos are no parameters.
    assert not terms["squared"].requires_grad
    off = losses_over(image, target, torch.ones(3), None, replace(ALL, squared=0.0))
    assert "squared" not in off
    assert float(off["photometric"]) == float(terms["photometric"])


def test_what_is_not_covered_shows_the_background() -> None:
    image = shaded(uniform_gbuffer(alpha=0.0), 0.25)
    background = torch.tensor([0.2, 0.5, 0.7])
    target = Target(background.expand(HEIGHT, WIDTH, 3), torch.zeros(HEIGHT, WIDTH, 1))
    terms = losses_over(image, target, background, None, ALL)
    assert float(terms["photometric"]) == pytest.approx(0.0, abs=1e-6)


def test_terms_of_weight_zero_are_not_computed() -> None:
    off = MaterialLossWeights(
        albedo_smooth=0.0,
        roughness_smooth=0.0,
        normal_smooth=0.0,
        metallic=0.0,
        white_light=0.0,
        light_smooth=0.0,
    )
    assert material_priors(uniform_gbuffer(), white_photo(), off) == {}
    assert light_priors(EnvironmentLight(torch.ones(4, 8, 3)), off) == {}


def test_weights_below_zero_are_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="white_light"):
        replace(ALL, white_light=-1.0)
    with pytest.raises(SettingsError, match="ssim"):
        replace(ALL, ssim=1.5)


def test_normalising_gives_unit_vectors_and_zero_with_a_finite_gradient() -> None:
    vectors = torch.tensor([[3.0, 0.0, 4.0], [0.0, 0.0, 0.0], [1e-12, 0.0, 0.0]])
    vectors = vectors.double().requires_grad_()
    unit = safe_normalise(vectors)
    assert torch.allclose(unit[0], torch.tensor([0.6, 0.0, 0.8]).double())
    assert not unit[1:].any()
    unit.sum().backward()
    assert vectors.grad is not None and bool(vectors.grad.isfinite().all())
    assert not vectors.grad[1:].any()
    assert torch.autograd.gradcheck(safe_normalise, torch.rand(3, 3).double().requires_grad_())
