"""Cameras, edits, keys and faults of the viewer in a real browser, each by what it changes."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from tests.viewer_browser import HEIGHT, MARKS, WIDTH, Screen, chromium, near, open_window
from tests.viewer_scenes import METALLIC, looking_at_origin, scene_of, wall

pytest.importorskip("viser", reason="needs viser: .[viewer]")
from splatir.evaluate.pictures import value_picture
from splatir.transport.scene import SceneTransport
from viewer.edits import Change, History, Selection
from viewer.keys import KEYS
from viewer.scene import PhotoView, ViewedScene
from viewer.server import serving

pytestmark = MARKS
WHITE, RED, FACING_X = (255, 255, 255), (200, 40, 40), (255, 128, 128)
# sRGB of the wall's albedo, of the half that was painted, and the photographs of its cameras.
PAINT, BLUE = (203, 149, 89), (89, 89, 243)
PHOTOS = {"front.png": (120, 0, 0), "left.png": (0, 120, 0)}
MARK = (255, 140, 0)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def two_colours() -> ViewedScene:
    """The wall, blue at the right, and two cameras that photographed it in one colour each."""
    history = History(wall())
    half = Selection("box", centre=(0.0, 1.0, 0.0), size=(1.0, 1.98, 9.0))
    history.recolour(half, Change(albedo=(0.1, 0.1, 0.9)))
    places = {"front.png": (3.0, 0.0, 0.0), "left.png": (2.5, -1.5, 0.5)}

    def photo(name: str) -> PhotoView:
        pixels = torch.tensor(PHOTOS[name], dtype=torch.uint8).expand(64, 96, 3)
        return PhotoView(name, looking_at_origin(places[name]), lambda: pixels)

    return scene_of(
        history.now.model,
        photos=tuple(photo(name) for name in places),
        trace=lambda model: SceneTransport.of(model.gaussians, 32),
    )


@pytest.fixture
def screen(browser: Any) -> Iterator[Screen]:
    with serving(two_colours(), port=0, max_height=240) as (server, page):
        found = open_window(browser, server, page)
        found.choose("Channel", "albedo")
        yield found
        found.window.close()


LEFT, RIGHT = (0.42, 0.45), (0.55, 0.45)


def has(colour: tuple[int, int, int], tolerance: int = 12) -> Any:
    """Whether any pixel has a colour."""
    return lambda image: bool((abs(image - colour).max(-1) <= tolerance).any())


def test_photographs_are_chosen_walked_to_clicked_and_compared(screen: Screen) -> None:
    screen.tab("Cameras")

    def through(name: str) -> bool:
        client = screen.client
        return screen.until(lambda _: getattr(client.compared(client.pose()), "name", "") == name)

    screen.choose("Photograph", "left.png")
    assert through("left.png")
    screen.press("photo")
    assert screen.shows(near(PHOTOS["left.png"]))
    screen.press("next")
    assert through("front.png") and screen.shows(near(PHOTOS["front.png"]))
    screen.press("previous")
    assert through("left.png") and screen.shows(near(PHOTOS["left.png"]))
    screen.press("beside")
    shown = screen.served(*LEFT, channel="image", second=None)
    assert screen.shows(near(shown), *LEFT)
    assert screen.shows(near(PHOTOS["left.png"]), x=0.6, y=0.4)
    screen.press("off")
    assert screen.shows(lambda pixel: not near(PHOTOS["left.png"], 60)(pixel), x=0.6)
    # From behind both cameras, click into the picture that hangs in the frustum of the front one.
    screen.tick("Show cameras")
    screen.client.browser.camera.position = (6.0, 0.0, 1.5)  # pyright: ignore
    screen.client.browser.camera.look_at = (3.0, 0.0, 0.0)
    assert screen.until(has(PHOTOS["front.png"])) and screen.until(has(PHOTOS["left.png"]))
    pixels = np.argwhere(abs(screen.render().astype(int) - PHOTOS["front.png"]).max(-1) <= 12)
    row, column = np.median(pixels, 0)
    screen.window.mouse.click((column + 0.5) / 160 * WIDTH, (row + 0.5) / 90 * HEIGHT)
    assert through("front.png")
    screen.press("this")
    assert through("front.png")


def test_what_is_before_the_surface_hides_it_and_what_is_behind_is_hidden(screen: Screen) -> None:
    client = screen.client
    client.browser.scene.add_icosphere(
        "/before", radius=0.1, color=(0, 0, 0), position=(0.4, -0.4, 0.0)
    )
    client.browser.scene.add_icosphere(
        "/behind", radius=0.1, color=(0, 0, 0), position=(-0.4, 0.4, 0.0)
    )
    before, behind = (place_of(screen, (x, -x, 0.0)) for x in (0.4, -0.4))
    assert screen.until(lambda _: screen.seen(*before).max() < 80)
    assert near(BLUE, 20)(screen.seen(*behind))


def place_of(screen: Screen, point: tuple[float, float, float]) -> tuple[float, float]:
    x, y = screen.where(point)
    return x / WIDTH, y / HEIGHT


def test_selections_are_shown_and_materials_are_set_one_by_one(screen: Screen) -> None:
    screen.tab("Edit")
    screen.tick("Show selection")
    assert screen.until(has(MARK))
    screen.choose("Region", "all")
    screen.window.get_by_text("576 of 576").wait_for(timeout=60_000)
    screen.tick("Show selection")
    assert screen.until(lambda image: not has(MARK)(image))
    # A slider that is moved is meant: its box is ticked by itself, albedo's is taken away.
    screen.tick("Set albedo")
    screen.set("Roughness", 0.2)
    screen.press("Apply to selection")
    screen.tab("View")
    screen.choose("Channel", "roughness")
    assert screen.shows(near(value_picture(torch.tensor([[0.2]]))[0, 0]), *LEFT)
    screen.choose("Channel", "metallic")
    assert screen.shows(near(value_picture(torch.tensor([[METALLIC]]))[0, 0]), *LEFT)
    screen.tab("Edit")
    screen.set("Metallic", 0.9)
    screen.press("Apply to selection")
    assert screen.shows(near(value_picture(torch.tensor([[0.9]]))[0, 0]), *LEFT)
    screen.tab("View")
    screen.choose("Channel", "albedo")
    assert screen.shows(near(PAINT), *LEFT) and screen.shows(near(BLUE), *RIGHT)
    screen.tab("Edit")
    screen.colour("Albedo", (0, 200, 0))
    screen.press("Apply to selection")
    assert screen.shows(near((0, 200, 0)), *LEFT)
    for _ in range(3):
        screen.key("z")
    assert screen.shows(near(PAINT), *LEFT)
    screen.tab("View")
    screen.choose("Channel", "roughness")
    assert screen.shows(near(value_picture(torch.tensor([[0.7]]))[0, 0]), *LEFT)
    screen.tab("Edit")
    screen.press("Undo")
    screen.notice("Nothing to undo")


def test_regions_have_size_place_and_likeness(screen: Screen) -> None:
    screen.tab("Edit")
    screen.window.mouse.click(0.42 * WIDTH, 0.45 * HEIGHT)
    screen.tab("View")
    screen.window.get_by_text("albedo 0.6").wait_for(timeout=60_000)
    screen.tab("Edit")
    sizes = screen.row("Size").locator("input")
    for index in range(3):
        sizes.nth(index).fill("0.3")
        sizes.nth(index).press("Enter")
    screen.press("Move region to picked point")
    screen.press("Apply to selection")
    assert screen.shows(near(RED, 20), *LEFT) and screen.shows(near(PAINT), x=0.42, y=0.2)
    screen.press("Undo")
    assert screen.shows(near(PAINT), *LEFT)
    # The region is dragged up by its gizmo, and takes what is there now.
    screen.key("r")
    gizmo = screen.client.browser.scene.get_handle_by_name("/region")
    assert screen.until(lambda _: gizmo.visible)
    x, y, z = gizmo.position
    screen.drag(screen.where((x, y, z + 0.5 * gizmo.scale)), (0.0, -180.0))
    assert gizmo.position[2] > z + 0.3
    screen.key("r")
    screen.press("Apply to selection")
    up = place_of(screen, gizmo.position)
    assert screen.shows(near(RED, 40), *up) and near(PAINT)(screen.pixel(*LEFT))
    screen.press("Undo")
    # By colour: the unpainted half, until the tolerance takes in the blue one.
    screen.choose("Region", "all")
    screen.tick("Only albedo like the picked point")
    screen.press("Apply to selection")
    assert screen.shows(near(RED), *LEFT) and near(BLUE)(screen.pixel(*RIGHT))
    screen.press("Undo")
    assert screen.shows(near(PAINT), *LEFT)
    screen.set("Tolerance", 0.5)
    count = int(
        (
            ~Selection("all", albedo=(0.6, 0.3, 0.1), tolerance=0.5).of(
                screen.page.history.now.model
            )
        ).sum()
    )
    screen.window.get_by_text(f"{576 - count} of 576").wait_for(timeout=60_000)
    screen.set("Tolerance", 0.1)
    screen.press("Hide selection")
    assert screen.shows(near(WHITE), *LEFT) and near(BLUE)(screen.pixel(*RIGHT))
    screen.press("Undo")
    assert screen.shows(near(PAINT), *LEFT)


def test_every_key_of_the_help_does_what_it_says(screen: Screen) -> None:
    screen.tab("Help")
    for key in KEYS:
        if key.action != "pause":
            screen.window.get_by_text(key.label, exact=True).first.wait_for(timeout=60_000)
    screen.tab("View")
    client, scene = screen.client, screen.client.browser.scene
    screen.key("6")
    assert screen.shows(near(FACING_X), *LEFT)
    screen.key("b")
    assert screen.shows(near(BLUE), x=0.55, y=0.4)
    screen.key("b")
    assert screen.shows(near(FACING_X), x=0.55, y=0.4)
    screen.key("v")
    assert screen.until(lambda _: scene.get_handle_by_name("/splats") is not None)
    assert screen.shows(near(FACING_X, 12), *LEFT)
    screen.key("v")
    assert screen.until(lambda _: scene.get_handle_by_name("/splats") is None)
    screen.key("1")
    screen.key("PageDown")
    screen.key("PageDown")
    assert screen.shows(near(screen.served(channel="image", exposure=-1.0)))
    screen.key("PageUp")
    assert screen.shows(near(screen.served(channel="image", exposure=-0.5)))
    screen.key("l")
    assert screen.until(lambda _: not client.choice.shadows)
    screen.key("p")
    assert screen.until(lambda _: getattr(client.compared(client.pose()), "name", "") == "left.png")
    screen.key("m")
    assert screen.shows(near(PHOTOS["left.png"]), x=0.6, y=0.4)
    screen.key("m")
    assert screen.shows(lambda pixel: not near(PHOTOS["left.png"], 40)(pixel), x=0.6, y=0.4)
    screen.key("f")
    assert screen.until(lambda _: getattr(scene.get_handle_by_name("/cameras/0"), "visible", False))
    before = client.pose().position
    screen.window.keyboard.down("s")
    assert screen.until(lambda _: math.dist(client.pose().position, before) > 0.1)
    screen.window.keyboard.up("s")


def test_what_splats_do_not_have_the_server_draws(screen: Screen) -> None:
    screen.choose("Drawn by", "browser")
    scene = screen.client.browser.scene
    assert screen.until(lambda _: scene.get_handle_by_name("/splats") is not None)
    screen.choose("Channel", "alpha")
    screen.notice("The server draws this")
    assert screen.shows(near(WHITE)) and scene.get_handle_by_name("/splats") is None
    screen.choose("Channel", "albedo")
    assert screen.until(lambda _: scene.get_handle_by_name("/splats") is not None)
    screen.choose("Beside it", "normal")
    assert screen.shows(near(FACING_X), x=0.55, y=0.4) and screen.shows(near(PAINT), *LEFT)


def test_a_fault_of_the_renderer_is_a_notice_and_the_page_goes_on(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the rasteriser is on strike")

    with monkeypatch.context() as patch:
        patch.setattr(screen.page.renderer, "frame", fail)
        screen.choose("Channel", "normal")
        screen.notice("the rasteriser is on strike")
    screen.choose("Channel", "albedo")
    screen.choose("Channel", "normal")
    assert screen.shows(near(FACING_X))
    screen.choose("Channel", "photo")
    screen.client.browser.camera.position = (3.0, 1.0, 0.0)  # pyright: ignore
    screen.notice("click one of the cameras first")
    screen.choose("Channel", "albedo")
    assert screen.until(has(BLUE))
