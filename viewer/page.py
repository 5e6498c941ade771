"""What do all clients of the page share, and what does each have of its own?"""

import contextlib
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from splatir.maths.frames import invert_rigid
from splatir.maths.rotations import quat_from_rotation, rotation_from_quat
from splatir.scene.camera import Camera
from viewer.edits import History
from viewer.lights import LightChoice, LightLibrary
from viewer.look import Look
from viewer.pace import Pace
from viewer.renderer import ClientMemory, Pixel, Renderer
from viewer.scene import PhotoView, ViewedScene
from viewer.worker import LatestWorker

# JPEG qualities of pictures while the camera moves and when it stands.
_MOVING_QUALITY, _STILL_QUALITY = 60, 92
# Largest difference of poses that count as the same: share of the distance, and of the rotation.
_SAME_POSE = 2e-3
# What a fault of data, of files or of a backend raises; anything else is a fault of the viewer.
USER_FAULTS = (ValueError, OSError, RuntimeError)


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


class Browser(Protocol):
    """What the viewer uses of a viser client."""

    client_id: int
    camera: Any
    scene: Any

    def add_notification(self, title: str, body: str, **options: Any) -> Any:
        """Show a message."""
        ...

    def atomic(self) -> contextlib.AbstractContextManager[Any]:
        """Send what is done inside together."""
        ...


class Client:
    """One browser: its camera, its pace, its thread."""

    def __init__(self, page: "Page", browser: Browser) -> None:
        self.page, self.browser = page, browser
        self.pace = Pace(page.max_height)
        self.photo: PhotoView | None = None
        self._memory = ClientMemory()
        self._last_fault = ""
        self.worker: LatestWorker[Pose] = LatestWorker(self._answer, self._on_error)

    def refresh(self) -> None:
        """Ask for a new picture of what the camera sees now."""
        self.worker.submit(self.pose())

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
        camera = pose.camera(self._full_height(pose))
        column = min(camera.width - 1, int(x * camera.width))
        row = min(camera.height - 1, int(y * camera.height))
        return self.page.renderer.pick(camera, self.page.history.now, column, row)

    def _full_height(self, pose: Pose) -> int:
        return min(self.page.max_height, pose.height or self.page.max_height)

    def _answer(self, pose: Pose, is_fine: bool) -> None:
        page = self.page
        height = self._full_height(pose)
        if not is_fine:
            height = min(height, self.pace.height)
        frame = page.renderer.frame(
            pose.camera(height),
            page.look,
            page.history.now,
            page.choice,
            self._memory,
            is_fine,
            self._compared(pose),
        )
        if not is_fine:
            self.pace.record(frame.seconds)
        quality = _STILL_QUALITY if is_fine else _MOVING_QUALITY
        self.browser.scene.set_background_image(
            frame.picture, format="jpeg", jpeg_quality=quality, depth=frame.depth
        )
        self._last_fault = ""

    def _compared(self, pose: Pose) -> PhotoView | None:
        """The photograph last jumped to, as long as the camera has not left it."""
        if self.photo is None:
            return None
        there = pose_of(self.photo.camera)
        moved = math.dist(there.position, pose.position) > _SAME_POSE * self.page.radius
        same_way = abs(sum(a * b for a, b in zip(there.wxyz, pose.wxyz, strict=True)))
        return None if moved or same_way < 1.0 - _SAME_POSE**2 else self.photo

    def _on_error(self, error: Exception) -> None:
        message = str(error) or type(error).__name__
        # The same fault in every picture is said once.
        if message != self._last_fault:
            self._last_fault = message
            self.page.notify(self.browser, "No picture", message)


class Page:
    """What is shown to everybody: the scene, how it looks, its light and its edits."""

    def __init__(self, scene: ViewedScene, max_height: int, radius: float) -> None:
        """Show a scene to nobody yet.

        Args:
            scene: Of a run.
            max_height: Rows of the largest picture.
            radius: Of what the cameras look at, scene units.
        """
        self.scene, self.max_height, self.radius = scene, max_height, radius
        self.library = LightLibrary(scene.light, scene.maps, scene.S_world_input, scene.device)
        self.renderer = Renderer(scene, self.library)
        self.history = History(scene.model)
        has_materials = scene.model.has_materials
        self.look = Look(channel="image" if has_materials else "radiance")
        source = next(iter(self.library.names), None)
        self.choice = LightChoice(source, shadows=scene.trace is not None)
        self.picked: Pixel | None = None
        self._clients: dict[int, Client] = {}
        self._lock = threading.Lock()

    def connect(self, browser: Browser) -> Client:
        """Take in a browser.

        Args:
            browser: As viser gives it.
        """
        client = Client(self, browser)
        with self._lock:
            self._clients[browser.client_id] = client
        browser.camera.on_update(lambda _: client.refresh())
        return client

    def disconnect(self, browser: Browser) -> None:
        """Forget a browser.

        Args:
            browser: As viser gives it.
        """
        with self._lock:
            client = self._clients.pop(browser.client_id, None)
        if client is not None:
            client.worker.close()

    def client(self, client_id: int | None) -> Client | None:
        """A browser that is connected, or None.

        Args:
            client_id: viser's number of it.
        """
        with self._lock:
            return None if client_id is None else self._clients.get(client_id)

    @property
    def clients(self) -> tuple[Client, ...]:
        """All that are connected."""
        with self._lock:
            return tuple(self._clients.values())

    def close(self) -> None:
        """Stop rendering."""
        for client in self.clients:
            client.worker.close()

    def refresh(self) -> None:
        """Draw everybody's view anew."""
        for client in self.clients:
            client.refresh()

    def change_look(self, **fields: Any) -> None:
        """Show the scene otherwise.

        Args:
            **fields: Of `Look`.
        """
        self.look = replace(self.look, **fields)
        self.refresh()

    def change_light(self, **fields: Any) -> None:
        """Light the scene otherwise.

        Args:
            **fields: Of `LightChoice`.
        """
        self.choice = replace(self.choice, **fields)
        self.refresh()

    def notify(self, browser: Browser | None, title: str, body: str) -> None:
        """Tell a browser something; one that has gone does not hear it.

        Args:
            browser: Whom; None for everybody.
            title: A few words.
            body: A sentence.
        """
        listeners = [client.browser for client in self.clients] if browser is None else [browser]
        for listener in listeners:
            with contextlib.suppress(RuntimeError, KeyError):
                listener.add_notification(title, body, auto_close_seconds=8.0)

    @contextlib.contextmanager
    def guarded(self, browser: Browser | None, title: str) -> Iterator[None]:
        """Turn faults of data and files into a notification.

        Args:
            browser: Who hears of it; None for everybody.
            title: What was being done.
        """
        try:
            yield
        except USER_FAULTS as error:
            self.notify(browser, title, str(error) or type(error).__name__)
