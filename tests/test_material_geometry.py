"""What moves and what is taken out of photos while materials are learned."""

from collections.abc import Callable, Sized
from dataclasses import replace

import pytest
import torch

from splatir.data.images import Photo
from splatir.maths.colour import exposed_srgb
from splatir.optim.parameters import LearningRates
from splatir.raster.contract import RasterOptions
from splatir.raster.selection import rasterizer
from splatir.render.deferred import render_scene
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.lights import EnvironmentLight
from splatir.shade.split_sum import SplitSum
from splatir.train.material_settings import MaterialSettings
from splatir.train.material_step import KnownLight, MaterialContext, material_step
from splatir.train.object_photos import evenly_exposed
from splatir.train.radiance_view import RadianceComparison
from splatir.train.session import train
from splatir.train.settings import TrainSettings
from splatir.train.stages import MaterialStage, stages_of
from splatir.train.start_materials import start_materials
from splatir.train.state import TrainState
from tests.lit_runs import sloping_light
from tests.scenes import axis_camera
from tests.test_material_stage import BOTH, lit_sphere, small

__all__ = ["small"]


def test_shading_and_radiance_move_gaussians_by_their_part_of_the_rates() -> None:
    light, camera = sloping_light(), axis_camera(48, 36)
    backend = rasterizer("cpu", torch.device("cpu"))
    photo = Photo(torch.rand(36, 48, 3), torch.ones(36, 48, 1), "srgb", 8)
    for geometry, extent in ((1.0, 2.0), (0.25, 1.0)):
        state = TrainState.start(lit_sphere(with_materials=False), False, LearningRates(), extent)
        materials = MaterialSettings(steps=10, geometry=geometry)
        settings = TrainSettings(stages=BOTH, steps=1, materials=materials)
        state = start_materials(state, light, settings)
        stage = stages_of(settings)[1]
        assert isinstance(stage, MaterialStage)
        state.step = 1
        before = {key: p.detach().clone() for key, p in state.model.params.items()}
        comparison = RadianceComparison(backend, stage.radiance, extent, "random", 0)
        context = MaterialContext(
            stage, backend, settings.rates, RasterOptions(), KnownLight.of(light), comparison
        )
        report = material_step(state, context, camera, photo)
        assert {"photometric", "radiance_photometric", "radiance_alpha"} <= report.terms.keys()
        # Adam's first step is as long as the rate.
        for key, rate in (
            ("means", geometry * extent * settings.rates.means),
            ("scales", geometry * settings.rates.scales),
            ("opacities", geometry * settings.rates.opacities),
            ("sh0", settings.rates.sh0),
        ):
            moved = (state.model.params[key].detach() - before[key]).abs().max()
            assert float(moved) == pytest.approx(rate, rel=0.02), key


def test_shading_alone_pulls_a_splat_that_is_off_its_place_back() -> None:
    """No term of the radiance here: the gradient comes through the G-buffer."""
    light, camera = EnvironmentLight(torch.ones(8, 16, 3)), axis_camera(48, 36)
    backend = rasterizer("reference", torch.device("cpu"))
    truth = lit_sphere()
    truth.params["means"].data[:, 2] += 4.0
    with torch.no_grad():
        photo = render_scene(truth, camera, SplitSum(light), backend)
    shifted = GaussianModel(
        {key: p.detach().clone() for key, p in truth.params.items()}, truth.primitive
    )
    shifted.params["means"].data[:, 0] += 0.02

    def loss(moves_splats: bool) -> torch.Tensor:
        image = render_scene(shifted, camera, SplitSum(light), backend, moves_splats=moves_splats)
        return (image.alpha * image.rgb - photo.alpha * photo.rgb).square().mean()

    (gradient,) = torch.autograd.grad(loss(True), [shifted.params["means"]])
    assert float(gradient[:, 0].sum()) > 0.0
    step = 1e-3
    with torch.no_grad():
        middle = shifted.params["means"].clone()
        values = []
        for sign in (1.0, -1.0):
            shifted.params["means"].copy_(middle)
            shifted.params["means"][:, 0] += sign * step
            values.append(float(loss(True)))
        shifted.params["means"].copy_(middle)
    expected = (values[0] - values[1]) / (2.0 * step)
    assert float(gradient[:, 0].sum()) == pytest.approx(expected, rel=0.05)
    still = torch.autograd.grad(loss(False), [shifted.params["means"]], allow_unused=True)
    assert still == (None,)


def test_exposures_are_taken_out_of_a_photo() -> None:
    gains = torch.tensor([0.4, -0.4, 0.1])
    photo = Photo(torch.full((4, 5, 3), 0.5), None, "srgb", 8)
    brighter = replace(photo, rgb=exposed_srgb(photo.rgb, gains))
    torch.testing.assert_close(evenly_exposed(brighter, gains).rgb, photo.rgb)
    linear = Photo(torch.full((4, 5, 3), 0.5), None, "linear", 32)
    expected = 0.5 * (-gains).exp().expand(4, 5, 3)
    torch.testing.assert_close(evenly_exposed(linear, gains).rgb, expected)


def test_photos_with_gains_of_their_own_are_shaded_and_judged_without_them(
    small: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    even, shaded, judged = [], [], []

    def evenly(photo: Photo, log_gains: torch.Tensor) -> Photo:
        even.append(evenly_exposed(photo, log_gains))
        return even[-1]

    def step(state: TrainState, context: MaterialContext, camera: Camera, photo: Photo) -> object:
        shaded.append(photo)
        return material_step(state, context, camera, photo)

    def check(state: object, context: object, cameras: Sized, photo_of: Callable) -> None:
        judged.extend(photo_of(index) for index in range(len(cameras)))

    monkeypatch.setattr("splatir.train.material_trainer.evenly_exposed", evenly)
    monkeypatch.setattr("splatir.train.material_trainer.material_step", step)
    monkeypatch.setattr("splatir.train.material_trainer.check_metal", check)
    train(replace(small, exposures="per-photo"))
    assert len(shaded) == 2 and judged
    assert {id(photo) for photo in (*shaded, *judged)} == {id(photo) for photo in even}
