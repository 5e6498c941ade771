"""By how much is a photo's camera off: seven small numbers, and what of them no photo can tell.

A correction is [7]: a rotation vector about the camera's own centre (radians, world axes), a shift
of that centre (in extents of the scene, world axes) and the logarithm of the focal length's factor.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.rotations import rotation_from_quat
from splatir.scene.camera import Camera

NUM_CORRECTIONS = 7
# How far calibrations are off by experience: half a degree, half a percent of the scene, and two
# percent of the focal length.
TYPICAL_CORRECTION = (*(0.0087,) * 3, *(0.005,) * 3, 0.02)


@torch.no_grad()
def corrected_camera(camera: Camera, correction: Float[Tensor, " 7"], extent: float) -> Camera:
    """The camera that a correction makes of a calibrated one.

    Args:
        camera: As calibrated.
        correction: Small; see above. Not differentiable here: `camera_gradient.tied_to_camera`.
        extent: Radius of the scene, scene units.
    """
    correction = correction.to(camera.K)
    half = 0.5 * correction[:3]
    turn = rotation_from_quat(torch.cat([torch.ones_like(half[:1]), half]))
    R_camera_world = camera.T_camera_world[:3, :3] @ turn.mT
    position = camera.position_world + extent * correction[3:6]
    T = camera.T_camera_world.clone()
    T[:3, :3] = R_camera_world
    T[:3, 3] = -R_camera_world @ position
    K = camera.K.clone()
    K[0, 0] *= correction[6].exp()
    K[1, 1] *= correction[6].exp()
    return Camera(K, T, camera.width, camera.height)


def gauge_directions(
    cameras: Sequence[Camera], extent: float
) -> Float[Tensor, "parameters directions"]:
    """Orthonormal directions of all corrections in which only the whole scene turns, moves, grows.

    Args:
        cameras: As calibrated, at least two.
        extent: Radius of the scene, scene units.

    Returns:
        Rows as the corrections flattened, 7 per camera; at most 7 columns. Float64, on the CPU.
    """
    positions = torch.stack([c.position_world.cpu().double() for c in cameras]) / extent
    # About their middle, where rotation, shift and growth hardly depend on each other.
    positions = positions - positions.mean(0)
    axes = torch.eye(3, dtype=torch.float64)
    directions = torch.zeros(len(cameras), NUM_CORRECTIONS, 7, dtype=torch.float64)
    for i, axis in enumerate(axes):
        directions[:, i, i] = 1.0
        directions[:, 3:6, i] = torch.linalg.cross(axis.expand_as(positions), positions)
        directions[:, 3 + i, 3 + i] = 1.0
    directions[:, 3:6, 6] = positions
    basis, strengths, _ = torch.linalg.svd(directions.flatten(0, 1), full_matrices=False)
    return basis[:, strengths > 1e-9 * strengths[0]]


@torch.no_grad()
def remove_gauge(
    corrections: Float[Tensor, "views 7"], gauge: Float[Tensor, "parameters directions"]
) -> None:
    """Take from corrections, in place, what moves the whole scene.

    Args:
        corrections: Of all views.
        gauge: Of `gauge_directions`, in the corrections' dtype and device.
    """
    flat = corrections.flatten()
    corrections.sub_((gauge @ (gauge.mT @ flat)).view_as(corrections))
