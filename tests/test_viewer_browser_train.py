"""Watching a scene in the making, in a real browser: it changes, waits, steps and stops."""

import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from tests.viewer_browser import MARKS, chromium, near, open_window
from tests.viewer_scenes import scene_of, wall

pytest.importorskip("viser", reason="needs viser: .[viewer]")
from viewer.edits import Change, History, Selection
from viewer.live import Live, LiveStep
from viewer.scene import ViewedScene
from viewer.server import serving

pytestmark = MARKS
RED, GREEN = (255, 0, 0), (0, 255, 0)


class Maker(threading.Thread):
    """Paints the wall red, and green from the moment that it is told to."""

    def __init__(self, live: Live) -> None:
        super().__init__(daemon=True)
        self.live, self.done = live, 0
        self.paint = (1.0, 0.0, 0.0)

    def scene(self) -> ViewedScene:
        history = History(wall())
        history.recolour(Selection("all"), Change(albedo=self.paint))
        return replace(scene_of(wall()), model=history.now.model)

    def run(self) -> None:
        goes_on = True
        while goes_on:
            self.done += 1
            now = LiveStep("radiance", self.done, 10_000, 1.0 / self.done, 20.0, 576)
            goes_on = self.live.after_step(now, self.scene, lambda: False)
            time.sleep(0.02)


def test_page_follows_a_scene_in_the_making_and_gives_orders() -> None:
    live = Live()
    maker = Maker(live)
    with (
        chromium() as browser,
        serving(maker.scene(), port=0, max_height=120, live=live) as (server, page),
    ):
        maker.start()
        screen: Any = open_window(browser, server, page)
        screen.tab("View")
        screen.choose("Channel", "albedo")
        assert screen.shows(near(RED))
        screen.tab("Train")
        screen.window.get_by_text("training").first.wait_for(timeout=60_000)
        maker.paint = (0.0, 1.0, 0.0)
        assert screen.shows(near(GREEN))
        # Edits of a scene that is replaced would be lost.
        assert screen.window.get_by_role("tab", name="Edit").count() == 0
        screen.press("pause")
        screen.window.get_by_text("paused").first.wait_for(timeout=60_000)
        paused_at = maker.done
        screen.press("one step")
        screen.window.get_by_text(f"step {paused_at + 1:,} of").wait_for(timeout=60_000)
        assert maker.done == paused_at + 1
        screen.press("go on")
        screen.window.get_by_text("training").first.wait_for(timeout=60_000)
        screen.press("stop")
        maker.join(60.0)
        assert not maker.is_alive()
