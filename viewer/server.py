"""How is the page served, and how does it end?"""

import contextlib
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import viser

from splatir.scene.camera import Camera
from splatir.scene.focus import common_sphere
from viewer.controls import Controls
from viewer.live import Live
from viewer.page import Page
from viewer.pose import pose_of
from viewer.scene import ViewedScene

# How often browsers hear of a scene that is being made.
_FOLLOW_SECONDS = 0.5
# The browser hangs the picture at distance 1: it would be cut off by a plane beyond that.
_MAX_NEAR = 0.5


@contextmanager
def serving(
    scene: ViewedScene,
    host: str = "127.0.0.1",
    port: int = 8080,
    max_height: int = 720,
    live: Live | None = None,
) -> Iterator[tuple[viser.ViserServer, Page]]:
    """Serve a scene for as long as the context lasts.

    Args:
        scene: Of a run.
        host: Address to listen on; anything but the loopback lets the network in.
        port: 0 takes a free one; one that is taken moves on to the next.
        max_height: Rows of the largest picture.
        live: Where the scene comes from while it is being made.
    """
    centre, radius = _focus(scene)
    # A browser may leave at any moment; nothing is wrong then.
    warnings.filterwarnings("ignore", message="Queued a .* on a closed connection")
    server = viser.ViserServer(host=host, port=port, label=scene.name, verbose=False)
    try:
        server.gui.configure_theme(control_width="large", show_share_button=False)
        server.scene.set_up_direction("+z")
        page = Page(scene, max_height, radius, live)
        _place_camera(server, scene, centre, radius)

        @server.on_client_connect
        def _(browser: Any) -> None:
            client = page.connect(browser)
            Controls(client)
            # Its camera may have been told before there was anybody to listen, and it may have
            # gone before it was known.
            client.refresh()
            if browser.client_id not in server.get_clients():
                page.disconnect(browser)

        @server.on_client_disconnect
        def _(browser: Any) -> None:
            page.disconnect(browser)

        has_ended = threading.Event()
        if live is not None:
            follow = threading.Thread(
                target=_follow, args=(page, live, has_ended), daemon=True, name="viewer-live"
            )
            follow.start()
        try:
            yield server, page
        finally:
            has_ended.set()
            page.close()
    finally:
        server.stop()


def _follow(page: Page, live: Live, has_ended: threading.Event) -> None:
    """Show what is being made to those who look; nothing is asked of its maker when nobody does."""
    asked_at = 0.0
    while not has_ended.wait(_FOLLOW_SECONDS):
        clients = page.clients
        scene = live.take_scene()
        if scene is not None:
            page.replace_scene(scene)
        for client in clients:
            # One browser's fault, such as leaving at this moment, is not another's.
            with contextlib.suppress(Exception):
                if client.panels is not None:
                    client.panels.progressed()
        every = [client.panels.follow_every for client in clients if client.panels is not None]
        wanted = [seconds for seconds in every if seconds is not None]
        if wanted and time.monotonic() - asked_at >= min(wanted):
            asked_at = time.monotonic()
            live.want_scene()


def _focus(scene: ViewedScene) -> tuple[tuple[float, float, float], float]:
    """What the cameras look at; the Gaussians themselves where there are no cameras."""
    if len(scene.photos) > 1:
        centre, radius = common_sphere([photo.camera for photo in scene.photos])
    else:
        means = scene.model.means.detach().cpu()
        centre = means.median(0).values
        radius = float((means - centre).norm(dim=-1).quantile(0.9).clamp_min(1e-3))
    x, y, z = centre.tolist()
    return (x, y, z), radius


def _place_camera(
    server: viser.ViserServer,
    scene: ViewedScene,
    centre: tuple[float, float, float],
    radius: float,
) -> None:
    """Start where the first photograph was taken."""
    start = server.initial_camera
    if scene.photos:
        camera: Camera = scene.photos[0].camera
        pose = pose_of(camera)
        start.position = pose.position
        start.fov = pose.fov
    else:
        offset = 2.5 * radius * torch.tensor([1.0, 0.6, 0.6]).div(1.31)
        x, y, z = (torch.tensor(centre) + offset).tolist()
        start.position = (x, y, z)
        start.fov = 0.8
    start.look_at = centre
    start.near = min(0.01 * radius, _MAX_NEAR)
