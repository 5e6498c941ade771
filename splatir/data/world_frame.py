"""Which similarity puts a capture upright (+Z), around the origin and into sensible units?"""

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.frames import similarity
from splatir.scene.focus import focus_point

# Weight of the mean up direction beside the cameras' x axes (their mean square is up to 1): small,
# so that it decides only what the x axes leave open, as when all cameras look the same way.
_MEAN_UP_WEIGHT = 0.005
# A camera rolled by more than 45 degrees is one held sideways: its y axis is the level one.
_SIDEWAYS = 0.7071


def similarity_from_cameras(
    T_camera_input: Float[Tensor, "n 4 4"], points_input: Float[Tensor, "m 3"] | None
) -> Float[Tensor, "4 4"]:
    """S_world_input of a capture: +Z up, origin at what the cameras look at, unit viewing distance.

    The origin is the point nearest to the optical axes, and the unit the cameras' median distance
    from it. Where the axes do not meet in front of the cameras (a wall, a panorama) the origin is
    the median camera and the unit the median distance to the sparse points, else the spread of the
    cameras. So the scene is a few units away whatever the input's units were, and a near plane at
    0.01 is 1 % of the viewing distance.

    Args:
        T_camera_input: Rigid, OpenCV axes, float64.
        points_input: Sparse points, input frame, or None.
    """
    T_camera_input = T_camera_input.double()
    R_input_camera = T_camera_input[:, :3, :3].mT
    positions = -(R_input_camera @ T_camera_input[:, :3, 3:]).squeeze(-1)
    forwards = R_input_camera[:, :, 2]
    up = up_direction(R_input_camera)
    centre = focus_point(positions, forwards)
    if centre is not None:
        unit = float((positions - centre).norm(dim=-1).median())
    else:
        centre = positions.median(dim=0).values
        unit = 0.0
        if points_input is not None and len(points_input):
            unit = float((points_input.double() - centre).norm(dim=-1).median())
        if unit <= 0.0:
            unit = float((positions - centre).norm(dim=-1).median())
    scale = 1.0 / unit if unit > 0.0 else 1.0
    R_world_input = _rotation_to_z(up)
    return similarity(scale, R_world_input, -scale * (R_world_input @ centre))


def up_direction(R_input_camera: Float[Tensor, "n 3 3"]) -> Float[Tensor, " 3"]:
    """Unit up direction, from the habit of holding cameras level.

    The up direction is the one most nearly perpendicular to all cameras' x axes (y axes for
    cameras held sideways), pointing to where the pictures' upper edges point on average. The
    plain mean of the upper edges leans towards the side from which more pictures were taken.
    """
    rights, downs = R_input_camera[:, :, 0], R_input_camera[:, :, 1]
    mean_up = -downs.mean(dim=0)
    up = _perpendicular(rights, mean_up)
    for _ in range(5):
        sideways = (rights @ up).abs() > _SIDEWAYS
        up = _perpendicular(torch.where(sideways[:, None], downs, rights), mean_up)
    return up


def _perpendicular(
    level: Float[Tensor, "n 3"], towards: Float[Tensor, " 3"]
) -> Float[Tensor, " 3"]:
    """Unit vector most nearly perpendicular to all of `level`, on the side of `towards`."""
    form = level.mT @ level / len(level) - _MEAN_UP_WEIGHT * torch.outer(towards, towards)
    direction = torch.linalg.eigh(form).eigenvectors[:, 0]
    return -direction if float(direction @ towards) < 0 else direction


def _rotation_to_z(up: Float[Tensor, " 3"]) -> Float[Tensor, "3 3"]:
    """The shortest rotation that takes the unit vector `up` to +z."""
    x, y, z = up.tolist()
    if z < -1.0 + 1e-9:
        return torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=up.dtype))
    skew = torch.tensor([[0.0, 0.0, -x], [0.0, 0.0, -y], [x, y, 0.0]], dtype=up.dtype)
    return torch.eye(3, dtype=up.dtype) + skew + skew @ skew / (1.0 + z)
