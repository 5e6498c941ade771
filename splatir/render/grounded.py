"""How is a scene shown on a ground: with it, or with no more of it than the shadow?"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.colour import luminance
from splatir.raster.contract import RasterBackend, RasterOptions
from splatir.render.buffers import PictureOptions, ViewBuffers, picture_buffers
from splatir.render.deferred import RenderOutput, shade_gbuffer
from splatir.render.gbuffer import render_gbuffer
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.shade.surface import Shader
from splatir.transport.lighting import GaussianLighting

# Luminance of the ground below which it has no shadow.
_DARK = 1e-6


@dataclass(frozen=True)
class GroundedScene:
    """Gaussians of a scene and of the plane that it stands on, under a light.

    Attributes:
        model: The scene's Gaussians, then those of the ground.
        num_scene: Number of the scene's.
        height: Of the ground along world +Z; from below it, only the scene is seen.
        lighting: Of all Gaussians.
        open_light: The same light with nothing in its way: pictures show the ground's shadow
            alone. None shows the ground.
    """

    model: GaussianModel
    num_scene: int
    height: float
    lighting: GaussianLighting
    open_light: Shader | None

    @torch.no_grad()
    def buffers(
        self,
        camera: Camera,
        rasterizer: RasterBackend,
        options: RasterOptions = RasterOptions(),
        picture: PictureOptions = PictureOptions(),
    ) -> ViewBuffers:
        """Buffers of a view.

        A shadow is black, and as opaque as it is dark: 1 less the ratio of the ground's luminance
        to that which it has alone. Light that the scene sends to the ground is in the ratio, but
        its colour is not.

        Args:
            camera: View.
            rasterizer: Backend.
            options: Culling and antialiasing.
            picture: Supersampling and denoising.
        """
        finer, options = picture.finer(camera, options)
        view = _View(self, finer, rasterizer, options)
        if float(camera.position_world[2]) < self.height:
            return picture_buffers(view.shaded(view.scene_rows, self.lighting), picture)
        if self.open_light is None:
            return picture_buffers(view.shaded(slice(None), self.lighting), picture)
        every_sample = replace(picture, supersample=1)
        scene = picture_buffers(view.shaded(view.scene_rows, self.lighting), every_sample)
        lit, alone = (
            picture_buffers(_matt(view.shaded(view.ground_rows, light)), every_sample).rgb
            for light in (self.lighting, self.open_light)
        )
        darkness = 1.0 - (luminance(lit) + _DARK) / (luminance(alone) + _DARK)
        scene_alpha, ground_alpha = view.coverage()
        alpha = scene_alpha + ground_alpha * darkness.clamp_min(0.0)
        rgb = scene.rgb * (scene_alpha / alpha.clamp_min(1e-12))
        return replace(scene, rgb=rgb, alpha=alpha).box_filtered(picture.supersample)


@dataclass(frozen=True)
class _View:
    """Parts of a grounded scene from one camera."""

    of: GroundedScene
    camera: Camera
    rasterizer: RasterBackend
    options: RasterOptions

    @property
    def scene_rows(self) -> slice:
        return slice(self.of.num_scene)

    @property
    def ground_rows(self) -> slice:
        return slice(self.of.num_scene, None)

    def shaded(self, rows: slice, light: GaussianLighting | Shader) -> RenderOutput:
        """Some of the Gaussians as if the others were invisible; their shadows stay."""
        model = self.of.model
        part = GaussianModel({k: v[rows] for k, v in model.params.items()}, model.primitive)
        channels = None
        if isinstance(light, GaussianLighting):
            channels = light.channels(self.camera.position_world.to(model.means))[rows]
        gbuffer = render_gbuffer(part, self.camera, self.rasterizer, self.options, channels)
        return shade_gbuffer(gbuffer, light)

    def coverage(self) -> tuple[Float[Tensor, "height width 1"], Float[Tensor, "height width 1"]]:
        """What the scene covers and what the ground covers, each behind the other where it is."""
        is_scene = torch.zeros_like(self.of.model.means[:, :1])
        is_scene[self.scene_rows] = 1.0
        gaussians = self.of.model.gaussians.detach()
        raster = self.rasterizer.rasterize(gaussians, self.camera, is_scene, None, self.options)
        return raster.features, (raster.alpha - raster.features).clamp_min(0.0)


def _matt(image: RenderOutput) -> RenderOutput:
    """A picture without its specular lobe, which fast shading finds in two ways."""
    return replace(image, rgb=image.diffuse, specular=torch.zeros_like(image.specular))
