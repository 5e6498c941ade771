"""Losses of the user's maps: values, what they must not depend on, gradients, and what they do."""

from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from splatir.data.images import Photo
from splatir.data.maps import SurfaceMaps
from splatir.maths.rotations import quat_from_rotation, rotation_from_quat
from splatir.optim.losses import LossWeights, needs_depth, needs_surface
from splatir.optim.map_losses import albedo_map_loss, depth_map_loss, normal_map_loss
from splatir.optim.parameters import LearningRates
from splatir.raster.contract import RasterOptions
from splatir.raster.selection import rasterizer
from splatir.render.radiance import render_radiance
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.normals import normal_axes
from splatir.settings import SettingsError
from splatir.train.settings import TrainSettings
from splatir.train.stages import RadianceStage, stages_of
from splatir.train.state import TrainState
from splatir.train.step import StepContext, train_step
from tests.captures import small_scene
from tests.lit_runs import sphere

HEIGHT, WIDTH = 6, 8
SOLID = torch.ones(HEIGHT, WIDTH, 1, dtype=torch.float64)


def random(channels: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(HEIGHT, WIDTH, channels, generator=generator, dtype=torch.float64)


def unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)


def test_normal_maps_cost_one_minus_the_cosine_where_both_say_something() -> None:
    known = unit(random(3) - 0.5)
    alpha = 0.95 * SOLID
    assert float(normal_map_loss(0.95 * known, alpha, known)) == pytest.approx(0.0, abs=1e-12)
    assert float(normal_map_loss(-0.95 * known, alpha, known)) == pytest.approx(2.0)
    half = known.clone()
    half[:, 4:] = 0.0
    mixed = torch.where(half.any(-1, keepdim=True), 0.95 * known, -0.95 * known)
    assert float(normal_map_loss(mixed, alpha, half)) == pytest.approx(0.0, abs=1e-12)
    assert float(normal_map_loss(-known, 0.5 * SOLID, known)) == 0.0
    assert float(normal_map_loss(known, alpha, 0.0 * known)) == 0.0


@pytest.mark.parametrize("kind", ["relative", "inverse"])
def test_scale_and_shift_that_a_depth_map_leaves_open_cost_nothing(
    kind: Literal["relative", "inverse"],
) -> None:
    depth = 2.0 + random(1)
    stored = depth if kind == "relative" else 1.0 / depth
    loss = depth_map_loss(depth, SOLID, 7.0 * stored + 3.0, kind)
    assert float(loss) == pytest.approx(0.0, abs=1e-9)
    # A map that runs the other way, and a flat one, say nothing.
    assert float(depth_map_loss(depth, SOLID, 50.0 - 7.0 * stored, kind)) == 0.0
    assert float(depth_map_loss(depth, SOLID, torch.ones_like(depth), kind)) == 0.0


def test_metric_depth_costs_its_relative_error() -> None:
    depth = torch.full((HEIGHT, WIDTH, 1), 2.0, dtype=torch.float64)
    assert float(depth_map_loss(depth, SOLID, depth / 1.1, "metric")) == pytest.approx(0.1)
    half = depth / 1.1
    half[:3] = 0.0
    assert float(depth_map_loss(depth, SOLID, half, "metric")) == pytest.approx(0.1)
    assert float(depth_map_loss(0.95 * depth, 0.95 * SOLID, depth, "metric")) < 1e-12


def test_albedo_maps_of_free_scale_leave_their_brightness_open() -> None:
    albedo = 0.2 + 0.5 * random(3)
    assert float(albedo_map_loss(albedo, SOLID, albedo + 0.1, False)) == pytest.approx(0.1)
    assert float(albedo_map_loss(albedo, SOLID, 0.4 * albedo, True)) < 1e-12
    unknown = torch.where(SOLID > 0, -1.0, 0.0).expand(-1, -1, 3).double()
    assert float(albedo_map_loss(albedo, SOLID, unknown, False)) == 0.0
    assert float(albedo_map_loss(albedo, SOLID, unknown, True)) == 0.0


def test_losses_have_the_gradient_of_their_values() -> None:
    known = unit(random(3) - 0.5)
    normals = (random(3, 1) - 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: normal_map_loss(x, SOLID, known), normals)
    depth = (2.0 + random(1, 2)).requires_grad_()
    metric = 2.0 + random(1, 3)
    assert torch.autograd.gradcheck(lambda x: depth_map_loss(x, SOLID, metric, "metric"), depth)
    albedo = random(3, 4).requires_grad_()
    paint = random(3, 5)
    assert torch.autograd.gradcheck(lambda x: albedo_map_loss(x, SOLID, paint, False), albedo)
    for kind in ("relative", "inverse"):
        near = depth.detach() + 0.1 * metric
        stored = near if kind == "relative" else 1.0 / near
        (gradient,) = torch.autograd.grad(depth_map_loss(depth, SOLID, stored, kind), depth)
        assert bool(gradient.isfinite().all()) and bool(gradient.any())


def test_images_are_composited_only_where_a_map_needs_them() -> None:
    weights = LossWeights(normal=0.0)
    normals, depth = SurfaceMaps(normals=random(3)), SurfaceMaps(depth=random(1))
    assert needs_surface(weights, 0.5, normals) and not needs_surface(weights, 0.0, normals)
    assert not needs_surface(weights, 0.5, depth) and not needs_surface(weights, 0.5)
    assert needs_depth(weights, 0.5, depth) and not needs_depth(weights, 0.5, normals)
    assert not needs_depth(replace(weights, depth_map=0.0), 0.5, depth)
    assert not needs_surface(replace(weights, normal_map=0.0), 0.5, normals)
    for name in ("normal_map", "depth_map"):
        with pytest.raises(SettingsError, match=name):
            LossWeights(**{name: -1.0})


BACKEND = rasterizer("cpu", torch.device("cpu"))


def cameras() -> list[Camera]:
    found = [camera.to(dtype=torch.float32) for camera in small_scene(num_cameras=4).cameras]
    return [camera.resized(32, 24) for camera in found]


def true_sphere() -> GaussianModel:
    return sphere(torch.eye(4, dtype=torch.float64), with_materials=False)


@torch.no_grad()
def photo_with_maps(camera: Camera) -> Photo:
    """The sphere in one colour: nothing but the maps tells its normals."""
    image = render_radiance(
        true_sphere(), camera, BACKEND, None, 0, RasterOptions(depth=True), with_surface=True
    )
    alpha = image.raster.alpha
    assert image.normals is not None
    normals = torch.nn.functional.normalize(image.normals, dim=-1) * (alpha > 0.9)
    depth = image.raster.expected_depth * (alpha > 0.9)
    rgb = torch.full((camera.height, camera.width, 3), 0.64)
    return Photo(rgb, alpha, "srgb", 8, SurfaceMaps(normals, depth, depth_kind="metric"))


def disturbed_sphere() -> GaussianModel:
    """Splats turned by up to half a radian, and a sphere that is a tenth too small."""
    model = true_sphere()
    generator = torch.Generator().manual_seed(0)
    turn = 0.3 * torch.randn(model.num_gaussians, 3, generator=generator)
    half = torch.cat([torch.ones(model.num_gaussians, 1), turn], dim=-1)
    R = rotation_from_quat(unit(half)) @ rotation_from_quat(unit(model.params["quats"].detach()))
    params = {key: value.detach().clone() for key, value in model.params.items()}
    params["quats"] = torch.stack([quat_from_rotation(matrix) for matrix in R])
    params["means"] = 0.9 * params["means"]
    return GaussianModel(params, "surfel")


def trained(weights: LossWeights, rates: LearningRates) -> GaussianModel:
    state = TrainState.start(disturbed_sphere(), False, rates, 1.0)
    settings = TrainSettings(stages=("radiance",), steps=24, loss=weights)
    stage = stages_of(settings)[0]
    assert isinstance(stage, RadianceStage)
    stage = replace(stage, densify=replace(stage.densify, strategy="none"))
    context = StepContext(stage, BACKEND, rates, 1.0, "white", False, None, 0)
    views = [(camera, photo_with_maps(camera)) for camera in cameras()]
    for step in range(24):
        train_step(state, context, *views[step % len(views)])
    return state.model


def normal_error(model: GaussianModel) -> float:
    radial = unit(model.means.detach())
    cosine = (normal_axes(model.gaussians.detach()) * radial).sum(-1).abs().clamp(max=1.0)
    return float(torch.rad2deg(cosine.arccos()).mean())


@torch.no_grad()
def depth_error(model: GaussianModel) -> float:
    """Mean over the views, scene units."""
    errors = []
    for camera in cameras():
        maps = photo_with_maps(camera).maps
        assert maps is not None and maps.depth is not None
        image = render_radiance(model, camera, BACKEND, None, 0, RasterOptions(depth=True))
        both = (maps.depth > 0.0) & (image.raster.alpha > 0.9)
        errors.append((image.raster.expected_depth - maps.depth)[both].abs().mean())
    return float(torch.stack(errors).mean())


def test_true_normals_turn_splats_to_the_surface() -> None:
    rates = LearningRates(quats=0.02)
    without = LossWeights(normal=0.0, normal_map=0.0, depth_map=0.0)
    before, plain = normal_error(disturbed_sphere()), normal_error(trained(without, rates))
    taught = normal_error(trained(replace(without, normal_map=0.5), rates))
    assert before > 20.0 and plain > 20.0
    assert taught < 0.6 * plain


def test_true_depth_moves_splats_to_the_surface() -> None:
    rates = LearningRates(means=0.005, means_final=0.005)
    without = LossWeights(normal=0.0, alpha=0.0, normal_map=0.0, depth_map=0.0)
    plain = depth_error(trained(without, rates))
    assert plain < depth_error(disturbed_sphere())
    assert depth_error(trained(replace(without, depth_map=0.5), rates)) < 0.7 * plain
