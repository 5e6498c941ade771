"""The entropy of a scene's paint: what lowers it, what it leaves alone, and how it fades."""

import math

import pytest
import torch
from torch import Tensor

from splatir.data.images import Photo
from splatir.optim.few_paints import paint_entropy, scene_entropy
from splatir.optim.material_losses import MaterialLossWeights
from splatir.raster.contract import RasterOptions
from splatir.raster.selection import rasterizer
from splatir.render.deferred import render_scene
from splatir.render.gbuffer import GBuffer
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.lights import EnvironmentLight
from splatir.shade.split_sum import SplitSum
from splatir.train.material_settings import MaterialSettings
from splatir.train.material_step import MaterialContext, material_step
from splatir.train.settings import TrainSettings
from splatir.train.stages import MaterialStage, stages_of
from splatir.train.start_materials import start_materials
from splatir.train.state import TrainState
from tests.captures import small_scene
from tests.lit_runs import sloping_light
from tests.scenes import axis_camera
from tests.test_bake import sphere
from tests.test_material_stage import BOTH, lit_sphere

WHITE, BLUE = (0.8, 0.8, 0.8), (0.05, 0.1, 0.5)


def paints(*colours: tuple[float, float, float], count: int = 64) -> Tensor:
    return torch.tensor(colours, dtype=torch.float64).repeat(count, 1)


def tinted(colour: tuple[float, float, float], warm: float) -> Tensor:
    return torch.tensor([colour], dtype=torch.float64) * torch.tensor([1.0 + warm, 1.0, 1.0 - warm])


@pytest.mark.parametrize("count", [1, 2, 4])
def test_entropy_of_paints_that_are_apart_is_the_logarithm_of_their_number(count: int) -> None:
    colours = torch.logspace(-2, 0, count, dtype=torch.float64)[:, None].expand(-1, 3)
    assert float(paint_entropy(colours, colours)) == pytest.approx(math.log(count), abs=5e-3)


def test_a_tint_that_parts_one_paint_in_two_costs_and_its_gradient_takes_it_away() -> None:
    warm = 0.08
    pixels = torch.cat([tinted(WHITE, warm), tinted(WHITE, -warm)]).requires_grad_()
    entropy = paint_entropy(pixels, pixels.detach())
    entropy.backward()
    assert float(entropy.detach()) > float(paint_entropy(paints(WHITE), paints(WHITE))) + 0.1
    assert pixels.grad is not None
    # Descent makes the warm half less red and the cool one more so.
    assert float(pixels.grad[0, 0]) > 0.0 > float(pixels.grad[1, 0])
    assert float(pixels.grad[0, 2]) < 0.0 < float(pixels.grad[1, 2])


def test_other_paints_and_a_colour_of_its_own_are_left_alone() -> None:
    pixels = torch.cat([paints(WHITE, count=1), torch.tensor([[0.4, 0.02, 0.02]])]).requires_grad_()
    paint_entropy(pixels, paints(WHITE, BLUE)).backward()
    assert pixels.grad is not None
    assert float(pixels.grad.abs().max()) < 1e-6


def test_brightness_of_the_whole_scene_does_not_matter() -> None:
    bright = paints((0.8, 0.7, 0.6), (0.7, 0.7, 0.7), (0.6, 0.7, 0.8))
    ratio = float(paint_entropy(0.5 * bright, 0.5 * bright)) / float(paint_entropy(bright, bright))
    assert ratio == pytest.approx(1.0, abs=0.05)


def test_gradients_of_the_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels, others = (
        0.5 + 0.1 * torch.rand(n, 3, generator=generator, dtype=torch.float64) for n in (4, 9)
    )
    assert torch.autograd.gradcheck(
        lambda albedo: paint_entropy(albedo, others), (pixels.requires_grad_(),)
    )


def view_of(albedo: Tensor, alpha: float = 1.0, metallic: float = 0.0) -> GBuffer:
    camera = axis_camera(albedo.shape[1], albedo.shape[0])
    plane = torch.full_like(albedo[..., :1], alpha)
    return GBuffer(plane, albedo, plane, metallic * plane, albedo, plane, camera)


def painted(colour: tuple[float, float, float]) -> GaussianModel:
    model = sphere(200, 0.5, 0.0)
    model.params["albedo"].data[:] = torch.logit(torch.tensor(colour))
    return model


def test_pixels_are_compared_with_the_paint_of_the_whole_scene() -> None:
    model = painted(WHITE)
    albedo = torch.full((6, 8, 3), 0.8)

    def entropy(shift: float) -> float:
        view = view_of(albedo * (1.0 - shift))
        return float(scene_entropy(view, model, torch.Generator().manual_seed(0)))

    assert entropy(0.0) == pytest.approx(0.0, abs=2e-3)
    assert entropy(0.1) > entropy(0.05) > 0.01
    assert entropy(0.1) == entropy(0.1)


def test_metal_is_no_paint_to_compare_with() -> None:
    model, view = painted(WHITE), view_of(torch.full((6, 8, 3), 0.3))
    half = torch.arange(len(model.means)) % 2 == 0
    model.params["albedo"].data[half] = torch.logit(torch.tensor(0.3))
    found = {}
    for metallic in (0.0, 1.0):
        model.params["metallic"].data[half] = torch.logit(torch.tensor(metallic), eps=1e-6)
        found[metallic] = float(scene_entropy(view, model, torch.Generator().manual_seed(0)))
    assert found[0.0] == pytest.approx(math.log(2.0), abs=0.1)
    assert found[1.0] > 5.0


@pytest.mark.parametrize(("alpha", "metallic"), [(0.5, 0.0), (1.0, 1.0)])
def test_a_view_that_shows_nothing_solid_or_nothing_but_metal_says_nothing(
    alpha: float, metallic: float
) -> None:
    model, view = painted(WHITE), view_of(torch.full((6, 8, 3), 0.3), alpha, metallic)
    assert float(scene_entropy(view, model, torch.Generator().manual_seed(0))) == 0.0


def test_tints_of_the_light_leave_the_paint_where_the_scene_should_do_with_few_paints() -> None:
    truth = lit_sphere()
    truth.params["albedo"].data[:] = torch.logit(torch.tensor(0.7))
    radiance = sloping_light().radiance.mean(-1, keepdim=True).repeat(1, 1, 3)
    across = torch.linspace(-0.6, 0.6, radiance.shape[1])[:, None]
    light = EnvironmentLight(radiance * (1.0 + across * torch.tensor([1.0, 0.0, -1.0])))
    backend = rasterizer("cpu", torch.device("cpu"))
    cameras = [
        Camera(c.K.float(), c.T_camera_world.float(), c.width, c.height)
        for c in small_scene(num_cameras=6).cameras
    ]
    with torch.no_grad():
        images = [render_scene(truth, camera, SplitSum(light), backend) for camera in cameras]
    photos = [Photo(image.rgb, image.alpha, "linear", 32) for image in images]

    def spread(weight: float) -> float:
        settings = TrainSettings(
            stages=BOTH,
            steps=1,
            materials=MaterialSettings(
                steps=60, environment_height=8, transport=False, settles_at=1.0
            ),
            material_loss=MaterialLossWeights(few_paints=weight),
        )
        state = TrainState.start(lit_sphere(with_materials=False), False, settings.rates, 1.0)
        state = start_materials(state, None, settings)
        # The paint starts with the tints.
        state.model.params["albedo"].data[:] += (
            0.4 * truth.params["means"].data[:, 1:2] * (torch.tensor([-1.0, 0.0, 1.0]))
        )
        stage = stages_of(settings)[1]
        assert isinstance(stage, MaterialStage)
        state.step = 1
        context = MaterialContext(stage, backend, settings.rates, RasterOptions(), None)
        for i in range(60):
            material_step(state, context, cameras[i % 6], photos[i % 6])
        albedo = state.model.material("albedo").detach()
        return float((albedo[:, 0] / albedo[:, 2]).log().std())

    assert spread(MaterialLossWeights().few_paints) < 0.6 * spread(0.0)
