"""The lights of the viewer in a real browser: each control of lamp, sun and shadows, in pixels."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from splatir.scene.gaussians import GaussianModel
from splatir.transport.scene import SceneTransport
from tests.viewer_browser import MARKS, Screen, chromium, near, open_window
from tests.viewer_scenes import scene_of, wall

pytest.importorskip("viser", reason="needs viser: .[viewer]")
from viewer.server import serving

pytestmark = MARKS
BLACK = (0, 0, 0)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def shaded_wall() -> GaussianModel:
    """The wall, and a smaller one between it and +x."""
    far = {key: value.detach() for key, value in wall().params.items()}
    near_one = dict(far)
    near_one["means"] = far["means"] * 0.3 + torch.tensor([1.0, 0.0, 0.0])
    near_one["scales"] = far["scales"] + math.log(0.3)
    return GaussianModel({key: torch.cat([near_one[key], far[key]]) for key in far}, "surfel")


@pytest.fixture
def screen(browser: Any) -> Iterator[Screen]:
    scene = scene_of(shaded_wall(), trace=lambda model: SceneTransport.of(model.gaussians, 64))
    with serving(scene, port=0, max_height=240) as (server, page):
        found = open_window(browser, server, page)
        # Past the small wall onto the large one, which it shades from +x.
        found.client.browser.camera.position = (1.6, 1.6, 0.0)  # pyright: ignore
        found.client.browser.camera.look_at = (0.0, 0.0, 0.0)
        found.choose("Channel", "irradiance")
        found.tab("Light")
        found.choose("Environment", "(none)")
        assert found.shows(near(BLACK))
        yield found
        found.window.close()


def drag_down(screen: Screen, gizmo: Any) -> None:
    """Drag the arrow of a gizmo that points up, from where all of it is seen."""
    screen.client.browser.camera.position = (3.5, 2.5, 1.0)  # pyright: ignore
    assert screen.until(lambda image: screen.client.pose().position[0] > 3.4)
    x, y, z = gizmo.position
    screen.drag(screen.where((x, y, z + 0.5 * gizmo.scale)), (0.0, 80.0))


def test_shadows_come_and_go_by_box_and_key(screen: Screen) -> None:
    screen.unfold("Sun")
    screen.set("Azimuth", 0)
    screen.set("Elevation", 0)
    screen.tick("Sun on")
    assert screen.shows(lambda pixel: pixel.max() < 100)
    screen.tick("Shadows and bounced light")
    assert screen.shows(lambda pixel: pixel.min() > 200)
    screen.key("l")
    assert screen.shows(lambda pixel: pixel.max() < 100)


def test_lamp_has_power_colour_and_a_gizmo(screen: Screen) -> None:
    screen.unfold("Lamp")
    screen.tick("Lamp on")
    lit = (0.5, 0.75)
    assert screen.shows(lambda pixel: pixel.min() > 20, *lit)
    screen.set("Power", 20)
    assert screen.shows(lambda pixel: pixel.min() > 180, *lit)
    screen.colour("Colour", (0, 255, 0))
    assert screen.shows(lambda pixel: pixel[1] > 180 and max(pixel[0], pixel[2]) < 20, *lit)
    screen.set("Power", 0)
    assert screen.shows(near(BLACK), *lit)
    screen.set("Power", 3)
    screen.tick("Shadows and bounced light")
    assert screen.shows(lambda pixel: pixel[1] > 60, *lit)
    gizmo = screen.client.browser.scene.get_handle_by_name("/lamp")
    start = np.array(gizmo.position)
    drag_down(screen, gizmo)
    assert start[2] - gizmo.position[2] > 0.2
    assert gizmo.position[:2] == pytest.approx(start[:2], abs=1e-3)
    lamp = screen.client.choice.lamp
    assert lamp is not None and lamp.position == pytest.approx(gizmo.position)
    # It has come nearer to the lower part of the wall, seen from where it was before.
    screen.client.browser.camera.position = (1.6, 1.6, 0.0)  # pyright: ignore
    assert screen.shows(lambda pixel: near(screen.served(0.5, 0.9))(pixel), 0.5, 0.9)
    screen.tick("Lamp on")
    assert screen.shows(near(BLACK)) and not gizmo.visible


def test_sun_has_angles_power_colour_and_a_gizmo(screen: Screen) -> None:
    screen.tick("Shadows and bounced light")
    screen.unfold("Sun")
    screen.set("Azimuth", 0)
    screen.set("Elevation", 0)
    screen.set("Power", 1)
    screen.colour("Colour", (255, 255, 255))
    screen.tick("Sun on")
    place = (0.5, 0.7)
    # sRGB of 1 over pi: irradiance of light that falls straight onto the wall.
    assert screen.shows(near(np.full(3, 153)), *place)
    screen.set("Elevation", 60)
    assert screen.shows(near(np.full(3, 111), 6), *place)
    screen.set("Power", 4)
    assert screen.shows(lambda pixel: pixel.min() > 190, *place)
    screen.colour("Colour", (0, 0, 255))
    assert screen.shows(lambda pixel: pixel[2] > 190 and pixel[0] < 20, *place)
    sun = screen.client.browser.scene.get_handle_by_name("/sun")
    drag_down(screen, sun)
    # The slider shows where it was dragged to, and the light comes from there.
    elevation = screen.row("Elevation").locator("input").last
    assert screen.until(lambda _: float(elevation.input_value()) < 50.0)
    choice = screen.client.choice.sun
    assert choice is not None
    assert choice.elevation == pytest.approx(float(elevation.input_value()), abs=1.0)
    screen.client.browser.camera.position = (1.6, 1.6, 0.0)  # pyright: ignore
    assert screen.shows(lambda pixel: near(screen.served(0.5, 0.3))(pixel), 0.5, 0.3)
    screen.tick("Sun on")
    assert screen.shows(near(BLACK), *place)
