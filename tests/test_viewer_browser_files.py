"""What the page makes of a run, in a real browser: edited runs, files, a page without a server."""

import io
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from splatir.scene.gaussians import GaussianModel
from splatir.scene.lights import EnvironmentLight
from splatir.storage.environment import read_environment
from splatir.storage.ply import read_ply
from splatir.storage.relightable import read_relightable
from splatir.train.finished import FinishedRun, load_run
from tests.lit_runs import ALBEDO, sphere_run
from tests.viewer_browser import MARKS, Screen, chromium, near, open_window
from tests.viewer_scenes import FACING, wall

pytest.importorskip("viser", reason="needs viser: .[viewer]")
from splatir.commands.view import viewed_scene
from viewer.edits import Change, History, Selection
from viewer.look import Look
from viewer.server import serving
from viewer.share import web_page
from viewer.splats import sky_of, splats_of

pytestmark = MARKS
# sRGB of the sphere's albedo.
PAINT = (203, 149, 124)
WHITE = (255, 255, 255)
RED = (200, 40, 40)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def finished(tmp_path: Path) -> FinishedRun:
    run = sphere_run(tmp_path)
    materials = replace(run.settings.materials, directions=64)
    run.folder.root.mkdir(parents=True)
    return replace(run, settings=replace(run.settings, backend="auto", materials=materials))


@pytest.fixture
def screen(browser: Any, finished: FinishedRun) -> Iterator[Screen]:
    with serving(viewed_scene(finished), port=0, max_height=240) as (server, page):
        found = open_window(browser, server, page)
        yield found
        found.window.close()


def test_edits_change_what_is_selected_are_undone_and_saved_as_a_new_run(
    screen: Screen, finished: FinishedRun
) -> None:
    screen.choose("Channel", "albedo")
    assert screen.shows(near(PAINT))
    screen.tab("Edit")
    screen.press("Move region to picked point")
    screen.notice("Click into the picture first")
    screen.window.mouse.click(640, 360)
    screen.tab("View")
    screen.window.get_by_text("roughness 0.5").wait_for(timeout=60_000)
    screen.tab("Edit")
    screen.press("Move region to picked point")
    screen.choose("Region", "sphere")
    screen.tick("Show selection")
    # Its gizmo is in the middle.
    assert screen.until(lambda image: not near(PAINT, 12)(image[45, 80]))
    screen.tick("Show selection")
    assert screen.shows(near(PAINT))
    screen.press("Apply to selection")
    assert screen.shows(near(RED, 20))
    screen.press("Undo")
    assert screen.shows(near(PAINT))
    screen.press("Apply to selection")
    assert screen.shows(near(RED, 20))
    # The red patch by its colour, wherever the region is; the rest of the sphere stays.
    screen.window.mouse.click(640, 360)
    screen.tab("View")
    screen.window.get_by_text("albedo 0.57").wait_for(timeout=60_000)
    screen.tab("Edit")
    screen.choose("Region", "all")
    screen.tick("Only albedo like the picked point")
    screen.press("Hide selection")
    screen.notice("Gaussians hidden")
    assert screen.until(lambda image: not bool((abs(image - RED).max(-1) < 24).any()))
    assert bool((abs(screen.render().astype(int) - PAINT).max(-1) < 12).any())
    screen.press("Save as new run")
    screen.notice("A new run")
    saved = load_run(finished.folder.root.with_name("run_edited"), torch.device("cpu"))
    assert 0 < saved.model.num_gaussians < finished.model.num_gaussians
    assert not finished.folder.config.exists()


def test_files_hold_what_is_seen(screen: Screen, tmp_path: Path) -> None:
    screen.choose("Channel", "albedo")
    assert screen.shows(near(PAINT))
    screen.tab("Export")
    picture = np.asarray(Image.open(screen.download("Picture (.png)", tmp_path)))
    assert near(PAINT, 3)(picture[picture.shape[0] // 2, picture.shape[1] // 2])
    archive = zipfile.ZipFile(io.BytesIO(screen.download("Splats (.zip)", tmp_path).read_bytes()))
    archive.extractall(tmp_path / "splats")
    model, light, _ = read_relightable(tmp_path / "splats" / "splats.ply")
    assert light is not None and model.num_gaussians == 400
    assert model.material("albedo")[0].tolist() == pytest.approx(ALBEDO, abs=1e-4)
    baked = read_ply(screen.download("Baked splats (.ply)", tmp_path))
    assert baked.num_gaussians == 400 and not baked.has_materials
    environment = read_environment(screen.download("Environment (.exr)", tmp_path))
    assert environment.radiance.mean().item() == pytest.approx(1.0, abs=0.3)
    screen.set("Frames", 8)
    screen.choose("Height", "360")
    film = screen.download("Film (.mp4)", tmp_path).read_bytes()
    assert film[4:8] == b"ftyp" and len(film) > 2000


def test_the_web_page_shows_the_look_from_a_file_without_network(
    screen: Screen, browser: Any, tmp_path: Path
) -> None:
    screen.choose("Channel", "normal")
    shown = screen.served(channel="normal")
    assert screen.shows(near(shown))
    screen.tab("Export")
    path = screen.download("Web page (.html)", tmp_path)
    alone = browser.new_context(offline=True, viewport={"width": 640, "height": 360})
    window = alone.new_page()
    window.goto(path.as_uri())
    pixels = np.zeros((360, 640, 3), int)
    for _ in range(60):
        window.wait_for_timeout(500)
        pixels = np.asarray(Image.open(io.BytesIO(window.screenshot())).convert("RGB")).astype(int)
        if near(shown, 16)(pixels[180, 320]):
            break
    assert near(shown, 16)(pixels[180, 320]) and near(WHITE)(pixels[180, 20])
    alone.close()


def test_a_web_page_from_a_file_sorts_its_splats_and_has_the_environment(
    browser: Any, tmp_path: Path
) -> None:
    painted = {}
    for name, x, albedo in (("near", 0.5, (1.0, 0.0, 0.0)), ("far", 0.0, (0.0, 1.0, 0.0))):
        history = History(wall())
        history.recolour(Selection("all"), Change(albedo=albedo))
        params = {key: value.detach() for key, value in history.now.model.params.items()}
        painted[name] = {**params, "means": params["means"] + torch.tensor([x, 0.0, 0.0])}
    # Drawn in the order of the file the far one, which comes last, would be seen.
    both = {key: torch.cat([painted["near"][key], painted["far"][key]]) for key in painted["near"]}
    light = EnvironmentLight(torch.tensor([0.0, 0.0, 1.0]).expand(8, 16, 3))
    splats = splats_of(
        GaussianModel(both, "surfel").gaussians,
        torch.tensor([RED, (0, 255, 0)]).repeat_interleave(576, 0) / 255.0,
    )
    path = tmp_path / "both.html"
    page = web_page(splats, FACING, np.zeros(3), sky_of(light, Look(), 20.0), "both")
    path.write_text(page, encoding="utf8")
    window = browser.new_context(offline=True, viewport={"width": 640, "height": 240}).new_page()
    window.goto(path.as_uri())
    pixels = np.zeros((240, 640, 3), int)
    for _ in range(60):
        window.wait_for_timeout(500)
        pixels = np.asarray(Image.open(io.BytesIO(window.screenshot())).convert("RGB")).astype(int)
        if near(RED, 16)(pixels[200, 320]):
            break
    assert near(RED, 16)(pixels[200, 320])
    assert near((0, 0, 255), 16)(pixels[230, 10]) and near((0, 0, 255), 16)(pixels[230, 630])
    window.context.close()


def test_a_film_shows_its_progress_and_can_be_cancelled(screen: Screen, tmp_path: Path) -> None:
    screen.tab("Export")
    screen.set("Frames", 360)
    screen.choose("Height", "1080")
    screen.press("Film (.mp4)")
    bar = screen.window.locator("[role=progressbar]").first
    bar.wait_for(timeout=60_000)
    assert screen.until(lambda _: float(bar.get_attribute("aria-valuenow") or 0.0) > 0.5)
    screen.press("Picture (.png)")
    screen.notice("Still exporting")
    screen.press("Cancel")
    screen.notice("cancelled")
    assert not screen.window.get_by_role("button", name="Cancel").is_visible()
    assert screen.download("Picture (.png)", tmp_path).stat().st_size > 1000
