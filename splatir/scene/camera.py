"""Pinhole cameras. Camera frame: OpenCV/COLMAP, +x right, +y down, +z into the scene."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.frames import invert_rigid, similarity_scale


@dataclass(frozen=True)
class Camera:
    """One calibrated view.

    Attributes:
        K: Intrinsics in pixels. Pixel (column 0, row 0) has its centre at (0.5, 0.5). No skew.
        T_camera_world: World-to-camera transform, rigid; translation in scene units.
        width: Image width in pixels.
        height: Image height in pixels.
    """

    K: Float[Tensor, "3 3"]
    T_camera_world: Float[Tensor, "4 4"]
    width: int
    height: int

    @property
    def T_world_camera(self) -> Float[Tensor, "4 4"]:
        """Camera-to-world transform."""
        return invert_rigid(self.T_camera_world)

    @property
    def position_world(self) -> Float[Tensor, " 3"]:
        """Centre of projection."""
        return self.T_world_camera[:3, 3]

    @property
    def forward_world(self) -> Float[Tensor, " 3"]:
        """Unit viewing direction (the camera's +z)."""
        return self.T_camera_world[2, :3]

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Camera":
        """The same camera with its matrices on another device or in another dtype."""
        return Camera(
            self.K.to(device=device, dtype=dtype),
            self.T_camera_world.to(device=device, dtype=dtype),
            self.width,
            self.height,
        )

    def resized(self, width: int, height: int) -> "Camera":
        """The same view sampled on another pixel grid that covers the same image plane area."""
        scale = torch.tensor(
            [[width / self.width], [height / self.height], [1.0]],
            dtype=self.K.dtype,
            device=self.K.device,
        )
        return Camera(self.K * scale, self.T_camera_world, width, height)

    def in_world(self, S_new_world: Float[Tensor, "4 4"]) -> "Camera":
        """The same view of the scene after the world was mapped by a similarity.

        Lengths in the camera frame scale with the world, so images do not change.

        Args:
            S_new_world: Similarity from the present world to the new one.
        """
        scale = similarity_scale(S_new_world)
        S = S_new_world.to(self.T_camera_world)
        R_camera_new = self.T_camera_world[:3, :3] @ S[:3, :3].mT / scale
        T = torch.eye(4, dtype=S.dtype, device=S.device)
        T[:3, :3] = R_camera_new
        T[:3, 3] = scale * self.T_camera_world[:3, 3] - R_camera_new @ S[:3, 3]
        return Camera(self.K, T, self.width, self.height)
