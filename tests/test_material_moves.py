"""Moves that descent does not make: what they set, what they keep, what they leave alone."""

import math
from dataclasses import replace

import pytest
import torch

from splatir.optim.material_moves import apply_verdict, correct_scale, sheen_after
from splatir.optim.metal_evidence import MetalEvidence
from splatir.scene.gaussians import NO_SHEEN, PARAMETER_SPACES, SHEEN, GaussianModel
from tests.lit_runs import sphere


def dielectrics(count: int = 20, albedo: float = 0.3) -> GaussianModel:
    model = sphere(torch.eye(4, dtype=torch.float64), num_splats=count)
    with torch.no_grad():
        model.params["albedo"][:] = math.log(albedo / (1.0 - albedo))
        model.params["metallic"][:] = -3.0
    return model


def verdict(count: int, metal: list[int], unknown: list[int]) -> MetalEvidence:
    is_metal, is_known = torch.zeros(count, dtype=torch.bool), torch.ones(count, dtype=torch.bool)
    is_metal[metal] = True
    is_known[unknown] = False
    whites, greys = torch.full((count, 3), 1.0), torch.full((count, 3), 0.2)
    return MetalEvidence(is_metal, is_known, whites, greys, torch.zeros(count))


def test_a_verdict_moves_only_those_that_are_judged_otherwise_and_known() -> None:
    model = dielectrics()
    before = {key: value.detach().clone() for key, value in model.params.items()}
    keys = apply_verdict(model, verdict(20, metal=[3, 4], unknown=[4]), roughness=0.2)
    assert sorted(keys) == ["albedo", "metallic", "roughness"]
    rest = torch.arange(20) != 3
    for key, value in model.params.items():
        assert torch.equal(value[rest], before[key][rest]), key
    assert float(model.material("metallic")[3].detach()) > 0.5
    assert float(model.material("roughness")[3].detach()) == pytest.approx(0.2)
    # An albedo of 1 has no finite logit.
    assert bool(model.params["albedo"].isfinite().all())
    assert bool((model.material("albedo")[3] > 0.9).all())


def test_a_verdict_can_be_taken_back_and_repeating_it_changes_nothing() -> None:
    model = dielectrics()
    metal = verdict(20, metal=[3], unknown=[])
    assert apply_verdict(model, metal, roughness=0.2)
    assert apply_verdict(model, metal, roughness=0.2) == []
    assert apply_verdict(model, verdict(20, metal=[], unknown=[]), roughness=0.2)
    assert float(model.material("metallic")[3].detach()) < 0.5
    assert torch.allclose(model.material("albedo")[3], torch.tensor(0.2))


def cloth(sheen: list[float], unknown: list[int] | None = None) -> MetalEvidence:
    return replace(verdict(len(sheen), [], unknown or []), sheen=torch.tensor(sheen))


def test_cloth_gets_its_sheen_and_keeps_its_mean_brightness() -> None:
    model = dielectrics(4)
    assert sheen_after(model, cloth([0.0] * 4)) is None
    raw = sheen_after(model, cloth([0.0, 0.5, 0.5, 0.0], unknown=[2]))
    assert raw is not None
    assert raw.tolist() == [NO_SHEEN, 0.0, NO_SHEEN, NO_SHEEN]
    albedo = model.material("albedo").detach()[:, 0]
    assert torch.allclose(albedo, torch.tensor([0.3, 0.4, 0.3, 0.3]))


def test_a_second_verdict_keeps_what_descent_made_of_cloth_or_takes_its_sheen_back() -> None:
    model = dielectrics(3)
    raw = sheen_after(model, cloth([0.5, 0.5, 0.0]))
    assert raw is not None
    raw[0] = 1.0
    model.params[SHEEN] = torch.nn.Parameter(raw)
    again = sheen_after(model, cloth([0.3, 0.0, 0.0]))
    assert again is not None and again.tolist() == [1.0, NO_SHEEN, NO_SHEEN]
    albedo = model.material("albedo").detach()[:, 0]
    assert torch.allclose(albedo, torch.tensor([0.4, 0.3, 0.3]))


@pytest.mark.parametrize("albedo", [0.05, 0.3])
def test_correcting_the_scale_keeps_the_product_of_albedo_and_light(albedo: float) -> None:
    model, log_light = dielectrics(albedo=albedo), torch.zeros(4, 8, 3)
    before = model.material("albedo").detach() * 1.0
    correct_scale(model, log_light, 0.9)
    after = model.material("albedo").detach()
    assert (after > before).all() and (log_light < 0.0).all()
    assert torch.allclose(after * log_light.exp()[0, 0], before, rtol=1e-4)


def test_correcting_the_scale_leaves_light_that_was_seen() -> None:
    model, log_light, certainty = dielectrics(albedo=0.3), torch.zeros(4, 8, 3), torch.zeros(4, 8)
    certainty[2:] = 1.0
    correct_scale(model, log_light, 0.9, certainty)
    assert bool((log_light[:2] < 0.0).all()) and bool((log_light[2:] == 0.0).all())


def test_corrections_end_at_the_convention() -> None:
    model, log_light = dielectrics(albedo=0.1), torch.zeros(4, 8, 3)
    with torch.no_grad():
        model.params["albedo"][:5] = PARAMETER_SPACES["albedo"].invert(torch.tensor(0.4))
    for _ in range(40):
        correct_scale(model, log_light, 0.8)
    largest = model.material("albedo").amax(-1)
    assert float(largest.detach().max()) == pytest.approx(0.8, abs=1e-3)
    assert float(largest.detach().min()) == pytest.approx(0.2, abs=1e-3)
    assert float(log_light.mean()) == pytest.approx(-math.log(2.0), abs=1e-3)


def test_hardly_visible_gaussians_do_not_set_the_scale() -> None:
    model, log_light = dielectrics(albedo=0.9), torch.zeros(4, 8, 3)
    with torch.no_grad():
        model.params["opacities"][:10] = -5.0
        model.params["albedo"][:10] = -4.0
    correct_scale(model, log_light, 0.9)
    assert torch.allclose(log_light, torch.zeros(()), atol=1e-5)
    with torch.no_grad():
        model.params["opacities"][:] = -5.0
    correct_scale(model, log_light, 0.1)
    assert torch.allclose(log_light, torch.zeros(()), atol=1e-5)
