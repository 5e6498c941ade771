"""Depth images of surfaces whose normals are known."""

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.render.geometry import camera_rays
from splatir.scene.camera import Camera


def plane_depth(
    camera: Camera, normal_camera: Float[Tensor, " 3"], distance: float
) -> Float[Tensor, "height width 1"]:
    """Camera z of a plane.

    Args:
        camera: View.
        normal_camera: Unit normal that faces the camera, camera frame.
        distance: From the camera's centre.
    """
    return -distance / (camera_rays(camera).to(normal_camera) @ normal_camera)[..., None]


def sphere_depth(
    camera: Camera, centre_camera: Float[Tensor, " 3"], radius: float
) -> Float[Tensor, "height width 1"]:
    """Camera z of a sphere's near side; 0 where the ray misses it."""
    rays = camera_rays(camera).to(centre_camera)
    along, squared = rays @ centre_camera, rays.square().sum(-1)
    discriminant = along.square() - squared * (centre_camera.square().sum() - radius**2)
    z = (along - discriminant.clamp_min(0.0).sqrt()) / squared
    return torch.where(discriminant > 0.0, z, torch.zeros_like(z))[..., None]
