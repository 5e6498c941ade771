"""The grey card: which pixels show it, what it does to albedo and light, and what is no card."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from splatir.data.dataset import Dataset, Distortion, View
from splatir.data.images import Photo
from splatir.data.lens import pinhole
from splatir.data.recognise import read_dataset
from splatir.optim.parameters import LearningRates
from splatir.raster.contract import RasterOptions
from splatir.raster.selection import rasterizer
from splatir.render.gbuffer import render_gbuffer
from splatir.scene.camera import Camera
from splatir.settings import SettingsError
from splatir.train.grey_card import GreyCard
from splatir.train.material_settings import MaterialSettings
from splatir.train.material_step import MaterialContext, material_step
from splatir.train.settings import TrainSettings
from splatir.train.stages import MaterialStage, stages_of
from splatir.train.start_materials import start_materials
from splatir.train.state import TrainState
from tests.captures import small_scene, write_nerf_synthetic
from tests.lit_runs import ALBEDO, sphere

BACKEND = rasterizer("cpu", torch.device("cpu"))
EYE = torch.eye(4, dtype=torch.float64)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    write_nerf_synthetic(tmp_path / "capture", small_scene(num_cameras=4), num_test=1)
    return read_dataset(tmp_path / "capture")


def name_of(view: View) -> str:
    return view.name.rpartition("/")[2]


def test_the_card_is_seen_around_its_pixel(dataset: Dataset) -> None:
    """Its five pixels are those of the whole view's picture."""
    view, model = dataset.train[0], sphere(EYE)
    with torch.no_grad():
        whole = render_gbuffer(model, view.camera, BACKEND)
        for name in (view.name, view.image_path.name):
            card = GreyCard.find(f"{name}:25,17", 0.18, dataset)
            part = render_gbuffer(model, card.camera, BACKEND)
            assert torch.allclose(part.normals, whole.normals[15:20, 23:28], atol=1e-4)


def test_a_pixel_of_the_file_is_found_in_a_smaller_and_in_an_undistorted_camera(
    dataset: Dataset, tmp_path: Path
) -> None:
    view = dataset.train[0]
    small = replace(view, camera=view.camera.resized(24, 18))
    card = GreyCard.find(f"{view.name}:24,17", 0.18, replace(dataset, train=(small,), test=()))
    # The file's pixel 24 is the camera's pixel 12, whose neighbours begin at 10.
    assert float(small.camera.K[0, 2] - card.camera.K[0, 2]) == 10.0
    lens = Distortion("SIMPLE_RADIAL", (50.0, 24.0, 18.0, 0.2), 48, 36)
    K, width, height = pinhole(lens)
    camera = Camera(K.float(), view.camera.T_camera_world, width, height)
    bent = replace(view, camera=camera, distortion=lens)
    capture = replace(dataset, train=(bent,), test=())
    middle = GreyCard.find(f"{view.name}:23,17", 0.18, capture).camera
    assert abs(float(middle.K[0, 2]) - 2.5) <= 1.0 and abs(float(middle.K[1, 2]) - 2.5) <= 1.0
    # Far from the middle, this lens moves pixels outwards: the pinhole's ray is nearer to it.
    corner = GreyCard.find(f"{view.name}:2,17", 0.18, capture).camera
    offset = float(camera.K[0, 2] - corner.K[0, 2]) + 2.5 - float(camera.K[0, 2])
    assert -21.5 < offset < -18.0


def test_the_missing_factor_is_reflectance_over_albedo(dataset: Dataset) -> None:
    card = GreyCard.find(f"{name_of(dataset.test[0])}:24,18", 0.2, replace(dataset, train=()))
    factor = card.missing_factor(sphere(EYE), BACKEND, RasterOptions())
    assert torch.allclose(factor, 0.2 / torch.tensor(ALBEDO), rtol=1e-3)


def card_context(card: GreyCard, steps: int) -> MaterialContext:
    settings = TrainSettings(
        stages=("radiance", "materials"),
        steps=1,
        materials=MaterialSettings(steps=steps, environment_height=4),
    )
    stage = stages_of(settings)[1]
    assert isinstance(stage, MaterialStage)
    return MaterialContext(stage, BACKEND, settings.rates, RasterOptions(), None, None, scale=card)


def test_the_last_step_leaves_the_card_at_its_reflectance_and_matt_light_times_paint(
    dataset: Dataset,
) -> None:
    view = dataset.train[0]
    card = GreyCard.find(f"{view.name}:24,18", 0.18, dataset)
    settings = TrainSettings(stages=("radiance", "materials"), steps=1)
    state = TrainState.start(sphere(EYE, with_materials=False), False, LearningRates(), 1.0)
    state = start_materials(state, None, settings)
    with torch.no_grad():
        state.model.params["albedo"][:] = torch.logit(torch.tensor(ALBEDO))
    state.step, before = 3, state.radiance.detach().clone()
    photo = Photo(torch.full((36, 48, 3), 0.5), torch.ones(36, 48, 1), "srgb", 8)
    material_step(state, card_context(card, 3), view.camera, photo)
    factor = card.missing_factor(state.model, BACKEND, RasterOptions())
    assert torch.allclose(factor, torch.ones(3), rtol=1e-3)
    # What the albedo lost the light has gained, but for one step of descent.
    gained = (state.radiance.detach() / before).mean((0, 1))
    assert torch.allclose(gained, torch.tensor(ALBEDO) / 0.18, rtol=0.15)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("24,18", "no photo called ''"),
        ("r_0", "takes NAME:X,Y"),
        ("r_0:24", "takes NAME:X,Y"),
        ("r_0:a,b", "takes NAME:X,Y"),
        ("r_9:24,18", "no photo called 'r_9'"),
        ("r_1:48,3", "has 48x36 pixels"),
        ("r_1:-1,3", "has 48x36 pixels"),
    ],
)
def test_what_names_no_pixel_is_refused(dataset: Dataset, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GreyCard.find(text, 0.18, dataset)


def test_a_card_that_is_not_in_the_scene_is_refused(dataset: Dataset) -> None:
    card = GreyCard.find(f"{dataset.train[1].name}:0,0", 0.18, dataset)
    with pytest.raises(ValueError, match="no surface there"):
        card.missing_factor(sphere(EYE), BACKEND, RasterOptions())


def test_a_card_takes_the_prior_of_white_light_out_and_excludes_a_known_light() -> None:
    settings = TrainSettings(stages=("radiance", "materials"), grey_card="a:1,1")
    stage = stages_of(settings)[1]
    assert isinstance(stage, MaterialStage) and stage.loss.white_light == 0.0
    with pytest.raises(SettingsError, match="--grey-card"):
        replace(settings, envmap=Path("sky.exr"))
    with pytest.raises(SettingsError, match="grey_reflectance"):
        replace(settings, grey_reflectance=0.0)
