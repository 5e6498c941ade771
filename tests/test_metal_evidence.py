"""A ball half metal, half matt: do its photos tell which is which?"""

import functools

import pytest
import torch

from splatir.data.images import Photo
from splatir.optim.metal_evidence import (
    MetalEvidence,
    Sightings,
    collect_sightings,
    judge_metal,
)
from splatir.raster.selection import rasterizer
from splatir.render.deferred import render_scene
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.lights import EnvironmentLight, environment_directions
from splatir.shade.prefilter import prefilter
from splatir.shade.split_sum import SplitSum
from tests.captures import small_scene
from tests.lit_runs import sphere

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
    return judge_metal(ball(), sightings(), prefilter(patchy_light(scale)))


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
    assert not judge_metal(ball(), few, prefilter(patchy_light())).is_known.any()


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
    found = judge_metal(model, seen, prefilter(patchy_light()))
    assert not found.is_known.any()
    assert bool(found.albedo_metal.isfinite().all())
