"""A ball half metal, half matt: do its photos tell which is which?"""

import functools
import math
from dataclasses import replace

import pytest
import torch

from splatir.data.images import Photo
from splatir.optim.metal_evidence import (
    MetalEvidence,
    collect_sightings,
    judge_metal,
)
from splatir.optim.metal_fits import Fit, MetalFits, Sightings
from splatir.raster.selection import rasterizer
from splatir.render.deferred import render_scene
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.lights import EnvironmentLight, environment_directions
from splatir.shade.split_sum import SplitSum
from splatir.transport.lit import light_gaussians
from tests.captures import small_scene
from tests.lit_runs import sphere
from tests.solids import disc, model_of, square, transport_of

CPU = rasterizer("cpu", torch.device("cpu"))


def ball() -> GaussianModel:
    """Metal where x > 0, matt where x < 0."""
    model = sphere(torch.eye(4, dtype=torch.float64), num_splats=600)
    is_metal = model.means[:, 0] > 0.0
    with torch.no_grad():
        model.params["metallic"][:] = torch.where(is_metal, 6.0, -6.0)
        model.params["roughness"][:] = torch.where(is_metal, -1.4, 2.0)
        model.params["albedo"][:] = torch.logit(torch.tensor([0.9, 0.7, 0.4]))
    return model


def patchy_light(scale: float = 1.0) -> EnvironmentLight:
    """A dim sky with three bright windows: metal mirrors them, matt surfaces do not."""
    directions = environment_directions(16, 32)
    radiance = torch.full((16, 32, 3), 0.15)
    for towards in ([1.0, 0.3, 0.4], [-0.4, 1.0, 0.3], [0.1, -0.8, 0.7]):
        window = torch.nn.functional.normalize(torch.tensor(towards), dim=0)
        radiance = radiance + 2.0 * ((directions @ window)[..., None] > 0.9)
    return EnvironmentLight(scale * radiance)


def cameras() -> list[Camera]:
    scene = small_scene(num_cameras=12)
    return [Camera(c.K.float(), c.T_camera_world.float(), c.width, c.height) for c in scene.cameras]


@functools.cache
def sightings() -> Sightings:
    model, shader = ball(), SplitSum(patchy_light())

    def photo_of(index: int) -> Photo:
        with torch.no_grad():
            image = render_scene(model, cameras()[index], shader, CPU)
        return Photo(image.rgb, image.alpha, "linear", 32)

    return collect_sightings(model, cameras(), photo_of, CPU)


@functools.cache
def judged(scale: float) -> MetalEvidence:
    return judge_metal(ball(), sightings(), patchy_light(scale))


def inside() -> tuple[torch.Tensor, torch.Tensor]:
    """Well-seen Gaussians away from the seam, metal and matt."""
    x = ball().means.detach()[:, 0]
    known = judged(1.0).is_known
    return known & (x > 0.5), known & (x < -0.5)


@pytest.mark.parametrize("scale", [0.7, 1.0, 1.5])
def test_metal_and_matt_halves_are_told_apart_at_any_brightness_of_the_light(scale: float) -> None:
    metal, matt = inside()
    assert int(metal.sum()) > 30 and int(matt.sum()) > 30
    is_metal = judged(scale).is_metal
    assert float(is_metal[metal].double().mean()) > 0.9
    assert float(is_metal[matt].double().mean()) < 0.1


def test_fitted_albedos_are_those_of_the_truth() -> None:
    metal, matt = inside()
    truth = torch.tensor([0.9, 0.7, 0.4])
    found = judged(1.0).albedo_metal[metal].median(0).values
    assert torch.allclose(found, truth, atol=0.15)
    found = judged(1.0).albedo_dielectric[matt].median(0).values
    assert torch.allclose(found, truth, atol=0.15)


def test_gaussians_that_too_few_photos_saw_are_not_judged() -> None:
    few = Sightings(
        sightings().colours[:, :2], sightings().weights[:, :2], sightings().positions[:2]
    )
    assert not judge_metal(ball(), few, patchy_light()).is_known.any()


def test_a_sighting_is_the_colour_under_the_footprint() -> None:
    model = ball()
    red = torch.tensor([0.8, 0.2, 0.1]).expand(36, 48, 3)
    solid = torch.ones(36, 48, 1)
    seen = collect_sightings(model, cameras()[:2], lambda _: Photo(red, solid, "linear", 32), CPU)
    visible = seen.weights > 1e-2
    assert visible.any(0).all()
    assert torch.allclose(seen.colours[visible], red[0, 0], atol=1e-3)
    # Pixels that the photo does not call solid say nothing.
    hole = Photo(red, torch.full((36, 48, 1), 0.5), "linear", 32)
    assert not collect_sightings(model, cameras()[:1], lambda _: hole, CPU).weights.any()


def test_a_single_gaussian_and_a_view_that_misses_it_are_no_fault() -> None:
    whole = ball()
    model = GaussianModel({key: v.detach()[:1] for key, v in whole.params.items()}, "surfel")
    T_behind = torch.eye(4)
    T_behind[2, 3] = -50.0
    away = Camera(cameras()[0].K, T_behind, 48, 36)
    photo = Photo(torch.zeros(36, 48, 3), None, "srgb", 8)
    seen = collect_sightings(model, [away], lambda _: photo, CPU)
    found = judge_metal(model, seen, patchy_light())
    assert not found.is_known.any()
    assert bool(found.albedo_metal.isfinite().all())


def test_cloth_that_shines_at_grazing_is_no_metal() -> None:
    """Its brightness changes with the view, but as the angle does, not as the light around."""
    seen = sightings()
    model = ball()
    normals = torch.nn.functional.normalize(model.means.detach(), dim=-1)
    views = torch.nn.functional.normalize(
        seen.positions[None] - model.means.detach()[:, None], dim=-1
    )
    cosines = (views * normals[:, None]).sum(-1, keepdim=True).clamp_min(0.0)
    sheen = torch.tensor([0.05, 0.1, 0.06]) + 0.5 * (1.0 - cosines)
    found = judge_metal(model, replace(seen, colours=sheen), patchy_light())
    metal, matt = inside()
    assert float(found.is_metal[metal | matt].double().mean()) < 0.02


def velvet(sheen: float) -> MetalEvidence:
    """The verdict on a ball whose photos show a lobe with this sheen."""
    seen, means = sightings(), ball().means.detach()
    views = torch.nn.functional.normalize(seen.positions[None] - means[:, None], dim=-1)
    normals = torch.nn.functional.normalize(means, dim=-1)
    cosines = (views * normals[:, None]).sum(-1, keepdim=True).clamp_min(0.0)
    lobe = torch.tensor([0.2, 0.5, 0.3]) * (1.0 - sheen * cosines.square())
    dark = EnvironmentLight(torch.full((16, 32, 3), 1e-3))
    return judge_metal(ball(), replace(seen, colours=lobe), dark)


@pytest.mark.parametrize("sheen", [0.4, 0.7])
def test_cloth_is_found_with_its_sheen(sheen: float) -> None:
    found, (metal, matt) = velvet(sheen), inside()
    assert float((found.sheen[metal | matt] > 0.0).double().mean()) > 0.95
    fitted = found.sheen[metal | matt]
    assert float(fitted[fitted > 0.0].median()) == pytest.approx(sheen, abs=0.05)
    assert not found.is_metal[metal | matt].any()


@pytest.mark.parametrize("sheen", [0.0, 0.1, -0.6])
def test_what_is_even_or_brighter_from_above_is_no_cloth(sheen: float) -> None:
    metal, matt = inside()
    assert not velvet(sheen).sheen[metal | matt].any()


def test_less_cloth_than_chance_makes_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bool((velvet(0.5).sheen > 0.0).any())
    monkeypatch.setattr("splatir.optim.metal_evidence._MIN_CLOTH", 1.0)
    assert not velvet(0.5).sheen.any()


def test_neither_metal_nor_matt_paint_is_cloth() -> None:
    metal, matt = inside()
    assert float((judged(1.0).sheen[metal | matt] > 0.0).double().mean()) < 0.02


def test_colours_above_white_count_where_photos_have_them() -> None:
    model = ball()
    bright = torch.tensor([3.0, 2.0, 0.5]).expand(36, 48, 3)
    photo = Photo(bright, torch.ones(36, 48, 1), "linear", 32)
    seen = collect_sightings(model, cameras()[:1], lambda _: photo, CPU)
    assert seen.is_hdr
    visible = seen.weights > 1e-2
    assert torch.allclose(seen.colours[visible], bright[0, 0], rtol=1e-3)
    shown = Photo(bright.clamp(0, 1), torch.ones(36, 48, 1), "srgb", 8)
    assert not collect_sightings(model, cameras()[:1], lambda _: shown, CPU).is_hdr


def test_fits_know_the_shadow_and_the_light_of_neighbours() -> None:
    """Ground below a bright disc: its albedo is right only if what it sees is known."""
    truth = 0.6
    model = model_of(
        square(0.6, 0.08, albedo=(truth,) * 3), disc(0.4, 0.25, 0.08, albedo=(truth,) * 3)
    )
    scene, materials = transport_of(model)
    light = EnvironmentLight(torch.ones(16, 32, 3))
    lit = light_gaussians(scene, materials, light)
    received = math.pi * lit.diffuse_ratio + lit.bounced.irradiance
    positions = torch.tensor([[2.0, 0.0, 1.0], [-2.0, 0.5, 1.5], [0.0, 1.5, 2.0], [0.5, -1.0, 2.0]])
    colours = (truth / math.pi * received)[:, None].expand(-1, 4, -1)
    seen = Sightings(colours, torch.ones(len(received), 4), positions)
    ground = (model.means[:, :2].abs().amax(-1) < 0.25) & (model.means[:, 2] < 0.1)
    assert float(lit.diffuse_ratio[ground].mean()) < 0.95
    # Nearly no highlight, whose split-sum differs from the radiosity that the bake sends.
    with_others = MetalFits(model, seen, light, scene.visibility).fit(1.0).albedo_dielectric
    alone = MetalFits(model, seen, light).fit(1.0).albedo_dielectric
    error = (with_others[ground] - truth).abs().mean(), (alone[ground] - truth).abs().mean()
    assert float(error[0]) < 0.5 * float(error[1])


# Root mean square errors in sRGB. The mouse of a phone capture fits to 0.08 as the plastic that it
# is, a golden bunny to 0.2 as anything: errors of normals and light.
@pytest.mark.parametrize(
    ("others", "metal", "is_metal"),
    [
        (0.05, 0.01, False),
        (0.08, 0.08, False),
        (0.08, 0.065, False),
        (0.08, 0.045, True),
        (0.10, 0.11, False),
        (0.20, 0.24, True),
        (0.20, 0.26, False),
    ],
)
def test_metal_may_miss_the_more_the_less_the_others_fit(
    monkeypatch: pytest.MonkeyPatch, others: float, metal: float, is_metal: bool
) -> None:
    def fit(self: MetalFits, _: float) -> Fit:
        error = torch.ones_like(self.total)
        albedo = torch.full((len(error), 3), 0.8)
        other = others**2 * error
        return Fit(other, other, other, metal**2 * error, 0.0 * error, albedo, albedo)

    monkeypatch.setattr(MetalFits, "fit", fit)
    found = judge_metal(ball(), sightings(), patchy_light())
    assert bool((found.is_metal[found.is_known] == is_metal).all())


@pytest.mark.parametrize(("elsewhere", "is_metal"), [(0.03, True), (0.055, False)])
def test_where_nothing_fits_better_elsewhere_metal_must_clearly_fit(
    monkeypatch: pytest.MonkeyPatch, elsewhere: float, is_metal: bool
) -> None:
    """A third of a scene that the others miss by 0.1 and metal by 0.08."""
    odd = ball().means.detach()[:, 0] > 0.3

    def fit(self: MetalFits, _: float) -> Fit:
        other = torch.where(odd, 0.1**2, elsewhere**2)
        metal = torch.where(odd, 0.08**2, 0.2**2)
        albedo = torch.full((len(other), 3), 0.8)
        return Fit(other, other, other, metal, 0.0 * other, albedo, albedo)

    monkeypatch.setattr(MetalFits, "fit", fit)
    found = judge_metal(ball(), sightings(), patchy_light())
    inside = found.is_known & (ball().means.detach()[:, 0] > 0.6)
    assert bool((found.is_metal[inside] == is_metal).all())


def test_a_surface_that_metal_cannot_explain_is_not_outvoted_by_metal_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The vote counts errors, and where metal is the others err most."""
    is_metal = ball().means.detach()[:, 0] > 0.0

    def fit(self: MetalFits, _: float) -> Fit:
        other = torch.where(is_metal, 0.2**2, 0.03**2)
        metal = torch.where(is_metal, 0.1**2, 0.2**2)
        albedo = torch.full((len(other), 3), 0.8)
        return Fit(other, other, other, metal, 0.0 * other, albedo, albedo)

    monkeypatch.setattr(MetalFits, "fit", fit)
    # As in a scene of many Gaussians: far more vote than errors are averaged over.
    monkeypatch.setattr("splatir.optim.metal_evidence._VOTER_SHARE", 0.2)
    found = judge_metal(ball(), sightings(), patchy_light())
    beside = found.is_known & ~is_metal
    assert bool(found.is_metal[found.is_known & is_metal].all())
    alone = float(found.is_metal[beside].double().mean())
    monkeypatch.setattr("splatir.optim.metal_evidence._NOISE", math.inf)
    outvoted = judge_metal(ball(), sightings(), patchy_light())
    assert alone < 0.6 * float(outvoted.is_metal[beside].double().mean())
