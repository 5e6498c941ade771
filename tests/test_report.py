import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from splatir.commands.main import main
from splatir.evaluate.held_out import RenderedView, ShadedView
from splatir.evaluate.metrics import ImageScores
from splatir.evaluate.pictures import (
    albedo_picture,
    depth_picture,
    depth_range,
    error_picture,
    light_picture,
    normal_picture,
    srgb_picture,
    value_picture,
)
from splatir.evaluate.report import (
    SheetCell,
    SheetRow,
    contact_sheet,
    material_row,
    radiance_row,
    save_png,
    score_text,
    write_sheet,
)
from splatir.raster.contract import RasterOutput, ScreenSpace
from splatir.render.buffers import ViewBuffers
from splatir.scene.lights import EnvironmentLight
from tests.lit_runs import InstallRun, install_run, sphere_run

__all__ = ["install_run"]


def lightness(picture: np.ndarray) -> np.ndarray:
    return picture.astype(float) @ [0.2126, 0.7152, 0.0722]


def rendered_view(with_buffers: bool = True) -> RenderedView:
    h, w = 12, 20
    g = torch.Generator().manual_seed(0)
    image = torch.rand(h, w, 3, generator=g)
    alpha = torch.rand(h, w, 1, generator=g)
    raster = RasterOutput(
        features=image,
        alpha=alpha,
        depth=alpha * 3 if with_buffers else None,
        median_depth=None,
        normals=torch.randn(h, w, 3, generator=g) if with_buffers else None,
        distortion=None,
        screen=ScreenSpace(torch.zeros(0, 2), torch.zeros(0, 2).int(), torch.zeros(0, 2)),
    )
    scores = ImageScores(31.25, 28.5, 0.95)
    return RenderedView("train/r_3", image, (image + 0.05).clamp(0, 1), raster, scores)


def test_srgb_bytes_are_rounded_clipped_and_mark_nan() -> None:
    picture = srgb_picture(np.array([[[0.0, 0.5, 1.0], [-1.0, 2.0, np.nan]]]))
    assert picture.tolist() == [[[0, 128, 255], [0, 255, 128]]]


def test_near_is_bright_far_dark_and_empty_white() -> None:
    depth = torch.linspace(1, 3, 50)[None].repeat(2, 1)
    alpha = torch.ones(2, 50)
    alpha[1] = 0
    picture = depth_picture(depth, alpha, (1.0, 3.0))
    assert (np.diff(lightness(picture[0])) < 0).all()
    assert (picture[1] == 255).all()


def test_depth_range_ignores_what_is_not_covered() -> None:
    depth = np.full((10, 10), 2.0)
    depth[0] = 1e6
    depth[1, 0] = np.nan
    alpha = np.ones((10, 10))
    alpha[0] = 0.2
    assert depth_range(depth, alpha) == (2.0, 2.0)
    assert depth_range(depth, np.zeros((10, 10))) == (0.0, 1.0)
    assert depth_picture(depth, alpha).shape == (10, 10, 3)


def test_error_grows_from_black_to_pale() -> None:
    a = torch.zeros(1, 64, 3)
    b = torch.linspace(0, 0.2, 64)[None, :, None].repeat(1, 1, 3)
    picture = error_picture(a, b)
    assert picture[0, 0].tolist() == [0, 0, 0]
    assert (np.diff(lightness(picture[0])) > 0).all()
    assert (error_picture(a, b + 5)[0] == picture[0, -1]).all()


def test_axes_have_their_colours() -> None:
    normals = torch.tensor([[[2.0, 0, 0], [0, 1, 0], [0, 0, -1], [0, 0, 0]]])
    picture = normal_picture(normals)
    assert picture[0].tolist() == [[255, 128, 128], [128, 255, 128], [128, 128, 0], [255] * 3]


def test_every_picture_stands_at_its_place_on_the_sheet() -> None:
    colours = [[200, 0, 0], [0, 200, 0], [0, 0, 200]]
    tall = [np.full((40, 20, 3), colour, np.uint8) for colour in colours]
    flat = np.full((10, 20, 3), [70, 80, 90], np.uint8)
    rows = [
        SheetRow("first", tuple(SheetCell(picture, "x") for picture in tall)),
        SheetRow("second", (SheetCell(flat, "y"),)),
    ]
    sheet = np.asarray(contact_sheet(rows, title="all", cell_width=100))
    assert sheet.shape[1] == 3 * 108 + 8
    for column, colour in enumerate(colours):
        ys, xs = np.nonzero((sheet == colour).all(-1))
        assert (xs.min(), xs.max() + 1) == (8 + 108 * column, 108 + 108 * column)
        assert ys.max() + 1 - ys.min() == 200
    ys, _ = np.nonzero((sheet == [70, 80, 90]).all(-1))
    assert ys.max() + 1 - ys.min() == 50
    assert ys.min() > 200


def test_sheets_of_nothing_are_refused() -> None:
    for rows in ([], [SheetRow("empty", ())]):
        with pytest.raises(ValueError, match="at least one picture"):
            contact_sheet(rows)


def test_overlong_titles_do_not_widen_the_sheet() -> None:
    cell = SheetCell(np.zeros((10, 10, 3), np.uint8), "c" * 500)
    sheet = contact_sheet([SheetRow("a\nb" * 300, (cell,))], cell_width=120)
    assert sheet.width == 136
    right_margin = np.asarray(sheet)[:, -8:]
    assert (right_margin == 255).all()


def test_scores_carry_their_protocols_names() -> None:
    text = score_text(ImageScores(31.2345, None, 0.95678))
    assert text == "psnr_full 31.23 dB   ssim 0.9568"
    assert "psnr_fg 20.00 dB" in score_text(ImageScores(31.0, 20.0, 0.9))


def test_rows_hold_the_buffers_that_were_composited() -> None:
    row = radiance_row(rendered_view())
    captions = [cell.caption.split(",")[0] for cell in row.cells]
    assert captions == ["photo", "render", "error", "depth", "normal"]
    assert row.title.startswith("train/r_3   psnr_full 31.25 dB")
    assert len(radiance_row(rendered_view(with_buffers=False)).cells) == 3


def test_sheet_file_is_a_png(tmp_path: Path) -> None:
    path = tmp_path / "eval" / "sheet.png"
    rows = [radiance_row(rendered_view()), radiance_row(rendered_view(with_buffers=False))]
    write_sheet(rows, None, path, "title")
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width == 5 * 248 + 8
    save_png(path, Image.new("RGB", (3, 3)))
    with Image.open(path) as image:
        assert image.size == (3, 3)


def shaded_view() -> ShadedView:
    h, w = 12, 20
    g = torch.Generator().manual_seed(0)
    image, alpha = torch.rand(h, w, 3, generator=g), torch.rand(h, w, 1, generator=g)
    buffers = ViewBuffers(image, alpha, 3 * alpha, image, image, alpha, 1 - alpha)
    return ShadedView("train/r_3", image, image, buffers, ImageScores(31.25, 28.5, 0.95))


def test_rows_of_shaded_views_hold_materials_and_both_scores() -> None:
    row = material_row(shaded_view(), ImageScores(33.0, None, 0.97))
    captions = [cell.caption.split(",")[0] for cell in row.cells]
    assert captions == ["photo", "shaded", "error", "albedo", "roughness", "metallic", "normal"]
    assert "psnr_full 31.25 dB" in row.title
    assert "radiance alone: psnr_full 33.00 dB" in row.title


def test_the_light_stands_below_the_views(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    light = EnvironmentLight(torch.full((8, 16, 3), 7.0))
    rows = [material_row(shaded_view())]
    write_sheet(rows, None, path)
    with Image.open(path) as image:
        without = image.height
    write_sheet(rows, light, path)
    with Image.open(path) as image:
        assert image.height > without
        # The mean is shown as middle grey.
        assert image.getpixel((100, without + 2 * 20 + 60)) == (118, 118, 118)


def test_a_light_is_shown_relative_to_its_mean_over_directions() -> None:
    radiance = torch.full((32, 64, 3), 0.001)
    picture, factor = light_picture(radiance)
    assert factor == pytest.approx(180.0)
    assert (picture == 118).all()
    # A row at the pole is a small part of the sphere.
    radiance[0] = 1.0
    assert light_picture(radiance)[1] > 0.18 / 0.004
    assert light_picture(radiance, -2.0)[1] == pytest.approx(light_picture(radiance)[1] / 4)
    assert (light_picture(torch.zeros(4, 8, 3))[0] == 0).all()


def test_values_grow_from_dark_to_bright_and_empty_is_white() -> None:
    values = torch.linspace(0, 1, 50)[None].repeat(2, 1)
    alpha = torch.ones(2, 50)
    alpha[1] = 0
    picture = value_picture(values, alpha)
    assert (np.diff(lightness(picture[0])) > 0).all()
    assert (picture[1] == 255).all()


def test_albedo_is_shown_in_srgb_on_white() -> None:
    albedo = torch.full((1, 2, 3), 0.18)
    picture = albedo_picture(albedo, torch.tensor([[[1.0], [0.0]]]))
    assert picture[0].tolist() == [[118] * 3, [255] * 3]


def test_a_run_with_materials_is_scored_by_its_shaded_picture(
    tmp_path: Path, install_run: InstallRun, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = sphere_run(tmp_path)
    run = install_run(finished)
    assert main(["eval", run, "--json", str(tmp_path / "scores.json")]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    names = ["psnr_full", "psnr_fg", "ssim", "lpips"]
    assert set(scores) >= {*names, *(f"radiance_{name}" for name in names)}
    assert scores["psnr_full"] != scores["radiance_psnr_full"]
    assert scores["num_gaussians"] == 400 and scores["train_seconds"] == 1.5
    (view,) = json.loads((finished.folder.evaluation / "views.json").read_text())
    assert view["name"] and view["psnr_fg"] == pytest.approx(scores["psnr_fg"])
    with Image.open(finished.folder.evaluation / "contact_sheet.png") as image:
        assert image.width == 7 * 248 + 8
    assert "splatir relight" in capsys.readouterr().out


def test_a_run_without_materials_is_scored_by_its_radiance(
    tmp_path: Path, install_run: InstallRun
) -> None:
    finished = sphere_run(tmp_path, with_materials=False)
    assert main(["eval", install_run(finished)]) == 0
    scores = json.loads((finished.folder.evaluation / "scores.json").read_text())
    assert scores["psnr_full"] == scores["radiance_psnr_full"]
    with Image.open(finished.folder.evaluation / "contact_sheet.png") as image:
        assert image.width == 5 * 248 + 8
