"""Two hundred random actions, and a window that closes in the middle, leave the page answering."""

import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from splatir.storage.environment import write_environment
from splatir.transport.scene import SceneTransport
from tests.viewer_browser import MARKS, Screen, chromium, near, open_window, photographed_wall

pytest.importorskip("viser", reason="needs viser: .[viewer]")
import torch

from splatir.scene.lights import EnvironmentLight
from viewer.server import serving

pytestmark = MARKS
_ACTIONS = 200
_TABS = ("View", "Light", "Cameras", "Edit", "Export", "Help")
_KEYS = "1234567890bvlfnpmrz"
_VALUES = ("0", "1", "-5", "0.37", "1e9", "-1e9", "nonsense", "")


class Visitor:
    """Somebody who tries everything."""

    def __init__(self, draw: random.Random, good_map: bytes) -> None:
        self.draw, self.good_map = draw, good_map
        self.screen: Screen | None = None

    def act(self) -> None:
        """Do one thing."""
        action = self.draw.choice(
            (
                self.tab,
                self.drag,
                self.click,
                self.key,
                self.press,
                self.tick,
                self.choose,
                self.type,
                self.type,
                self.upload,
            )
        )
        self.attempt(action)

    def attempt(self, action: Callable[[], None]) -> None:
        """Do something; what is out of reach at the moment is left."""
        from playwright.sync_api import Error

        with contextlib.suppress(Error):
            action()

    @property
    def window(self) -> Any:
        assert self.screen is not None
        return self.screen.window

    def tab(self) -> None:
        self.window.get_by_role("tab", name=self.draw.choice(_TABS)).click(timeout=1500)

    def film(self) -> None:
        self.window.get_by_role("tab", name="Export").click(timeout=1500)
        self.window.get_by_text("Film (.mp4)").click(timeout=1500)

    def drag(self) -> None:
        mouse = self.window.mouse
        mouse.move(self.draw.randrange(330, 860), self.draw.randrange(60, 680))
        mouse.down(button=self.draw.choice(["left", "right"]))
        mouse.move(self.draw.randrange(330, 860), self.draw.randrange(60, 680), steps=4)
        mouse.up(button="left")
        mouse.up(button="right")
        mouse.wheel(0, self.draw.randrange(-300, 300))

    def click(self) -> None:
        self.window.mouse.click(self.draw.randrange(330, 860), self.draw.randrange(60, 680))

    def key(self) -> None:
        self.window.keyboard.press(self.draw.choice([*_KEYS, "PageUp", "PageDown"]))

    def press(self) -> None:
        self._any("button:visible").click(timeout=1500)

    def tick(self) -> None:
        self._any("input[type=checkbox]:visible").click(timeout=1500)

    def choose(self) -> None:
        self._any("input[role=combobox]:visible").click(timeout=1500)
        self._any("[role=option]:visible").click(timeout=1500)

    def type(self) -> None:
        field = self._any("input[inputmode]:visible, input[type=text]:visible")
        field.fill(self.draw.choice(_VALUES), timeout=1500)
        field.press("Enter", timeout=1500)

    def upload(self) -> None:
        contents = self.draw.choice([b"", b"#?RADIANCE\n", self.good_map, self.good_map[:99]])
        name = self.draw.choice(["a.hdr", "b.exr", "../../c.hdr", "d.png"])
        self.window.locator("input[type=file]").first.set_input_files(
            {"name": name, "mimeType": "image/x", "buffer": contents}, timeout=1500
        )

    def _any(self, selector: str) -> Any:
        found = self.window.locator(selector)
        return found.nth(self.draw.randrange(max(1, found.count())))


def test_two_hundred_random_actions_leave_the_page_answering(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_environment(tmp_path / "sky.hdr", EnvironmentLight(torch.ones(8, 16, 3)))
    visitor = Visitor(random.Random(7), (tmp_path / "sky.hdr").read_bytes())
    scene = photographed_wall(
        trace=lambda model: SceneTransport.of(model.gaussians, 32),
        save=lambda model, log: tmp_path / "saved",
    )
    with serving(scene, port=0, max_height=120) as (server, page), chromium() as browser:
        visitor.screen = open_window(browser, server, page)
        for number in range(_ACTIONS):
            if number == _ACTIONS // 2:
                # It leaves while its camera moves and a film is made.
                visitor.attempt(
                    lambda: visitor.window.get_by_text("Film (.mp4)").click(timeout=1500)
                )
                visitor.drag()
                visitor.window.close()
                visitor.screen = open_window(browser, server, page)
            visitor.act()
        visitor.window.close()
        while page.history.undo():
            pass
        last = open_window(browser, server, page)
        assert last.shows(near(last.served()))
        last.choose("Channel", "normal")
        assert last.shows(near((255, 128, 128)))
        assert len(page.clients) == 1
    assert "Traceback" not in capfd.readouterr().err
