"""Where is a client's camera, and which camera of ours is that?"""

import math
from dataclasses import dataclass

import torch

from splatir.maths.frames import invert_rigid
from splatir.maths.rotations import quat_from_rotation, rotation_from_quat
from splatir.scene.camera import Camera


@dataclass(frozen=True)
class Pose:
    """A client's camera.

    Attributes:
        wxyz: Rotation from the camera (OpenCV) to the world.
        position: World frame.
        fov: Vertical, radians.
        aspect: Width over height.
        height: Rows of the client's window, pixels.
    """

    wxyz: tuple[float, float, float, float]
    position: tuple[float, float, float]
    fov: float
    aspect: float
    height: int

    def camera(self, height: int) -> Camera:
        """The camera for a picture of so many rows.

        Args:
            height: Pixels.
        """
        width = max(1, round(height * self.aspect))
        focal = 0.5 * height / math.tan(0.5 * self.fov)
        K = torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
        T_world_camera = torch.eye(4, dtype=torch.float64)
        T_world_camera[:3, :3] = rotation_from_quat(torch.tensor(self.wxyz, dtype=torch.float64))
        T_world_camera[:3, 3] = torch.tensor(self.position, dtype=torch.float64)
        return Camera(K, invert_rigid(T_world_camera).float(), width, height)

    def is_at(self, other: "Pose", tolerance: float) -> bool:
        """Whether it looks from the same place the same way; the lens may differ.

        Args:
            other: The other.
            tolerance: Of places, scene units.
        """
        same_way = abs(sum(a * b for a, b in zip(self.wxyz, other.wxyz, strict=True)))
        moved = math.dist(self.position, other.position)
        return moved <= tolerance and same_way >= 1.0 - _SAME_TURN


# Cosine of half the angle between poses that count as the same, off 1.
_SAME_TURN = 4e-6


def pose_of(camera: Camera) -> Pose:
    """Where a client's camera has to be to see what another camera sees, as tall.

    Args:
        camera: World frame.
    """
    T = camera.T_world_camera.double().cpu()
    w, qx, qy, qz = quat_from_rotation(T[:3, :3]).tolist()
    x, y, z = T[:3, 3].tolist()
    fov = 2.0 * math.atan(0.5 * camera.height / float(camera.K[1, 1]))
    return Pose((w, qx, qy, qz), (x, y, z), fov, camera.width / camera.height, camera.height)
