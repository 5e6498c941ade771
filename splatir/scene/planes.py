"""Where do the planes of Gaussians meet the rays through the pixels?"""

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.frames import transform_points
from splatir.scene.camera import Camera

# Tangent of the steepest plane towards the line of sight: 45 degrees. Steeper ones run away from
# the surface within the splat's own footprint.
_MAX_SLOPE = 1.0
_MIN_COSINE = 1e-3
# A Gaussian this close to the camera, scene units, is seen by nobody.
_MIN_DISTANCE = 1e-9


def inverse_depth_planes(
    means: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], camera: Camera
) -> Float[Tensor, "n 3"]:
    """Planes as m with 1 / z = m . (x, y, 1) at the camera ray through (x, y, 1).

    A plane n . p = n . c in the camera frame meets the ray at 1 / z = n . (x, y, 1) / (n . c), so
    sums of w m are sums of w / z at every pixel. Planes seen at a grazing angle are turned about
    their centre until they face the camera at 45 degrees. Differentiable in the means; normals
    count as constants.

    Args:
        means: Points of the planes, in front of the camera, world frame.
        normals: Unit, world frame; either sign.
        camera: View.

    Returns:
        Planes in the camera frame, per scene unit.
    """
    T = camera.T_camera_world.to(means)
    centres = transform_points(T, means)
    distances = centres.norm(dim=-1, keepdim=True).clamp_min(_MIN_DISTANCE)
    sight = centres / distances
    normals = normals.detach() @ T[:3, :3].mT
    cosines = (normals * sight).sum(-1, keepdim=True)
    signs = torch.where(cosines < 0.0, -1.0, 1.0)
    slopes = (normals - cosines * sight) * signs / cosines.abs().clamp_min(_MIN_COSINE)
    steepness = slopes.norm(dim=-1, keepdim=True)
    slopes = slopes * (_MAX_SLOPE / steepness.clamp_min(_MAX_SLOPE))
    return (sight + slopes) / distances
