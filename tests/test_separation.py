"""Captures with a background: the object told apart, masked, trained alone, and put back."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from splatir.commands.main import main
from splatir.data.dataset import DataSettings, View
from splatir.data.images import Photo, Rim
from splatir.data.recognise import read_dataset
from splatir.maths.colour import exposed_srgb, mixed_in_linear_light
from splatir.optim.densification import DensificationSettings
from splatir.optim.losses import LossWeights
from splatir.optim.parameters import LearningRates
from splatir.raster.contract import RasterOptions
from splatir.raster.selection import rasterizer
from splatir.render.radiance import render_radiance
from splatir.render.surrounded import surrounded_view, whole_scene
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.initialise import InitialisationSettings
from splatir.scene.region import Plane, Region
from splatir.scene.surface_samples import model_from_samples
from splatir.storage.checkpoint import load_checkpoint
from splatir.storage.ply import read_ply
from splatir.train import separation
from splatir.train.finished import load_run
from splatir.train.material_settings import MaterialSettings
from splatir.train.object_photos import (
    ObjectPhotos,
    mended_background,
    read_masks,
    write_masks,
)
from splatir.train.radiance_view import (
    RadianceComparison,
    behind_object,
    compare_radiance,
    make_target,
)
from splatir.train.separation import object_mask
from splatir.train.session import TrainingStopped, train
from splatir.train.settings import TrainSettings
from splatir.train.state import TrainState
from tests.captures import look_at
from tests.solids import moved, sphere
from tests.test_train import ROOT, assert_same, final_state

BACKEND = rasterizer("auto", torch.device("cpu"))


def ball(radius: float, place: tuple[float, float, float], colour: float) -> GaussianModel:
    """A ball of radiance alone."""
    model = model_from_samples(moved(sphere(radius, 1500), place), "ellipsoid", 0)
    params = {key: value.detach() for key, value in model.params.items()}
    params["sh0"] = torch.full_like(params["sh0"], (colour - 0.5) / 0.28209479)
    kept = {k: v for k, v in params.items() if k not in ("albedo", "roughness", "metallic")}
    return GaussianModel(kept, "ellipsoid")


def camera() -> Camera:
    K = torch.tensor([[60.0, 0.0, 32.0], [0.0, 60.0, 32.0], [0.0, 0.0, 1.0]])
    return Camera(K, look_at(torch.tensor([3.0, 0.0, 0.0]), torch.zeros(3)), 64, 64)


def test_a_mask_shows_the_object_where_nothing_is_before_it() -> None:
    whole = whole_scene(ball(0.8, (0.0, 0.0, 0.0), 0.9), ball(0.2, (1.5, 0.0, 0.0), 0.1))
    is_object = torch.arange(whole.num_gaussians) < 1500
    mask = object_mask(whole, is_object, camera(), BACKEND)
    assert int(mask[32, 32]) == 0
    assert int(mask[32, 45]) == 255
    assert int(mask[2, 2]) == 0
    only_front = object_mask(whole, ~is_object, camera(), BACKEND)
    assert int(only_front[32, 32]) == 255 and int(only_front[32, 45]) == 0


@pytest.mark.parametrize("place", [(1.5, 0.0, 0.0), (-3.0, 0.6, 0.0)])
def test_an_object_put_back_with_its_own_radiance_gives_the_whole_picture(
    place: tuple[float, float, float],
) -> None:
    thing, rest = ball(0.8, (0.0, 0.0, 0.0), 0.9), ball(0.3, place, 0.2)
    whole, behind = whole_scene(thing, rest), torch.tensor([0.3, 0.4, 0.5])
    alone = render_radiance(thing, camera(), BACKEND)
    straight = alone.rgb_srgb / alone.raster.alpha.clamp_min(1e-4)
    view = surrounded_view(whole, thing.num_gaussians, camera(), BACKEND, behind)
    expected = render_radiance(whole, camera(), BACKEND, behind).rgb_srgb
    torch.testing.assert_close(view.around(straight), expected, atol=2e-3, rtol=0.0)


def test_masks_come_back_as_they_were_written_and_a_missing_one_is_named(tmp_path: Path) -> None:
    views = [View(f"folder/{i}", camera(), Path("x.png")) for i in range(2)]
    masks = [torch.randint(0, 256, (64, 64), dtype=torch.uint8) for _ in views]
    write_masks(tmp_path, views, masks)
    for got, want in zip(read_masks(tmp_path, views), masks, strict=True):
        assert torch.equal(got, want)
    (tmp_path / "folder" / "1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"folder/1\.png"):
        read_masks(tmp_path, views)
    Image.new("L", (3, 3)).save(tmp_path / "folder" / "1.png")
    with pytest.raises(ValueError, match="64x64"):
        read_masks(tmp_path, views)


class OnePhoto:
    """A capture of one grey photo."""

    def __init__(self, value: float) -> None:
        self.photo = Photo(torch.full((2, 2, 3), value), None, "srgb", 8)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, view_index: int) -> Photo:
        return self.photo

    def prefetch(self, view_index: int) -> None:
        pass


def test_photos_of_the_object_are_equally_exposed_and_say_where_white_ends() -> None:
    log_gains = torch.tensor([[0.3, 0.1, -0.2]])
    bright = OnePhoto(0.4)
    bright.photo = replace(bright.photo, rgb=exposed_srgb(bright.photo.rgb, log_gains[0]))
    mask = torch.tensor([[255, 0], [51, 255]], dtype=torch.uint8)
    behind = torch.zeros(2, 2, 3, dtype=torch.uint8)
    photos = ObjectPhotos(bright, [mask], [behind], log_gains)
    torch.testing.assert_close(photos[0].rgb, torch.full((2, 2, 3), 0.4))
    assert photos.white(0) < 1.0
    assert ObjectPhotos(bright, [mask], [behind], None).white(0) == 1.0


def test_only_the_outline_of_a_mask_is_uncertain() -> None:
    mask = torch.zeros(40, 40, dtype=torch.uint8)
    mask[10:30, 10:30] = 255
    behind = torch.full((40, 40, 3), 51, dtype=torch.uint8)
    photo = OnePhoto(0.5)
    rgb = torch.full((40, 40, 3), 0.2)
    rgb[10:30, 10:30] = 0.5
    photo.photo = replace(photo.photo, rgb=rgb)
    found = ObjectPhotos(photo, [mask], [behind], None)[0]
    assert found.alpha is not None and found.rim is not None
    is_rim = found.rim.is_rim[..., 0]
    assert not bool(is_rim[14:26, 14:26].any()) and not bool(is_rim[:6].any())
    assert bool(is_rim[10, 10:30].all()) and bool(is_rim[9, 10:30].all())
    red = torch.tensor([1.0, 0.0, 0.0])
    shown = behind_object(found, red)
    torch.testing.assert_close(shown[10, 15], torch.full((3,), 0.2))
    torch.testing.assert_close(shown[0, 0], red)
    target = make_target(found, shown)
    torch.testing.assert_close(target.rgb_srgb[10, 15], torch.full((3,), 0.5))
    torch.testing.assert_close(target.rgb_srgb[0, 0], red)


def test_a_splat_is_mixed_with_what_is_behind_its_outline_as_a_camera_does() -> None:
    model, view = ball(0.5, (0.0, 0.0, 0.0), 0.9), camera()
    behind = torch.full((64, 64, 3), 0.1)
    is_rim = torch.zeros(64, 64, 1, dtype=torch.bool)
    is_rim[:32] = True
    photo = Photo(behind, torch.zeros(64, 64, 1), "srgb", 8, rim=Rim(is_rim, behind))
    state = TrainState.start(model, False, LearningRates(), 1.0)
    comparison = RadianceComparison(BACKEND, LossWeights(normal=0.0), 1.0, "white", 0)
    image = compare_radiance(state, comparison, view, photo).image
    alpha, plain = image.raster.alpha, render_radiance(model, view, BACKEND)
    own = plain.rgb_srgb / alpha.clamp_min(1e-3)
    light = mixed_in_linear_light(own, alpha, behind)
    value = plain.rgb_srgb + (1.0 - alpha) * torch.where(is_rim, behind, torch.ones(3))
    torch.testing.assert_close(image.rgb_srgb, torch.where(is_rim, light, value))
    is_edge = (is_rim & (alpha > 0.3) & (alpha < 0.7)).expand_as(light)
    assert bool(is_edge.any()) and bool((light > value + 0.05)[is_edge].all())


def test_what_is_behind_an_outline_is_as_right_as_just_outside_of_it() -> None:
    """A blurred splat of a striped wall, wrong in brightness, behind a square."""
    columns = torch.arange(60.0)
    wall = (0.4 + 0.2 * torch.sin(columns / 6.0))[None, :, None].expand(60, 60, 3).contiguous()
    mask = torch.zeros(60, 60, 1)
    mask[20:40, 20:40] = 1.0
    photo = torch.where(mask > 0.5, torch.tensor([0.9, 0.1, 0.1]), wall)
    splat = torch.full((60, 60, 3), 0.5)
    mended = mended_background(splat, photo, mask)
    edge = torch.zeros(60, 60, dtype=torch.bool)
    edge[18:42, 18:42] = True
    edge[22:38, 22:38] = False
    before, after = (float((x - wall)[edge].square().mean().sqrt()) for x in (splat, mended))
    assert before > 0.12 and after < 0.4 * before
    # Where nothing bare is near, and where nothing is wrong, the splat says it all.
    torch.testing.assert_close(mended[30, 30], splat[30, 30], atol=1e-3, rtol=0.0)
    torch.testing.assert_close(mended_background(wall, photo, mask), wall, atol=1e-6, rtol=0.0)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's object before a wall whose colour changes from photo to photo's side."""
    root = tmp_path_factory.mktemp("capture")
    shutil.copytree(ROOT / "assets" / "demo" / "sparse", root / "sparse")
    (root / "images").mkdir()
    slope = np.linspace(0.2, 0.7, 200)[:, None, None]
    wall = np.concatenate([slope, slope, 1.0 - slope], axis=-1) * np.ones((1, 200, 1))
    for path in (ROOT / "assets" / "demo" / "images").glob("*.png"):
        rgba = np.asarray(Image.open(path), np.float64) / 255.0
        rgb = rgba[..., :3] * rgba[..., 3:] + wall * (1.0 - rgba[..., 3:])
        Image.fromarray((255.0 * rgb + 0.5).astype(np.uint8)).save(root / "images" / path.name)
    return root


def settings_for(capture: Path, output: Path) -> TrainSettings:
    return TrainSettings(
        data=capture,
        output=output,
        dataset=DataSettings(downscale=4.0),
        surroundings_steps=60,
        steps=20,
        eval_every=0,
        checkpoint_every=0,
        materials=MaterialSettings(steps=3, directions=32, metal_checks=()),
        init=InitialisationSettings(num_points=600, num_surroundings=300, sh_degree=1),
        densify=DensificationSettings(start=0.2, stop=0.9, every=10),
    )


@pytest.fixture(scope="module")
def trained(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(settings_for(capture, run))
    return run


def test_a_capture_with_a_background_ends_with_materials_of_its_object(trained: Path) -> None:
    finished = load_run(trained, torch.device("cpu"))
    assert finished.model.has_materials and finished.surroundings is not None
    assert not finished.surroundings.has_materials
    # The object is about 0.5 wide, the cameras stand at a distance of 1.
    assert float(finished.model.means.detach().norm(dim=-1).quantile(0.9)) < 0.5
    masks = [np.asarray(Image.open(path)) for path in (trained / "masks").glob("*.png")]
    assert len(masks) == 35
    assert all(0.02 < (mask > 127).mean() < 0.6 for mask in masks)


def test_a_capture_resumed_within_its_objects_stage_equals_an_unbroken_one(
    trained: Path, capture: Path, tmp_path: Path
) -> None:
    run = tmp_path / "broken"
    train(replace(settings_for(capture, run), checkpoint_every=70))
    # The last two are kept: of step 80, where the object's radiance ends, and of the end.
    max((run / "checkpoints").glob("*.pt")).unlink()
    assert final_state(run)["step"] == 80
    train(TrainSettings(resume=run))
    assert_same(final_state(run), final_state(trained))
    early = replace(settings_for(capture, tmp_path / "early"), checkpoint_every=70)
    train(replace(early, stages=("surroundings", "radiance")))
    (tmp_path / "early" / "checkpoints" / "step_00000080.pt").unlink()
    assert final_state(tmp_path / "early")["step"] == 70
    train(TrainSettings(resume=tmp_path / "early"))
    whole = load_checkpoint(run / "checkpoints" / "step_00000080.pt")["state"]
    assert_same(final_state(tmp_path / "early")["params"], whole["params"])


def test_missing_masks_stop_a_resumed_training_with_their_name(
    trained: Path, capture: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "checkpoints" / "step_00000083.pt").unlink()
    next((run / "masks").glob("*.png")).unlink()
    with pytest.raises(TrainingStopped, match="no mask"):
        train(TrainSettings(resume=run))


def test_masks_are_written_for_all_photos_and_never_over_others(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["masks", str(trained), "--output", str(tmp_path / "m")]) == 0
    assert len(list((tmp_path / "m").glob("*.png"))) == 40
    capsys.readouterr()
    assert main(["masks", str(trained), "--output", str(tmp_path / "m")]) == 1
    assert "--overwrite" in capsys.readouterr().err


def test_surroundings_go_behind_a_relit_object_and_into_a_plain_ply(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    envmap = str(ROOT / "assets" / "demo" / "venice_sunset.hdr")
    shown = ["relight", str(trained), "--envmap", envmap, "--output", str(tmp_path / "relit")]
    assert main([*shown, "--background", "surroundings"]) == 0
    with Image.open(next((tmp_path / "relit").glob("*.png"))) as picture:
        assert picture.mode == "RGB"
    ply = tmp_path / "all.ply"
    plain = ["export", str(trained), "--surroundings", "--format", "plain", "--output", str(ply)]
    assert main(plain) == 0
    finished = load_run(trained, torch.device("cpu"))
    assert finished.surroundings is not None
    expected = finished.model.num_gaussians + finished.surroundings.num_gaussians
    assert read_ply(ply).num_gaussians == expected
    capsys.readouterr()
    assert main(["export", str(trained), "--surroundings"]) == 1
    assert "--format plain" in capsys.readouterr().err


@pytest.mark.parametrize("roi", ["50,50,50,0.1", "0,0,0,1000"])
def test_a_region_that_holds_nothing_or_all_is_refused_with_what_to_do(
    capture: Path, tmp_path: Path, roi: str
) -> None:
    settings = replace(settings_for(capture, tmp_path / "run"), roi=roi, steps=2)
    with pytest.raises(TrainingStopped, match="--roi"):
        train(replace(settings, surroundings_steps=2))


@pytest.mark.parametrize("support", [None, Plane(torch.tensor([0.0, 0.0, 1.0]), -0.5)])
def test_on_a_table_rough_masks_go_beyond_the_sphere_about_sparse_points(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, support: Plane | None
) -> None:
    region = replace(Region.sphere(torch.zeros(3), 0.5), support=support)
    seen = []

    def stop(cameras: list, photos: list, rough: list, *others: object) -> None:
        seen.extend(rough)
        raise TrainingStopped

    monkeypatch.setattr(separation, "region_of", lambda *_: region)
    monkeypatch.setattr(separation, "outlined_masks", stop)
    near, tip, far = ((0.2, 0.0), (0.04, 0.58), (0.2, -1.2))
    first, second, third = (ball(radius, (0.0, y, 0.0), 0.9) for radius, y in (near, tip, far))
    model = whole_scene(whole_scene(first, second), third)
    settings = settings_for(capture, tmp_path)
    with pytest.raises(TrainingStopped):
        separation.separate(
            model,
            read_dataset(capture),
            [camera()],
            OnePhoto(0.5),
            settings,
            BACKEND,
            RasterOptions(),
        )
    (rough,) = seen
    # 60 pixels of focal length, 3 away: the tip is 11.6 pixels right of the middle.
    assert float(rough[32, 32]) == 1.0
    assert float(rough[32, 43]) == (0.0 if support is None else 1.0)
    assert float(rough[32, 8]) == 0.0
