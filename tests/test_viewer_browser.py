"""The viewer in a real browser: each control changes what it should, in pixels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from splatir.evaluate.pictures import value_picture
from splatir.scene.lights import EnvironmentLight
from splatir.storage.environment import write_environment
from splatir.transport.scene import SceneTransport
from tests.viewer_browser import MARKS, Screen, chromium, near, open_window, photographed_wall
from tests.viewer_scenes import ALBEDO, METALLIC, ROUGHNESS

pytest.importorskip("viser", reason="needs viser: .[viewer]")
from viewer.look import CHANNELS
from viewer.server import serving

pytestmark = MARKS
WHITE = (255, 255, 255)
# sRGB of ALBEDO; the wall faces +x.
PAINT, FACING_X = (203, 149, 89), (255, 128, 128)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def screen(browser: Any) -> Iterator[Screen]:
    scene = photographed_wall(trace=lambda model: SceneTransport.of(model.gaussians, 64))
    with serving(scene, port=0, max_height=240) as (server, page):
        found = open_window(browser, server, page)
        yield found
        found.window.close()


def of_value(value: float) -> Any:
    return value_picture(torch.tensor([[value]]))[0, 0]


def test_each_channel_is_what_the_page_shows(screen: Screen) -> None:
    known = {
        "albedo": PAINT,
        "roughness": of_value(ROUGHNESS),
        "metallic": of_value(METALLIC),
        "normal": FACING_X,
        "alpha": WHITE,
        "irradiance": WHITE,
        "shadow": WHITE,
        "photo": (120, 0, 0),
    }
    screen.tab("Cameras")
    screen.press("this")
    screen.tab("View")
    for channel in CHANNELS:
        screen.choose("Channel", channel)
        if channel == "depth":
            # Of a plane that faces the camera it has no contrast; it is a colour, not grey.
            assert screen.shows(lambda pixel: pixel.max() - pixel.min() > 40)
            continue
        assert screen.shows(near(known.get(channel, screen.served(channel=channel)))), channel
    screen.choose("Channel", "normal")
    # Keys are the picture's once it was clicked.
    screen.window.mouse.click(100, 650)
    screen.window.keyboard.press("3")
    assert screen.shows(near(PAINT))


def test_split_view_follows_its_slider_and_its_ball(screen: Screen) -> None:
    screen.choose("Channel", "albedo")
    screen.choose("Beside it", "normal")
    screen.set("Divider", 0.4)
    assert screen.shows(near(PAINT), x=0.38, y=0.45)
    assert screen.shows(near(FACING_X), x=0.42, y=0.45)
    mouse = screen.window.mouse
    mouse.move(0.4 * 1280, 360)
    mouse.down()
    for x in range(520, 769, 8):
        mouse.move(x, 360)
    mouse.up()
    assert screen.shows(near(PAINT), x=0.57, y=0.45)
    assert screen.client.look.divider == pytest.approx(0.6, abs=0.02)


def test_exposure_tone_background_and_drawing_in_the_browser(screen: Screen) -> None:
    screen.choose("Channel", "diffuse")
    before = screen.served(channel="diffuse")
    darker = screen.served(channel="diffuse", exposure=-2.0)
    filmic = screen.served(channel="diffuse", exposure=-2.0, tone="filmic")
    assert (darker < 0.7 * before).any() and (abs(filmic - darker) > 16).any()
    assert screen.shows(near(before))
    screen.set("Exposure", -2)
    assert screen.shows(near(darker))
    screen.choose("Tone curve", "filmic")
    assert screen.shows(near(filmic))
    assert screen.shows(near(WHITE), x=0.02)
    screen.choose("Background", "black")
    assert screen.shows(near((0, 0, 0)), x=0.02)
    screen.choose("Background", "environment")
    assert screen.shows(lambda pixel: pixel.min() > 20, x=0.02)
    screen.choose("Tone curve", "srgb")
    screen.choose("Channel", "albedo")
    screen.choose("Drawn by", "browser")
    assert screen.shows(near(PAINT, 12))
    assert screen.client.browser.scene.get_handle_by_name("/splats") is not None
    screen.choose("Channel", "image")
    screen.set("Exposure", -1)
    assert screen.shows(near(screen.served(channel="image", exposure=-1.0), 12))
    lit = screen.pixel()
    screen.tab("Light")
    screen.choose("Environment", "(none)")
    assert screen.shows(lambda pixel: pixel.max() < 0.3 * lit.max())
    screen.tab("View")
    screen.choose("Drawn by", "server")
    assert screen.shows(near((0, 0, 0)))
    assert screen.client.browser.scene.get_handle_by_name("/splats") is None


def test_light_comes_from_uploads_lamp_and_sun_and_bad_files_change_nothing(
    screen: Screen, tmp_path: Path
) -> None:
    screen.choose("Channel", "irradiance")
    screen.tab("Light")
    for suffix, level in ((".hdr", 0.25), (".exr", 0.5)):
        radiance = torch.zeros(16, 32, 3)
        radiance[..., 1] = level
        write_environment(tmp_path / f"green{suffix}", EnvironmentLight(radiance))
        screen.upload(f"green{suffix}", (tmp_path / f"green{suffix}").read_bytes())
        expected = {0.25: 137, 0.5: 188}[level]
        assert screen.shows(near((0, expected, 0))), suffix
    good = (tmp_path / "green.hdr").read_bytes()
    for name, contents in (("bad.hdr", good[:60]), ("bad.exr", b"nothing"), ("bad.png", good)):
        screen.upload(name, contents)
        screen.notice(f"{name}")
    assert near((0, 188, 0))(screen.pixel())
    assert screen.page.library.names == ("recovered", "green", "green 2")
    # Brighter towards +x than away from it, so the turn of the map is seen.
    halves = torch.full((16, 32, 3), 0.1)
    halves[:, 8:24] = 0.8
    write_environment(tmp_path / "halves.exr", EnvironmentLight(halves))
    screen.upload("halves.exr", (tmp_path / "halves.exr").read_bytes())
    assert screen.shows(lambda pixel: pixel.min() > 200)
    screen.set("Rotation", 180)
    assert screen.shows(lambda pixel: 60 < pixel.max() < 150)
    screen.choose("Environment", "(none)")
    assert screen.shows(near((0, 0, 0)))
    screen.window.get_by_text("Sun", exact=True).click()
    screen.tick("Sun on")
    screen.set("Azimuth", 0)
    screen.set("Elevation", 0)
    # Beside the middle, where the sun's own ball is.
    assert screen.shows(lambda pixel: pixel.min() > 200, x=0.45, y=0.4)
    screen.set("Azimuth", 180)
    assert screen.shows(near((0, 0, 0)), x=0.45, y=0.4)
    screen.tick("Sun on")
    screen.window.get_by_text("Lamp", exact=True).click()
    screen.tick("Lamp on")
    assert screen.shows(lambda pixel: pixel.min() > 40, x=0.45, y=0.4)


def test_a_click_reads_the_known_surface(screen: Screen) -> None:
    screen.window.mouse.click(500, 360)
    screen.window.get_by_text("roughness 0.7").wait_for(timeout=60_000)
    picked = screen.client.picked
    assert picked is not None
    assert picked.albedo == pytest.approx(ALBEDO, abs=5e-3)
    assert picked.normal == pytest.approx((1.0, 0.0, 0.0), abs=1e-3)


def test_two_windows_have_their_own_cameras_and_looks_and_share_edits(browser: Any) -> None:
    with serving(photographed_wall(), port=0, max_height=240) as (server, page):
        first, second = (open_window(browser, server, page) for _ in range(2))
        first.choose("Channel", "albedo")
        second.choose("Channel", "normal")
        assert first.shows(near(PAINT)) and second.shows(near(FACING_X))
        # Away from the wall.
        second.client.browser.camera.look_at = (9.0, 0.0, 0.0)
        assert second.shows(near(WHITE)) and near(PAINT)(first.pixel())
        first.tab("Edit")
        first.choose("Region", "all")
        first.press("Apply to selection")
        assert first.shows(near((200, 40, 40)))
        second.client.browser.camera.look_at = (0.0, 0.0, 0.0)
        second.choose("Channel", "albedo")
        assert second.shows(near((200, 40, 40)))
        second.tab("Edit")
        second.press("Undo")
        assert first.shows(near(PAINT))
        first.window.close()
        second.window.close()


def test_cameras_are_shown_clicked_and_compared_with_their_photograph(screen: Screen) -> None:
    screen.choose("Channel", "albedo")
    screen.tab("Cameras")
    screen.client.browser.camera.position = (4.0, 0.0, 2.5)
    screen.client.browser.camera.look_at = (3.0, 0.0, 0.0)
    assert screen.shows(near(WHITE), x=0.1, y=0.1)
    screen.tick("Show cameras")
    # The photograph hangs in the frustum.
    assert screen.until(lambda image: bool((abs(image - (120, 0, 0)).max(-1) < 12).any()))
    screen.window.mouse.click(100, 650)
    screen.window.keyboard.press("n")
    assert screen.shows(near(PAINT))
    assert screen.client.compared(screen.client.pose()) is not None
    screen.tick("Show cameras")
    screen.press("error")
    assert screen.shows(near(screen.served(channel="error")))
    screen.press("beside")
    assert screen.shows(near((120, 0, 0)), x=0.6, y=0.4)
