"""How do a surfel's own coordinates map to the image, and which rectangle does it cover?"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from splatir.maths.rotations import rotation_from_quat
from splatir.raster.contract import RasterOptions
from splatir.raster.reference.projection import (
    MAX_EXTENT,
    MAX_RADIUS,
    rectangle_on_image,
    scatter,
)
from splatir.scene.camera import Camera
from splatir.scene.gaussians import Gaussians

# Least variance of the rectangle, square pixels: one pixel of radius for surfels seen edge-on.
_MIN_VARIANCE = 1e-4


@dataclass(frozen=True)
class ProjectedSurfels:
    """Image footprints of surfels. Rows of culled splats are zero.

    Attributes:
        means2d: Centres of the one-sigma ellipse's bounding box, pixels; not the projected centre.
        depths: Camera z of the centres, scene units.
        ray_transforms: T with (x z, y z, z) = T @ (u, v, 1) for the surfel point at u, v standard
            deviations along its axes, seen at pixel (x, y) and camera depth z. Rows are x, y, z.
        normals: Unit, camera frame, facing the camera.
        radii: Half extents of the rectangle in pixels; (0, 0) for culled splats.
    """

    means2d: Float[Tensor, "n 2"]
    depths: Float[Tensor, " n"]
    ray_transforms: Float[Tensor, "n 3 3"]
    normals: Float[Tensor, "n 3"]
    radii: Int[Tensor, "n 2"]


def project_surfels(
    gaussians: Gaussians, camera: Camera, options: RasterOptions
) -> ProjectedSurfels:
    """Project surfels exactly under perspective (2DGS, Huang et al. 2024, eqs. 7-9).

    Differentiable in means, quats and scales; radii are not differentiable. Culled: centres not
    strictly between `options.near` and `options.far`, rectangles off the image, and rectangles not
    above `options.radius_clip` in either axis. The rectangle knows neither opacity nor blur.

    Args:
        gaussians: Surfels, world frame; the third scale is ignored.
        camera: View, in the dtype and on the device of the Gaussians.
        options: Culling.
    """
    with torch.no_grad():
        depths = gaussians.means @ camera.T_camera_world[2, :3] + camera.T_camera_world[2, 3]
        in_range = torch.nonzero((depths > options.near) & (depths < options.far))[:, 0]
        transforms, _ = _transforms_and_normals(gaussians, camera, in_range)
        means2d, variances = _bounding_ellipses(transforms)
        radii = (MAX_EXTENT * variances.clamp_min(_MIN_VARIANCE).sqrt()).ceil()
        # A NaN (the plane of the ellipse's tangents passes through the eye) fails every comparison.
        keep = rectangle_on_image(means2d, radii, camera)
        keep &= (radii > options.radius_clip).any(-1)
    visible, n = in_range[keep], gaussians.means.shape[0]
    transforms, normals = _transforms_and_normals(gaussians, camera, visible)
    means2d, _ = _bounding_ellipses(transforms)
    return ProjectedSurfels(
        means2d=scatter(means2d, visible, n),
        depths=scatter(transforms[:, 2, 2], visible, n),
        ray_transforms=scatter(transforms, visible, n),
        normals=scatter(normals, visible, n),
        radii=scatter(radii[keep].clamp_max(MAX_RADIUS).int(), visible, n),
    )


def _transforms_and_normals(
    gaussians: Gaussians, camera: Camera, index: Tensor
) -> tuple[Float[Tensor, "m 3 3"], Float[Tensor, "m 3"]]:
    """Ray transforms K [s_u t_u | s_v t_v | p] and camera-facing normals of the indexed surfels."""
    R_camera_world = camera.T_camera_world[:3, :3]
    # Not means[index]: its gradient is summed by atomics, in another order each time.
    means, quats, scales = (
        rows.index_select(0, index) for rows in (gaussians.means, gaussians.quats, gaussians.scales)
    )
    means_camera = means @ R_camera_world.mT + camera.T_camera_world[:3, 3]
    R_camera_surfel = R_camera_world @ rotation_from_quat(quats)
    tangents = R_camera_surfel[:, :, :2] * scales[:, None, :2]
    transforms = camera.K @ torch.cat([tangents, means_camera[:, :, None]], -1)
    normals = R_camera_surfel[:, :, 2]
    faces_away = (normals * means_camera).sum(-1, keepdim=True) >= 0
    return transforms, torch.where(faces_away, -normals, normals)


def _bounding_ellipses(
    transforms: Float[Tensor, "m 3 3"],
) -> tuple[Float[Tensor, "m 2"], Float[Tensor, "m 2"]]:
    """Centre and squared half extents of the image bounding box of u^2 + v^2 = 1.

    Columns x = c touch the conic where the line's pole lies on it: a quadratic in c whose mean and
    variance of roots these are (Sigg et al. 2006).
    """
    signs = transforms.new_tensor([1.0, 1.0, -1.0])
    xy, z = transforms[:, :2], transforms[:, 2:]
    divisors = (signs * z * z).sum(-1)
    centres = (signs * xy * z).sum(-1) / divisors
    return centres, centres**2 - (signs * xy * xy).sum(-1) / divisors
