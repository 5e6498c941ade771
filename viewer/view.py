"""Which buffers does one view of the scene hold, each found only when it is asked for?"""

import math
from dataclasses import replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.raster.contract import RasterBackend, RasterOptions
from splatir.render.buffers import ViewBuffers, radiance_buffers
from splatir.render.deferred import Lighting, RenderOutput, shade_gbuffer
from splatir.render.gbuffer import GBuffer, render_gbuffer
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.shade.surface import Shader
from splatir.transport.lighting import GaussianLighting

# Irradiance without occluders below which its share means nothing.
_DARK = 1e-6


class View:
    """One camera, one state of the Gaussians, one light."""

    def __init__(
        self,
        model: GaussianModel,
        camera: Camera,
        backend: RasterBackend,
        options: RasterOptions,
        lighting: Lighting | None = None,
        unshadowed: Shader | None = None,
    ) -> None:
        """Prepare a view; nothing is rendered yet.

        Args:
            model: Gaussians, on the camera's device.
            camera: View.
            backend: Rasteriser.
            options: Culling and antialiasing.
            lighting: What shades the model; None if nothing of the view is to be shaded.
            unshadowed: The same light without occluders, for the channel "shadow".
        """
        self.model, self.camera = model, camera
        self._backend, self._options = backend, options
        self._lighting, self._unshadowed = lighting, unshadowed

    @cached_property
    def gbuffer(self) -> GBuffer:
        """Surface, with what the lighting needs of the Gaussians."""
        channels = None
        if isinstance(self._lighting, GaussianLighting):
            channels = self._lighting.channels(self.camera.position_world.to(self.model.means))
        return render_gbuffer(self.model, self.camera, self._backend, self._options, channels)

    @cached_property
    def radiance(self) -> ViewBuffers:
        """The scene as it was photographed, and its geometry."""
        return radiance_buffers(self.model, self.camera, self._backend, self._options)

    @property
    def surface(self) -> GBuffer | ViewBuffers:
        """Whatever holds coverage, depth and normals."""
        return self.gbuffer if self.model.has_materials else self.radiance

    @cached_property
    def shaded(self) -> RenderOutput:
        """The scene under the light."""
        assert self._lighting is not None
        return shade_gbuffer(self.gbuffer, self._lighting)

    @cached_property
    def irradiance(self) -> Float[Tensor, "height width 3"]:
        """Light that arrives at the surface, past occluders and from other surfaces."""
        assert self._lighting is not None
        return math.pi * shade_gbuffer(self._white, self._lighting).diffuse

    @cached_property
    def shadow(self) -> Float[Tensor, "height width 3"]:
        """Irradiance over what it would be without occluders; 1 where nothing would arrive."""
        assert self._unshadowed is not None
        alone = math.pi * shade_gbuffer(self._white, self._unshadowed).diffuse
        return torch.where(alone > _DARK, self.irradiance / alone.clamp_min(_DARK), 1.0)

    @cached_property
    def _white(self) -> GBuffer:
        """The same surface, matt and white: what it reflects is irradiance over pi."""
        found = self.gbuffer
        return replace(
            found,
            albedo=torch.ones_like(found.albedo),
            metallic=torch.zeros_like(found.metallic),
            sheen=None,
        )
