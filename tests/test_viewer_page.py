"""The least that a real browser shows of the viewer; its controls are tested with `-m slow`."""

import pytest

from tests.viewer_browser import NEEDS_BROWSER, chromium, near, open_window
from tests.viewer_scenes import scene_of, wall

pytest.importorskip("viser", reason="needs viser: .[viewer]")
from viewer.server import serving

pytestmark = NEEDS_BROWSER


def test_the_page_loads_shows_the_scene_and_follows_a_control() -> None:
    with chromium() as browser, serving(scene_of(wall()), port=0, max_height=120) as (server, page):
        screen = open_window(browser, server, page)
        assert screen.shows(near(screen.served(channel="image")))
        screen.choose("Channel", "normal")
        assert screen.shows(near((255, 128, 128)))
