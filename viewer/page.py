"""What do all browsers of the page share, and who is connected?"""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace

from viewer.client import Browser, Client
from viewer.edits import History
from viewer.lights import LightChoice, LightLibrary
from viewer.live import Live
from viewer.look import Look
from viewer.pictures import Picture, photo_thumbnail
from viewer.renderer import Renderer
from viewer.scene import PhotoView, ViewedScene

# What a fault of data, of files or of a backend raises; anything else is a fault of the viewer.
USER_FAULTS = (ValueError, OSError, RuntimeError, ImportError)
# How long the end of the page waits for a picture that is being made: a thread that Python's end
# meets inside torch would abort the process.
_LAST_PICTURE_SECONDS = 20.0


class Page:
    """The scene, its edits, its environment maps, and the browsers that look at it."""

    def __init__(
        self, scene: ViewedScene, max_height: int, radius: float, live: Live | None = None
    ) -> None:
        """Show a scene to nobody yet.

        Args:
            scene: Of a run.
            max_height: Rows of the largest picture.
            radius: Of what the cameras look at, scene units.
            live: Where the scene comes from while it is being made.
        """
        self.scene, self.max_height, self.radius, self.live = scene, max_height, radius, live
        self.library = LightLibrary(scene.light, scene.maps, scene.S_world_input, scene.device)
        self.renderer = Renderer(scene, self.library)
        self.history = History(scene.model)
        self._thumbnails: dict[str, Picture] = {}
        self._clients: dict[int, Client] = {}
        self._lock = threading.Lock()

    @property
    def first_look(self) -> Look:
        """What a new browser is shown."""
        return Look(channel="image" if self.scene.model.has_materials else "radiance")

    @property
    def first_choice(self) -> LightChoice:
        """The light that a new browser is shown."""
        source = next(iter(self.library.names), None)
        # Each state of a scene in the making would have to be traced anew, which takes seconds.
        return LightChoice(source, shadows=self.scene.trace is not None and self.live is None)

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
            client.close()

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
        """Stop rendering, and wait for the pictures that are being made."""
        clients = self.clients
        for client in clients:
            client.close()
        for client in clients:
            client.worker.join(_LAST_PICTURE_SECONDS)

    def edited(self) -> None:
        """Draw everybody's view anew after an edit."""
        for client in self.clients:
            client.refresh()
            if client.panels is not None:
                client.panels.edited()

    def add_map(self, filename: str, contents: bytes) -> str:
        """Take in an environment map that was sent; everybody can choose it.

        Args:
            filename: As the sender named it.
            contents: Of the file.

        Returns:
            The name it goes by from now on.

        Raises:
            ValueError: It is no map.
        """
        name = self.library.add(filename, contents)
        for client in self.clients:
            if client.panels is not None:
                client.panels.maps_changed()
        return name

    def thumbnail(self, photo: PhotoView) -> Picture | None:
        """A photograph, small; decoded once for all browsers.

        Args:
            photo: Which.

        Raises:
            ValueError: It is broken.
            OSError: It cannot be read.
        """
        if photo.load is None:
            return None
        if photo.name not in self._thumbnails:
            self._thumbnails[photo.name] = photo_thumbnail(photo.load())
        return self._thumbnails[photo.name]

    def replace_scene(self, scene: ViewedScene) -> None:
        """Show a later state of a scene that is being made; edits of the earlier one are gone.

        Args:
            scene: Of the same capture, in the same frame.
        """
        gained_materials = scene.model.has_materials and not self.scene.model.has_materials
        if scene.light is not None:
            self.library.recover(scene.light)
        self.scene = scene
        self.renderer = Renderer(scene, self.library)
        self.history = History(scene.model)
        for client in self.clients:
            if gained_materials:
                client.look = replace(client.look, channel="image")
                client.choice = replace(client.choice, source=self.first_choice.source)
            if client.panels is not None:
                client.panels.scene_replaced()
            client.refresh()

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
