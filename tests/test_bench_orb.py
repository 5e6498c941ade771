"""Does `splatir bench orb` score as Stanford-ORB does, and run from captures to the table?"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from splatir.commands.main import main
from splatir.data.dataset import DataSettings
from splatir.data.orb import find_captures, novel_views, rotation_of_map
from splatir.data.recognise import read_dataset
from splatir.evaluate.orb import (
    albedo_psnr,
    depth_error,
    eroded,
    normal_distance,
    picture_scores,
)
from splatir.scene.environment_map import rotate_environment, sample_environment
from splatir.scene.lights import EnvironmentLight
from tests.benchmark_captures import write_orb
from tests.captures import small_scene
from tests.faults import TINY

SCENE = small_scene(num_cameras=6)
SIZE = 32


def disc() -> np.ndarray:
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return (rows - 15.5) ** 2 + (columns - 15.5) ** 2 < 10.0**2


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.05, 0.9, (SIZE, SIZE, 3))


def test_masks_lose_two_pixels_but_none_at_the_frame() -> None:
    mask = np.zeros((12, 12), bool)
    mask[0:7, 3:10] = True
    kept = np.zeros_like(mask)
    kept[0:5, 5:8] = True
    assert (eroded(mask) == kept).all()


def test_one_factor_per_channel_costs_nothing() -> None:
    truth = noise(0)
    scores = picture_scores(truth * [0.2, 1.0, 7.0], truth, disc())
    assert scores["psnr_h"] > 100 and scores["psnr_l"] > 100
    assert scores["ssim"] == pytest.approx(1.0)
    assert albedo_psnr(truth * 3.0, truth, disc()) > 100


def test_psnr_is_that_of_the_whole_frame() -> None:
    """The error of the object, spread over the background too, which counts as right."""
    mask = np.ones((SIZE, SIZE), bool)
    mask[:, : SIZE // 2] = False
    truth = np.full((SIZE, SIZE, 3), 0.8)
    wrong = np.where(np.indices((SIZE, SIZE)).sum(0) % 2, 0.1, -0.1)[..., None]
    inside = eroded(mask)
    expected = -10 * math.log10(0.01 * inside.mean())
    found = albedo_psnr(truth + wrong, truth, mask)
    # The best factor is 0.64 / 0.65, which takes 1.5 % of the error away.
    assert found == pytest.approx(expected, abs=0.1)


def test_psnr_h_counts_what_is_brighter_than_white_and_psnr_l_does_not() -> None:
    truth = noise(1)
    mask = np.ones((SIZE, SIZE), bool)
    bright, dull = truth.copy(), truth.copy()
    bright[4:6, 4:6] = 3.0
    dull[4:6, 4:6] = 1.0
    scores = picture_scores(dull, bright, mask)
    assert scores["psnr_l"] > scores["psnr_h"] + 5


def test_no_prediction_is_worse_than_a_grey_silhouette() -> None:
    black = picture_scores(np.zeros((SIZE, SIZE, 3)), noise(2), disc())
    grey = picture_scores(disc()[..., None] * np.full(3, 0.5), noise(2), disc())
    assert black["psnr_l"] <= grey["psnr_l"] + 1e-9
    assert black["psnr_l"] > 5


def test_normals_and_depth_by_value() -> None:
    normals = np.zeros((SIZE, SIZE, 3))
    normals[..., 2] = 2.0
    tilted = np.zeros_like(normals)
    tilted[..., 0], tilted[..., 2] = math.sin(0.5), math.cos(0.5)
    assert normal_distance(tilted, normals, disc()) == pytest.approx(1 - math.cos(0.5), abs=1e-5)
    truth = [np.full((SIZE, SIZE), 2.0), np.full((SIZE, SIZE), 4.0)]
    exact = [depth / 10.0 for depth in truth]
    assert depth_error(exact, truth, [disc(), disc()]) == pytest.approx(0.0, abs=1e-12)
    # One factor for both views: 2 x 4 + 4 x 2 over 4 x 4 + 2 x 2.
    wrong = depth_error(truth[::-1], truth, [disc(), disc()])
    share = eroded(disc()).mean()
    expected = ((0.8 * 4 - 2) ** 2 + (0.8 * 2 - 4) ** 2) / 2 * share
    assert wrong == pytest.approx(expected)


def test_maps_look_where_the_camera_looks(tmp_path: Path) -> None:
    """The middle of a map shines from where the camera looks; its right half from the right."""
    write_orb(tmp_path, SCENE)
    capture = find_captures(tmp_path)[0]
    dataset = read_dataset(capture.folder)
    novel = novel_views(capture, dataset.S_world_input, DataSettings())
    assert [n.view.name for n in novel] == ["mug_scene002/0000", "mug_scene002/0001"]
    assert novel[0].environment == tmp_path / "ground_truth/mug_scene002/env_map/0000.exr"
    radiance = torch.full((16, 32, 3), 0.1)
    radiance[7:9, 15:17] = torch.tensor([5.0, 0.0, 0.0])
    radiance[7:9, 23:25] = torch.tensor([0.0, 5.0, 0.0])
    radiance[0] = torch.tensor([0.0, 0.0, 5.0])
    for other in novel:
        light = rotate_environment(EnvironmentLight(radiance), rotation_of_map(other.view))
        right, down, forward = other.view.camera.T_camera_world[:3, :3]
        for direction, channel in ((forward, 0), (right, 1), (-down, 2)):
            seen = sample_environment(light, direction)
            assert int(seen.argmax()) == channel and float(seen[channel]) > 1.5


def test_captures_are_trained_scored_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_orb(tmp_path / "orb", SCENE)
    words = ["bench", "orb", str(tmp_path / "orb"), *TINY, "--output", str(tmp_path / "out")]
    assert main([*words, "--captures", "mug_scene002"]) == 0
    found = json.loads((tmp_path / "out" / "orb.json").read_text())["captures"]
    scores = found["mug_scene002"]
    wanted = ("view_psnr_h", "view_psnr_l", "view_ssim", "radiance_view_psnr_l", "relight_psnr_h",
              "relight_psnr_l", "relight_ssim", "normal_distance", "depth_error",
              "albedo_psnr")  # fmt: skip
    assert all(math.isfinite(scores[name]) for name in wanted), scores
    assert "relight_psnr_h" in (tmp_path / "out" / "orb.md").read_text()
    # What is there is not trained again.
    capsys.readouterr()
    assert main([*words, "--captures", "mug_scene002"]) == 0
    assert "materials:" not in capsys.readouterr().err
    kept = json.loads((tmp_path / "out" / "orb.json").read_text())["captures"]
    assert kept == found


def test_what_is_missing_is_said_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "orb", str(tmp_path)]) == 1
    assert "no captures of Stanford-ORB" in capsys.readouterr().err
    write_orb(tmp_path, SCENE)
    (tmp_path / "ground_truth" / "mug_scene002" / "env_map" / "0001.exr").unlink()
    words = ["bench", "orb", str(tmp_path), *TINY, "--output", str(tmp_path / "out")]
    assert main([*words, "--captures", "mug_scene001"]) == 1
    assert "env_map/0001.exr" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*words, "--captures", "cup"]) == 2
    assert "there are mug_scene001, mug_scene002" in capsys.readouterr().err
