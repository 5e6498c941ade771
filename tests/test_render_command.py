"""`splatir render`: what lies on the disk is what the design's stable output says."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from splatir.codecs.exr import read_exr
from splatir.commands.main import main
from splatir.evaluate.frames import frame_names
from splatir.maths.colour import linear_from_srgb
from splatir.maths.frames import similarity
from tests.captures import small_scene
from tests.faults import the_error
from tests.lit_runs import (
    ALBEDO,
    METALLIC,
    RADIUS,
    ROUGHNESS,
    InstallRun,
    install_run,
    sphere_run,
    turned_scene,
)

__all__ = ["install_run"]

SHAPES = {
    "rgb": 3, "albedo": 3, "normal": 3, "alpha": 0, "roughness": 0, "metallic": 0, "depth": 0,
}  # fmt: skip


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as found:
        return dict(found)


def test_npz_holds_every_buffer_by_name_shape_and_type(
    tmp_path: Path, install_run: InstallRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = install_run(sphere_run(tmp_path))
    out = tmp_path / "out"
    assert main(["render", run, "--split", "test", "--format", "npz", "--output", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["r_0.npz"]
    found = arrays(out / "r_0.npz")
    assert found.keys() == SHAPES.keys()
    for name, channels in SHAPES.items():
        assert found[name].dtype == np.float32
        assert found[name].shape == (36, 48, 3)[: 3 if channels else 2]
        assert np.isfinite(found[name]).all()
    inside = found["alpha"] > 0.99
    assert 100 < inside.sum() < 36 * 48
    assert np.allclose(found["albedo"][inside], ALBEDO, atol=1e-4)
    assert np.allclose(found["roughness"][inside], ROUGHNESS, atol=1e-4)
    assert np.allclose(found["metallic"][inside], METALLIC, atol=1e-4)
    assert (found["rgb"][found["alpha"] == 0] == 0).all()
    printed = capsys.readouterr().out
    assert str(out) in printed and "splatir relight" in printed


def test_lengths_and_normals_are_in_the_frame_of_the_capture(
    tmp_path: Path, install_run: InstallRun
) -> None:
    """A capture whose files lie on their side, at ten times the size."""
    c, s = math.cos(2.0), math.sin(2.0)
    R = torch.tensor([[1.0, 0, 0], [0, c, -s], [0, s, c]], dtype=torch.float64)
    scene = turned_scene(similarity(1.0, R, torch.zeros(3).double()))
    finished = sphere_run(tmp_path, scene=scene)
    # The loader turns it upright and normalises the size.
    assert not torch.allclose(finished.S_world_input, torch.eye(4).double(), atol=0.1)
    run = install_run(finished)
    out = tmp_path / "out"
    assert main(["render", run, "--split", "all", "--format", "npz", "--output", str(out)]) == 0
    camera = scene.cameras[3]
    found = arrays(out / "frame_003.npz")
    row, column = 18, 24
    depth = float(camera.position_world.norm()) - RADIUS
    assert found["depth"][row, column] == pytest.approx(depth, rel=0.03)
    normal = torch.from_numpy(found["normal"][row, column]).double()
    assert float(normal @ -camera.forward_world) > 0.98
    assert float(normal.norm()) == pytest.approx(1.0, abs=1e-5)


def test_a_run_without_materials_gives_radiance_and_says_what_is_missing(
    tmp_path: Path, install_run: InstallRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = install_run(sphere_run(tmp_path, with_materials=False))
    out = tmp_path / "out"
    assert main(["render", run, "--format", "npz", "--output", str(out)]) == 0
    assert "no albedo, roughness, metallic" in capsys.readouterr().out
    found = arrays(out / "r_0.npz")
    assert found.keys() == {"rgb", "alpha", "depth", "normal"}
    inside = found["alpha"] > 0.99
    shown = linear_from_srgb(torch.tensor(0.5 + 0.28209479 * 0.5))
    assert np.allclose(found["rgb"][inside], shown.item(), atol=1e-4)


def test_radiance_replaces_the_picture_alone(tmp_path: Path, install_run: InstallRun) -> None:
    run = install_run(sphere_run(tmp_path))
    words = ["render", run, "--format", "npz", "--output"]
    assert main([*words, str(tmp_path / "shaded")]) == 0
    assert main([*words, str(tmp_path / "radiance"), "--radiance"]) == 0
    shaded, radiance = (arrays(tmp_path / d / "r_0.npz") for d in ("shaded", "radiance"))
    assert np.abs(shaded["rgb"] - radiance["rgb"]).max() > 0.1
    for name in SHAPES.keys() - {"rgb"}:
        # Composited among other numbers of channels, which rounds otherwise.
        np.testing.assert_allclose(shaded[name], radiance[name], atol=1e-5, err_msg=name)


def test_pictures_for_people(tmp_path: Path, install_run: InstallRun) -> None:
    run = install_run(sphere_run(tmp_path))
    assert main(["render", run, "--output", str(tmp_path / "png")]) == 0
    names = {path.name for path in (tmp_path / "png").glob("r_0*")}
    parts = ("albedo", "roughness", "metallic", "normal", "depth")
    assert names == {"r_0.png", *(f"r_0_{part}.png" for part in parts)}
    with Image.open(tmp_path / "png" / "r_0.png") as image:
        assert image.mode == "RGBA"
    assert main(["render", run, "--format", "exr", "--output", str(tmp_path / "exr")]) == 0
    assert main(["render", run, "--format", "npz", "--output", str(tmp_path / "npz")]) == 0
    picture, numbers = read_exr(tmp_path / "exr" / "r_0.exr"), arrays(tmp_path / "npz" / "r_0.npz")
    assert picture.alpha is not None
    premultiplied = numbers["rgb"] * numbers["alpha"][..., None]
    assert np.allclose(picture.rgb, premultiplied, atol=1e-6)
    assert np.allclose(picture.alpha[..., 0], numbers["alpha"])


def test_files_of_the_default_place_are_not_replaced_unasked(
    tmp_path: Path, install_run: InstallRun, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = sphere_run(tmp_path)
    run = install_run(finished)
    words = ["render", run, "--format", "npz"]
    assert main(words) == 0
    assert (finished.folder.root / "render" / "test" / "r_0.npz").is_file()
    capsys.readouterr()
    assert main(words) == 1
    printed = capsys.readouterr()
    assert "is not empty" in the_error(printed.err, printed.out)
    assert main([*words, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--split", "test", "--path", "turntable"], "--split or --path, not both"),
        (["--split", "test", "--format", "mp4"], "--path turntable"),
        (["--path", "nowhere.json"], "no camera path nowhere.json"),
        (["--output", "FILE"], "is a file; give a folder"),
        (["--path", "turntable", "--size", "1"], "--size must be 2 to"),
    ],
)
def test_what_cannot_be_rendered_is_refused_in_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    install_run: InstallRun,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = install_run(sphere_run(tmp_path))
    (tmp_path / "file").write_text("")
    words = [str(tmp_path / "file") if word == "FILE" else word for word in words]
    assert main(["render", run, *words]) == 1
    printed = capsys.readouterr()
    assert message in the_error(printed.err, printed.out)


def test_frame_counts_out_of_range_are_faults_of_the_arguments(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words in (["--frames", "0"], ["--fps", "0"]):
        assert main(["render", "run", *words]) == 2
        printed = capsys.readouterr()
        assert words[0][2:] in the_error(printed.err, printed.out)


def test_views_of_one_name_in_several_folders_keep_their_folders() -> None:
    assert frame_names(["train/r_0", "test/r_1"]) == ("r_0", "r_1")
    assert frame_names(["train/r_0", "test/r_0"]) == ("train/r_0", "test/r_0")
    assert frame_names(["/a/r_0", "/b/r_0"]) == ("a/r_0", "b/r_0")


def test_small_scene_sees_the_sphere_whole() -> None:
    """The premise of these tests."""
    camera = small_scene().cameras[0]
    assert float(camera.K[0, 0]) * RADIUS / 4.0 < 0.5 * camera.height


def test_a_folder_that_is_no_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["render"], ["relight", "--envmap", "any.hdr"]):
        assert main([words[0], str(tmp_path), *words[1:]]) == 1
        printed = capsys.readouterr()
        assert "is no run folder" in the_error(printed.err, printed.out)
        assert main(words) == 1
        printed = capsys.readouterr()
        assert "give a run folder" in the_error(printed.err, printed.out)
