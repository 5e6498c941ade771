"""The arithmetic of scores against ground truth, by value, and where scenes keep that truth."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from splatir.commands.bench_quality import without
from splatir.commands.quality_tables import ablation_table, score_table
from splatir.data.dataset import View
from splatir.evaluate.protocols import (
    AlbedoRatios,
    AlbedoScales,
    Prediction,
    relit_scores,
    surface_scores,
)
from splatir.evaluate.truth import (
    TrueBuffers,
    TruePicture,
    environment_file,
    protocol_of,
    relit_lights,
    relit_picture,
    true_buffers,
)
from splatir.maths.colour import srgb_from_linear
from splatir.scene.camera import Camera
from splatir.settings import SettingsError
from splatir.train.settings import TrainSettings

ONE = AlbedoScales(np.ones(3), np.ones(3))
SHAPE = (2, 4)


def plane(value: float) -> np.ndarray:
    return np.full(SHAPE, value)


def colour(*values: float) -> np.ndarray:
    return np.broadcast_to(np.array(values), (*SHAPE, 3)).copy()


def half_mask() -> np.ndarray:
    """Object in the left half."""
    mask = plane(0.0)
    mask[:, :2] = 1.0
    return mask


def prediction(**changes: np.ndarray) -> Prediction:
    values = {
        "rgb": colour(0.5, 0.5, 0.5),
        "alpha": half_mask(),
        "depth": plane(2.0),
        "normals": colour(0.0, 0.0, 1.0),
    }
    return Prediction(**(values | changes))


def view(path: Path) -> View:
    K = torch.tensor([[4.0, 0.0, 2.0], [0.0, 4.0, 1.0], [0.0, 0.0, 1.0]])
    return View(path.stem, Camera(K, torch.eye(4), 4, 2), path)


def write_png(path: Path, value: int, channels: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SHAPE, channels), value, np.uint8)).save(path)


def test_median_and_least_squares_factors_differ_where_one_pixel_is_off() -> None:
    ratios = AlbedoRatios()
    truth = np.array([[0.4, 0.4, 0.4]] * 3)
    found = np.array([[0.2, 0.2, 0.2], [0.2, 0.2, 0.2], [0.8, 0.8, 0.8]])
    ratios.add(truth[:1], found[:1])
    ratios.add(truth[1:], found[1:])
    scales = ratios.scales()
    assert scales.median == pytest.approx([2.0] * 3)
    assert scales.least_squares == pytest.approx([0.48 / 0.72] * 3)


def test_black_truth_does_not_count_in_the_median() -> None:
    ratios = AlbedoRatios()
    ratios.add(np.array([[0.0, 0.5, 0.5], [0.3, 0.3, 0.3]]), np.array([[0.1] * 3, [0.1] * 3]))
    assert ratios.scales().median == pytest.approx([3.0] * 3)


def test_normals_are_scored_in_degrees_inside_the_mask_alone() -> None:
    turned = colour(0.0, 0.6, 0.8)
    turned[:, 2:] = [1.0, 0.0, 0.0]
    truth = TrueBuffers(half_mask(), normals=colour(0.0, 0.0, 2.0))
    scores = surface_scores(truth, prediction(normals=turned), ONE)
    assert scores["normal_mae_fg"] == pytest.approx(np.degrees(np.arccos(0.8)))
    assert scores["normal_mae_full"] == pytest.approx(scores["normal_mae_fg"] / 2)
    assert scores["mask_iou"] == 1.0


def test_albedo_is_exact_after_its_factor_and_not_before() -> None:
    truth = TrueBuffers(half_mask(), albedo=colour(0.4, 0.2, 0.6))
    scales = AlbedoScales(np.full(3, 2.0), np.full(3, 2.0))
    scores = surface_scores(truth, prediction(albedo=colour(0.2, 0.1, 0.3)), scales)
    assert scores["albedo_psnr_fg"] == scores["albedo_ls_psnr_fg"] == pytest.approx(100.0)
    shown, true = (
        srgb_from_linear(torch.tensor(c, dtype=torch.float64))
        for c in ([0.2, 0.1, 0.3], [0.4, 0.2, 0.6])
    )
    expected = -10 * np.log10(float((shown - true).square().mean()))
    assert scores["albedo_raw_psnr_fg"] == pytest.approx(expected)
    assert scores["albedo_raw_psnr_full"] == pytest.approx(expected + 10 * np.log10(2))


def test_materials_and_depth_are_scored_inside_the_mask() -> None:
    rough = plane(0.9)
    rough[:, :2] = 0.3
    truth = TrueBuffers(half_mask(), roughness=plane(0.5), metallic=plane(1.0), depth=plane(2.5))
    scores = surface_scores(truth, prediction(roughness=rough, metallic=plane(0.9)), ONE)
    assert scores["roughness_mse_fg"] == pytest.approx(0.04)
    assert scores["metallic_mse_fg"] == pytest.approx(0.01)
    assert scores["depth_rel_fg"] == pytest.approx(0.2)


def test_relit_pictures_take_the_factors_of_albedo() -> None:
    shown = srgb_from_linear(torch.tensor([0.5, 0.25, 0.1], dtype=torch.float64)).numpy()
    truth = TruePicture(colour(*shown), half_mask())
    scales = AlbedoScales(np.full(3, 2.0), np.full(3, 0.5))
    rgb = colour(0.25, 0.125, 0.05)
    scores = relit_scores(truth, half_mask(), rgb, half_mask(), scales)
    assert scores["relight_psnr_fg"] == pytest.approx(100.0)
    assert scores["relight_ssim"] == pytest.approx(1.0)
    assert scores["relight_ls_psnr_fg"] < scores["relight_raw_psnr_fg"] < 30.0


def test_another_size_than_the_truth_is_refused() -> None:
    with pytest.raises(ValueError, match="without --downscale"):
        surface_scores(TrueBuffers(np.ones((3, 3))), prediction(), ONE)


def test_tensoir_truth_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "test_000"
    write_png(folder / "rgba.png", 255, 4)
    write_png(folder / "albedo.png", 51)
    write_png(folder / "normal.png", 255)
    write_png(folder / "rgba_city.png", 102, 4)
    seen = view(folder / "rgba.png")
    assert protocol_of(tmp_path) == "tensoir"
    assert relit_lights(tmp_path, "tensoir", seen) == ("city",)
    found = true_buffers(tmp_path, "tensoir", seen)
    assert found.albedo is not None and found.albedo == pytest.approx(0.2)
    assert found.normals is not None and found.normals == pytest.approx(1.0)
    picture = relit_picture(tmp_path, "tensoir", seen, "city")
    assert picture.rgb_srgb == pytest.approx(0.4)


def test_synthetic4relight_truth_is_found(tmp_path: Path) -> None:
    write_png(tmp_path / "test" / "000_rgba.png", 255, 4)
    write_png(tmp_path / "test" / "000_albedo.png", 255)
    write_png(tmp_path / "test" / "000_rough.png", 51)
    write_png(tmp_path / "test_rli" / "envmap6_000.png", 0)
    seen = view(tmp_path / "test" / "000_rgba.png")
    assert protocol_of(tmp_path) == "synthetic4relight"
    assert relit_lights(tmp_path, "synthetic4relight", seen) == ("envmap6",)
    found = true_buffers(tmp_path, "synthetic4relight", seen)
    assert found.roughness is not None and found.roughness == pytest.approx(0.2)
    assert relit_picture(tmp_path, "synthetic4relight", seen, "envmap6").rgb_srgb.max() == 0.0


def test_a_scene_of_our_own_keeps_arrays_and_maps(tmp_path: Path) -> None:
    (tmp_path / "gt").mkdir()
    np.savez(tmp_path / "gt" / "r_0.npz", alpha=plane(1.0), roughness=plane(0.5))
    write_png(tmp_path / "relight" / "dusk" / "r_0.png", 255, 4)
    seen = view(tmp_path / "test" / "r_0.png")
    assert protocol_of(tmp_path) == "splatir"
    assert relit_lights(tmp_path, "splatir", seen) == ("dusk",)
    found = true_buffers(tmp_path, "splatir", seen)
    assert found.albedo is None and found.roughness is not None
    with pytest.raises(FileNotFoundError, match="--envmaps DIR"):
        environment_file(tmp_path, None, "dusk")
    with pytest.raises(ValueError, match="no ground truth"):
        true_buffers(tmp_path, "splatir", view(tmp_path / "test" / "r_9.png"))


def test_an_ablation_takes_out_one_weight() -> None:
    settings = TrainSettings()
    assert without(settings, "white_light").material_loss.white_light == 0.0
    assert without(settings, "metal_checks").materials.metal_checks == ()
    assert not without(settings, "cloth").materials.cloth
    assert not without(settings, "materials.transport").materials.transport
    changed = without(settings, "loss.ssim")
    assert changed.loss.ssim == 0.0 and changed.material_loss == settings.material_loss
    with pytest.raises(SettingsError, match=r"knows no 'whitelight'.*material_loss\.white_light"):
        without(settings, "whitelight")


def test_tables_leave_cells_empty_where_a_scene_has_no_score() -> None:
    table = score_table(
        {"a": {"psnr_full": 30.0, "albedo_psnr_fg": 20.0}, "b": {"psnr_full": 32.0}}
    )
    assert "| psnr_full | 30.00 | 32.00 | 31.00 |" in table
    assert "| albedo_psnr_fg | 20.00 |  | 20.00 |" in table
    means = {"defaults": {"psnr_full": 30.0}, "without normal": {"psnr_full": 29.0}}
    assert "| without normal | 29.00 |" in ablation_table(means)
