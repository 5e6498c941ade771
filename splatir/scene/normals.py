"""Which way does each Gaussian's surface look?"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from splatir.maths.rotations import rotation_from_quat
from splatir.scene.gaussians import Gaussians


def facing_normals(
    gaussians: Gaussians, camera_position: Float[Tensor, " 3"]
) -> Float[Tensor, "n 3"]:
    """Unit world normals, turned towards the camera; differentiable in the quaternions.

    A surfel's normal is its third axis, an ellipsoid's the shortest one.

    Args:
        gaussians: Geometry.
        camera_position: Centre of projection, world frame.
    """
    axes = normal_axes(gaussians)
    with torch.no_grad():
        towards = ((camera_position - gaussians.means) * axes).sum(-1, keepdim=True)
    return torch.where(towards < 0.0, -axes, axes)


def normal_axes(gaussians: Gaussians) -> Float[Tensor, "n 3"]:
    """Unit world normals with the sign that the axes happen to have.

    Args:
        gaussians: Geometry.
    """
    rotations = rotation_from_quat(gaussians.quats)
    index = normal_axis_indices(gaussians)
    return torch.take_along_dim(rotations, index[:, None, None], -1)[..., 0]


def normal_axis_indices(gaussians: Gaussians) -> Int[Tensor, " n"]:
    """Which of its own axes is each Gaussian's normal: the third of a surfel, else the shortest."""
    if gaussians.primitive == "surfel":
        return torch.full_like(gaussians.opacities, 2, dtype=torch.long)
    return gaussians.scales.detach().argmin(-1)
