"""What does each browser have of its own: camera, look, light, pace, thread?"""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from viewer.lights import LightChoice
from viewer.pace import Pace
from viewer.pose import Pose, pose_of
from viewer.renderer import ClientMemory, Pixel
from viewer.scene import PhotoView
from viewer.splats import BrowserSplats, Subject
from viewer.worker import LatestWorker

if TYPE_CHECKING:
    from viewer.page import Page

# JPEG qualities of pictures while the camera moves and when it stands.
_MOVING_QUALITY, _STILL_QUALITY = 60, 92
# Largest distance of places that count as the same, as a share of the scene's radius.
_SAME_PLACE = 2e-3
_TRACING = "The first picture of these Gaussians takes a moment."


class Browser(Protocol):
    """What the viewer uses of a viser client."""

    client_id: int
    camera: Any
    scene: Any
    gui: Any

    def add_notification(self, title: str, body: str, **options: Any) -> Any:
        """Show a message."""
        ...

    def atomic(self) -> contextlib.AbstractContextManager[Any]:
        """Send what is done inside together."""
        ...

    def send_file_download(self, filename: str, content: bytes, **options: Any) -> None:
        """Let the browser save a file."""
        ...


class Panels(Protocol):
    """The controls of one browser, as far as they follow what others do."""

    def maps_changed(self) -> None:
        """There are other environment maps to choose from."""
        ...

    def scene_replaced(self) -> None:
        """The scene is another one, perhaps with other channels."""
        ...

    def edited(self) -> None:
        """Gaussians were changed, or another point was picked."""
        ...

    def progressed(self) -> None:
        """The training has gone on."""
        ...

    @property
    def follow_every(self) -> float | None:
        """Seconds between states of the scene that is being made; None for as it is."""
        ...

    def close(self) -> None:
        """Work no more."""
        ...


class Client:
    """One browser."""

    def __init__(self, page: "Page", browser: Browser) -> None:
        """Show the page's first look to a browser; nothing is drawn before it says where it is.

        Args:
            page: What all browsers share.
            browser: As viser gives it.
        """
        self.page, self.browser = page, browser
        self.pace = Pace(page.max_height)
        self.look, self.choice = page.first_look, page.first_choice
        self.photo: PhotoView | None = None
        self.picked: Pixel | None = None
        self.panels: Panels | None = None
        self.pictures_sent = 0
        self._splats = BrowserSplats(browser)
        self._memory = ClientMemory()
        self._last_fault = ""
        self._changing = threading.Lock()
        self.worker: LatestWorker[Pose] = LatestWorker(self._answer, self._on_error)

    def refresh(self) -> None:
        """Ask for a new picture of what the camera sees now."""
        self.worker.submit(self.pose())

    def change_look(self, **fields: Any) -> None:
        """Show the scene otherwise.

        Args:
            **fields: Of `Look`.
        """
        with self._changing:
            self.look = replace(self.look, **fields)
        self.refresh()

    def change_light(self, **fields: Any) -> None:
        """Light the scene otherwise.

        Args:
            **fields: Of `LightChoice`.
        """
        with self._changing:
            self.choice: LightChoice = replace(self.choice, **fields)
        self.refresh()

    def pose(self) -> Pose:
        """Where the camera is."""
        camera = self.browser.camera
        w, qx, qy, qz = (float(value) for value in camera.wxyz)
        x, y, z = (float(value) for value in camera.position)
        return Pose(
            (w, qx, qy, qz),
            (x, y, z),
            float(camera.fov),
            float(camera.aspect),
            int(camera.image_height),
        )

    def jump(self, photo: PhotoView) -> None:
        """Look through the camera of a photograph.

        Args:
            photo: Which.
        """
        self.photo = photo
        pose = pose_of(photo.camera)
        ahead = photo.camera.forward_world.cpu().numpy() * self.page.radius
        with self.browser.atomic():
            self.browser.camera.position = np.array(pose.position)
            self.browser.camera.look_at = np.array(pose.position) + ahead
            self.browser.camera.wxyz = np.array(pose.wxyz)
            self.browser.camera.fov = pose.fov
        self.refresh()

    def pick(self, x: float, y: float) -> Pixel | None:
        """The surface under the pointer, or None.

        Args:
            x: Share of the width from the left.
            y: Share of the height from the top.
        """
        pose = self.pose()
        camera = pose.camera(self.full_height(pose))
        column = min(camera.width - 1, int(x * camera.width))
        row = min(camera.height - 1, int(y * camera.height))
        return self.page.renderer.pick(camera, self.page.history.now, column, row)

    def full_height(self, pose: Pose) -> int:
        """Rows of the picture when the camera stands.

        Args:
            pose: Of the camera.
        """
        return min(self.page.max_height, pose.height or self.page.max_height)

    def compared(self, pose: Pose) -> PhotoView | None:
        """The photograph last jumped to, as long as the camera has not left it.

        Args:
            pose: Of the camera.
        """
        if self.photo is None:
            return None
        there = pose_of(self.photo.camera)
        return self.photo if pose.is_at(there, _SAME_PLACE * self.page.radius) else None

    def close(self) -> None:
        """Draw no more."""
        self.worker.close()
        if self.panels is not None:
            self.panels.close()

    def _answer(self, pose: Pose, is_fine: bool) -> None:
        with self._tracing_noticed():
            if self.look.is_drawn_by_browser:
                self._send_splats(pose, is_fine)
            else:
                self._splats.hide()
                self._send_picture(pose, is_fine)
        self.pictures_sent += 1
        self._last_fault = ""

    @contextlib.contextmanager
    def _tracing_noticed(self) -> Iterator[None]:
        """A notice for as long as the picture waits for shadows."""
        page, notice = self.page, None
        if page.renderer.must_trace(self.look, page.history.now, self.choice):
            notice = self.browser.add_notification("Tracing shadows", _TRACING, loading=True)
        try:
            yield
        finally:
            if notice is not None:
                notice.remove()

    def _send_picture(self, pose: Pose, is_fine: bool) -> None:
        page = self.page
        height = self.full_height(pose)
        if not is_fine:
            height = min(height, self.pace.height)
        frame = page.renderer.frame(
            pose.camera(height),
            self.look,
            page.history.now,
            self.choice,
            self._memory,
            is_fine,
            self.compared(pose),
        )
        if not is_fine:
            self.pace.record(frame.seconds)
        quality = _STILL_QUALITY if is_fine else _MOVING_QUALITY
        self.browser.scene.set_background_image(
            frame.picture, format="jpeg", jpeg_quality=quality, depth=frame.depth
        )

    def _send_splats(self, pose: Pose, is_fine: bool) -> None:
        """Splats follow a new light at once, and the camera's place when it stands."""
        page, look = self.page, self.look
        subject = Subject(page.history.now, look, self.choice)
        is_other = subject != self._splats.subject
        if is_other or (is_fine and pose.position != self._splats.seen_from):
            splats = page.renderer.splats(pose.position, subject, self._memory)
            self._splats.show(splats, subject, pose.position)
        if is_other or look.backdrop == "environment":
            behind = page.renderer.backdrop(pose.camera(self.pace.height), look, self.choice)
            self.browser.scene.set_background_image(behind, format="png")

    def _on_error(self, error: Exception) -> None:
        message = str(error) or type(error).__name__
        # The same fault in every picture is said once.
        if message != self._last_fault:
            self._last_fault = message
            self.page.notify(self.browser, "No picture", message)
