"""The viewer in a real browser: the page loads, shows the scene, and its controls change it."""

import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.test_viewer import ALBEDO, scene_of, wall

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: .[dev]")
viser = pytest.importorskip("viser", reason="needs viser: .[viewer]")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
    # Of viser's own network thread as it stops.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
# sRGB of ALBEDO.
SHOWN = (203, 149, 89)


@pytest.fixture
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found.new_page(viewport={"width": 1280, "height": 720})
        found.close()


def seen(page: Any, condition: Callable[[np.ndarray], bool], seconds: float = 60.0) -> bool:
    """Whether the middle of what the browser shows comes to meet a condition."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for client in page.clients:
            image = client.browser.get_render(120, 160, transport_format="png", timeout=30.0)
            if condition(image[60, 80, :3].astype(int)):
                return True
        time.sleep(0.2)
    return False


def near(colour: tuple[int, int, int]) -> Callable[[np.ndarray], bool]:
    return lambda pixel: bool((abs(pixel - np.array(colour)) <= 8).all())


def test_page_shows_the_scene_reads_a_click_and_refuses_a_bad_map(browser: Any) -> None:
    from viewer.server import serving

    with serving(scene_of(wall()), port=0, max_height=240) as (server, page):
        browser.goto(f"http://127.0.0.1:{server.get_port()}")
        browser.get_by_role("tab", name="View").wait_for(timeout=90_000)
        page.change_look(channel="albedo")
        assert seen(page, near(SHOWN))
        browser.mouse.click(500, 360)
        browser.get_by_text("roughness 0.7").wait_for(timeout=60_000)
        assert page.picked is not None
        assert page.picked.albedo == pytest.approx(ALBEDO, abs=5e-3)
        browser.get_by_role("tab", name="Light").click()
        browser.locator("input[type=file]").first.set_input_files(
            {"name": "bad.hdr", "mimeType": "image/vnd.radiance", "buffer": b"not a picture"}
        )
        browser.get_by_text("This file is no light").wait_for(timeout=60_000)
        page.change_look(channel="normal")
        assert seen(page, near((255, 128, 128)))
