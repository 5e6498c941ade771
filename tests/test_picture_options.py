"""Supersampling averages what is covered; denoising keeps texture and edges."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from splatir.raster.contract import RasterOptions
from splatir.raster.selection import rasterizer
from splatir.render.buffers import PictureOptions, ViewBuffers, radiance_buffers, shaded_buffers
from splatir.render.deferred import RenderOutput
from splatir.render.denoise import denoised
from splatir.render.gbuffer import GBuffer
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel, with_sheen
from splatir.scene.lights import EnvironmentLight
from splatir.shade.split_sum import SplitSum
from tests.scenes import axis_camera
from tests.solids import model_of, moved, sphere

CPU = torch.device("cpu")


def ball_and_camera() -> tuple[GaussianModel, Camera, SplitSum]:
    model = model_of(moved(sphere(0.5, 500), (0.0, 0.0, 2.0)))
    radiance = torch.linspace(0.1, 2.0, 16)[:, None, None].expand(16, 32, 3)
    return model, axis_camera(24, 20), SplitSum(EnvironmentLight(radiance.contiguous()))


def test_one_sample_is_the_picture_itself() -> None:
    model, camera, light = ball_and_camera()
    model, backend = with_sheen(model), rasterizer("auto", CPU)
    plain = shaded_buffers(model, camera, light, backend)
    once = shaded_buffers(model, camera, light, backend, picture=PictureOptions(1))
    for name, value in vars(plain).items():
        assert torch.equal(value, getattr(once, name)), name


@pytest.mark.parametrize("kind", ["shaded", "radiance"])
def test_supersampled_colour_is_the_mean_of_premultiplied_samples(kind: str) -> None:
    model, camera, light = ball_and_camera()
    backend = rasterizer("auto", CPU)
    finer, options = PictureOptions(3).finer(camera, RasterOptions())
    assert (finer.width, finer.height) == (72, 60)
    if kind == "shaded":
        found = shaded_buffers(model, camera, light, backend, picture=PictureOptions(3))
        fine = shaded_buffers(model, finer, light, backend, options)
    else:
        found = radiance_buffers(model, camera, backend, picture=PictureOptions(3))
        fine = radiance_buffers(model, finer, backend, options)
    assert found.rgb.shape == (20, 24, 3)
    premultiplied = (fine.rgb * fine.alpha).reshape(20, 3, 24, 3, 3).mean((1, 3))
    alpha = fine.alpha.reshape(20, 3, 24, 3, 1).mean((1, 3))
    assert torch.allclose(found.alpha, alpha, atol=1e-6)
    seen = alpha[..., 0] > 0.01
    assert torch.allclose((found.rgb * found.alpha)[seen], premultiplied[seen], atol=1e-5)
    assert torch.allclose(found.normals[seen].norm(dim=-1), torch.ones(int(seen.sum())), atol=1e-5)
    assert found.depth[seen].min() > 1.4 and found.depth[seen].max() < 2.2


@pytest.mark.parametrize("supersample", [2, 3])
def test_supersampled_splats_are_as_wide_as_in_the_pixels_they_were_trained_for(
    supersample: int,
) -> None:
    """Splats far smaller than a pixel: with the blur of the small pixels they would vanish."""
    surfels, camera, light = ball_and_camera()
    model = GaussianModel(dict(surfels.params.items()), "ellipsoid")
    model.params["scales"].data.fill_(math.log(1e-3))
    backend = rasterizer("auto", CPU)
    plain = shaded_buffers(model, camera, light, backend)
    found = shaded_buffers(model, camera, light, backend, picture=PictureOptions(supersample))
    assert float(plain.alpha.mean()) > 0.05
    assert float(found.alpha.mean()) == pytest.approx(float(plain.alpha.mean()), rel=0.03)
    assert float((found.alpha - plain.alpha).abs().max()) < 0.12


def test_half_covered_pixels_keep_the_colour_and_depth_of_the_covered_half() -> None:
    alpha = torch.tensor([[1.0, 0.0], [1.0, 0.0]])[..., None]
    fine = ViewBuffers(
        rgb=torch.tensor([0.2, 0.4, 0.8]) * alpha,
        alpha=alpha,
        depth=3.0 * alpha,
        normals=torch.tensor([[[0.0, 0.6, -0.8]] * 2, [[0.0, -0.6, -0.8]] * 2]) * alpha,
    )
    found = fine.box_filtered(2)
    assert found.alpha.item() == 0.5 and found.depth.item() == pytest.approx(3.0)
    assert torch.allclose(found.rgb[0, 0], torch.tensor([0.2, 0.4, 0.8]))
    assert torch.allclose(found.normals[0, 0], torch.tensor([0.0, 0.0, -1.0]))
    assert found.albedo is None


def wall(albedo: Tensor, normals: Tensor | None = None, size: int = 40) -> GBuffer:
    """A wall across the view at depth 2."""
    one = torch.ones(size, size, 1)
    facing = torch.tensor([0.0, 0.0, -1.0]).expand(size, size, 3)
    return GBuffer(
        one,
        albedo.expand(size, size, 3),
        0.8 * one,
        0.0 * one,
        facing if normals is None else normals,
        2.0 * one,
        axis_camera(size, size),
    )


def lit(gbuffer: GBuffer, light: Tensor) -> RenderOutput:
    diffuse, specular = gbuffer.albedo * light, 0.04 * light.expand_as(gbuffer.albedo)
    return RenderOutput(diffuse + specular, diffuse, specular, gbuffer)


def test_noise_of_an_even_wall_falls_and_its_mean_stays() -> None:
    noise = 0.3 * torch.randn(40, 40, 1, generator=torch.Generator().manual_seed(0))
    gbuffer = wall(torch.tensor(0.5))
    noisy, clean = lit(gbuffer, 1.0 + noise), lit(gbuffer, torch.ones(40, 40, 1))
    found = denoised(noisy)
    assert (found - clean.rgb).std() < 0.2 * (noisy.rgb - clean.rgb).std()
    assert torch.allclose(found.mean(), noisy.rgb.mean(), rtol=0.01)


def test_texture_and_creases_stay_sharp() -> None:
    checks = 0.1 + 0.8 * ((torch.arange(40)[:, None] + torch.arange(40)) % 2)[..., None]
    textured = lit(wall(checks.float()), torch.ones(40, 40, 1))
    assert torch.allclose(denoised(textured), textured.rgb, atol=1e-5)
    normals = torch.tensor([0.0, 0.0, -1.0]).repeat(40, 40, 1)
    normals[:, 20:] = torch.tensor([0.6, 0.0, -0.8])
    light = torch.ones(40, 40, 1)
    light[:, 20:] = 3.0
    creased = lit(wall(torch.tensor(0.5), normals), light)
    assert torch.allclose(denoised(creased), creased.rgb, rtol=1e-3)


def test_what_is_not_covered_stays_out_of_the_mean() -> None:
    gbuffer = wall(torch.tensor(0.5))
    alpha = torch.ones(40, 40, 1)
    alpha[:, 20:] = 0.0
    gbuffer = replace(gbuffer, alpha=alpha)
    image = lit(gbuffer, alpha)
    found = denoised(image)
    assert torch.allclose(found, image.rgb, atol=1e-6)
