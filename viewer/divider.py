"""How is the divider of a split view dragged in the picture itself?"""

from collections.abc import Callable
from typing import Any

import torch

from viewer.client import Client

# Before everything else, at a small part of the scene's radius from the camera, which is the
# nearest that is drawn at all times that.
_DISTANCE = 0.03
# Size of the ball, as a share of the picture's height.
_SIZE = 0.012


class Divider:
    """A ball on the dividing line."""

    def __init__(self, client: Client, dragged: Callable[[float], None]) -> None:
        """Show it when a second channel is shown.

        Args:
            client: Whose page it is.
            dragged: Told the share of the width that is to be left of the line.
        """
        self.client, self._dragged = client, dragged
        self._ball: Any = None

    def place(self) -> None:
        """Put it on the line, as the camera sees it now."""
        look = self.client.look
        if look.second is None:
            if self._ball is not None:
                self._ball.visible = False
            return
        pose = self.client.pose()
        distance = _DISTANCE * self.client.page.radius
        camera = pose.camera(1000)
        x = (look.divider - 0.5) * camera.width / float(camera.K[0, 0])
        T = camera.T_world_camera
        position = (T[:3, :3] @ (distance * torch.tensor([x, 0.0, 1.0])) + T[:3, 3]).tolist()
        radius = _SIZE * 1000.0 / float(camera.K[1, 1]) * distance
        if self._ball is None:
            self._ball = self.client.browser.scene.add_icosphere(
                "/divider", radius=1.0, color=(255, 255, 255), cast_shadow=False
            )
            self._ball.on_drag("left")(self._on_drag)
        self._ball.position, self._ball.scale, self._ball.visible = position, radius, True

    # A coroutine, as only these are called in the order of the pointer's places.
    async def _on_drag(self, event: Any) -> None:
        self._dragged(min(1.0, max(0.0, float(event.end_screen_pos[0]))))
