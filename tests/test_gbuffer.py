"""Do the surface buffers hold what the Gaussians are made of?"""

from dataclasses import replace

import pytest
import torch

from splatir.maths.colour import linear_from_srgb, srgb_from_linear
from splatir.raster.selection import rasterizer
from splatir.render.gbuffer import render_gbuffer
from splatir.scene.gaussians import MATERIAL_KEYS, GaussianModel
from splatir.scene.normals import PAST_HORIZON, facing_normals
from tests.captures import small_scene
from tests.lit_runs import RADIUS, sphere

REFERENCE = rasterizer("reference", torch.device("cpu"))
CAMERA = small_scene(num_cameras=4).cameras[0].to(dtype=torch.float32)


def ball() -> GaussianModel:
    return sphere(torch.eye(4, dtype=torch.float64), num_splats=300)


def test_uniform_materials_come_out_as_they_are_whatever_the_coverage() -> None:
    model = ball()
    with torch.no_grad():
        model.params["albedo"][:] = torch.logit(torch.tensor([0.8, 0.4, 0.1]))
        model.params["roughness"][:] = torch.logit(torch.tensor(0.3))
        model.params["metallic"][:] = torch.logit(torch.tensor(0.7))
        gbuffer = render_gbuffer(model, CAMERA, REFERENCE)
    covered = gbuffer.covered
    assert 50 < int(covered.sum()) < covered.numel()
    albedo = torch.tensor([0.8, 0.4, 0.1]).expand_as(gbuffer.albedo[covered])
    assert torch.allclose(gbuffer.albedo[covered], albedo, atol=1e-4)
    assert torch.allclose(gbuffer.roughness[covered], torch.tensor(0.3), atol=1e-4)
    assert torch.allclose(gbuffer.metallic[covered], torch.tensor(0.7), atol=1e-4)
    for buffer in (gbuffer.albedo, gbuffer.normals, gbuffer.depth):
        assert float(buffer[~covered].abs().sum()) == 0.0


def test_paint_is_mixed_like_the_display_values_of_the_radiance() -> None:
    model = ball()
    paint = torch.rand(model.num_gaussians, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.params["albedo"][:] = torch.logit(0.02 + 0.9 * paint)
        albedo = model.material("albedo")
        gbuffer = render_gbuffer(model, CAMERA, REFERENCE)
        shown = REFERENCE.rasterize(model.gaussians, CAMERA, srgb_from_linear(albedo))
    mixed = linear_from_srgb(shown.features / shown.alpha.clamp_min(1e-6))
    covered = gbuffer.covered
    assert torch.allclose(gbuffer.albedo[covered], mixed[covered], atol=1e-4)


def test_normals_are_unit_and_face_the_camera() -> None:
    with torch.no_grad():
        points = render_gbuffer(ball(), CAMERA, REFERENCE).points()
    assert torch.allclose(points.normals.norm(dim=-1), torch.ones(len(points.normals)), atol=1e-4)
    assert float(((points.normals * points.views).sum(-1) > -0.1).float().mean()) > 0.99


def outline_error(monkeypatch: pytest.MonkeyPatch, past_horizon: float) -> float:
    """Degrees between a ball's normals and the truth, from opaque pixels next to its outline."""
    monkeypatch.setattr("splatir.render.gbuffer.PAST_HORIZON", past_horizon)
    camera = CAMERA.resized(2 * CAMERA.width, 2 * CAMERA.height)
    model = sphere(torch.eye(4, dtype=torch.float64), num_splats=1200)
    with torch.no_grad():
        gbuffer = render_gbuffer(model, camera, REFERENCE)
    points = gbuffer.points()
    solid = gbuffer.at_covered(gbuffer.alpha)[:, 0] > 0.5
    # Where the pixel's ray comes nearest to the middle, the sphere turns away from it.
    views = points.views[solid]
    origin = camera.position_world
    nearest = origin - (origin * views).sum(-1, keepdim=True) * views
    truth = torch.nn.functional.normalize(nearest, dim=-1)
    is_rim = nearest.norm(dim=-1) > 0.93 * RADIUS
    assert int(is_rim.sum()) > 30
    cosines = (points.normals[solid] * truth).sum(-1)[is_rim].clamp(-1.0, 1.0)
    return float(torch.rad2deg(cosines.acos()).mean())


def test_gaussians_behind_an_outline_do_not_look_into_the_object(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turned, kept = outline_error(monkeypatch, 0.0), outline_error(monkeypatch, PAST_HORIZON)
    assert kept < 0.8 * turned


def test_material_buffers_move_materials_and_no_geometry() -> None:
    model = ball()
    gbuffer = render_gbuffer(model, CAMERA, REFERENCE)
    (gbuffer.albedo.sum() + gbuffer.roughness.sum() + gbuffer.metallic.sum()).backward()
    assert all(float(model.params[key].grad.abs().sum()) > 0.0 for key in MATERIAL_KEYS)  # type: ignore[union-attr]
    for key in ("means", "scales", "opacities"):
        grad = model.params[key].grad
        assert grad is None or float(grad.abs().sum()) == 0.0


def test_normals_turn_towards_either_side() -> None:
    gaussians = ball().gaussians.detach()
    for position in (torch.tensor([5.0, 1.0, 2.0]), torch.tensor([-5.0, 0.0, -3.0])):
        normals = facing_normals(gaussians, position)
        assert float(((position - gaussians.means) * normals).sum(-1).min()) >= 0.0
    turned = facing_normals(replace(gaussians, quats=-gaussians.quats), torch.tensor([5.0, 1, 2]))
    assert torch.allclose(turned, facing_normals(gaussians, torch.tensor([5.0, 1.0, 2.0])))


def test_a_model_without_materials_has_no_gbuffer() -> None:
    model = ball()
    params = {key: value for key, value in model.params.items() if key not in MATERIAL_KEYS}
    with pytest.raises(ValueError, match="train the stage 'materials'"):
        render_gbuffer(GaussianModel(params, model.primitive), CAMERA, REFERENCE)
