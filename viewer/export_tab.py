"""How does a browser get files of what it sees?"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from viewer.client import Client
from viewer.exports import (
    baked_ply,
    environment_file,
    orbit,
    png_file,
    relightable_files,
    video_file,
)
from viewer.lights import environment_of
from viewer.share import web_page
from viewer.splats import Sky, Subject, sky_of

# Of the environment in a web page, in radii of the scene.
_SKY_DISTANCE = 20.0
_HEIGHTS = ("360", "480", "720", "1080")


class ExportTab:
    """The controls of the tab."""

    def __init__(self, client: Client) -> None:
        """Add the controls to the container that is open.

        Args:
            client: Whose page it is.
        """
        self.client = client
        gui, has_materials = client.browser.gui, client.page.scene.model.has_materials
        self._is_busy = threading.Lock()
        self._is_cancelled = threading.Event()
        gui.add_markdown("Of what you see now: its light, its edits, its exposure.")
        self.picture = gui.add_button("Picture (.png)", hint="As large as the window, no gizmos")
        self.page = gui.add_button(
            "Web page (.html)", hint="One file that shows the splats without a server"
        )
        self.splats = gui.add_button(
            "Splats (.zip)", hint="PLY with materials, its JSON, and the run's light"
        )
        self.baked = gui.add_button(
            "Baked splats (.ply)",
            hint="Under the present light, for any splat viewer; no relighting",
            disabled=not has_materials,
        )
        self.light = gui.add_button(
            "Environment (.exr)", hint="As it is turned, without lamp and sun"
        )
        with gui.add_folder("Turntable"):
            self.frames = gui.add_slider("Frames", 8, 360, 1, 90)
            self.height = gui.add_dropdown("Height", _HEIGHTS, initial_value="480")
            self.film = gui.add_button("Film (.mp4)", hint="A turn from where you are, 30 a second")
            self.progress = gui.add_progress_bar(0.0, visible=False)
            self.cancel = gui.add_button("Cancel", visible=False)
        for button, job in (
            (self.picture, self._picture),
            (self.page, self._page),
            (self.splats, self._splats),
            (self.baked, self._baked),
            (self.light, self._light),
            (self.film, self._film),
        ):
            button.on_click(self._runner(job))
        self.cancel.on_click(lambda _: self._is_cancelled.set())

    def _runner(self, job: Callable[[], tuple[str, bytes] | None]) -> Callable[[object], None]:
        """One export of a browser at a time: they take all of a processor."""

        def run(_: object) -> None:
            page, browser = self.client.page, self.client.browser
            if not self._is_busy.acquire(blocking=False):
                page.notify(browser, "Still exporting", "One file at a time.")
                return
            try:
                with page.guarded(browser, "Nothing exported"):
                    made = job()
                    if made is not None:
                        browser.send_file_download(made[0], made[1], save_immediately=True)
            finally:
                self._is_busy.release()

        return run

    @contextmanager
    def _waiting(self, what: str) -> Iterator[None]:
        """A notice for as long as something takes."""
        notice = self.client.browser.add_notification(what, "This takes a moment.", loading=True)
        try:
            yield
        finally:
            notice.remove()

    @property
    def _subject(self) -> Subject:
        client = self.client
        return Subject(client.page.history.now, client.look, client.choice)

    @property
    def _stem(self) -> str:
        return client_name(self.client)

    def _picture(self) -> tuple[str, bytes]:
        client, pose = self.client, self.client.pose()
        frame = client.page.renderer.frame(
            pose.camera(client.full_height(pose)),
            replace(client.look, drawn_by="server"),
            client.page.history.now,
            client.choice,
            photo=client.compared(pose),
        )
        return f"{self._stem}.png", png_file(frame.picture)

    def _page(self) -> tuple[str, bytes]:
        client, pose = self.client, self.client.pose()
        with self._waiting("Making a web page"):
            splats = client.page.renderer.splats(pose.position, self._subject)
            target = np.array([float(value) for value in client.browser.camera.look_at])
            html = web_page(splats, pose, target, self._background(), self._stem)
        return f"{self._stem}.html", html.encode()

    def _background(self) -> int | Sky:
        client = self.client
        environment = environment_of(client.choice, client.page.library)
        if client.look.backdrop == "environment" and environment is not None:
            return sky_of(environment, client.look, _SKY_DISTANCE * client.page.radius)
        return 0 if client.look.backdrop == "black" else 255

    def _splats(self) -> tuple[str, bytes]:
        page = self.client.page
        with self._waiting("Writing splats"):
            contents = relightable_files(page.scene, page.history.now.model)
        return f"{self._stem}.zip", contents

    def _baked(self) -> tuple[str, bytes]:
        client = self.client
        with self._waiting("Baking the light"):
            contents = baked_ply(
                client.page.scene,
                client.page.history.now.model,
                client.choice,
                client.page.library,
                client.look.exposure,
            )
        return f"{self._stem}_baked.ply", contents

    def _light(self) -> tuple[str, bytes]:
        page = self.client.page
        contents = environment_file(self.client.choice, page.library, page.scene.S_world_input)
        return f"{self.client.choice.source}.exr", contents

    def _film(self) -> tuple[str, bytes] | None:
        client, page = self.client, self.client.page
        target = np.asarray(client.browser.camera.look_at)
        cameras = orbit(client.pose().camera(int(self.height.value)), target, self.frames.value)
        look, now, choice = replace(client.look, drawn_by="server"), page.history.now, client.choice
        self._is_cancelled.clear()
        self.progress.visible = self.cancel.visible = True

        def pictures() -> Iterator[np.ndarray]:
            for index, camera in enumerate(cameras):
                # A browser that has gone waits for no film.
                if self._is_cancelled.is_set() or page.client(client.browser.client_id) is None:
                    raise InterruptedError("cancelled.")
                yield page.renderer.frame(camera, look, now, choice).picture
                self.progress.value = 100.0 * (index + 1) / len(cameras)

        try:
            return f"{self._stem}.mp4", video_file(pictures())
        finally:
            self.progress.visible = self.cancel.visible = False
            self.progress.value = 0.0


def client_name(client: Client) -> str:
    """What files of a page are called: the last part of the scene's name.

    Args:
        client: Whose page it is.
    """
    last = client.page.scene.name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in last) or "splatir"
