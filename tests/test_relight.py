"""`splatir relight`: light, frame, exposure, background and materials act as they say."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from splatir.codecs.exr import read_exr, write_exr
from splatir.codecs.hdr import write_hdr
from splatir.commands.main import main
from splatir.maths.frames import similarity
from splatir.scene.environment_map import rotate_environment, rotation_about_z
from splatir.scene.lights import EnvironmentLight
from splatir.train.finished import FinishedRun
from tests.captures import small_scene
from tests.faults import the_error
from tests.lit_runs import ALBEDO, InstallRun, install_run, sloping_light, sphere_run, turned_scene

__all__ = ["install_run"]

Relight = Callable[..., dict[str, np.ndarray]]


@pytest.fixture
def finished(tmp_path: Path) -> FinishedRun:
    return sphere_run(tmp_path)


@pytest.fixture
def relight(finished: FinishedRun, install_run: InstallRun, tmp_path: Path) -> Relight:
    """Relights the run; gives the arrays of the first test view."""
    run = install_run(finished)
    count = 0

    def render(*words: str, view: str = "r_0", split: str = "test") -> dict[str, np.ndarray]:
        nonlocal count
        count += 1
        out = tmp_path / f"out_{count}"
        common = ["--split", split, "--format", "npz", "--output", str(out)]
        assert main(["relight", run, *common, *words]) == 0
        with np.load(out / f"{view}.npz") as found:
            return dict(found)

    return render


def write_map(path: Path, light: EnvironmentLight) -> str:
    write_exr(path, light.radiance.numpy())
    return str(path)


def test_npz_holds_picture_and_coverage_alone(relight: Relight, tmp_path: Path) -> None:
    found = relight("--envmap", write_map(tmp_path / "a.exr", sloping_light()))
    assert found.keys() == {"rgb", "alpha"}
    assert found["rgb"].shape == (36, 48, 3) and found["alpha"].shape == (36, 48)
    assert found["rgb"].dtype == found["alpha"].dtype == np.float32


def test_a_white_sky_shows_a_rough_dielectric_in_its_albedo(
    relight: Relight, tmp_path: Path
) -> None:
    white = EnvironmentLight(torch.full((16, 32, 3), 2.0))
    found = relight("--envmap", write_map(tmp_path / "a.exr", white), "--set", "roughness=1")
    # A dielectric adds a few percent of uncoloured reflection, more at its rim, as its paint does.
    middle = found["rgb"][13:23, 19:29]
    assert found["alpha"][13:23, 19:29].min() > 0.99
    excess = middle / 2.0 - np.array(ALBEDO)
    assert (excess > 0.0).all() and (excess < 0.1).all()


def test_twice_the_light_and_one_stop_are_twice_as_bright(relight: Relight, tmp_path: Path) -> None:
    light = sloping_light()
    once = relight("--envmap", write_map(tmp_path / "a.exr", light))
    twice = EnvironmentLight(2.0 * light.radiance)
    double = relight("--envmap", write_map(tmp_path / "b.exr", twice))
    stop = relight("--envmap", str(tmp_path / "a.exr"), "--exposure", "1")
    assert np.allclose(double["rgb"], 2.0 * once["rgb"], rtol=1e-4)
    assert np.allclose(stop["rgb"], 2.0 * once["rgb"], rtol=1e-5)
    assert np.array_equal(stop["alpha"], once["alpha"])


def test_rotate_turns_the_map_from_x_towards_y(relight: Relight, tmp_path: Path) -> None:
    light = sloping_light()
    turned = rotate_environment(light, rotation_about_z(-45.0))
    expected = relight("--envmap", write_map(tmp_path / "b.exr", turned))
    found = relight("--envmap", write_map(tmp_path / "a.exr", light), "--rotate", "-45")
    assert np.allclose(found["rgb"], expected["rgb"], atol=1e-4)
    still = relight("--envmap", str(tmp_path / "a.exr"))
    assert np.abs(still["rgb"] - found["rgb"]).max() > 0.1


def test_the_recovered_light_gives_the_picture_of_render(
    relight: Relight, finished: FinishedRun, tmp_path: Path
) -> None:
    own = relight()
    root = str(finished.folder.root)
    assert main(["render", root, "--format", "npz", "--output", str(tmp_path / "r")]) == 0
    with np.load(tmp_path / "r" / "r_0.npz") as rendered:
        assert np.allclose(own["rgb"], rendered["rgb"], atol=1e-6)


def test_the_map_stands_in_the_frame_of_the_capture(
    tmp_path: Path, install_run: InstallRun
) -> None:
    """The same capture and light, once with files that lie on their side."""
    c, s = math.cos(1.0), math.sin(1.0)
    R = torch.tensor([[1.0, 0, 0], [0, c, -s], [0, s, c]], dtype=torch.float64)
    light = EnvironmentLight(sloping_light(64).radiance)
    pictures = []
    for name, R_input in (("upright", torch.eye(3).double()), ("lying", R)):
        scene = turned_scene(similarity(1.0, R_input, torch.zeros(3).double()))
        run = install_run(sphere_run(tmp_path / name, scene=scene))
        envmap = write_map(tmp_path / f"{name}.exr", rotate_environment(light, R_input))
        words = ["--envmap", envmap, "--format", "npz", "--output", str(tmp_path / name / "out")]
        assert main(["relight", run, *words]) == 0
        with np.load(tmp_path / name / "out" / "frame_000.npz") as found:
            # The splats lie elsewhere on the sphere, so its rim differs.
            pictures.append(found["rgb"][10:26, 16:32])
    error = np.abs(pictures[0] - pictures[1])
    assert error.mean() < 0.01 < 0.1 < pictures[0].std()


def test_upright_puts_the_maps_top_up_and_a_lying_capture_is_told(
    tmp_path: Path, install_run: InstallRun, capsys: pytest.CaptureFixture[str]
) -> None:
    R = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64)
    scene = turned_scene(similarity(1.0, R, torch.zeros(3).double()))
    run = install_run(sphere_run(tmp_path, scene=scene))
    radiance = torch.full((16, 32, 3), 0.01)
    radiance[:6] = 3.0
    words = ["--envmap", write_map(tmp_path / "sky.exr", EnvironmentLight(radiance))]
    words = ["relight", run, *words, "--no-transport", "--format", "npz", "--output"]
    assert main([*words, str(tmp_path / "input")]) == 0
    assert "--upright puts the map's top up" in capsys.readouterr().out
    assert main([*words, str(tmp_path / "upright"), "--upright"]) == 0
    assert "--upright" not in capsys.readouterr().out
    with np.load(tmp_path / "upright" / "frame_000.npz") as found:
        rgb = found["rgb"].mean(-1)
    # The cameras stand upright: the sphere's top is bright. Lambert's lobe has 3.02 here, Disney's,
    # which sends more from its rim, 2.95.
    assert rgb[11, 24] > 2.5 * rgb[25, 24] > 0.0


def test_a_sun_lights_its_side(relight: Relight) -> None:
    # The first training camera looks from +X: +Y is on its right.
    found = relight("--light", "sun:90,0,3,3,3", split="train")["rgb"].mean(-1)
    assert found[18, 30] > 0.1
    assert found[18, 18] == pytest.approx(0.0, abs=1e-3)


def test_lights_add_up(relight: Relight, tmp_path: Path) -> None:
    envmap = write_map(tmp_path / "a.exr", sloping_light())
    words = ["sun:0,45,1,1,1", "point:2,2,2,3,2,1"]
    parts = [relight("--envmap", envmap), *(relight("--light", word) for word in words)]
    together = relight("--envmap", envmap, "--light", *words)
    total = sum(part["rgb"] for part in parts)
    assert np.allclose(together["rgb"], total, atol=1e-4)


def test_the_reference_agrees_with_the_fast_shading(relight: Relight, tmp_path: Path) -> None:
    envmap = write_map(tmp_path / "a.exr", sloping_light())
    fast = relight("--envmap", envmap)
    slow = relight("--envmap", envmap, "--quality", "reference", "--samples", "64")
    inside = fast["alpha"] > 0.99
    error = np.abs(fast["rgb"] - slow["rgb"])[inside].mean()
    assert 0.0 < error < 0.03 * slow["rgb"][inside].mean()


def test_edits_reach_the_picture_and_not_the_run(relight: Relight, finished: FinishedRun) -> None:
    before = {key: value.clone() for key, value in finished.model.params.items()}
    plain = relight()
    metal = relight("--set", "metallic=1", "roughness=0.1", "--tint", "1,0.5,0.5")
    half = relight("--set", "metallic=1", "--box", "-1,-1,-1,0,1,1")
    assert np.abs(plain["rgb"] - metal["rgb"]).max() > 0.1

    assert np.abs(plain["rgb"] - half["rgb"]).max() > 0.0
    for key, value in finished.model.params.items():
        assert torch.equal(value, before[key])


def test_backgrounds(finished: FinishedRun, install_run: InstallRun, tmp_path: Path) -> None:
    run = install_run(finished)
    light = EnvironmentLight(torch.full((8, 16, 3), 0.5))
    words = ["relight", run, "--envmap", write_map(tmp_path / "a.exr", light), "--output"]
    modes = {"transparent": "RGBA", "white": "RGB", "environment": "RGB"}
    corners = {"transparent": (0, 0, 0, 0), "white": (255, 255, 255), "environment": (188,) * 3}
    for background, mode in modes.items():
        out = tmp_path / background
        assert main([*words, str(out), "--background", background]) == 0
        with Image.open(out / "r_0.png") as image:
            assert image.mode == mode
            assert image.getpixel((0, 0)) == corners[background]
    out = tmp_path / "exr"
    more = ["--background", "environment", "--format", "exr", "--exposure", "2"]
    assert main([*words, str(out), *more]) == 0
    picture = read_exr(out / "r_0.exr")
    assert picture.alpha is not None and (picture.alpha == 1.0).all()
    assert np.allclose(picture.rgb[0, 0], 2.0)


def test_a_map_behind_the_scene_is_seen_where_the_camera_looks(
    finished: FinishedRun, install_run: InstallRun, tmp_path: Path
) -> None:
    run = install_run(finished)
    radiance = torch.zeros(64, 128, 3)
    # The first training camera stands at +X and looks at -X, downwards.
    radiance[:, :32, 0] = radiance[:, -32:, 0] = 1.0
    radiance[:, 32:-32, 1] = 1.0
    envmap = write_map(tmp_path / "a.exr", EnvironmentLight(radiance))
    words = ["--envmap", envmap, "--background", "environment", "--split", "train"]
    assert main(["relight", run, *words, "--output", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out" / "r_0.png") as image:
        assert image.getpixel((0, 0)) == (255, 0, 0)
        assert image.getpixel((47, 0)) == (255, 0, 0)
    assert float(small_scene().cameras[0].forward_world[0]) < -0.8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--envmap", "missing.hdr"], "no environment map missing.hdr"),
        (["--envmap", "photo.png"], "use .hdr or .exr"),
        (["--envmap", "nan.exr"], "NaN radiance in 1 texels, the first at row 2, column 3"),
        (["--envmap", "torn.hdr"], "Expected a complete Radiance .hdr"),
        (["--set", "gloss=1"], "Known: albedo, roughness, metallic"),
        (["--box", "-9,-9,-9,-8,-8,-8", "--set", "metallic=1"], "holds no Gaussian"),
        (["--light", "lamp:1"], "--light takes point:x,y,z"),
        (["--light", "sun:0,0,1,1,1", "--background", "environment"], "add --envmap"),
        (["--path", "turntable", "--background", "transparent"], "no transparency"),
        (["--path", "broken.json"], "not valid JSON"),
        (["--output", "full"], "is not empty"),
    ],
)
def test_what_cannot_be_relit_is_refused_in_one_line(
    words: list[str],
    message: str,
    finished: FinishedRun,
    install_run: InstallRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = install_run(finished)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 4)).save("photo.png")
    radiance = np.ones((4, 8, 3), np.float32)
    write_hdr(Path("torn.hdr"), radiance)
    Path("torn.hdr").write_bytes(Path("torn.hdr").read_bytes()[:-20])
    radiance[2, 3, 1] = np.nan
    write_exr(Path("nan.exr"), radiance)
    Path("broken.json").write_text("{")
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert main(["relight", run, *words]) == 1
    printed = capsys.readouterr()
    assert message in the_error(printed.err, printed.out)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_without_materials_cannot_be_relit(
    install_run: InstallRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = install_run(sphere_run(tmp_path, with_materials=False))
    assert main(["relight", run, "--envmap", "any.hdr"]) == 1
    printed = capsys.readouterr()
    assert "has no materials" in the_error(printed.err, printed.out)
