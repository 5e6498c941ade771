"""Which buffers does one view of a run give, in which frame?"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.colour import linear_from_srgb
from splatir.maths.frames import similarity_scale
from splatir.maths.safe import safe_normalise
from splatir.raster.contract import RasterBackend, RasterOptions
from splatir.render.deferred import Lighting, RenderOutput, render_scene
from splatir.render.denoise import denoised
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
        sheen: Likewise; None also for a model without cloth.
    """

    rgb: Float[Tensor, "height width 3"]
    alpha: Float[Tensor, "height width 1"]
    depth: Float[Tensor, "height width 1"]
    normals: Float[Tensor, "height width 3"]
    albedo: Float[Tensor, "height width 3"] | None = None
    roughness: Float[Tensor, "height width 1"] | None = None
    metallic: Float[Tensor, "height width 1"] | None = None
    sheen: Float[Tensor, "height width 1"] | None = None

    def in_frame(self, S_new_world: Float[Tensor, "4 4"]) -> "ViewBuffers":
        """The same buffers with depth and normals of another frame.

        Args:
            S_new_world: Similarity from the present frame to the new one.
        """
        scale = similarity_scale(S_new_world)
        R_new_world = (S_new_world[:3, :3].double() / scale).to(self.normals)
        return replace(self, depth=self.depth * scale, normals=self.normals @ R_new_world.mT)

    def box_filtered(self, factor: int) -> "ViewBuffers":
        """Means over blocks of pixels, weighted by coverage; normals are unit again.

        Args:
            factor: Pixels along a block's side; divides height and width.
        """
        if factor == 1:
            return self
        alpha = _block_means(self.alpha, factor)

        def filtered(buffer: Tensor) -> Tensor:
            return _straight(_block_means(buffer * self.alpha, factor), alpha)

        materials = (
            None if buffer is None else filtered(buffer)
            for buffer in (self.albedo, self.roughness, self.metallic, self.sheen)
        )
        normals = safe_normalise(filtered(self.normals))
        rgb, depth = filtered(self.rgb), filtered(self.depth)
        return ViewBuffers(rgb, alpha, depth, normals, *materials)


@dataclass(frozen=True)
class PictureOptions:
    """What is done for a better picture.

    Attributes:
        supersample: Samples along each side of a pixel, of surface and of light, at least 1.
        denoise: Filter the noise of sampled light.
    """

    supersample: int = 1
    denoise: bool = False

    def finer(self, camera: Camera, options: RasterOptions) -> tuple[Camera, RasterOptions]:
        """The same view with all samples as pixels, and how it is rasterised.

        Gaussians are as wide as in the pixels that they were trained for: their blur grows with the
        samples. With that of the smaller pixels they would be too thin. (Surfels have none, and
        gsplat's filter of surfels below a pixel is that of the smaller pixels.)

        Args:
            camera: View.
            options: Of its own pixels.
        """
        count = self.supersample
        if count == 1:
            return camera, options
        finer = camera.resized(count * camera.width, count * camera.height)
        return finer, replace(options, blur=count**2 * options.blur)


@torch.no_grad()
def shaded_buffers(
    model: GaussianModel,
    camera: Camera,
    lighting: Lighting,
    rasterizer: RasterBackend,
    options: RasterOptions = RasterOptions(),
    picture: PictureOptions = PictureOptions(),
) -> ViewBuffers:
    """Buffers of a model with materials, `rgb` shaded under a light; world frame.

    Supersampled, surfaces are shaded before they are averaged: pixels of detailed metal reflect
    what their parts do, not what their mean normal would.

    Args:
        model: Gaussians with materials, on the camera's device.
        camera: View.
        lighting: Shader, or these Gaussians under a light.
        rasterizer: Backend.
        options: Culling and antialiasing.
        picture: Supersampling and denoising.

    Raises:
        ValueError: The model has no materials.
    """
    camera, options = picture.finer(camera, options)
    image = render_scene(model, camera, lighting, rasterizer, options)
    return picture_buffers(image, picture)


@torch.no_grad()
def picture_buffers(image: RenderOutput, picture: PictureOptions) -> ViewBuffers:
    """Buffers of a picture that was rendered with all its samples as pixels.

    Args:
        image: Shaded view of a `PictureOptions.finer` camera.
        picture: Supersampling and denoising.
    """
    rgb = denoised(image) if picture.denoise else image.rgb
    return _with_materials(rgb, image.gbuffer).box_filtered(picture.supersample)


@torch.no_grad()
def radiance_buffers(
    model: GaussianModel,
    camera: Camera,
    rasterizer: RasterBackend,
    options: RasterOptions = RasterOptions(),
    picture: PictureOptions = PictureOptions(),
) -> ViewBuffers:
    """Buffers of any model, `rgb` the radiance that it was photographed with; world frame.

    Args:
        model: Gaussians, on the camera's device.
        camera: View.
        rasterizer: Backend.
        options: Culling and antialiasing.
        picture: Supersampling; there is no noise to filter.
    """
    camera, options = picture.finer(camera, options)
    found = _radiance_buffers(model, camera, rasterizer, options)
    return found.box_filtered(picture.supersample)


def _radiance_buffers(
    model: GaussianModel, camera: Camera, rasterizer: RasterBackend, options: RasterOptions
) -> ViewBuffers:
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
        gbuffer.sheen,
    )


def _straight(
    premultiplied: Float[Tensor, "height width c"], alpha: Float[Tensor, "height width 1"]
) -> Float[Tensor, "height width c"]:
    return premultiplied / alpha.clamp_min(MIN_COVERAGE) * (alpha > MIN_COVERAGE)


def _block_means(
    buffer: Float[Tensor, "tall broad c"], factor: int
) -> Float[Tensor, "height width c"]:
    blocks = buffer.unflatten(1, (-1, factor)).unflatten(0, (-1, factor))
    return blocks.mean((1, 3))
