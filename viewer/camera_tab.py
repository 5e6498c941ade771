"""How does a browser find the cameras of the photographs, and compare with what they saw?"""

import threading
from collections.abc import Callable
from typing import Any

from viewer.client import Client
from viewer.pose import pose_of
from viewer.scene import PhotoView
from viewer.view_tab import NONE, ViewTab

# Frustums that get a picture: more would be decoded for minutes and cover each other.
_MAX_PICTURES = 150


class CameraTab:
    """The controls of the tab."""

    def __init__(self, client: Client, view: ViewTab) -> None:
        """Add the controls to the container that is open.

        Args:
            client: Whose page it is.
            view: Where the channels are chosen.
        """
        self.client, self._view = client, view
        gui, photos = client.browser.gui, client.page.scene.photos
        self._names = tuple(photo.name for photo in photos)
        self.are_shown = gui.add_checkbox("Show cameras", False, hint="Click one to look through")
        self.chosen = gui.add_dropdown("Photograph", self._names, initial_value=self._names[0])
        self.walk = gui.add_button_group("Look through", ("this", "previous", "next"))
        self.compare = gui.add_button_group(
            "Compare", ("beside", "error", "photo", "off"), hint="At a photograph's camera"
        )
        self._frustums: list[Any] = []
        self._is_closed = threading.Event()
        self.are_shown.on_update(lambda _: self._show())
        client.browser.camera.on_update(lambda _: self.follow_camera())
        self.chosen.on_update(lambda _: self._take_chosen())
        self.walk.on_click(lambda _: self._walk(self.walk.value))
        self.compare.on_click(lambda _: self._compare(self.compare.value))

    @property
    def actions(self) -> dict[str, Callable[[], None]]:
        """What keys may do here."""
        return {
            "frustums": self._toggle,
            "next_photo": lambda: self._walk("next"),
            "previous_photo": lambda: self._walk("previous"),
            "compare": lambda: self._compare("off" if self._is_comparing else "beside"),
        }

    def look_through(self, name: str) -> None:
        """Take the place of a photograph's camera.

        Args:
            name: Of the photograph.
        """
        self.client.jump(self.client.page.scene.photos[self._names.index(name)])
        if self.chosen.value != name:
            self.chosen.value = name

    def close(self) -> None:
        """Decode no more photographs."""
        self._is_closed.set()

    @property
    def _is_comparing(self) -> bool:
        return "photo" in self.client.look.channels or "error" in self.client.look.channels

    def _take_chosen(self) -> None:
        # It is also set by those who have gone there already.
        through = self.client.compared(self.client.pose())
        if through is None or through.name != self.chosen.value:
            self.look_through(self.chosen.value)

    def _walk(self, how: str) -> None:
        step = {"this": 0, "previous": -1, "next": 1}[how]
        index = (self._names.index(self.chosen.value) + step) % len(self._names)
        self.look_through(self._names[index])

    def _compare(self, how: str) -> None:
        view, client = self._view, self.client
        if how != "off" and client.compared(client.pose()) is None:
            self.look_through(self.chosen.value)
        lit = "image" if client.page.scene.model.has_materials else "radiance"
        channel, second = {
            "beside": (lit, "photo"),
            "error": ("error", NONE),
            "photo": ("photo", NONE),
            "off": (lit, NONE),
        }[how]
        view.channel.value, view.second.value = channel, second

    def _toggle(self) -> None:
        self.are_shown.value = not self.are_shown.value

    def _show(self) -> None:
        if not self._frustums:
            photos = self.client.page.scene.photos
            self._frustums = [self._frustum(index, photo) for index, photo in enumerate(photos)]
            threading.Thread(target=self._fill, daemon=True, name="viewer-thumbnails").start()
        self.follow_camera()

    def follow_camera(self) -> None:
        """Show the frustums, but for the one that is looked through, which would fill the view."""
        if not self._frustums:
            return
        client = self.client
        through = client.compared(client.pose())
        for frustum, photo in zip(self._frustums, client.page.scene.photos, strict=True):
            is_shown = self.are_shown.value and photo is not through
            if frustum.visible != is_shown:
                frustum.visible = is_shown

    def _frustum(self, index: int, photo: PhotoView) -> Any:
        pose = pose_of(photo.camera)
        frustum = self.client.browser.scene.add_camera_frustum(
            f"/cameras/{index}",
            fov=pose.fov,
            aspect=pose.aspect,
            scale=0.12 * self.client.page.radius,
            thickness=0.004 * self.client.page.radius,
            color=(60, 110, 200),
            wxyz=pose.wxyz,
            position=pose.position,
        )
        frustum.on_click(lambda _: self.look_through(photo.name))
        return frustum

    def _fill(self) -> None:
        """Put the photographs into their frustums, as they are decoded."""
        page = self.client.page
        for frustum, photo in list(zip(self._frustums, page.scene.photos, strict=True))[
            :_MAX_PICTURES
        ]:
            if self._is_closed.is_set():
                return
            with page.guarded(self.client.browser, f"No picture of {photo.name}"):
                thumbnail = page.thumbnail(photo)
                if thumbnail is not None:
                    frustum.image = thumbnail
