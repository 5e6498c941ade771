"""The picture of a radiance splat: view-dependent colours, composited."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.raster.contract import RasterBackend, RasterOptions, RasterOutput
from splatir.render.camera_gradient import CameraCorrection, tied_to_camera
from splatir.render.geometry import camera_rays
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.normals import facing_normals
from splatir.scene.planes import inverse_depth_planes
from splatir.scene.radiance import radiance_colours

# Coverage over camera z below which nothing is seen, per scene unit.
_MIN_INVERSE_DEPTH = 1e-10


@dataclass(frozen=True)
class RadianceImage:
    """One view of a radiance splat.

    Attributes:
        rgb_srgb: Display colour over the background; not clipped.
        raster: Everything else that was composited.
        normals: Sum of w n over the splats of a pixel, n in the world frame, facing the camera;
            differentiable in n alone. None if not asked for.
        depth: Camera z of the surface times coverage: the harmonic mean, by w, of where the pixel's
            ray meets the splats' planes; differentiable in their centres alone. None if not asked
            for.
    """

    rgb_srgb: Float[Tensor, "height width 3"]
    raster: RasterOutput
    normals: Float[Tensor, "height width 3"] | None = None
    depth: Float[Tensor, "height width 1"] | None = None


def render_radiance(
    model: GaussianModel,
    camera: Camera,
    rasterizer: RasterBackend,
    background_srgb: Float[Tensor, " 3"] | None = None,
    sh_degree: int | None = None,
    options: RasterOptions = RasterOptions(),
    with_surface: bool = False,
    correction: CameraCorrection | None = None,
) -> RadianceImage:
    """Render the spherical-harmonic radiance of a model.

    As in Kerbl et al. 2023 the coefficients hold sRGB display values and compositing happens in
    sRGB, so that exported splats look the same in any viewer.

    Args:
        model: Gaussians, on the camera's device.
        camera: View.
        rasterizer: Backend.
        background_srgb: Colour behind everything; None leaves the colour premultiplied on black.
        sh_degree: Highest degree used; the model's own if None.
        options: Further outputs.
        with_surface: Also composite normals and depths, with constant weights: whatever is asked of
            normals turns splats, of depths moves them, and makes none more opaque.
        correction: That `camera` has already, to receive a gradient from the colours; or None.
    """
    degree = model.sh_degree if sh_degree is None else min(sh_degree, model.sh_degree)
    gaussians = model.gaussians
    shapes, seen = gaussians, gaussians.means
    if correction is not None:
        shapes, seen = tied_to_camera(gaussians, camera, correction)
    colours = radiance_colours(
        model.params["sh0"], model.params["shN"], seen, camera.position_world, degree
    )
    if not with_surface:
        raster = rasterizer.rasterize(shapes, camera, colours, background_srgb, options)
        return RadianceImage(raster.features, raster)
    normals = facing_normals(gaussians, camera.position_world.to(gaussians.means))
    # By splats' centres instead, wide splats would be steps on every surface seen aslant.
    planes = inverse_depth_planes(gaussians.means, normals, camera)
    if background_srgb is not None:
        background_srgb = torch.nn.functional.pad(background_srgb, (0, 6))
    raster = rasterizer.rasterize(
        shapes,
        camera,
        torch.cat([colours, normals, planes], dim=-1),
        background_srgb,
        replace(options, detached_features=6),
    )
    rgb, normals, planes = raster.features.split([3, 3, 3], dim=-1)
    inverse = (planes * camera_rays(camera).to(planes)).sum(-1, keepdim=True)
    depth = raster.alpha.detach().square() / inverse.clamp_min(_MIN_INVERSE_DEPTH)
    return RadianceImage(rgb, raster, normals, depth)
