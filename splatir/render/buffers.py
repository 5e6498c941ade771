"""Which buffers does one view of a run give, in which frame?"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.colour import linear_from_srgb
from splatir.maths.frames import similarity_scale
from splatir.maths.safe import safe_normalise
from splatir.raster.contract import RasterBackend, RasterOptions
from splatir.render.deferred import Lighting, render_scene
from splatir.render.gbuffer import MIN_COVERAGE, GBuffer, render_gbuffer
from splatir.render.radiance import render_radiance
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.normals import facing_normals


@dataclass(frozen=True)
class ViewBuffers:
    """Pictures of one view, not multiplied by coverage; 0 where nothing is covered.

    Attributes:
        rgb: Linear, not clipped.
        alpha: Coverage in [0, 1].
        depth: Camera z, units of the frame.
        normals: Unit, facing the camera, in the frame.
        albedo: Linear; None for a model without materials.
        roughness: Perceptual; likewise.
        metallic: Likewise.
    """

    rgb: Float[Tensor, "height width 3"]
    alpha: Float[Tensor, "height width 1"]
    depth: Float[Tensor, "height width 1"]
    normals: Float[Tensor, "height width 3"]
    albedo: Float[Tensor, "height width 3"] | None = None
    roughness: Float[Tensor, "height width 1"] | None = None
    metallic: Float[Tensor, "height width 1"] | None = None

    def in_frame(self, S_new_world: Float[Tensor, "4 4"]) -> "ViewBuffers":
        """The same buffers with depth and normals of another frame.

        Args:
            S_new_world: Similarity from the present frame to the new one.
        """
        scale = similarity_scale(S_new_world)
        R_new_world = (S_new_world[:3, :3].double() / scale).to(self.normals)
        return replace(self, depth=self.depth * scale, normals=self.normals @ R_new_world.mT)


@torch.no_grad()
def shaded_buffers(
    model: GaussianModel,
    camera: Camera,
    lighting: Lighting,
    rasterizer: RasterBackend,
    options: RasterOptions = RasterOptions(),
) -> ViewBuffers:
    """Buffers of a model with materials, `rgb` shaded under a light; world frame.

    Args:
        model: Gaussians with materials, on the camera's device.
        camera: View.
        lighting: Shader, or these Gaussians under a light.
        rasterizer: Backend.
        options: Culling and antialiasing.

    Raises:
        ValueError: The model has no materials.
    """
    image = render_scene(model, camera, lighting, rasterizer, options)
    return _with_materials(image.rgb, image.gbuffer)


@torch.no_grad()
def radiance_buffers(
    model: GaussianModel,
    camera: Camera,
    rasterizer: RasterBackend,
    options: RasterOptions = RasterOptions(),
) -> ViewBuffers:
    """Buffers of any model, `rgb` the radiance that it was photographed with; world frame.

    Args:
        model: Gaussians, on the camera's device.
        camera: View.
        rasterizer: Backend.
        options: Culling and antialiasing.
    """
    image = render_radiance(model, camera, rasterizer, options=options)
    straight = _straight(image.rgb_srgb, image.raster.alpha)
    rgb = linear_from_srgb(straight).clamp_min(0.0)
    if model.has_materials:
        return _with_materials(rgb, render_gbuffer(model, camera, rasterizer, options))
    gaussians = model.gaussians
    T = camera.T_camera_world.to(gaussians.means)
    features = torch.cat(
        [
            facing_normals(gaussians, camera.position_world.to(gaussians.means)),
            (gaussians.means @ T[2, :3] + T[2, 3])[:, None],
        ],
        dim=-1,
    )
    raster = rasterizer.rasterize(gaussians, camera, features, None, options)
    normals, depth = _straight(raster.features, raster.alpha).split([3, 1], dim=-1)
    return ViewBuffers(rgb, raster.alpha, depth, safe_normalise(normals))


def _with_materials(rgb: Float[Tensor, "height width 3"], gbuffer: GBuffer) -> ViewBuffers:
    return ViewBuffers(
        rgb,
        gbuffer.alpha,
        gbuffer.depth,
        gbuffer.normals,
        gbuffer.albedo,
        gbuffer.roughness,
        gbuffer.metallic,
    )


def _straight(
    premultiplied: Float[Tensor, "height width c"], alpha: Float[Tensor, "height width 1"]
) -> Float[Tensor, "height width c"]:
    return premultiplied / alpha.clamp_min(MIN_COVERAGE) * (alpha > MIN_COVERAGE)
