"""Camera paths and the videos that are filmed along them."""

import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from splatir.codecs.mp4 import ffmpeg_program, write_mp4
from splatir.commands.main import main
from splatir.maths.frames import similarity
from splatir.render.paths import read_camera_path, turntable
from splatir.scene.camera import Camera
from tests.captures import opengl_matrix, small_scene
from tests.faults import the_error
from tests.lit_runs import InstallRun, install_run, sphere_run

__all__ = ["install_run"]

IDENTITY = torch.eye(4, dtype=torch.float64)


def decoded(path: Path, width: int, height: int) -> np.ndarray:
    words = [ffmpeg_program(), "-v", "error", "-i", str(path), "-f", "rawvideo"]
    words += ["-vf", "scale=in_color_matrix=bt709", "-pix_fmt", "rgb24", "-"]
    content = subprocess.run(words, check=True, capture_output=True).stdout
    return np.frombuffer(content, np.uint8).reshape(-1, height, width, 3)


def world_cameras() -> list[Camera]:
    return [camera.to(dtype=torch.float32) for camera in small_scene().cameras]


def test_a_video_shows_its_frames_in_order_and_colour(tmp_path: Path) -> None:
    colours = np.array([[200, 30, 40], [40, 180, 60], [50, 60, 220], [128, 128, 128]], np.uint8)
    frames = [np.broadcast_to(colour, (32, 48, 3)) for colour in colours]
    write_mp4(tmp_path / "a" / "film.mp4", frames, 25.0)
    found = decoded(tmp_path / "a" / "film.mp4", 48, 32)
    assert len(found) == 4
    assert np.abs(found.astype(int) - colours[:, None, None].astype(int)).max() <= 4
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["film.mp4"]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([], "at least one frame"),
        ([(32, 47)], "even width and height, got 47 x 32"),
        ([(32, 48), (32, 32)], "a video has one size"),
    ],
)
def test_frames_that_make_no_video_leave_no_file(
    shapes: list[tuple[int, int]], message: str, tmp_path: Path
) -> None:
    frames = [np.zeros((*shape, 3), np.uint8) for shape in shapes]
    with pytest.raises(ValueError, match=message):
        write_mp4(tmp_path / "film.mp4", frames, 25.0)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_renderer_leaves_no_video(tmp_path: Path) -> None:
    def frames():
        yield np.zeros((32, 32, 3), np.uint8)
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        write_mp4(tmp_path / "film.mp4", frames(), 25.0)
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho no such codec >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr("splatir.codecs.mp4.ffmpeg_program", lambda: str(program))
    frames = (np.zeros((64, 64, 3), np.uint8) for _ in range(50))
    with pytest.raises(OSError, match="no such codec"):
        write_mp4(tmp_path / "film.mp4", frames, 25.0)
    assert not (tmp_path / "film.mp4").exists()


def test_a_missing_program_names_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    with pytest.raises(ImportError, match=r"pip install imageio-ffmpeg.*--format png"):
        ffmpeg_program()


def test_the_turntable_circles_the_focus_upright_at_the_cameras_height() -> None:
    cameras = world_cameras()
    path = turntable(cameras, 8)
    positions = torch.stack([camera.position_world for camera in path.cameras])
    heights = torch.stack([camera.position_world for camera in cameras])[:, 2]
    assert torch.allclose(positions[:, 2], heights.median(), atol=0.02)
    assert torch.allclose(positions.norm(dim=-1), torch.tensor(4.0), atol=0.02)
    # The first frame stands where the first camera did, the next to its left: +X towards +Y.
    azimuths = torch.atan2(positions[:, 1], positions[:, 0])
    assert float(azimuths[0]) == pytest.approx(0.0, abs=0.02)
    assert float(azimuths[1]) == pytest.approx(math.pi / 4, abs=0.02)
    for camera in path.cameras:
        # The focus is in the middle, and the camera's x axis is level.
        centre = camera.K @ camera.T_camera_world[:3, 3]
        assert torch.allclose(centre[:2] / centre[2], torch.tensor([24.0, 18.0]), atol=0.3)
        assert abs(float(camera.T_camera_world[0, 2])) < 1e-6


def test_frames_keep_the_lens_and_are_even() -> None:
    path = turntable(world_cameras(), 2, size=101)
    camera = path.cameras[0]
    assert (camera.width, camera.height) == (102, 76)
    assert float(camera.K[0, 0]) / 76 == pytest.approx(1.2 * 48 / 36)


def test_a_path_of_the_photographs_poses_is_their_cameras(tmp_path: Path) -> None:
    scene = small_scene()
    first, second = scene.cameras[:2]
    fov = math.degrees(2 * math.atan(0.5 * first.height / float(first.K[1, 1])))
    flat = torch.tensor(opengl_matrix(second)).flatten().tolist()
    file = tmp_path / "path.json"
    content = {
        "camera_type": "perspective", "render_width": 48, "render_height": 36, "fps": 12,
        "fov": fov,
        "camera_path": [
            {"camera_to_world": opengl_matrix(first), "fov": fov, "aspect": 1.33},
            flat,
        ],
    }  # fmt: skip
    file.write_text(json.dumps(content))
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    S = similarity(0.5, quarter, torch.tensor([1.0, 2, 3], dtype=torch.float64))
    path = read_camera_path(file, S)
    assert path.fps == 12
    for found, camera in zip(path.cameras, (first, second), strict=True):
        expected = camera.in_world(S)
        assert torch.allclose(found.T_camera_world, expected.T_camera_world.float(), atol=1e-5)
        assert torch.allclose(found.K, expected.K.float(), atol=1e-3)
        assert (found.width, found.height) == (48, 36)


POSE = torch.eye(4).tolist()
SHEARED = [[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
MIRRORED = [[-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "needs a list 'camera_path'"),
        ('{"camera_path": []}', "at least one pose"),
        ('{"camera_path": [{"fov": 50}]}', r"camera_path\[0\] needs 'camera_to_world'"),
        ('{"camera_path": [[1, 2, 3]]}', r"camera_path\[0\] needs 'camera_to_world', 4 x 4"),
        (json.dumps({"camera_path": [POSE, SHEARED]}), r"camera_path\[1\] is no pose"),
        (json.dumps({"camera_path": [MIRRORED]}), "mirrors the scene"),
        ('{"camera_path": [[NaN, 0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1]]}', "is no pose"),
        (json.dumps({"camera_path": [POSE], "fov": 190}), "'fov' must be 1 to 179, got 190"),
        (json.dumps({"camera_path": [POSE], "fps": "fast"}), "'fps' must be"),
        (json.dumps({"camera_path": [POSE], "render_width": 0}), "'render_width' must be 1 to"),
    ],
)
def test_broken_paths_are_named(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "path.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_camera_path(file, IDENTITY)


def test_turntable_video_of_a_run(
    tmp_path: Path, install_run: InstallRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = install_run(sphere_run(tmp_path))
    words = ["relight", run, "--path", "turntable", "--frames", "3", "--size", "40"]
    assert main([*words, "--output", str(tmp_path / "film.mp4")]) == 0
    found = decoded(tmp_path / "film.mp4", 40, 30)
    assert len(found) == 3
    assert (found[:, 0, 0] > 250).all(), "white where nothing is"
    assert (found[:, 15, 20] < 240).any()
    assert "film.mp4" in capsys.readouterr().out
    assert main([*words, "--output", str(tmp_path / "film.mp4")]) == 1
    printed = capsys.readouterr()
    assert "film.mp4 exists" in the_error(printed.err, printed.out)
