"""Maps as files hold them: every format by value, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from splatir.codecs.exr import write_exr, write_exr_channels
from splatir.data.map_files import MapKind, read_map
from splatir.maths.colour import linear_from_srgb

HEIGHT, WIDTH = 5, 7
NORMAL = np.array([0.36, -0.48, 0.8], np.float32)


def full(*values: float) -> np.ndarray:
    return np.broadcast_to(np.array(values, np.float32), (HEIGHT, WIDTH, len(values))).copy()


def test_normals_are_the_same_from_every_format(tmp_path: Path) -> None:
    normals = full(*NORMAL)
    normals[0, 0] = 0.0
    write_exr(tmp_path / "a.exr", normals)
    planes = {f"normal.{axis}": normals[..., i] for i, axis in enumerate("XYZ")}
    write_exr_channels(
        tmp_path / "b.exr", planes | {"R": normals[..., 0], "depth": normals[..., 1]}
    )
    np.save(tmp_path / "c.npy", normals.astype(np.float64))
    np.savez(tmp_path / "d.npz", normal=normals, depth=normals[..., 0])
    Image.fromarray(((0.5 + 0.5 * normals) * 255).round().astype(np.uint8)).save(tmp_path / "e.png")
    for path in sorted(tmp_path.iterdir()):
        stored = read_map(path, "normal")
        tolerance = 0.01 if path.suffix == ".png" else 1e-6
        assert torch.allclose(stored.values[2, 3], torch.from_numpy(NORMAL), atol=tolerance)
        assert stored.values[2, 3].norm().item() == pytest.approx(1.0)
        # Zero in floats and middle grey in pictures are no normals.
        assert not stored.is_known[0, 0] and stored.is_known[1:].all()


def test_depth_is_the_same_from_every_format_and_unknown_where_it_cannot_be(tmp_path: Path) -> None:
    depth = full(1500.0)
    depth[0, 0] = 0.0
    Image.fromarray(depth[..., 0].astype(np.uint16)).save(tmp_path / "a.png")
    depth[0, 1], depth[0, 2], depth[0, 3] = np.nan, np.inf, -1.0
    np.save(tmp_path / "b.npy", depth[..., 0])
    np.save(tmp_path / "c.npy", depth)
    write_exr_channels(tmp_path / "d.exr", {"Z": depth[..., 0], "R": np.zeros_like(depth[..., 0])})
    write_exr_channels(tmp_path / "e.exr", {"V": depth[..., 0]})
    np.savez(tmp_path / "f.npz", depth=depth[..., 0])
    for path in sorted(tmp_path.iterdir()):
        stored = read_map(path, "depth")
        assert stored.values.shape == (HEIGHT, WIDTH, 1)
        assert (stored.values[stored.is_known] == 1500.0).all() and stored.is_known[1:].all()
        assert not stored.is_known[0, 0]
        if path.suffix != ".png":
            assert not stored.is_known[0, :4].any()


def test_albedo_is_srgb_in_pictures_and_linear_elsewhere(tmp_path: Path) -> None:
    linear = linear_from_srgb(torch.tensor([128.0, 64.0, 255.0]) / 255.0)
    alpha = np.ones((HEIGHT, WIDTH, 1), np.float32)
    alpha[0] = 0.0
    values = full(*linear.tolist())
    picture = np.concatenate([full(128, 64, 255), 255 * alpha], axis=-1).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    write_exr(tmp_path / "b.exr", values * alpha, alpha)
    np.savez(tmp_path / "c.npz", albedo=values, alpha=alpha[..., 0])
    for path in sorted(tmp_path.iterdir()):
        stored = read_map(path, "albedo")
        assert torch.allclose(stored.values[1:], linear.expand(HEIGHT - 1, WIDTH, 3), atol=1e-6)
        assert not stored.is_known[0].any() and stored.is_known[1:].all()


def _short(path: Path) -> Path:
    np.save(path.with_suffix(".npy"), full(*NORMAL))
    whole = path.with_suffix(".npy").read_bytes()
    path.with_suffix(".npy").write_bytes(whole[:-40])
    return path.with_suffix(".npy")


def _zip(path: Path) -> Path:
    path.with_suffix(".npz").write_bytes(b"PK\x03\x04 no archive")
    return path.with_suffix(".npz")


def _npy(values: np.ndarray, path: Path) -> Path:
    np.save(path.with_suffix(".npy"), values)
    return path.with_suffix(".npy")


def _png(values: np.ndarray, path: Path) -> Path:
    Image.fromarray(values.astype(np.uint8)).save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def _other_key(path: Path) -> Path:
    np.savez(path.with_suffix(".npz"), depths=full(1.0))
    return path.with_suffix(".npz")


def _other_channels(path: Path) -> Path:
    write_exr_channels(path.with_suffix(".exr"), {"roughness": full(1.0)[..., 0]})
    return path.with_suffix(".exr")


@pytest.mark.parametrize(
    ("kind", "make", "message"),
    [
        ("normal", _short, "cannot read"),
        ("normal", _zip, "cannot read"),
        ("normal", lambda path: path.with_suffix(".npy"), "cannot read"),
        ("normal", lambda path: path.with_suffix(".png"), "no image file"),
        ("normal", lambda path: _npy(0.5 + 0.5 * full(*NORMAL), path), "from -1 to 1"),
        ("normal", lambda path: _npy(full(1.0), path), r"\[height, width, 3\]"),
        ("normal", lambda path: _png(full(1.0)[..., 0], path), r"\[height, width, 3\]"),
        ("depth", lambda path: _npy(full(*NORMAL), path), r"\[height, width, 1\]"),
        ("depth", lambda path: _npy(np.zeros(4), path), "array of numbers"),
        ("depth", lambda path: _npy(np.full((4, 4), "a"), path), "array of numbers"),
        ("depth", lambda path: _png(full(255, 0, 9), path), "a picture of depth"),
        ("depth", _other_key, "no 'depth'"),
        ("depth", _other_channels, "channels \\['roughness'\\]"),
    ],
)
def test_what_is_no_map_is_refused_by_its_name(
    tmp_path: Path, kind: MapKind, make, message: str
) -> None:
    path = make(tmp_path / "broken")
    with pytest.raises(ValueError, match=message) as caught:
        read_map(path, kind)
    assert path.name in str(caught.value)
