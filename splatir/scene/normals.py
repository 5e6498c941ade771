"""Which way does each Gaussian's surface look?"""

import torch
from jaxtyping import Float
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
    rotations = rotation_from_quat(gaussians.quats)
    if gaussians.primitive == "surfel":
        axes = rotations[..., 2]
    else:
        shortest = gaussians.scales.detach().argmin(-1)
        axes = torch.take_along_dim(rotations, shortest[:, None, None], -1)[..., 0]
    with torch.no_grad():
        towards = ((camera_position - gaussians.means) * axes).sum(-1, keepdim=True)
    return torch.where(towards < 0.0, -axes, axes)
