"""Material edits: what is parsed, what changes, and what stays as it was."""

import math

import pytest
import torch

from splatir.maths.frames import similarity
from splatir.scene.edits import MaterialEdit, edited_model, parse_edit
from splatir.scene.gaussians import GaussianModel
from splatir.scene.light_text import parse_light
from splatir.scene.lights import DirectionalLight, PointLight
from tests.lit_runs import ALBEDO, ROUGHNESS, sphere

IDENTITY = torch.eye(4, dtype=torch.float64)
# Quarter turn about z, twice the size, moved.
TURNED = similarity(
    2.0, torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]).double(), torch.tensor([5.0, 0, 0])
)


def same(a: GaussianModel, b: GaussianModel, but: set[str]) -> bool:
    return all(torch.equal(a.params[key], b.params[key]) for key in a.params.keys() - but)


def test_set_replaces_the_named_materials_of_a_copy() -> None:
    model = sphere(IDENTITY, 40)
    edit = parse_edit(["roughness=0.2", "albedo=0.8,0.1,0"], None, None)
    edited = edited_model(model, edit, IDENTITY)
    assert torch.allclose(edited.material("roughness"), torch.tensor(0.2))
    expected = torch.tensor([0.8, 0.1, 0.0]).expand(40, 3)
    assert torch.allclose(edited.material("albedo"), expected, atol=1e-5)
    assert same(edited, model, {"roughness", "albedo"})
    assert torch.allclose(model.material("roughness"), torch.tensor(ROUGHNESS))


@pytest.mark.parametrize("value", ["0", "1"])
def test_the_ends_of_the_range_are_finite_parameters(value: str) -> None:
    edited = edited_model(
        sphere(IDENTITY, 10), parse_edit([f"metallic={value}"], None, None), IDENTITY
    )
    assert edited.params["metallic"].isfinite().all()
    assert torch.allclose(edited.material("metallic"), torch.tensor(float(value)), atol=1e-5)


def test_tint_multiplies_albedo_and_clips_it() -> None:
    edited = edited_model(sphere(IDENTITY, 10), parse_edit([], "0.5,1,9", None), IDENTITY)
    expected = torch.tensor([0.5 * ALBEDO[0], ALBEDO[1], 1.0]).expand(10, 3)
    assert torch.allclose(edited.material("albedo"), expected, atol=1e-5)


def test_tint_comes_after_set() -> None:
    edit = parse_edit(["albedo=0.4,0.4,0.4"], "0.5,0.5,0.5", None)
    edited = edited_model(sphere(IDENTITY, 10), edit, IDENTITY)
    assert torch.allclose(edited.material("albedo"), torch.tensor(0.2), atol=1e-5)


@pytest.mark.parametrize("S_world_input", [IDENTITY, TURNED])
def test_a_box_chooses_in_the_frame_of_the_capture(S_world_input: torch.Tensor) -> None:
    model = sphere(S_world_input, 200)
    unturned = sphere(IDENTITY, 200)
    edit = parse_edit(["roughness=0.9"], None, "-2,-2,0.103,2,2,2")
    edited = edited_model(model, edit, S_world_input)
    is_upper = unturned.means[:, 2] > 0.103
    assert 50 < int(is_upper.sum()) < 150
    assert torch.allclose(edited.material("roughness")[is_upper], torch.tensor(0.9))
    assert torch.equal(edited.params["roughness"][~is_upper], model.params["roughness"][~is_upper])


def test_an_empty_edit_changes_nothing() -> None:
    model = sphere(IDENTITY, 10)
    assert parse_edit([], None, None) == MaterialEdit()
    assert same(edited_model(model, MaterialEdit(), IDENTITY), model, set())


@pytest.mark.parametrize(
    ("settings", "tint", "box", "message"),
    [
        (["rouhgness=0.2"], None, None, "no material 'rouhgness'. Did you mean 'roughness'"),
        (["gloss=0.2"], None, None, "Known: albedo, roughness, metallic"),
        (["roughness"], None, None, "KEY=VALUE"),
        (["roughness=smooth"], None, None, "takes one number, got 'smooth'"),
        (["roughness=nan"], None, None, "takes one number"),
        (["roughness=1.5"], None, None, "must lie in 0 to 1, got 1.5"),
        (["albedo=0.5"], None, None, "takes 3 numbers separated by commas"),
        ([], "1,1", None, "--tint takes 3 numbers"),
        ([], "1,1,-1", None, "--tint must not be negative"),
        (["metallic=1"], None, "0,0,0,1,1", "--box takes 6 numbers"),
        (["metallic=1"], None, "0,0,1,1,1,0", "each min below its max"),
        ([], None, "0,0,0,1,1,1", "give one of them"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    settings: list[str], tint: str | None, box: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        parse_edit(settings, tint, box)


def test_a_box_beside_the_scene_is_refused_with_its_bounds() -> None:
    edit = parse_edit(["metallic=1"], None, "5,5,5,6,6,6")
    with pytest.raises(ValueError, match=r"holds no Gaussian.*they span -0\.\d+"):
        edited_model(sphere(IDENTITY, 50), edit, IDENTITY)


def test_a_model_without_materials_cannot_be_edited() -> None:
    with pytest.raises(ValueError, match="no albedo"):
        edited_model(sphere(IDENTITY, 5, with_materials=False), MaterialEdit(), IDENTITY)


def test_a_sun_stands_at_its_azimuth_and_elevation() -> None:
    light = parse_light("sun:90,30,3,2,1", IDENTITY, IDENTITY[:3, :3])
    assert isinstance(light, DirectionalLight)
    expected = torch.tensor([0.0, math.cos(math.radians(30)), 0.5])
    assert torch.allclose(light.direction, expected, atol=1e-6)
    assert light.irradiance.tolist() == [3.0, 2.0, 1.0]
    turned = parse_light("sun:90,30,3,2,1", TURNED, TURNED[:3, :3] / 2.0)
    assert isinstance(turned, DirectionalLight)
    assert torch.allclose(turned.direction, torch.tensor([-expected[1], 0.0, 0.5]), atol=1e-6)
    assert turned.irradiance.tolist() == [3.0, 2.0, 1.0]


def test_a_point_light_is_as_bright_in_a_world_of_another_size() -> None:
    light = parse_light("point:1,2,3,4,4,4", TURNED, IDENTITY[:3, :3])
    assert isinstance(light, PointLight)
    assert light.position.tolist() == [1.0, 2.0, 6.0]
    # Irradiance at 1 unit of the capture, 2 of the world.
    assert torch.allclose(light.intensity / 2.0**2, torch.tensor(4.0))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("lamp:1,2,3", "takes point:x,y,z"),
        ("sun:1,2,3", "--light sun takes 5 numbers"),
        ("point:1,2,3,1,1,-1", "must not be negative"),
    ],
)
def test_lights_that_cannot_be_meant_are_refused(word: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_light(word, IDENTITY, IDENTITY[:3, :3])
