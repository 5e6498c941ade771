"""What is supersampling worth on detailed metal, against Mitsuba 3?

    python -m benchmarks.supersampled MAP.hdr... --output benchmarks/results/supersampled.md

A gold ball with ripples a few pixels wide is path-traced by Mitsuba, which also gives its true
surface: averaged over whole pixels, or over the smaller ones of `--supersample`. That is shaded
under the true light with shadows and bounces of Gaussians sampled from the ball, as a picture of a
scene is, and box-filtered. So the errors are those of shading, of transport and of averaging
surfaces before light. PSNR in sRGB inside the silhouette, mean over two views and the lights. Needs
Mitsuba (extra: dev).
"""

import argparse
import math
from dataclasses import dataclass, replace
from pathlib import Path

import mitsuba as mi
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks.mitsuba_sphere import Material, environment_emitter, specular_bsdf
from splatir.codecs.atomic import write_text
from splatir.maths.colour import srgb_from_linear
from splatir.maths.safe import safe_normalise
from splatir.raster.contract import RasterOptions
from splatir.raster.selection import rasterizer
from splatir.render.buffers import PictureOptions, picture_buffers
from splatir.render.deferred import Lighting, shade_gbuffer
from splatir.render.gbuffer import MIN_COVERAGE, GBuffer
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.lights import EnvironmentLight
from splatir.scene.mesh import TriangleMesh, sample_mesh
from splatir.scene.surface_samples import model_from_samples
from splatir.shade.split_sum import SplitSum
from splatir.storage.environment import read_environment
from splatir.transport.lighting import GaussianLighting
from splatir.transport.lit import light_gaussians
from splatir.transport.materials import SurfaceMaterials
from splatir.transport.path_integrator import PathSettings, PathTracing
from splatir.transport.scene import SceneTransport

mi.set_variant("scalar_rgb")

_GOLD = Material((0.95, 0.7, 0.35), 0.25, 1.0)
# Of the picture: pixels along a side, and paths per pixel.
_SIZE, _PATHS, _MAX_DEPTH = 128, 576, 6
# Rays that average the true surface over a pixel of the picture, along a side.
_RAYS = 12
# Rows of the ball's mesh; waves about its equator and their heights, as parts of its radius.
_ROWS = 700
_WAVES = ((3, 0.12), (11, 0.03), (70, 0.004))
_DISTANCE, _HALF_WIDTH = 4.0, 1.25
_VIEWS = ((1.0, 0.6, 0.4), (-0.7, 0.8, 0.9))
_ROWS_OF_TABLE = _NONE, _BAKED, _REFERENCE = (
    "no transport",
    "visibility + bounces",
    "reference",
)


@dataclass(frozen=True)
class Ball:
    """The rippled ball, for both renderers.

    Attributes:
        shape: Mitsuba's.
        model: Gaussians on its surface.
    """

    shape: object
    model: GaussianModel


@torch.no_grad()
def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Supersampling against path-traced pictures.")
    parser.add_argument("maps", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--gaussians", type=int, default=20000)
    parser.add_argument(
        "--samples", type=int, default=128, help="of light, of the reference, per small pixel"
    )
    parser.add_argument("--factors", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    vertices, faces = rippled_ball(_ROWS)
    ball = Ball(_shape(vertices, faces), _gaussians(vertices, faces, arguments.gaussians))
    scene = SceneTransport.of(ball.model.gaussians)
    materials = SurfaceMaterials.of(ball.model)
    paths = PathSettings(arguments.samples)
    scores: dict[tuple[int, str], list[float]] = {}
    for file in arguments.maps:
        light = read_environment(file)
        lit = light_gaussians(scene, materials, light)
        for position in _VIEWS:
            camera = _camera(position)
            picture = _path_traced(ball, camera, light)
            for factor in arguments.factors:
                rows: dict[str, Lighting] = {
                    _NONE: SplitSum(light),
                    _BAKED: lit,
                    _REFERENCE: PathTracing(scene, materials, light, paths),
                }
                for row, lighting in rows.items():
                    shaded = _shaded(ball, camera, lighting, factor)
                    scores.setdefault((factor, row), []).append(_psnr(shaded, picture))
    lines = [
        f"Gold ball, {_SIZE}x{_SIZE}, roughness {_GOLD.roughness}; {arguments.gaussians} "
        f"Gaussians; {len(arguments.maps)} maps, {len(_VIEWS)} views; dB inside the silhouette.",
        "",
        f"| `--supersample` | {' | '.join(_ROWS_OF_TABLE)} |",
        f"|---|{'---|' * len(_ROWS_OF_TABLE)}",
    ]
    for factor in arguments.factors:
        means = (np.mean(scores[factor, row]) for row in _ROWS_OF_TABLE)
        lines.append(f"| {factor} | {' | '.join(f'{mean:.2f}' for mean in means)} |")
    text = "\n".join(lines) + "\n"
    print(text)
    write_text(arguments.output, text)


def rippled_ball(rows: int) -> tuple[Float[Tensor, "v 3"], Int[Tensor, "f 3"]]:
    """A mesh of the unit ball with waves in three sizes, the finest a few pixels long.

    Args:
        rows: From pole to pole, at least 2; twice as many columns.
    """
    theta = torch.linspace(0.0, math.pi, rows + 1, dtype=torch.float64)
    phi = torch.arange(2 * rows, dtype=torch.float64) * math.pi / rows
    t, p = torch.meshgrid(theta, phi, indexing="ij")
    unit = torch.stack([t.sin() * p.cos(), t.sin() * p.sin(), t.cos()], dim=-1)
    radius = torch.ones_like(t)
    for waves, height in _WAVES:
        x, y, z = (waves * unit).unbind(-1)
        radius = radius + height * x.sin() * (y + 1.0).sin() + height * (z + y).cos() * x.cos()
    corner = torch.arange(rows * 2 * rows).view(rows, 2 * rows)
    right, below = corner.roll(-1, 1), corner + 2 * rows
    across = right + 2 * rows
    faces = torch.cat(
        [
            torch.stack([corner, below, across], dim=-1).flatten(0, 1),
            torch.stack([corner, across, right], dim=-1).flatten(0, 1),
        ]
    )
    return (radius[..., None] * unit).flatten(0, 1).float(), faces


def _shape(vertices: Tensor, faces: Tensor) -> object:
    properties = mi.Properties()
    properties["bsdf"] = mi.load_dict(specular_bsdf(_GOLD))
    mesh = mi.Mesh("ball", len(vertices), len(faces), props=properties, has_vertex_normals=True)
    parameters = mi.traverse(mesh)
    parameters["vertex_positions"] = vertices.flatten().numpy()
    parameters["faces"] = faces.flatten().numpy().astype(np.uint32)
    parameters.update()
    mesh.recompute_vertex_normals()
    return mesh


def _gaussians(vertices: Tensor, faces: Tensor, count: int) -> GaussianModel:
    mesh = TriangleMesh(vertices, faces, torch.ones_like(vertices))
    samples = sample_mesh(mesh, count)
    one = torch.ones(count)
    gold = torch.tensor(_GOLD.albedo).expand(count, 3)
    samples = replace(
        samples, albedo=gold, roughness=_GOLD.roughness * one, metallic=_GOLD.metallic * one
    )
    return model_from_samples(samples, "ellipsoid", 0)


def _camera(position: tuple[float, float, float]) -> Camera:
    centre = _DISTANCE * safe_normalise(torch.tensor(position))
    forward = -safe_normalise(centre)
    right = safe_normalise(torch.linalg.cross(forward, torch.tensor([0.0, 0.0, 1.0])))
    R = torch.stack([right, torch.linalg.cross(forward, right), forward])
    T = torch.eye(4)
    T[:3, :3], T[:3, 3] = R, -R @ centre
    focal = 0.5 * _SIZE * _DISTANCE / _HALF_WIDTH
    half = 0.5 * _SIZE
    K = torch.tensor([[focal, 0.0, half], [0.0, focal, half], [0.0, 0.0, 1.0]])
    return Camera(K, T, _SIZE, _SIZE)


def _rendered(
    ball: Ball,
    camera: Camera,
    integrator: dict[str, object],
    samples: int,
    light: EnvironmentLight | None = None,
) -> Float[Tensor, "height width c"]:
    """A picture by Mitsuba, box-filtered; its last channels are those of the integrator."""
    T = camera.T_world_camera.double()
    # Mitsuba's cameras have x to the left and y up.
    to_world = (T @ torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0]).double())).numpy()
    degrees = math.degrees(2.0 * math.atan(0.5 * camera.width / float(camera.K[0, 0])))
    sensor = {
        "type": "perspective",
        "fov": degrees,
        "to_world": mi.ScalarTransform4f(to_world),
        "sampler": {"type": "stratified", "sample_count": samples},
        "film": {
            "type": "hdrfilm",
            "width": camera.width,
            "height": camera.height,
            "pixel_format": "rgba",
            "component_format": "float32",
            "filter": {"type": "box"},
        },
    }
    scene: dict[str, object] = {
        "type": "scene",
        "integrator": integrator,
        "ball": ball.shape,
        "sensor": sensor,
    }
    if light is not None:
        scene["light"] = environment_emitter(light.radiance)
    picture = mi.render(mi.load_dict(scene), spp=samples, seed=mi.UInt32(0))
    return torch.from_numpy(np.array(picture).copy())


def _path_traced(
    ball: Ball, camera: Camera, light: EnvironmentLight
) -> Float[Tensor, "height width 4"]:
    """Radiance multiplied by coverage, and coverage."""
    integrator = {"type": "path", "max_depth": _MAX_DEPTH, "hide_emitters": True}
    return _rendered(ball, camera, integrator, _PATHS, light)[..., :4]


def _true_gbuffer(ball: Ball, camera: Camera, rays: int) -> GBuffer:
    """The ball's surface, averaged over each pixel."""
    integrator = {
        "type": "aov",
        "aovs": "p:position,n:sh_normal",
        "within": {"type": "direct", "hide_emitters": True},
    }
    found = _rendered(ball, camera, integrator, rays)
    alpha = found[..., 3:4]
    straight = found[..., 4:] / alpha.clamp_min(MIN_COVERAGE)
    positions, normals = straight.split(3, dim=-1)
    T = camera.T_camera_world
    covered = (alpha > MIN_COVERAGE).float()
    depth = (positions @ T[2, :3] + T[2, 3])[..., None]
    return GBuffer(
        alpha,
        covered * torch.tensor(_GOLD.albedo),
        covered * _GOLD.roughness,
        covered * _GOLD.metallic,
        safe_normalise(normals) * covered,
        depth * covered,
        camera,
    )


def _shaded(ball: Ball, camera: Camera, lighting: Lighting, factor: int) -> Tensor:
    """The true surface shaded and box-filtered: radiance multiplied by coverage, and coverage."""
    picture = PictureOptions(factor)
    finer, options = picture.finer(camera, RasterOptions())
    gbuffer = _true_gbuffer(ball, finer, (_RAYS // factor) ** 2)
    if isinstance(lighting, GaussianLighting):
        channels = lighting.channels(camera.position_world)
        backend = rasterizer("auto", torch.device("cpu"))
        raster = backend.rasterize(ball.model.gaussians, finer, channels, None, options)
        straight = raster.features / raster.alpha.clamp_min(MIN_COVERAGE)
        gbuffer = replace(gbuffer, channels=straight)
    shown = picture_buffers(shade_gbuffer(gbuffer, lighting), picture)
    return torch.cat([shown.rgb * shown.alpha, shown.alpha], dim=-1)


def _psnr(shaded: Tensor, true: Tensor) -> float:
    inside = true[..., 3] > 0.999

    def displayed(picture: Tensor) -> Tensor:
        return srgb_from_linear(picture[inside][:, :3].clamp(0.0, 1.0))

    return float(-10.0 * (displayed(shaded) - displayed(true)).square().mean().log10())


if __name__ == "__main__":
    main()
