"""A real browser at the viewer's page: what tests do with its controls, and what they see."""

import io
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from PIL import Image

from tests.viewer_scenes import FACING, scene_of, wall
from viewer.client import Client
from viewer.page import Page
from viewer.scene import PhotoView, ViewedScene

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# One page at 1280x720 is 160x90 here: enough to tell colours and places.
ROWS, COLUMNS = 90, 160
WIDTH, HEIGHT = 1280, 720
_ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
# Of two controls that are changed within 50 ms, viser's page tells of the second only.
_THROTTLE = 100
# Of JPEG, of the browser's own resizing, and of rounding.
_TOLERANCE = 8

NEEDS_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
    # Of viser's own network thread as it stops.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
MARKS = [pytest.mark.slow, *NEEDS_BROWSER]
Condition = Callable[[np.ndarray], bool]


def near(colour: Any, tolerance: int = _TOLERANCE) -> Condition:
    """Whether a pixel has a colour."""
    expected = np.asarray(colour, dtype=int)
    return lambda pixel: bool((abs(pixel - expected) <= tolerance).all())


def photographed_wall(**fields: Any) -> ViewedScene:
    """The wall with one photograph of it, dark red."""
    photo = torch.zeros(64, 96, 3, dtype=torch.uint8)
    photo[..., 0] = 120
    photos = (PhotoView("front.png", FACING.camera(64), lambda: photo),)
    return scene_of(wall(), photos=photos, **fields)


class Screen:
    """One window of the browser."""

    def __init__(self, window: Any, page: Page, client: Client) -> None:
        self.window, self.page, self.client = window, page, client

    def tab(self, name: str) -> None:
        """Open a tab."""
        self.window.get_by_role("tab", name=name).click()

    def choose(self, label: str, option: str) -> None:
        """Choose from a list."""
        self.row(label).locator("input").first.click()
        self.window.get_by_role("option", name=option, exact=True).locator(
            "visible=true"
        ).first.click()

    def set(self, label: str, value: float) -> None:
        """Type a number beside a slider."""
        field = self.row(label).locator("input").last
        field.fill(f"{value:g}")
        field.press("Enter")
        self.window.wait_for_timeout(_THROTTLE)

    def tick(self, label: str) -> None:
        """Tick a box, or take its tick away."""
        self.row(label).locator("input").first.click()
        self.window.wait_for_timeout(_THROTTLE)

    def colour(self, label: str, rgb: tuple[int, int, int]) -> None:
        """Type a colour."""
        field = self.row(label).locator("input").first
        field.fill(f"rgb({rgb[0]}, {rgb[1]}, {rgb[2]})")
        field.press("Enter")
        self.window.wait_for_timeout(_THROTTLE)

    def unfold(self, folder: str) -> None:
        """Open a folder of controls."""
        self.window.get_by_text(folder, exact=True).click()

    def key(self, key: str) -> None:
        """Press a key over the picture, which has it only once it was clicked."""
        self.window.mouse.click(100, 650)
        self.window.keyboard.press(key)

    def where(self, point: Any) -> tuple[float, float]:
        """The place in the window of a point of the world, CSS pixels."""
        camera = self.client.pose().camera(HEIGHT)
        seen = camera.T_camera_world @ torch.tensor([*(float(x) for x in point), 1.0])
        x, y, _ = (camera.K @ (seen[:3] / seen[2])).tolist()
        return x, y

    def drag(self, start: tuple[float, float], by: tuple[float, float]) -> None:
        """Drag what is at a place of the window."""
        mouse, (x, y) = self.window.mouse, start
        mouse.move(x, y)
        # What is to be dragged has to notice the pointer first.
        self.window.wait_for_timeout(500)
        mouse.down()
        for step in range(1, 11):
            mouse.move(x + by[0] * step / 10, y + by[1] * step / 10)
            self.window.wait_for_timeout(50)
        mouse.up()

    def press(self, name: str) -> None:
        """Press a button."""
        self.window.get_by_role("button", name=name, exact=True).click()

    def upload(self, name: str, contents: bytes) -> None:
        """Send a file as an environment map."""
        self.window.locator("input[type=file]").first.set_input_files(
            {"name": name, "mimeType": "application/octet-stream", "buffer": contents}
        )

    def download(self, button: str, folder: Path) -> Path:
        """Press a button and keep the file that comes."""
        with self.window.expect_download(timeout=120_000) as coming:
            self.press(button)
        path = folder / coming.value.suggested_filename
        coming.value.save_as(path)
        return path

    def notice(self, text: str) -> None:
        """Wait for a notice."""
        self.window.get_by_text(text).first.wait_for(timeout=60_000)

    def render(self) -> UInt8[np.ndarray, "rows columns 3"]:
        """What the browser shows, without controls."""
        image = self.client.browser.get_render(  # pyright: ignore[reportAttributeAccessIssue]
            ROWS, COLUMNS, transport_format="png", timeout=60.0
        )
        return image[..., :3]

    def pixel(self, x: float = 0.5, y: float = 0.5) -> np.ndarray:
        """One pixel of it, at shares of width and height."""
        return self.render()[int(y * ROWS), int(x * COLUMNS)].astype(int)

    def shows(self, condition: Condition, x: float = 0.5, y: float = 0.5) -> bool:
        """Whether a pixel comes to meet a condition within a minute."""
        return self.until(lambda image: condition(image[int(y * ROWS), int(x * COLUMNS)]))

    def until(self, condition: Condition, seconds: float = 90.0) -> bool:
        """Whether what is shown comes to meet a condition."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition(self.render().astype(int)):
                return True
            time.sleep(0.2)
        return False

    def seen(self, x: float, y: float) -> np.ndarray:
        """A pixel of the window itself: what `render` gives has not the depth of the picture."""
        image = Image.open(io.BytesIO(self.window.screenshot())).convert("RGB")
        return np.asarray(image)[int(y * HEIGHT), int(x * WIDTH)].astype(int)

    def served(self, x: float = 0.5, y: float = 0.5, **look: Any) -> np.ndarray:
        """A pixel of the picture that the server makes of the same, with another look."""
        client, page, pose = self.client, self.page, self.client.pose()
        shown = replace(client.look, **look)
        frame = page.renderer.frame(
            pose.camera(ROWS), shown, page.history.now, client.choice, photo=client.compared(pose)
        )
        return frame.picture[int(y * ROWS), int(x * frame.picture.shape[1])].astype(int)

    def row(self, label: str) -> Any:
        """A label with its control."""
        found = self.window.locator("label").get_by_text(label, exact=True).locator("visible=true")
        return found.first.locator("xpath=ancestor::div[contains(@class,'Flex-root')][1]")


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser, for as long as the context lasts."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: .[dev]")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        yield browser
        browser.close()


def open_window(browser: Any, server: Any, page: Page) -> Screen:
    """A window of the page, once it shows the scene."""
    known = {client.browser.client_id for client in page.clients}
    window = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    window.goto(f"http://127.0.0.1:{server.get_port()}")
    window.get_by_role("tab", name="Help").wait_for(timeout=90_000)
    end = time.monotonic() + 180.0
    while time.monotonic() < end:
        for client in page.clients:
            if client.browser.client_id not in known and client.pictures_sent:
                return Screen(window, page, client)
        time.sleep(0.1)
    raise AssertionError("the browser was not shown any picture.")
