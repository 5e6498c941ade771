"""The physically shaded picture of a scene: G-buffer first, then light."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.raster.contract import RasterBackend, RasterOptions
from splatir.render.gbuffer import GBuffer, render_gbuffer
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.shade.surface import Shader
from splatir.transport.lighting import GaussianLighting

# Shading alone, or with shadows and light from other Gaussians.
Lighting = Shader | GaussianLighting


@dataclass(frozen=True)
class RenderOutput:
    """One shaded view; linear, straight (not multiplied by alpha), not clipped.

    Attributes:
        rgb: Reflected radiance; 0 where nothing is covered.
        diffuse: Part of `rgb` from the diffuse lobe.
        specular: Part of `rgb` from the specular lobe.
        gbuffer: Coverage, materials, normals and depth.
    """

    rgb: Float[Tensor, "height width 3"]
    diffuse: Float[Tensor, "height width 3"]
    specular: Float[Tensor, "height width 3"]
    gbuffer: GBuffer

    @property
    def alpha(self) -> Float[Tensor, "height width 1"]:
        """Coverage in [0, 1]."""
        return self.gbuffer.alpha


def shade_gbuffer(gbuffer: GBuffer, lighting: Lighting) -> RenderOutput:
    """Shade the covered pixels of a G-buffer.

    Args:
        gbuffer: Of a view; with the channels of the lit Gaussians, if that is the lighting.
        lighting: Shader, or the Gaussians under a light.
    """
    if isinstance(lighting, GaussianLighting):
        assert gbuffer.channels is not None
        shading = lighting.shade(gbuffer.points(), gbuffer.at_covered(gbuffer.channels))
    else:
        shading = lighting.shade(gbuffer.points())
    pixels = torch.zeros_like(gbuffer.albedo).flatten(0, 1)
    diffuse, specular = (
        pixels.index_copy(0, gbuffer.covered_indices, lobe).view_as(gbuffer.albedo)
        for lobe in (shading.diffuse, shading.specular)
    )
    return RenderOutput(diffuse + specular, diffuse, specular, gbuffer)


def render_scene(
    model: GaussianModel,
    camera: Camera,
    lighting: Lighting,
    rasterizer: RasterBackend,
    options: RasterOptions = RasterOptions(),
    moves_splats: bool = False,
) -> RenderOutput:
    """Render a model with materials under a light.

    Args:
        model: Gaussians with materials, on the camera's device.
        camera: View.
        lighting: Shader, or these Gaussians under a light.
        rasterizer: Backend.
        options: Culling and antialiasing.
        moves_splats: Differentiate where splats are, too, as `render_gbuffer` says.

    Raises:
        ValueError: The model has no materials.
    """
    channels = None
    if isinstance(lighting, GaussianLighting):
        channels = lighting.channels(camera.position_world.to(model.means))
    gbuffer = render_gbuffer(model, camera, rasterizer, options, channels, moves_splats)
    return shade_gbuffer(gbuffer, lighting)
