"""Exports of runs: the same scene in the capture's frame, and everything refused that cannot be."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from splatir.commands.envmap import world_environment
from splatir.commands.main import main
from splatir.maths.colour import srgb_from_linear
from splatir.maths.frames import invert_similarity, similarity
from splatir.maths.rotations import rotation_from_quat
from splatir.raster.selection import rasterizer
from splatir.render.deferred import render_scene
from splatir.render.radiance import render_radiance
from splatir.scene.camera import Camera
from splatir.scene.lights import EnvironmentLight, environment_directions
from splatir.scene.normals import normal_axes
from splatir.shade.split_sum import SplitSum
from splatir.storage.environment import write_environment
from splatir.storage.ply import read_ply, read_transfer
from splatir.storage.relightable import read_relightable
from splatir.train.finished import FinishedRun
from tests.faults import the_error
from tests.lit_runs import InstallRun, install_run, sphere_run, turned_scene
from tests.test_ply import table_of

__all__ = ["install_run"]

BACKEND = rasterizer("auto", torch.device("cpu"))
R_TURN = rotation_from_quat(torch.tensor([0.6, 0.7, -0.2, 0.1]).double())
TURN = similarity(2.0, R_TURN, torch.tensor([1.0, 2.0, 3.0]).double())


@pytest.fixture(params=["synthetic", "turned"])
def lit_run(request: pytest.FixtureRequest, tmp_path: Path) -> FinishedRun:
    """A run of a capture whose frame is the world, and of one whose frame is not."""
    return sphere_run(tmp_path, scene=turned_scene(TURN) if request.param == "turned" else None)


def camera_of(finished: FinishedRun, size: int = 48) -> Camera:
    """A view of the sphere, world frame."""
    centre, distance = finished.model.means.detach().mean(0), 4.0
    radius = (finished.model.means.detach() - centre).norm(dim=-1).mean()
    T = torch.eye(4)
    T[:3, :3] = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]])
    T[:3, 3] = -T[:3, :3] @ centre
    T[2, 3] += distance * radius
    K = torch.tensor([[1.6 * size, 0, size / 2], [0, 1.6 * size, size / 2], [0, 0, 1.0]])
    return Camera(K, T, size, size)


@torch.no_grad()
def picture(finished: FinishedRun, light: EnvironmentLight) -> Tensor:
    """Display colours over black of a run under a light, both in the world."""
    shown = render_scene(finished.model, camera_of(finished), SplitSum(light), BACKEND)
    return srgb_from_linear(shown.rgb.clamp(0, 1)) * shown.alpha


def test_an_export_renders_as_the_run_does(
    lit_run: FinishedRun, install_run: InstallRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """Export, import, render: the same picture to 1/255."""
    assert main(["export", install_run(lit_run)]) == 0
    folder = lit_run.folder.export
    names = {"splats.ply", "splats.json", "splats.exr", "splats.hdr"}
    assert {path.name for path in folder.iterdir()} == names
    printed = capsys.readouterr().out
    for name in names:
        assert f"{folder / name}  (" in printed
    assert "lost: 8 bits" in printed and "splatir relight" in printed
    model, light, metadata = read_relightable(folder / "splats.ply")
    S_input_world = invert_similarity(lit_run.S_world_input)
    assert light is not None and lit_run.light is not None
    assert metadata.S_input_world is not None
    torch.testing.assert_close(metadata.S_input_world, S_input_world)
    camera = camera_of(lit_run).in_world(S_input_world)
    with torch.no_grad():
        shown = render_scene(model, camera, SplitSum(light), BACKEND)
    before, after = picture(lit_run, lit_run.light), srgb_from_linear(shown.rgb) * shown.alpha
    assert before.max() > 0.3
    torch.testing.assert_close(after, before, atol=1 / 255, rtol=0)


def test_normals_point_outwards_in_the_capture_frame(
    lit_run: FinishedRun, install_run: InstallRun
) -> None:
    assert main(["export", install_run(lit_run)]) == 0
    table = table_of(lit_run.folder.export / "splats.ply")
    centres = np.stack([table["x"], table["y"], table["z"]], -1)
    normals = np.stack([table["nx"], table["ny"], table["nz"]], -1)
    outwards = centres - centres.mean(0)
    outwards /= np.linalg.norm(outwards, axis=-1, keepdims=True)
    assert (normals * outwards).sum(-1).min() > 0.99


def test_normals_do_without_a_capture_that_is_gone(
    lit_run: FinishedRun, install_run: InstallRun, capsys: pytest.CaptureFixture[str]
) -> None:
    root = install_run(lit_run)
    assert lit_run.settings.data is not None
    shutil.rmtree(lit_run.settings.data)
    test_normals_point_outwards_in_the_capture_frame(lit_run, install_run)
    assert "note     normals are turned outwards by cameras all around" in capsys.readouterr().out
    assert root == str(lit_run.folder.root)


def test_a_plain_export_has_neither_materials_nor_light(
    lit_run: FinishedRun, install_run: InstallRun, tmp_path: Path
) -> None:
    output = tmp_path / "out" / "a.ply"
    words = ["export", install_run(lit_run), "--format", "plain", "--output", str(output)]
    assert main(words) == 0
    assert {path.name for path in output.parent.iterdir()} == {"a.ply", "a.json"}
    assert not read_ply(output).has_materials
    assert json.loads(output.with_suffix(".json").read_text())["environment"] is None


def test_an_export_says_how_light_reaches_each_splat_if_asked(
    lit_run: FinishedRun, install_run: InstallRun, tmp_path: Path
) -> None:
    """A sphere sees half of the sky: its shadows are none, in the frame of the file."""
    output = tmp_path / "out" / "a.ply"
    assert main(["export", install_run(lit_run), "--transfer", "--output", str(output)]) == 0
    assert json.loads(output.with_suffix(".json").read_text())["has_transfer"] is True
    transfer, model = read_transfer(output), read_ply(output)
    assert transfer is not None
    light = torch.tensor([3.0, 0.5, 0.9, -0.4] + [0.0] * 12)[:, None].expand(-1, 3)
    ratio = transfer.shadow_ratio(normal_axes(model.gaussians.detach()), light)
    assert float(ratio.median()) > 0.97


def test_a_run_without_materials_is_exported_as_ever(
    tmp_path: Path, install_run: InstallRun, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = sphere_run(tmp_path, with_materials=False)
    assert main(["export", install_run(finished)]) == 0
    assert {path.name for path in finished.folder.export.iterdir()} == {"splats.ply", "splats.json"}
    printed = capsys.readouterr().out
    assert "no other light can fall on it" in printed and "relight" not in printed


# Baked light


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A map with a lamp to one side, as a file."""
    directions = environment_directions(32, 64)
    lamp = (directions @ torch.tensor([0.0, -0.6, 0.8]) > 0.85)[..., None]
    path = tmp_path / "room.exr"
    write_environment(path, EnvironmentLight((0.2 + 5.0 * lamp).expand(-1, -1, 3).contiguous()))
    return path


def baked_picture(finished: FinishedRun, path: Path) -> Tensor:
    camera = camera_of(finished).in_world(invert_similarity(finished.S_world_input))
    with torch.no_grad():
        return render_radiance(read_ply(path), camera, BACKEND, torch.zeros(3)).rgb_srgb


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * (a.clamp(0, 1) - b.clamp(0, 1)).square().mean().log10())


@pytest.mark.parametrize("words", [["--rotate", "70"], ["--upright", "--exposure", "-1"]])
def test_a_baked_light_looks_like_the_relit_run(
    lit_run: FinishedRun, install_run: InstallRun, room: Path, words: list[str]
) -> None:
    assert main(["export", install_run(lit_run), "--envmap", str(room), *words]) == 0
    path = lit_run.folder.export / "relit_room.ply"
    assert {file.name for file in path.parent.iterdir()} == {path.name, "relit_room.json"}
    assert json.loads(path.with_suffix(".json").read_text())["appearance"] == "room.exr"
    turn = 70.0 if "--rotate" in words else 0.0
    light = world_environment(room, lit_run.S_world_input, "--upright" in words, turn)
    gain = 0.5 if "--exposure" in words else 1.0
    expected = picture(lit_run, EnvironmentLight(light.radiance * gain))
    got = baked_picture(lit_run, path)
    assert not read_ply(path).has_materials
    # What is left is the rim, where a surface mirrors more than the harmonics can follow.
    assert psnr(got, expected) > 28
    assert lit_run.light is not None
    assert psnr(got, picture(lit_run, lit_run.light)) < 22


# What is refused


def refused(words: list[str], capsys: pytest.CaptureFixture[str], code: int = 1) -> str:
    capsys.readouterr()
    assert main(words) == code
    printed = capsys.readouterr()
    return the_error(printed.err, printed.out)


def test_flags_that_contradict_each_other_are_named(
    tmp_path: Path, install_run: InstallRun, room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = install_run(sphere_run(tmp_path))
    for flag in (["--rotate", "9"], ["--exposure", "1"], ["--upright"]):
        line = refused(["export", root, *flag], capsys)
        assert f"{flag[0]} acts on a light that is baked: add --envmap" in line
    words = ["export", root, "--envmap", str(room), "--format", "relightable"]
    assert "baked into a plain PLY" in refused(words, capsys)
    words = ["export", root, "--envmap", str(room), "--transfer"]
    assert "--transfer leaves the light open" in refused(words, capsys)
    words = ["export", root, "--format", "plain", "--transfer"]
    assert "--transfer belongs to a relightable PLY" in refused(words, capsys)
    words = ["export", root, "--envmap", str(room), "--exposure", "99"]
    assert "exposure must be" in refused(words, capsys, code=2)


def test_lights_need_materials(
    tmp_path: Path, install_run: InstallRun, room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = install_run(sphere_run(tmp_path, with_materials=False))
    for flags in (["--envmap", str(room)], ["--format", "relightable"]):
        line = refused(["export", root, *flags], capsys)
        assert "has no materials" in line and "stage 'materials'" in line


def test_maps_that_are_no_light_are_named_and_nothing_is_written(
    tmp_path: Path, install_run: InstallRun, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = sphere_run(tmp_path)
    root = install_run(finished)
    (tmp_path / "sky.png").write_bytes(b"\x89PNG")
    (tmp_path / "torn.hdr").write_bytes(b"#?RADIANCE\n")
    for name, message in (
        ("gone.hdr", "no environment map"),
        ("sky.png", "use .hdr or .exr"),
        ("torn.hdr", "copy or export it again"),
    ):
        assert message in refused(["export", root, "--envmap", str(tmp_path / name)], capsys)
    assert not finished.folder.export.exists()


@pytest.mark.parametrize("suffix", [".ply", ".json", ".hdr", ".exr"])
def test_no_file_beside_the_output_is_replaced_unasked(
    tmp_path: Path, install_run: InstallRun, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root, taken = install_run(sphere_run(tmp_path)), tmp_path / f"mine{suffix}"
    taken.write_text("precious")
    words = ["export", root, "--output", str(tmp_path / "mine.ply")]
    assert f"mine{suffix} exists; give another --output" in refused(words, capsys)
    assert taken.read_text() == "precious"
    assert main([*words, "--overwrite"]) == 0


def test_info_tells_what_an_export_holds(
    lit_run: FinishedRun, install_run: InstallRun, room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = install_run(lit_run)
    assert main(["export", root]) == 0 and main(["export", root, "--envmap", str(room)]) == 0
    capsys.readouterr()
    assert main(["info", str(lit_run.folder.export / "splats.ply")]) == 0
    said = capsys.readouterr().out
    assert "mean albedo (0.6, 0.3, 0.2) (linear), roughness 0.50, metallic 0.00" in said
    assert "map, mean radiance" in said and "shows        the photographs" in said
    assert main(["info", str(lit_run.folder.export / "relit_room.ply")]) == 0
    said = capsys.readouterr().out
    assert "none: radiance only" in said and "shows        the scene under room.exr" in said
