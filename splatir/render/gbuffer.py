"""What the surface is at every pixel: material, normal and depth buffers of a view."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from splatir.maths.colour import linear_from_srgb, srgb_from_linear
from splatir.maths.safe import safe_normalise
from splatir.raster.contract import RasterBackend, RasterOptions
from splatir.render.geometry import camera_rays
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.normals import PAST_HORIZON, facing_normals
from splatir.shade.surface import SurfacePoints

# Coverage below which a pixel shows no surface; half of what 8-bit alpha resolves.
MIN_COVERAGE = 0.5 / 255.0


@dataclass(frozen=True)
class GBuffer:
    """Surface buffers of one view, not multiplied by coverage; 0 where nothing is covered.

    Attributes:
        alpha: Coverage in [0, 1].
        albedo: Base colour, linear, 0 to 1.
        roughness: Perceptual, 0 to 1.
        metallic: 0 to 1.
        normals: Unit, world frame, facing the camera.
        depth: Camera z, scene units: mean over the splats' centres, by their share of the pixel.
        camera: The view.
        channels: Further features of the Gaussians, or None.
        sheen: Of the diffuse lobe, 0 to 1; None for 0.
    """

    alpha: Float[Tensor, "height width 1"]
    albedo: Float[Tensor, "height width 3"]
    roughness: Float[Tensor, "height width 1"]
    metallic: Float[Tensor, "height width 1"]
    normals: Float[Tensor, "height width 3"]
    depth: Float[Tensor, "height width 1"]
    camera: Camera
    channels: Float[Tensor, "height width c"] | None = None
    sheen: Float[Tensor, "height width 1"] | None = None

    @property
    def covered(self) -> Bool[Tensor, "height width"]:
        """Pixels that show some surface."""
        return self.alpha[..., 0] > MIN_COVERAGE

    @cached_property
    def covered_indices(self) -> Int[Tensor, " p"]:
        """Numbers of these pixels, row by row."""
        return self.covered.flatten().nonzero()[:, 0]

    @property
    def positions(self) -> Float[Tensor, "height width 3"]:
        """Surface points, world frame; the camera's centre where nothing is covered."""
        T = self.camera.T_world_camera.to(self.depth)
        return (camera_rays(self.camera).to(self.depth) * self.depth) @ T[:3, :3].mT + T[:3, 3]

    def at_covered(self, buffer: Float[Tensor, "height width c"]) -> Float[Tensor, "p c"]:
        """Values of a buffer at the covered pixels, in row order."""
        return buffer.flatten(0, 1).index_select(0, self.covered_indices)

    def points(self) -> SurfacePoints:
        """The covered pixels as points to shade, in row order."""
        covered = self.at_covered
        T = self.camera.T_world_camera.to(self.depth)
        rays = covered(camera_rays(self.camera).to(self.depth)) @ T[:3, :3].mT
        return SurfacePoints(
            rays * covered(self.depth) + T[:3, 3],
            covered(self.normals),
            -safe_normalise(rays),
            covered(self.albedo),
            covered(self.roughness),
            covered(self.metallic),
            None if self.sheen is None else covered(self.sheen),
        )


def render_gbuffer(
    model: GaussianModel,
    camera: Camera,
    rasterizer: RasterBackend,
    options: RasterOptions = RasterOptions(),
    channels: Float[Tensor, "n c"] | None = None,
    moves_splats: bool = False,
) -> GBuffer:
    """Composite materials, normals and centre depths of a model.

    Differentiable in materials and normals, and on request in what decides coverage. Albedo is
    composited sRGB-encoded, as the radiance is. (Depth of a pixel by splat centres gives better
    normals than the depth where its ray meets each splat, which grazing splats bias backwards.)

    Args:
        model: Gaussians with materials, on the camera's device; normal axes look outwards, see
            `transport.orientation`.
        camera: View.
        rasterizer: Backend.
        options: Culling and antialiasing.
        channels: Further features to composite likewise.
        moves_splats: Also differentiate centres, scales, turns and opacities, through compositing
            weights that are constants otherwise.

    Raises:
        ValueError: The model has no materials.
    """
    gaussians = model.gaussians if moves_splats else model.gaussians.detach()
    T = camera.T_camera_world.to(gaussians.means)
    position = camera.position_world.to(gaussians.means)
    centre_depths = gaussians.means @ T[2, :3] + T[2, 3]
    sheen = model.sheen
    features = torch.cat(
        [
            # Opacities learned to mix paint as display values: mixed as linear ones, dark patches
            # would get bright outlines (0.8 dB of the shaded picture, 2 dB of albedo on a cow).
            srgb_from_linear(model.material("albedo")),
            model.material("roughness")[:, None],
            model.material("metallic")[:, None],
            facing_normals(model.gaussians, position, PAST_HORIZON),
            centre_depths[:, None],
            *([] if sheen is None else [sheen[:, None]]),
            *([] if channels is None else [channels]),
        ],
        dim=-1,
    )
    raster = rasterizer.rasterize(gaussians, camera, features, None, options)
    alpha = raster.alpha if moves_splats else raster.alpha.detach()
    per_coverage = (alpha > MIN_COVERAGE) / alpha.clamp_min(MIN_COVERAGE)
    straight = raster.features * per_coverage
    num_sheen = 0 if sheen is None else 1
    num_channels = 0 if channels is None else channels.shape[-1]
    albedo_srgb, roughness, metallic, normals, depth, sheens, further = straight.split(
        [3, 1, 1, 3, 1, num_sheen, num_channels], dim=-1
    )
    return GBuffer(
        alpha,
        linear_from_srgb(albedo_srgb),
        roughness,
        metallic,
        safe_normalise(normals),
        depth,
        camera,
        None if channels is None else further,
        None if sheen is None else sheens,
    )
