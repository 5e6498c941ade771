"""Viewer without a browser: requests become pictures, faults notices, edits are taken back."""

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from splatir.scene.gaussians import GaussianModel
from splatir.scene.lights import EnvironmentLight, LightSum
from splatir.storage.environment import write_environment
from splatir.transport.scene import SceneTransport
from tests.viewer_scenes import (
    ALBEDO,
    CPU,
    FACING,
    METALLIC,
    ROUGHNESS,
    connected,
    looking_at_origin,
    scene_of,
    until,
    wall,
)
from viewer.edits import Change, Edited, History, Selection
from viewer.lights import Lamp, LightChoice, LightLibrary, Sun, light_of
from viewer.live import Live
from viewer.look import Look, channels_of
from viewer.pace import MOVING_FPS, Pace
from viewer.page import Page
from viewer.pose import Pose, pose_of
from viewer.renderer import ClientMemory
from viewer.scene import PhotoView, ViewedScene
from viewer.worker import LatestWorker


@pytest.fixture(scope="module")
def scene() -> ViewedScene:
    return scene_of(wall(), trace=lambda model: SceneTransport.of(model.gaussians, 64))


def test_newest_request_wins_and_the_last_is_answered_finely() -> None:
    answered: list[tuple[int, bool]] = []
    gate = threading.Event()

    def answer(request: int, is_fine: bool) -> None:
        answered.append((request, is_fine))
        gate.wait(10.0)

    worker = LatestWorker(answer, lambda error: None, settle_seconds=0.05)
    worker.submit(0)
    assert until(lambda: answered == [(0, False)])
    for request in range(1, 50):
        worker.submit(request)
    gate.set()
    assert until(lambda: answered[-1] == (49, True))
    assert answered == [(0, False), (49, False), (49, True)]
    worker.close()
    assert worker.join(5.0)


def test_a_failing_answer_leaves_the_thread_alive() -> None:
    faults: list[str] = []
    answered: list[int] = []

    def answer(request: int, is_fine: bool) -> None:
        if request == 0:
            raise RuntimeError("broken")
        answered.append(request)

    worker = LatestWorker(answer, lambda error: faults.append(str(error)), settle_seconds=0.01)
    worker.submit(0)
    assert until(lambda: faults == ["broken"])
    worker.submit(1)
    assert until(lambda: answered == [1, 1])
    worker.close()


@pytest.mark.parametrize("seconds_per_row", [2e-5, 2e-4, 8e-4])
def test_pace_settles_where_a_moving_picture_is_in_time(seconds_per_row: float) -> None:
    pace = Pace(1080)
    for _ in range(60):
        pace.record(0.005 + seconds_per_row * pace.height)
    assert 0.005 + seconds_per_row * pace.height < 1.0 / MOVING_FPS or pace.height == 96
    assert (
        pace.height == 1080
        or 0.005 + seconds_per_row * pace.height > 0.5 / MOVING_FPS
        or (pace.height == 96)
    )


def test_pose_and_camera_are_inverse() -> None:
    camera = FACING.camera(64)
    assert (camera.width, camera.height) == (96, 64)
    assert torch.allclose(camera.position_world, torch.tensor([3.0, 0.0, 0.0]), atol=1e-6)
    assert torch.allclose(camera.forward_world, torch.tensor([-1.0, 0.0, 0.0]), atol=1e-6)
    again = pose_of(camera)
    assert again.position == pytest.approx(FACING.position, abs=1e-6)
    assert again.fov == pytest.approx(FACING.fov, abs=1e-6)
    assert abs(np.dot(again.wxyz, FACING.wxyz)) == pytest.approx(1.0, abs=1e-6)


def test_picking_returns_the_known_material_normal_and_place(scene: ViewedScene) -> None:
    page = Page(scene, 64, 1.0)
    [browser] = connected(page, 1)
    client = page.client(1)
    assert client is not None
    pixel = client.pick(0.55, 0.45)
    assert pixel is not None
    assert pixel.albedo == pytest.approx(ALBEDO, abs=2e-3)
    assert pixel.roughness == pytest.approx(ROUGHNESS, abs=2e-3)
    assert pixel.metallic == pytest.approx(METALLIC, abs=2e-3)
    assert pixel.normal == pytest.approx((1.0, 0.0, 0.0), abs=1e-4)
    assert pixel.depth == pytest.approx(3.0, abs=1e-3)
    # Right of the middle is +y as seen from +x, above is +z.
    assert pixel.position[1] > 0.05 and pixel.position[2] > 0.05
    browser.camera.wxyz = np.array([0.5, -0.5, 0.5, -0.5])
    assert client.pick(0.5, 0.5) is None
    page.close()


def centre_colour(page: Page, edited: Edited | None = None, **look: Any) -> np.ndarray:
    frame = page.renderer.frame(
        FACING.camera(64),
        Look(**look),
        edited or page.history.now,
        page.first_choice,
        ClientMemory(),
    )
    return frame.picture[32, 48].astype(int)


def test_every_channel_shows_what_it_says(scene: ViewedScene) -> None:
    page = Page(scene, 64, 1.0)
    colours = {
        name: centre_colour(page, channel=name) for name in channels_of(True, has_photos=False)
    }
    # A matt wall that all of a white sky lights: irradiance is pi, nothing is in shadow.
    assert colours["irradiance"] == pytest.approx([255] * 3, abs=3)
    assert colours["shadow"] == pytest.approx([255] * 3, abs=3)
    assert colours["alpha"] == pytest.approx([255] * 3, abs=4)
    assert colours["normal"] == pytest.approx([255, 128, 128], abs=2)
    # sRGB of the linear albedo 0.6, 0.3, 0.1.
    assert colours["albedo"] == pytest.approx([203, 149, 89], abs=2)
    assert (colours["image"] >= colours["diffuse"]).all()
    assert (colours["image"] >= colours["specular"]).all()
    # Radiance looks like albedo, alpha like irradiance and shadow; all others differ.
    assert len({tuple(colour) for colour in colours.values()}) >= 8


def test_split_view_shows_both_channels_at_the_divider(scene: ViewedScene) -> None:
    page = Page(scene, 64, 1.0)

    def picture(**look: Any) -> np.ndarray:
        camera, now = FACING.camera(64), page.history.now
        return page.renderer.frame(camera, Look(**look), now, page.first_choice).picture

    albedo, normal = picture(channel="albedo"), picture(channel="normal")
    split = picture(channel="albedo", second="normal", divider=0.25)
    assert (split[:, :23] == albedo[:, :23]).all()
    assert (split[:, 25:] == normal[:, 25:]).all()


def test_exposure_and_tone_change_light_and_leave_materials(scene: ViewedScene) -> None:
    page = Page(scene, 64, 1.0)
    bright = centre_colour(page, channel="image", exposure=-1.0)
    assert (bright < centre_colour(page, channel="image")).all()
    assert (centre_colour(page, channel="image", tone="reinhard") < 255).all()
    same = centre_colour(page, channel="albedo", exposure=-1.0)
    assert (same == centre_colour(page, channel="albedo")).all()


def test_background_is_what_was_chosen(scene: ViewedScene) -> None:
    page = Page(scene, 64, 1.0)
    away = Pose((0.5, -0.5, 0.5, -0.5), (3.0, 0.0, 0.0), 0.5, 1.0, 16)

    def corner(backdrop: Any) -> list[int]:
        look = Look(backdrop=backdrop, exposure=-1.0)
        found = page.renderer.frame(away.camera(16), look, page.history.now, page.first_choice)
        return found.picture[0, 0].tolist()

    assert corner("white") == [255, 255, 255]
    assert corner("black") == [0, 0, 0]
    # Radiance 1, one stop darker.
    assert corner("environment") == pytest.approx([188] * 3, abs=1)


def test_lamp_and_sun_add_light_and_shadows_of_a_second_wall_take_it() -> None:
    near = {key: value.detach().clone() for key, value in wall().params.items()}
    far = wall()
    near["means"] = near["means"] * 0.3 + torch.tensor([1.0, 0.0, 0.0])
    near["scales"] = near["scales"] + math.log(0.3)
    params = {key: torch.cat([near[key], far.params[key].detach()]) for key in near}
    model = GaussianModel(params, "surfel")
    scene = scene_of(model, trace=lambda found: SceneTransport.of(found.gaussians, 64))
    page = Page(scene, 64, 1.0)
    sun = Sun(azimuth=0.0, elevation=0.0, power=1.0)
    # From the side the wall behind is seen past the small one before it.
    side = pose_of(looking_at_origin((1.6, 1.6, 0.0)))

    def red(shadows: bool) -> int:
        choice = LightChoice(None, sun=sun, shadows=shadows)
        frame = page.renderer.frame(
            side.camera(64), Look(channel="diffuse"), page.history.now, choice
        )
        return int(frame.picture[32, frame.picture.shape[1] // 2, 0])

    assert red(shadows=False) > red(shadows=True) + 20


def test_two_clients_see_their_own_cameras_and_settings_reach_both(scene: ViewedScene) -> None:
    page = Page(scene, 64, 1.0)
    first, second = connected(page, 1, 2)
    second.camera.wxyz = np.array([0.5, -0.5, 0.5, -0.5])
    for client in page.clients:
        client.change_look(channel="albedo")
    assert until(
        lambda: all(b.pictures and b.pictures[-1][0].shape[0] == 64 for b in (first, second))
    )
    assert first.pictures[-1][0][32, 48].tolist() == pytest.approx([203, 149, 89], abs=2)
    assert second.pictures[-1][0][32, 48].tolist() == [255, 255, 255]
    page.close()


def test_depth_goes_with_the_picture_and_is_far_where_nothing_is(scene: ViewedScene) -> None:
    frame = Page(scene, 64, 1.0).renderer.frame(
        FACING.camera(64), Look(), Edited(scene.model), LightChoice(), ClientMemory()
    )
    assert frame.depth[32, 48] == pytest.approx(3.0, abs=1e-2)
    assert frame.depth[32, 0] > 100.0


def test_a_fault_of_a_picture_is_said_once_and_the_next_one_comes(scene: ViewedScene) -> None:
    page = Page(scene, 64, 1.0)
    [browser] = connected(page, 1)
    [client] = page.clients
    client.change_look(channel="photo")
    assert until(lambda: len(browser.notices) == 1)
    browser.moved[0](None)
    client.change_look(channel="normal")
    assert until(lambda: len(browser.pictures) >= 2)
    assert len(browser.notices) == 1 and "click one of the cameras" in browser.notices[0]
    page.disconnect(browser)
    client.change_look(channel="depth")
    assert page.clients == ()


def test_a_picture_that_waits_for_shadows_says_so(scene: ViewedScene) -> None:
    page = Page(scene, 64, 1.0)
    [browser] = connected(page, 1)
    [client] = page.clients
    client.change_look(channel="albedo")
    assert until(lambda: bool(browser.pictures))
    assert browser.waits == []
    client.change_look(channel="image")
    assert until(lambda: browser.waits[1:] == ["done"])
    client.change_look(channel="diffuse")
    assert until(lambda: client.pictures_sent >= 4)
    assert len(browser.waits) == 2 and browser.notices == []
    page.close()


def test_a_scene_in_the_making_has_no_shadows_until_they_are_wanted(scene: ViewedScene) -> None:
    assert Page(scene, 64, 1.0).first_choice.shadows
    assert not Page(scene, 64, 1.0, Live()).first_choice.shadows


def test_the_browser_draws_one_channel_that_splats_have() -> None:
    assert Look(channel="albedo", drawn_by="browser").is_drawn_by_browser
    assert not Look(channel="albedo").is_drawn_by_browser
    assert not Look(channel="depth", drawn_by="browser").is_drawn_by_browser
    assert not Look(channel="albedo", second="normal", drawn_by="browser").is_drawn_by_browser


def test_jumping_to_a_camera_compares_with_its_photograph() -> None:
    camera = FACING.camera(64)
    photo = PhotoView("front", camera, lambda: torch.full((64, 96, 3), 7, dtype=torch.uint8))
    page = Page(scene_of(wall(), photos=(photo,)), 64, 1.0)
    [browser] = connected(page, 1)
    client = page.client(1)
    assert client is not None
    browser.camera.position = np.array([0.0, 9.0, 0.0])
    client.jump(photo)
    assert browser.camera.position == pytest.approx([3.0, 0.0, 0.0], abs=1e-6)
    client.change_look(channel="photo")
    assert until(lambda: bool(browser.pictures) and int(browser.pictures[-1][0].max()) == 7)
    client.change_look(channel="error")
    assert until(lambda: int(browser.pictures[-1][0].max()) > 7)
    browser.camera.position = np.array([3.0, 0.5, 0.0])
    browser.moved[0](None)
    assert until(lambda: len(browser.notices) == 1)
    page.close()


def test_undo_restores_what_edits_changed(scene: ViewedScene) -> None:
    page = Page(scene, 64, 1.0)
    before = centre_colour(page, channel="albedo")
    trained = {key: value.clone() for key, value in scene.model.params.items()}
    page.history.recolour(Selection("sphere", size=(1.0, 1.0, 1.0)), Change(albedo=(0.0, 1.0, 0.0)))
    assert centre_colour(page, channel="albedo") == pytest.approx([0, 255, 0], abs=2)
    page.history.hide(Selection("box", size=(0.8, 0.8, 0.8)))
    assert centre_colour(page, channel="albedo").tolist() == [255, 255, 255]
    assert len(page.history.now.log) == 2
    assert page.history.undo() and page.history.undo() and not page.history.undo()
    assert (centre_colour(page, channel="albedo") == before).all()
    assert all(torch.equal(trained[key], value) for key, value in scene.model.params.items())


def test_selection_by_albedo_takes_the_alike_only() -> None:
    history = History(wall())
    half = Selection("box", centre=(0.0, 1.0, 0.0), size=(1.0, 2.0, 9.0))
    changed = history.recolour(half, Change(albedo=(0.1, 0.1, 0.9), roughness=0.1))
    alike = Selection("all", albedo=(0.1, 0.1, 0.9), tolerance=0.05)
    assert int(alike.of(history.now.model).sum()) == changed
    assert history.now.model.num_gaussians > changed > 0
    with pytest.raises(ValueError, match="no Gaussian is selected"):
        history.hide(Selection(centre=(50.0, 0.0, 0.0)))
    with pytest.raises(ValueError, match="hide everything"):
        history.hide(Selection("all"))


def test_uploaded_maps_light_the_scene_and_broken_ones_are_refused(tmp_path: Path) -> None:
    library = LightLibrary(None, {}, torch.eye(4, dtype=torch.float64), CPU)
    good = tmp_path / "sky.hdr"
    write_environment(good, EnvironmentLight(torch.full((8, 16, 3), 0.25)))
    name = library.add("sky.hdr", good.read_bytes())
    assert library.map(name).radiance.mean().item() == pytest.approx(0.25, rel=0.01)
    assert library.add("../sky.hdr", good.read_bytes()) == "sky 2"
    for filename, contents in (
        ("sky.hdr", good.read_bytes()[:40]),
        ("sky.hdr", b"not a picture"),
        ("sky.exr", b"\x76\x2f\x31\x01 rubbish"),
        ("sky.png", good.read_bytes()),
        ("empty.hdr", b""),
    ):
        with pytest.raises(ValueError, match=filename.split(".")[0]):
            library.add(filename, contents)
    assert library.names == (name, "sky 2")


def test_rotation_turns_the_map_from_x_towards_y() -> None:
    radiance = torch.zeros(8, 16, 3)
    radiance[3:5, 7:9] = 1.0
    library = LightLibrary(EnvironmentLight(radiance), {}, torch.eye(4).double(), CPU)
    light = light_of(LightChoice(rotate=90.0, lamp=Lamp()), library)
    assert isinstance(light, LightSum)
    turned = light.lights[0]
    assert isinstance(turned, EnvironmentLight)
    # +Y is a quarter of the width from the left.
    assert turned.radiance[3:5, 3:5].mean().item() == pytest.approx(1.0, abs=1e-3)


def test_cloth_darkens_from_above_and_its_irradiance_is_that_of_any_surface() -> None:
    page = Page(scene_of(wall()), 64, 1.0)
    before = centre_colour(page, channel="diffuse")
    assert page.history.recolour(Selection("all"), Change(sheen=0.6, metallic=0.0)) == 24 * 24
    pixel = page.renderer.pick(FACING.camera(64), page.history.now, 48, 32)
    assert pixel is not None and pixel.sheen == pytest.approx(0.6, abs=1e-3)
    assert centre_colour(page, channel="diffuse")[0] < before[0] - 40
    assert centre_colour(page, channel="irradiance") == pytest.approx([255] * 3, abs=3)
    page.history.undo()
    pixel = page.renderer.pick(FACING.camera(64), page.history.now, 48, 32)
    assert pixel is not None and pixel.sheen is None


def test_a_run_without_materials_shows_its_radiance() -> None:
    trained = wall()
    params = {
        key: value.detach()
        for key, value in trained.params.items()
        if key not in ("albedo", "roughness", "metallic")
    }
    page = Page(scene_of(GaussianModel(params, "surfel"), light=None), 64, 1.0)
    assert page.first_look.channel == "radiance"
    assert channels_of(False, False) == ("radiance", "normal", "depth", "alpha")
    assert centre_colour(page, channel="radiance") == pytest.approx([203, 149, 89], abs=6)
    pixel = page.renderer.pick(FACING.camera(64), page.history.now, 48, 32)
    assert pixel is not None and pixel.albedo is None
