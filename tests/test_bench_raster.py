"""The rasteriser benchmark: scene files, what it reports, that it measures what it says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from splatir.commands.bench_raster import (
    BenchRasterSettings,
    RasterTimings,
    Timing,
    run,
    time_rasterizer,
)
from splatir.commands.bench_scene import knot_scene, read_scene
from splatir.native.library import available
from splatir.raster.contract import RasterOptions
from splatir.scene.gaussians import Primitive

PRIMITIVES: tuple[Primitive, ...] = ("ellipsoid", "surfel")


def arrays(n: int = 20, channels: int = 5) -> dict[str, Any]:
    scene = knot_scene(n, 30, 20, channels, "ellipsoid")
    g = scene.gaussians
    return {
        "means": g.means.numpy(),
        "quats": g.quats.numpy(),
        "scales": g.scales.numpy(),
        "opacities": g.opacities.numpy(),
        "features": scene.features.numpy(),
        "T_camera_world": scene.camera.T_camera_world.numpy(),
        "K": scene.camera.K.numpy(),
        "width": np.int64(30),
        "height": np.int64(20),
    }


def test_a_scene_file_holds_what_was_written(tmp_path: Path) -> None:
    written = arrays()
    np.savez(tmp_path / "scene.npz", **written)
    scene = read_scene(tmp_path / "scene.npz", "surfel")
    assert scene.gaussians.primitive == "surfel"
    assert (scene.camera.width, scene.camera.height) == (30, 20)
    for name in ("means", "quats", "scales", "opacities"):
        assert torch.equal(getattr(scene.gaussians, name), torch.tensor(written[name]))
    assert torch.equal(scene.features, torch.tensor(written["features"]))
    assert torch.equal(scene.camera.K, torch.tensor(written["K"]))


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "no quats": (lambda a: {k: v for k, v in a.items() if k != "quats"}, "lacks quats"),
    "one opacity less": (lambda a: a | {"opacities": a["opacities"][1:]}, r"shape \[20\]"),
    "4x4 K": (lambda a: a | {"K": np.eye(4)}, r"K must have shape \[3, 3\], got \[4, 4\]"),
    "scalar means": (lambda a: a | {"means": np.float32(1)}, "means must have shape"),
    "words": (lambda a: a | {"means": np.full((20, 3), "x")}, "must hold numbers"),
    "pickled": (lambda a: a | {"means": np.array([object()])}, "not a readable .npz"),
    "NaN": (lambda a: a | {"means": a["means"] * np.nan}, "NaN"),
    "logits": (lambda a: a | {"opacities": a["opacities"] * 9 - 4}, "apply the sigmoid"),
    "logarithms": (lambda a: a | {"scales": np.log(a["scales"])}, "apply the exponential"),
    "zero quats": (lambda a: a | {"quats": a["quats"] * 0}, "quats must not be zero"),
    "no pixels": (lambda a: a | {"width": np.int64(0)}, "width must be a positive"),
    "half a pixel": (lambda a: a | {"height": np.float32(2.5)}, "height must be a positive"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_scene_file_says_what_is_wrong(fault: str, tmp_path: Path) -> None:
    edit, message = BROKEN[fault]
    np.savez(tmp_path / "scene.npz", **edit(arrays()))
    with pytest.raises(ValueError, match=message):
        read_scene(tmp_path / "scene.npz", "ellipsoid")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04cut short"])
def test_a_file_that_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "scene.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"scene\.npz is not a readable"):
        read_scene(tmp_path / "scene.npz", "ellipsoid")
    np.save(tmp_path / "scene.npz", np.zeros(3))
    (tmp_path / "scene.npz.npy").rename(tmp_path / "scene.npz")
    with pytest.raises(ValueError, match="not a readable"):
        read_scene(tmp_path / "scene.npz", "ellipsoid")
    with pytest.raises(FileNotFoundError, match="no scene file"):
        read_scene(tmp_path / "absent.npz", "ellipsoid")


@pytest.mark.skipif(not available(), reason="the native library is not built")
@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_the_report_holds_the_promised_numbers(primitive: Primitive, tmp_path: Path) -> None:
    np.savez(tmp_path / "scene.npz", **arrays())
    threads = torch.get_num_threads()
    run(
        BenchRasterSettings(
            scene=tmp_path / "scene.npz",
            primitive=primitive,
            json=tmp_path / "out" / "report.json",
            repeats=3,
        )
    )
    assert torch.get_num_threads() == threads
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    for name in ("projection_ms", "forward_ms", "backward_ms"):
        assert report[name] > 0
        assert report[f"{name}_spread"] >= 0
        assert report[f"{name}_minimum"] <= report[name]
    assert report["splats_per_pixel"] > 0
    assert (report["num_splats"], report["channels"]) == (20, 5)
    assert (report["width"], report["height"]) == (30, 20)


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_the_reference_is_timed_as_a_whole(primitive: Primitive) -> None:
    scene = knot_scene(10, 8, 6, 2, primitive)
    timings = time_rasterizer(scene, "reference", RasterOptions(), 1)
    assert isinstance(timings, RasterTimings)
    assert timings.projection is None and timings.forward.median > 0


def test_timings_are_medians_and_quartile_distances() -> None:
    timing = Timing.of([4.0, 1.0, 2.0, 3.0, 100.0])
    assert (timing.median, timing.spread, timing.minimum) == (3.0, 2.0, 1.0)
    assert Timing.of([7.0]) == Timing(7.0, 0.0, 7.0)


def test_the_built_in_scene_is_the_same_every_time_and_fills_the_image() -> None:
    scene, again = (knot_scene(500, 40, 40, 3, "ellipsoid") for _ in range(2))
    assert torch.equal(scene.gaussians.means, again.gaussians.means)
    points = scene.gaussians.means @ scene.camera.T_camera_world[:3, :3].T
    points = points + scene.camera.T_camera_world[:3, 3]
    assert torch.all(points[:, 2] > 0.5)
    pixels = points @ scene.camera.K.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    assert torch.all((pixels > 0) & (pixels < 40))
    assert torch.all(pixels.amax(0) - pixels.amin(0) > 22)


@pytest.mark.parametrize(
    ("change", "flag"), [({"threads": 0}, "threads"), ({"repeats": 0}, "repeats")]
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], flag: str) -> None:
    with pytest.raises(ValueError, match=f"--{flag} must be at least 1"):
        run(BenchRasterSettings(**change))
