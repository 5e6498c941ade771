"""Maps of a view: their frames, units and sizes, which file is whose, and wrong conventions."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from splatir.data.cache import PhotoCache
from splatir.data.dataset import Dataset, Distortion, View
from splatir.data.images import photo_loader
from splatir.data.lens import pinhole
from splatir.data.map_files import MapKind
from splatir.data.maps import MapSettings, SurfaceMaps, load_maps, map_loader
from splatir.data.recognise import read_dataset
from splatir.maths.frames import similarity
from splatir.maths.rotations import rotation_from_quat
from splatir.scene.camera import Camera
from splatir.settings import SettingsError
from tests.captures import look_at, small_scene, write_colmap, write_nerf_synthetic

WIDTH, HEIGHT = 24, 16
EYE = torch.eye(4, dtype=torch.float64)


def view_from_side() -> View:
    """A camera on +X that looks at the origin, +Z up."""
    K = torch.tensor([[60.0, 0, WIDTH / 2], [0, 60.0, HEIGHT / 2], [0, 0, 1.0]])
    T = look_at(torch.tensor([4.0, 0.0, 0.0]), torch.zeros(3))
    return View("frame", Camera(K, T, WIDTH, HEIGHT), Path("frame.png"))


def flat(*values: float, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.broadcast_to(np.array(values, np.float32), (height, width, len(values))).copy()


def loaded(view: View, path: Path, S: Tensor = EYE, **settings) -> SurfaceMaps:
    kinds: dict[str, MapKind] = {"normals": "normal", "depths": "depth", "albedos": "albedo"}
    files: dict[MapKind, Path] = {kind: path for name, kind in kinds.items() if name in settings}
    return load_maps(view, files, MapSettings(**settings), S)


@pytest.mark.parametrize(
    ("frame", "stored"),
    [("opengl", (0.0, 0.6, 0.8)), ("opencv", (0.0, -0.6, -0.8)), ("input", (0.8, 0.0, 0.6))],
)
def test_every_frame_gives_the_same_normal_of_the_world(
    tmp_path: Path, frame, stored: tuple[float, float, float]
) -> None:
    np.save(tmp_path / "a.npy", flat(*stored))
    maps = loaded(view_from_side(), tmp_path / "a.npy", normals=tmp_path, normals_frame=frame)
    assert maps.normals is not None and maps.depth is None and maps.albedo is None
    expected = torch.tensor([0.8, 0.0, 0.6]).expand(HEIGHT, WIDTH, 3)
    assert torch.allclose(maps.normals, expected, atol=1e-6)


def test_normals_and_metric_depth_follow_the_turn_and_scale_of_the_world(tmp_path: Path) -> None:
    R = rotation_from_quat(torch.tensor([0.5**0.5, 0.0, 0.0, 0.5**0.5], dtype=torch.float64))
    S = similarity(2.5, R, torch.ones(3, dtype=torch.float64))
    view = view_from_side()
    view = replace(view, camera=view.camera.in_world(S))
    np.savez(tmp_path / "a.npz", normal=flat(0.8, 0.0, 0.6), depth=flat(3.0)[..., 0])
    options = {"normals_frame": "input", "depths_kind": "metric", "depths_unit": 0.1}
    maps = loaded(view, tmp_path / "a.npz", S, normals=tmp_path, depths=tmp_path, **options)
    assert maps.normals is not None and maps.depth is not None
    # The capture's +X is the world's +Y.
    expected = torch.tensor([0.0, 0.8, 0.6]).expand(HEIGHT, WIDTH, 3)
    assert torch.allclose(maps.normals, expected, atol=1e-6)
    assert torch.allclose(maps.depth, torch.full((HEIGHT, WIDTH, 1), 0.75))


@pytest.mark.parametrize(("frame", "z"), [("opengl", -1.0), ("opencv", 1.0)])
def test_normals_that_face_away_name_the_frame_to_choose(tmp_path: Path, frame, z: float) -> None:
    np.save(tmp_path / "a.npy", flat(0.0, 0.0, z))
    with pytest.raises(ValueError, match=r"100% of the normals in .*a\.npy face away"):
        loaded(view_from_side(), tmp_path / "a.npy", normals=tmp_path, normals_frame=frame)


def test_maps_of_another_size_and_of_the_same_shape_fit(tmp_path: Path) -> None:
    for factor in (2, 0.5):
        height, width = int(HEIGHT * factor), int(WIDTH * factor)
        albedo = flat(0.2, 0.2, 0.2, height=height, width=width)
        albedo[:, width // 2 :] = np.nan
        np.save(tmp_path / "a.npy", albedo)
        maps = loaded(view_from_side(), tmp_path / "a.npy", albedos=tmp_path)
        assert maps.albedo is not None
        assert torch.allclose(maps.albedo[:, : WIDTH // 2], torch.tensor(0.2))
        assert (maps.albedo[:, WIDTH // 2 + 1 :] < 0.0).all()


def test_a_map_of_another_shape_names_both_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", flat(1.0, height=WIDTH, width=HEIGHT))
    with pytest.raises(ValueError, match=r"a\.npy is 16x24 .* frame\.png \(24x16\)"):
        loaded(view_from_side(), tmp_path / "a.npy", depths=tmp_path)


def test_maps_are_undistorted_like_their_photos(tmp_path: Path) -> None:
    """A map of distances to the file's centre stays one of distances to the camera's axis."""
    lens = Distortion("SIMPLE_RADIAL", (40.0, 32.0, 24.0, 0.2), 64, 48)
    K, width, height = pinhole(lens)
    T = torch.eye(4)
    view = View("v", Camera(K.float(), T, width, height), Path("v.png"), distortion=lens)
    y, x = np.mgrid[0:48, 0:64] + 0.5
    distance = np.hypot(x - 32.0, y - 24.0)
    np.save(tmp_path / "v.npy", (1.0 + distance).astype(np.float32))
    maps = loaded(view, tmp_path / "v.npy", depths=tmp_path, depths_kind="metric")
    assert maps.depth is not None and maps.depth.shape == (height, width, 1)
    u = torch.arange(width) + 0.5 - K[0, 2]
    ratio = u / 40.0
    # Barrel or pincushion: where the pinhole's ray lands in the file.
    expected = 1.0 + 40.0 * ratio.abs() * (1.0 + 0.2 * ratio.square())
    row = maps.depth[height // 2, :, 0]
    assert torch.allclose(row, expected.float(), atol=0.6)


def capture(root: Path) -> Dataset:
    write_nerf_synthetic(root, small_scene(num_cameras=4), num_test=1)
    return read_dataset(root)


def test_views_find_their_maps_by_name_or_by_the_last_part_of_it(tmp_path: Path) -> None:
    dataset = capture(tmp_path / "capture")
    for i, view in enumerate(dataset.train):
        path = tmp_path / "maps" / (view.name if i % 2 else Path(view.name).name)
        path.parent.mkdir(parents=True, exist_ok=True)
        values = flat(1.0 + i, height=36, width=48)
        np.save(path.with_suffix(".npy"), values)
    load = map_loader(dataset, MapSettings(depths=tmp_path / "maps"))
    assert load is not None
    for i, view in enumerate(dataset.train):
        depth = load(view).depth
        assert depth is not None and (depth == 1.0 + i).all()


def test_numbers_are_taken_before_pictures_of_them(tmp_path: Path) -> None:
    dataset = capture(tmp_path / "capture")
    for view in dataset.train:
        name = Path(view.name).name
        Image.new("RGB", (48, 36), (255, 0, 0)).save(tmp_path / f"{name}.png")
        np.save(tmp_path / f"{name}.npy", flat(2.0, height=36, width=48))
    load = map_loader(dataset, MapSettings(depths=tmp_path))
    assert load is not None and load(dataset.train[0]).depth is not None


def test_missing_maps_are_counted_and_named(tmp_path: Path) -> None:
    dataset = capture(tmp_path / "capture")
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere, which --normals names"):
        map_loader(dataset, MapSettings(normals=tmp_path / "nowhere"))
    name = Path(dataset.train[0].name).name
    np.save(tmp_path / f"{name}.npy", flat(1.0))
    with pytest.raises(FileNotFoundError, match=r"2 of 3 training photos have no map of depth"):
        map_loader(dataset, MapSettings(depths=tmp_path))
    assert map_loader(dataset, MapSettings()) is None


def test_photos_bring_their_maps_through_the_cache(tmp_path: Path) -> None:
    dataset = capture(tmp_path / "capture")
    normal = flat(0.0, 0.6, 0.8, height=36, width=48)
    for view in dataset.train:
        depth = np.full((36, 48), 1234.567, np.float32)
        values = {"normal": normal, "depth": depth, "albedo": 0.3 + 0.0 * normal}
        np.savez(tmp_path / f"{Path(view.name).name}.npz", **values)
    folders = MapSettings(normals=tmp_path, depths=tmp_path, albedos=tmp_path)
    load = photo_loader(dataset, map_loader(dataset, folders))
    plain = load(dataset.train[0])
    with PhotoCache(dataset.train, 10**8, load) as cache:
        maps = cache[0].maps
        assert cache.memory_bytes > 36 * 48 * (6 + 6 + 4)
    assert maps is not None and plain.maps is not None
    assert maps.normals is not None and plain.maps.normals is not None
    assert torch.allclose(maps.normals, plain.maps.normals, atol=1e-3)
    assert maps.depth is not None and plain.maps.depth is not None
    assert torch.equal(maps.depth, plain.maps.depth)
    assert maps.albedo is not None and maps.albedo.dtype == torch.float32


def test_reduced_maps_keep_pixels_of_their_blocks() -> None:
    depth = torch.arange(7.0 * 9.0).view(7, 9, 1)
    reduced = SurfaceMaps(depth=depth).reduced(2, 3, 4).depth
    assert reduced is not None and reduced.shape == (3, 4, 1)
    assert reduced[0, 0] == depth[1, 1] and reduced[2, 3] == depth[5, 7]


def test_units_that_give_no_depth_are_refused() -> None:
    for unit in (0.0, -1.0, math.nan):
        with pytest.raises(SettingsError, match="depths_unit"):
            MapSettings(depths_unit=unit)


def test_a_colmap_capture_with_broken_maps_does_not_start(tmp_path: Path) -> None:
    from splatir.commands.main import main

    scene = small_scene(num_cameras=4)
    names = write_colmap(tmp_path / "capture", scene)
    for name in names:
        np.save(tmp_path / Path(name).with_suffix(".npy"), flat(0.0, 0.0, 1.0, height=36, width=36))
    words = ["train", "--data", str(tmp_path / "capture"), "--output", str(tmp_path / "run")]
    assert main([*words, "--device", "cpu", "--normals", str(tmp_path)]) == 1
    assert not (tmp_path / "run").exists()
