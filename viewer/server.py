"""How is the page served, and how does it end?"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import viser

from splatir.scene.camera import Camera
from splatir.scene.focus import common_sphere
from viewer.controls import add_controls
from viewer.page import Page, pose_of
from viewer.scene import ViewedScene


@contextmanager
def serving(
    scene: ViewedScene, host: str = "127.0.0.1", port: int = 8080, max_height: int = 720
) -> Iterator[tuple[viser.ViserServer, Page]]:
    """Serve a scene for as long as the context lasts.

    Args:
        scene: Of a run.
        host: Address to listen on; anything but the loopback lets the network in.
        port: 0 takes a free one; one that is taken moves on to the next.
        max_height: Rows of the largest picture.
    """
    centre, radius = _focus(scene)
    server = viser.ViserServer(host=host, port=port, label=scene.name, verbose=False)
    try:
        server.gui.configure_theme(control_width="medium", show_share_button=False)
        server.scene.set_up_direction("+z")
        page = Page(scene, max_height, radius)
        _place_camera(server, scene, centre, radius)
        add_controls(server, page)

        @server.on_client_connect
        def _(browser: Any) -> None:
            page.connect(browser)

        @server.on_client_disconnect
        def _(browser: Any) -> None:
            page.disconnect(browser)

        yield server, page
        page.close()
    finally:
        server.stop()


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
    start.near = 0.01 * radius
