"""The diffuse lobe of cloth: its closed forms, and that every method shades with the same one."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from splatir.optim.parameters import keep_plain
from splatir.raster.selection import rasterizer
from splatir.render.bake import bake_radiance
from splatir.render.gbuffer import render_gbuffer
from splatir.scene.camera import Camera
from splatir.scene.edits import edited_model, parse_edit
from splatir.scene.gaussians import NO_SHEEN, SHEEN, GaussianModel, with_sheen
from splatir.scene.joining import joined_models
from splatir.scene.lights import DirectionalLight, EnvironmentLight
from splatir.shade.brdf import ShadingSettings, evaluate
from splatir.shade.cloth import mean_sheen_albedo, sheen_albedo, sheen_factor
from splatir.shade.monte_carlo import MonteCarlo
from splatir.shade.split_sum import SplitSum, diffuse_albedo
from splatir.shade.surface import SurfacePoints
from splatir.transport.lit import light_gaussians
from splatir.transport.materials import SurfaceMaterials
from tests.captures import small_scene
from tests.lit_runs import sphere
from tests.solids import disc, model_of, square, transport_of
from tests.spheres import facing_points, sphere_grid

CPU = rasterizer("cpu", torch.device("cpu"))
LAMBERT = ShadingSettings("lambert")
COSINES = [1.0, 0.8, 0.5, 0.2, 0.05]
WHITE = EnvironmentLight(torch.ones(16, 32, 3, dtype=torch.float64))


def cloth(sheen: float, metallic: float = 0.0) -> SurfacePoints:
    points = facing_points(COSINES, metallic=metallic)
    return replace(points, sheen=torch.full((len(COSINES), 1), sheen, dtype=torch.float64))


def velvet_ball(logit: float = 0.4) -> GaussianModel:
    model = with_sheen(sphere(torch.eye(4, dtype=torch.float64), num_splats=300))
    with torch.no_grad():
        model.params[SHEEN][:] = logit
    return model


def test_without_sheen_it_is_lambert_and_full_sheen_is_black_from_above() -> None:
    c = torch.linspace(0.0, 1.0, 11, dtype=torch.float64)
    light, view = c[:, None], c[None]
    assert torch.equal(sheen_factor(light, view, torch.zeros(1)), torch.ones(11, 11).double())
    full = sheen_factor(light, view, torch.ones(1, dtype=torch.float64))
    assert float(full[0, 0]) == 2.0 and not full[-1].any() and not full[:, -1].any()
    assert torch.equal(full, full.T)


@pytest.mark.parametrize("sheen", [0.0, 0.3, 1.0])
def test_integrals_of_the_lobe_are_its_closed_forms(sheen: float) -> None:
    directions, areas = sphere_grid(200, 4)
    n_dot_l = directions[:, 2].clamp_min(0.0)
    level = torch.tensor(sheen, dtype=torch.float64)
    for cosine in COSINES:
        lobe = sheen_factor(n_dot_l, torch.tensor(cosine).double(), level)
        reflected = float((lobe * n_dot_l * areas).sum()) / math.pi
        expected = float(sheen_albedo(torch.tensor(cosine).double(), level))
        assert reflected == pytest.approx(expected, abs=1e-4)
        # What shines at grazing angles is taken from above, not added.
        assert 0.0 <= expected <= 1.0
    over_views = float((sheen_albedo(n_dot_l, level) * n_dot_l * areas).sum()) / math.pi
    assert over_views == pytest.approx(float(mean_sheen_albedo(level)), abs=1e-4)


def test_light_and_view_of_cloth_can_be_swapped() -> None:
    points = cloth(0.7)
    light = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64).expand(len(COSINES), 3)
    there, _ = evaluate(points, light)
    back, _ = evaluate(replace(points, views=light), points.views)
    assert torch.allclose(there / 0.8, back / points.views[:, 2:], rtol=1e-12)


@pytest.mark.parametrize("metallic", [0.0, 0.4])
def test_under_white_light_every_method_reflects_the_directional_albedo(metallic: float) -> None:
    points = cloth(0.6, metallic)
    expected = diffuse_albedo(points, LAMBERT)
    factor = torch.tensor([1.0 - 0.6 * c * c for c in COSINES], dtype=torch.float64)[:, None]
    assert torch.allclose(expected, (1.0 - metallic) * points.albedo * factor)
    assert torch.allclose(SplitSum(WHITE, LAMBERT).shade(points).diffuse, expected, rtol=1e-3)
    sampled = MonteCarlo(WHITE, 4096, settings=LAMBERT).shade(points).diffuse
    assert torch.allclose(sampled, expected, rtol=0.02)


def test_a_lamp_shines_on_cloth_by_the_lobe_itself() -> None:
    points, towards = cloth(0.6), torch.tensor([0.0, 0.6, 0.8], dtype=torch.float64)
    lamp = DirectionalLight(towards, torch.ones(3, dtype=torch.float64))
    plain = SplitSum(lamp).shade(replace(points, sheen=None))
    shaded = SplitSum(lamp).shade(points)
    factor = [(1 - 0.6) + 2 * 0.6 * 0.36 * (1 - c * c) for c in COSINES]
    ratio = shaded.diffuse / plain.diffuse
    assert torch.allclose(ratio, torch.tensor(factor).double()[:, None].expand(-1, 3))
    assert torch.equal(shaded.specular, plain.specular)


def test_gradients_to_sheen_normal_and_albedo() -> None:
    points = facing_points([0.9, 0.4])
    # Between the texels of maps, which have a kink at each.
    tilted = points.normals + torch.tensor([0.3, 0.2, 0.0]).double()

    def shade(sheen: Tensor, normals: Tensor, albedo: Tensor) -> Tensor:
        unit = torch.nn.functional.normalize(normals, dim=-1)
        return (
            SplitSum(WHITE).shade(replace(points, sheen=sheen, normals=unit, albedo=albedo)).diffuse
        )

    sheen = torch.tensor([[0.2], [0.7]], dtype=torch.float64, requires_grad=True)
    inputs = (sheen, tilted.requires_grad_(), points.albedo.clone())
    assert torch.autograd.gradcheck(shade, (*inputs[:2], inputs[2].requires_grad_()))


def test_the_gbuffer_holds_sheen_where_a_model_has_it_and_nothing_else_changes() -> None:
    camera = small_scene(num_cameras=1).cameras[0]
    camera = Camera(camera.K.float(), camera.T_camera_world.float(), camera.width, camera.height)
    plain = sphere(torch.eye(4, dtype=torch.float64), num_splats=300)
    channels = torch.rand(plain.num_gaussians, 2, generator=torch.Generator().manual_seed(0))
    without = render_gbuffer(plain, camera, CPU, channels=channels)
    found = render_gbuffer(velvet_ball(), camera, CPU, channels=channels)
    assert without.sheen is None and without.points().sheen is None
    assert found.sheen is not None
    inside = found.sheen[found.alpha > 0.9]
    assert torch.allclose(inside, torch.tensor(0.4).sigmoid(), atol=1e-5)
    assert without.channels is not None and found.channels is not None
    torch.testing.assert_close(found.channels, without.channels)
    torch.testing.assert_close(found.albedo, without.albedo)
    torch.testing.assert_close(found.depth, without.depth)


def test_cloth_sends_less_to_its_neighbours_and_reflects_what_they_send_as_it_does_light() -> None:
    model = with_sheen(model_of(square(0.6, 0.1), disc(0.5, 0.4, 0.1)))
    with torch.no_grad():
        model.params[SHEEN][:] = 1.0
    level = float(torch.tensor(1.0).sigmoid())
    scene, _ = transport_of(model)
    materials = SurfaceMaterials.of(model)
    plain = replace(materials, sheen=None)
    light = EnvironmentLight(torch.ones(16, 32, 3))
    matt = (1.0 - materials.metallic) * materials.albedo
    lost = plain.total_albedo(LAMBERT) - materials.total_albedo(LAMBERT)
    assert torch.allclose(lost, 0.5 * level * matt, atol=1e-6)
    lit = light_gaussians(scene, materials, light, LAMBERT)
    others = light_gaussians(scene, plain, light, LAMBERT)
    assert bool((lit.bounced.radiance < others.bounced.radiance).all())
    views = torch.tensor([0.0, 0.6, 0.8]).expand(model.num_gaussians, 3)
    normals = scene.visibility.normals
    views = torch.where((views * normals).sum(-1, keepdim=True) < 0.0, -views, views)
    points = SurfacePoints(
        scene.positions,
        normals,
        views,
        materials.albedo,
        materials.roughness,
        materials.metallic,
        materials.sheen,
    )
    who = torch.arange(model.num_gaussians)
    shaded = lit.shade(points, lit.channels_of(who, views)).diffuse
    received = lit.light.shader.irradiance(normals) * lit.diffuse_ratio + lit.bounced.irradiance
    assert torch.allclose(shaded, diffuse_albedo(points, LAMBERT) * received / math.pi, rtol=1e-3)


def test_a_baked_radiance_shines_at_grazing_angles() -> None:
    model = velvet_ball(2.0)
    with torch.no_grad():
        model.params["roughness"][:] = 4.0
    baked = bake_radiance(model, SplitSum(EnvironmentLight(torch.ones(8, 16, 3))), degree=2)
    assert SHEEN not in baked.params
    assert float(baked.params["shN"].detach().abs().amax()) > 0.05


def test_editing_sheen_gives_it_to_the_chosen_alone() -> None:
    model = sphere(torch.eye(4, dtype=torch.float64), num_splats=50)
    edit = parse_edit(["sheen=0.5"], None, "-9,-9,-9,0,9,9")
    found = edited_model(model, edit, torch.eye(4, dtype=torch.float64)).sheen
    assert model.sheen is None and found is not None
    is_left = model.means[:, 0] <= 0.0
    assert torch.allclose(found[is_left], torch.tensor(0.5))
    assert bool((found[~is_left] < 1e-6).all())


def test_joined_with_a_model_without_cloth_each_stays_as_it_is() -> None:
    plain, velvet = sphere(torch.eye(4, dtype=torch.float64), num_splats=20), velvet_ball()
    for first, second in ((plain, velvet), (velvet, plain)):
        joined = joined_models(first, second)
        expected = [with_sheen(each).params[SHEEN] for each in (first, second)]
        assert torch.equal(joined.params[SHEEN], torch.cat(expected))
    assert joined_models(plain, plain).sheen is None


def test_what_is_no_cloth_stays_so_wherever_the_optimiser_moves_it() -> None:
    model = velvet_ball()
    with torch.no_grad():
        model.params[SHEEN][:10] = NO_SHEEN + 0.3
    keep_plain(model)
    assert bool((model.params[SHEEN][:10] == NO_SHEEN).all())
    assert torch.allclose(model.params[SHEEN][10:], torch.tensor(0.4))


def test_sheen_without_other_materials_is_refused() -> None:
    model = velvet_ball()
    params = {key: value.detach() for key, value in model.params.items() if key != "albedo"}
    with pytest.raises(ValueError, match="albedo"):
        GaussianModel(params, model.primitive)
