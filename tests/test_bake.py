"""Baked splats look like the relit scene, and normals that are to point outwards do."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from splatir.maths.colour import srgb_from_linear
from splatir.maths.frames import similarity
from splatir.maths.rotations import quat_from_normal, rotation_from_quat
from splatir.raster.selection import rasterizer
from splatir.render.bake import bake_radiance
from splatir.render.deferred import render_scene
from splatir.render.radiance import render_radiance
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel, Primitive
from splatir.scene.lights import EnvironmentLight, environment_directions
from splatir.scene.normals import normal_axes
from splatir.scene.radiance import radiance_colours
from splatir.scene.transform import transform_model
from splatir.shade.brdf import ShadingSettings
from splatir.shade.split_sum import SplitSum
from splatir.shade.surface import Shading, SurfacePoints
from splatir.transport.orientation import orient_outwards

BACKEND = rasterizer("auto", torch.device("cpu"))
# A bright window in a dim room.
DIRECTIONS = environment_directions(16, 32)
WINDOW = EnvironmentLight(0.3 + 6.0 * (DIRECTIONS @ torch.tensor([0.6, 0.0, 0.8]) > 0.9)[..., None]
                          * torch.tensor([1.0, 0.9, 0.7]))  # fmt: skip


def sphere(
    n: int = 900, roughness: float = 0.5, metallic: float = 0.0, primitive: Primitive = "surfel"
) -> GaussianModel:
    """A unit sphere of surfels with coloured bands, axes outwards."""
    index = torch.arange(n) + 0.5
    z = 1 - 2 * index / n
    azimuth = index * math.pi * (3 - math.sqrt(5))
    radius = (1 - z * z).sqrt()
    means = torch.stack([radius * azimuth.cos(), radius * azimuth.sin(), z], -1)
    spacing = math.sqrt(4 * math.pi / n)
    scales = torch.tensor([0.6 * spacing, 0.6 * spacing, 0.02 * spacing]).log().expand(n, 3)
    params = {
        "means": means,
        "quats": quat_from_normal(means),
        "scales": scales,
        "opacities": torch.full((n,), 3.0),
        "sh0": torch.zeros(n, 1, 3),
        "shN": torch.zeros(n, 0, 3),
        "albedo": torch.stack([3 * z, -2 * z, 0.5 + 0 * z], -1),
        "roughness": torch.logit(torch.full((n,), roughness)),
        "metallic": torch.logit(torch.full((n,), metallic), eps=1e-6),
    }
    return GaussianModel(params, primitive)


def cameras(count: int, distance: float = 4.0, size: int = 64) -> list[Camera]:
    """Cameras all around that look at the origin, or out of it at a distance of 0."""
    index = torch.arange(count) + 0.5
    z = 1 - 2 * index / count
    azimuth, radius = index * math.pi * (3 - math.sqrt(5)), (1 - z * z).sqrt()
    towards = torch.stack([radius * azimuth.cos(), radius * azimuth.sin(), z], -1)
    K = torch.tensor([[1.1 * size, 0.0, size / 2], [0.0, 1.1 * size, size / 2], [0.0, 0.0, 1.0]])
    found = []
    for R_world_camera in rotation_from_quat(quat_from_normal(towards)):
        T = torch.eye(4)
        T[:3, :3] = R_world_camera.mT
        T[2, 3] = distance
        found.append(Camera(K, T, size, size))
    return found


def shown(model: GaussianModel, camera: Camera) -> Tensor:
    """The radiance splat over black."""
    with torch.no_grad():
        return render_radiance(model, camera, BACKEND, torch.zeros(3)).rgb_srgb


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * (a.clamp(0, 1) - b.clamp(0, 1)).square().mean().log10())


@dataclass(frozen=True)
class DiffuseOnly:
    """The diffuse part of another shader."""

    shader: SplitSum

    def shade(self, points: SurfacePoints) -> Shading:
        shading = self.shader.shade(points)
        return Shading(shading.diffuse, torch.zeros_like(shading.specular))


@dataclass(frozen=True)
class ByAngle:
    """Radiance that depends on the angle of view alone, up to the second degree."""

    def shade(self, points: SurfacePoints) -> Shading:
        cosine = (points.normals * points.views).sum(-1, keepdim=True)
        return Shading(points.albedo * (0.3 + 0.5 * cosine**2), torch.zeros_like(points.albedo))


def test_a_diffuse_bake_is_albedo_times_irradiance_from_everywhere() -> None:
    model = sphere(60)
    shader = SplitSum(WINDOW, ShadingSettings("lambert"))
    baked = bake_radiance(model, DiffuseOnly(shader))
    points = SurfacePoints(
        model.means, model.means, model.means,
        model.material("albedo"), torch.ones(60, 1), torch.zeros(60, 1),
    )  # fmt: skip
    cosines = model.means @ DIRECTIONS.flatten(0, 1).T
    theta = math.pi * (torch.arange(16) + 0.5) / 16
    areas = (theta.sin() * (math.pi / 16) ** 2).repeat_interleave(32)
    irradiance = (cosines.clamp_min(0) * areas) @ WINDOW.radiance.flatten(0, 1)
    expected = model.material("albedo") * irradiance / math.pi
    torch.testing.assert_close(shader.shade(points).diffuse, expected, rtol=0.05, atol=0.01)
    by_split_sum = srgb_from_linear(shader.shade(points).diffuse.clamp(0, 1))
    for place in (torch.tensor([5.0, 1.0, 2.0]), torch.tensor([-3.0, 0.0, -9.0])):
        colours = radiance_colours(
            baked.params["sh0"], baked.params["shN"], baked.means, place, degree=3
        )
        torch.testing.assert_close(colours, by_split_sum, atol=1e-4, rtol=0)
    assert baked.params["shN"].abs().max() < 1e-4


@pytest.mark.parametrize(
    ("roughness", "metallic", "least"), [(1.0, 0.0, 35), (0.6, 0.0, 34), (0.6, 1.0, 30)]
)
def test_a_rough_bake_looks_like_the_relit_scene(
    roughness: float, metallic: float, least: float
) -> None:
    model, shader = sphere(roughness=roughness, metallic=metallic), SplitSum(WINDOW)
    baked = bake_radiance(model, shader)
    for camera in cameras(3):
        with torch.no_grad():
            relit = render_scene(model, camera, shader, BACKEND)
        expected = srgb_from_linear(relit.rgb.clamp(0, 1)) * relit.alpha
        assert expected.max() > 0.5
        assert psnr(shown(baked, camera), expected) > least


def test_views_from_the_unseen_side_neither_ring_nor_blow_up() -> None:
    """A mirror under a small bright window is the hardest to fit."""
    baked = bake_radiance(sphere(200, 0.1, 1.0), SplitSum(WINDOW))
    for place in (torch.zeros(3), torch.tensor([30.0, 0.0, 0.0])):
        colours = radiance_colours(
            baked.params["sh0"], baked.params["shN"], baked.means, place, degree=3
        )
        assert colours.max() < 1.5


@pytest.mark.parametrize("degree", [0, 2, 3])
def test_baking_and_turning_the_scene_commute(degree: int) -> None:
    R = rotation_from_quat(torch.tensor([0.5, 0.1, -0.7, 0.4]))
    S = similarity(2.0, R, torch.ones(3))
    first = transform_model(bake_radiance(sphere(40), ByAngle(), degree), S)
    second = bake_radiance(transform_model(sphere(40), S), ByAngle(), degree)
    # The directions of the fit are not quite the same from all sides.
    torch.testing.assert_close(first.sh, second.sh, atol=1e-3, rtol=0)


def test_a_bake_keeps_the_geometry_and_has_no_materials() -> None:
    model = sphere(40, primitive="ellipsoid")
    baked = bake_radiance(model, SplitSum(WINDOW), degree=2)
    assert baked.primitive == "ellipsoid" and baked.sh_degree == 2 and not baked.has_materials
    for key in ("means", "quats", "scales", "opacities"):
        assert torch.equal(baked.params[key], model.params[key])
    with pytest.raises(ValueError, match="train the stage 'materials' first"):
        bake_radiance(baked, SplitSum(WINDOW))


# Orientation


@pytest.mark.parametrize("primitive", ["surfel", "ellipsoid"])
def test_axes_turn_outwards_and_pictures_stay(primitive: Primitive) -> None:
    model = sphere(primitive=primitive)
    generator = torch.Generator().manual_seed(1)
    flipped = torch.rand(900, generator=generator) < 0.5
    w, x, y, z = model.params["quats"].detach().unbind(-1)
    turned = torch.stack([-x, w, z, -y], -1)
    model.params["quats"].data = torch.where(flipped[:, None], turned, model.params["quats"])
    before = (normal_axes(model.gaussians) * model.means).sum(-1)
    assert torch.equal(before < 0, flipped)
    oriented = orient_outwards(model, cameras(24), BACKEND)
    assert ((normal_axes(oriented.gaussians) * oriented.means).sum(-1) > 0.99).all()
    torch.testing.assert_close(
        shown(oriented, cameras(1)[0]), shown(model, cameras(1)[0]), atol=2e-5, rtol=0
    )
    again = orient_outwards(oriented, cameras(24), BACKEND)
    assert torch.equal(again.params["quats"], oriented.params["quats"])


def test_a_room_seen_from_inside_has_its_normals_inside() -> None:
    oriented = orient_outwards(sphere(), cameras(48, 0.0), BACKEND)
    assert ((normal_axes(oriented.gaussians) * oriented.means).sum(-1) < -0.99).all()


def test_orientation_needs_cameras() -> None:
    with pytest.raises(ValueError, match="need cameras"):
        orient_outwards(sphere(10), [], BACKEND)
