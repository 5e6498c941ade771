"""Pixels of a view: exact decoding, masks, resizing and undistortion by value, broken files."""

import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image

from splatir.codecs.exr import write_exr
from splatir.codecs.hdr import write_hdr
from splatir.data.dataset import Dataset, Distortion, View
from splatir.data.images import load_photo, mask_polarity_warning, photo_loader
from splatir.data.lens import pinhole
from splatir.data.resample import area_average
from splatir.maths.colour import srgb_from_linear
from splatir.scene.camera import Camera

RNG = np.random.default_rng(0)


def view_of(
    path: Path,
    width: int,
    height: int,
    mask: Path | None = None,
    distortion: Distortion | None = None,
    focal: float = 100.0,
) -> View:
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    return View("v", Camera(K, torch.eye(4), width, height), path, mask, distortion)


def saved(samples: np.ndarray, path: Path, **options: Any) -> Path:
    Image.fromarray(samples).save(path, **options)
    return path


def random_bytes(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def png_16(samples: np.ndarray, path: Path) -> Path:
    """A 16-bit PNG put together by hand: unfiltered big-endian rows."""
    height, width, channels = samples.shape

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return path


# Decoding


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("channels", [3, 4])
def test_eight_bit_files_are_exact(tmp_path: Path, suffix: str, channels: int) -> None:
    samples = random_bytes(6, 8, channels)
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    photo = load_photo(view_of(saved(samples, tmp_path / f"a.{suffix}", **options), 8, 6))
    assert torch.equal(photo.rgb, torch.from_numpy(samples[..., :3]).float() / 255)
    assert (photo.encoding, photo.bits) == ("srgb", 8)
    assert (photo.alpha is not None) == (channels == 4)
    if photo.alpha is not None:
        assert torch.equal(photo.alpha, torch.from_numpy(samples[..., 3:]).float() / 255)


def test_jpeg_is_read_as_three_channels(tmp_path: Path) -> None:
    flat = np.full((6, 8, 3), (200, 100, 50), dtype=np.uint8)
    photo = load_photo(view_of(saved(flat, tmp_path / "a.jpg", quality=95), 8, 6))
    np.testing.assert_allclose(photo.rgb[3, 4] * 255, [200, 100, 50], atol=3)
    assert photo.alpha is None


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bit_png_keeps_all_its_bits(tmp_path: Path, channels: int) -> None:
    samples = RNG.integers(0, 65536, (6, 8, channels), dtype=np.uint16)
    photo = load_photo(view_of(png_16(samples, tmp_path / "a.png"), 8, 6))
    assert photo.bits == 16
    np.testing.assert_array_equal((photo.rgb * 65535).round().numpy(), samples[..., :3])
    if photo.alpha is not None:
        np.testing.assert_array_equal((photo.alpha * 65535).round().numpy(), samples[..., 3:])


def test_sixteen_bit_grey_keeps_all_its_bits(tmp_path: Path) -> None:
    samples = RNG.integers(0, 65536, (6, 8, 1), dtype=np.uint16)
    for path in (png_16(samples, tmp_path / "a.png"), saved(samples[..., 0], tmp_path / "a.tif")):
        photo = load_photo(view_of(path, 8, 6))
        np.testing.assert_array_equal((photo.rgb * 65535).round().numpy(), samples.repeat(3, 2))


@pytest.mark.parametrize("compression", [1, 8])  # none, deflate
@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_tiff_keeps_all_its_bits(tmp_path: Path, order: str, compression: int) -> None:
    samples = RNG.integers(0, 65536, (6, 8, 3), dtype=np.uint16)
    body = samples.astype(f"{order}u2").tobytes()
    body = zlib.compress(body) if compression == 8 else body
    bits_at = 8 + len(body)
    tags = [
        (256, 3, 1, 8),
        (257, 3, 1, 6),
        (258, 3, 3, bits_at),
        (259, 3, 1, compression),
        (262, 3, 1, 2),
        (273, 4, 1, 8),
        (277, 3, 1, 3),
        (278, 3, 1, 6),
        (279, 4, 1, len(body)),
    ]
    entries = b"".join(
        struct.pack(f"{order}HHI", *tag[:3])
        + (
            struct.pack(f"{order}HH", tag[3], 0)
            if tag[1] == 3 and tag[2] == 1
            else struct.pack(f"{order}I", tag[3])
        )
        for tag in tags
    )
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, bits_at + 6)
    directory = struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)
    path = tmp_path / "a.tif"
    path.write_bytes(start + body + struct.pack(f"{order}HHH", 16, 16, 16) + directory)
    photo = load_photo(view_of(path, 8, 6))
    np.testing.assert_array_equal((photo.rgb * 65535).round().numpy(), samples)


def test_grey_palette_and_bilevel_files_are_expanded(tmp_path: Path) -> None:
    grey = random_bytes(6, 8)
    photo = load_photo(view_of(saved(grey, tmp_path / "grey.png"), 8, 6))
    np.testing.assert_array_equal((photo.rgb * 255).round().numpy(), grey[..., None].repeat(3, 2))

    image = Image.new("P", (8, 6))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((2, 1), 1)
    image.save(tmp_path / "palette.png", transparency=0)
    photo = load_photo(view_of(tmp_path / "palette.png", 8, 6))
    np.testing.assert_allclose(photo.rgb[1, 2] * 255, [40, 50, 60], atol=1e-3)
    assert photo.alpha is not None
    assert float(photo.alpha.sum()) == 1.0 and float(photo.alpha[1, 2]) == 1.0

    Image.fromarray(grey > 127).save(tmp_path / "bilevel.png")
    photo = load_photo(view_of(tmp_path / "bilevel.png", 8, 6))
    assert torch.equal(photo.rgb[..., 0], torch.from_numpy(grey > 127).float())


def test_exif_orientation_does_not_turn_the_calibrated_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(random_bytes(6, 8, 3), tmp_path / "a.png", exif=exif)
    assert load_photo(view_of(path, 8, 6)).rgb.shape == (6, 8, 3)


def test_exr_is_linear_unclipped_and_made_straight(tmp_path: Path) -> None:
    straight = RNG.uniform(0, 40, (6, 8, 3)).astype(np.float32)
    alpha = RNG.uniform(0.1, 1, (6, 8, 1)).astype(np.float32)
    alpha[0, 0] = 0.0
    write_exr(tmp_path / "a.exr", straight * alpha, alpha)
    photo = load_photo(view_of(tmp_path / "a.exr", 8, 6))
    assert (photo.encoding, photo.bits) == ("linear", 32)
    np.testing.assert_allclose(photo.rgb[1:].numpy(), straight[1:], rtol=1e-6)
    assert photo.alpha is not None
    np.testing.assert_array_equal(photo.alpha.numpy(), alpha)
    assert float(photo.rgb[0, 0].abs().sum()) == 0.0


def test_radiance_photo_is_linear(tmp_path: Path) -> None:
    rgb = np.full((6, 8, 3), (4.0, 2.0, 0.5), dtype=np.float32)
    write_hdr(tmp_path / "a.hdr", rgb)
    photo = load_photo(view_of(tmp_path / "a.hdr", 8, 6))
    assert photo.encoding == "linear"
    np.testing.assert_array_equal(photo.rgb.numpy(), rgb)


# Masks


@pytest.mark.parametrize("kind", ["grey", "rgb", "rgba", "alpha only", "labels"])
def test_masks_of_every_kind_mean_white_is_kept(tmp_path: Path, kind: str) -> None:
    keep = RNG.integers(0, 2, (6, 8), dtype=np.uint8)
    white, opaque = keep * 255, np.full((6, 8), 255, np.uint8)
    mask = {
        "grey": white,
        "rgb": np.stack([white] * 3, -1),
        "rgba": np.stack([white] * 3 + [opaque], -1),
        "alpha only": np.stack([opaque * 0] * 3 + [white], -1),
        "labels": keep,
    }[kind]
    image = saved(random_bytes(6, 8, 3), tmp_path / "a.png")
    view = view_of(image, 8, 6, saved(mask, tmp_path / "m.png"))
    alpha = load_photo(view).alpha
    assert alpha is not None
    np.testing.assert_array_equal(alpha[..., 0].numpy(), keep)
    inverted = load_photo(replace(view, invert_mask=True)).alpha
    assert inverted is not None
    np.testing.assert_array_equal(inverted[..., 0].numpy(), 1 - keep)


def test_mask_and_alpha_multiply(tmp_path: Path) -> None:
    samples, mask = random_bytes(6, 8, 4), random_bytes(6, 8)
    image = saved(samples, tmp_path / "a.png")
    alpha = load_photo(view_of(image, 8, 6, saved(mask, tmp_path / "m.png"))).alpha
    assert alpha is not None
    expected = samples[..., 3] / 255.0 * (mask / 255.0)
    np.testing.assert_allclose(alpha[..., 0].numpy(), expected, atol=1e-6)


def test_mask_of_another_shape_is_refused(tmp_path: Path) -> None:
    image = saved(random_bytes(6, 8, 3), tmp_path / "a.png")
    mask = saved(random_bytes(8, 6), tmp_path / "m.png")
    with pytest.raises(ValueError, match=r"m\.png is 6x8 pixels.*a\.png is 8x6"):
        load_photo(view_of(image, 8, 6, mask))


def test_masks_of_the_full_size_serve_downscaled_images(tmp_path: Path) -> None:
    image = saved(random_bytes(6, 8, 3), tmp_path / "a.png")
    keep = random_bytes(24, 32)
    alpha = load_photo(view_of(image, 8, 6, saved(keep, tmp_path / "m.png"))).alpha
    assert alpha is not None
    means = keep.reshape(6, 4, 8, 4).mean((1, 3)) / 255
    np.testing.assert_allclose(alpha[..., 0].numpy(), means, atol=1e-6)
    small = saved(np.full((3, 4), 255, np.uint8), tmp_path / "small.png")
    alpha = load_photo(view_of(image, 8, 6, small)).alpha
    assert alpha is not None and float(alpha.min()) == 1.0


def test_mask_polarity_is_judged_by_rim_and_centre() -> None:
    mask = torch.zeros(30, 40, 1)
    mask[8:22, 10:30] = 1.0
    assert mask_polarity_warning(mask) is None
    assert "invert" in str(mask_polarity_warning(1.0 - mask))
    assert mask_polarity_warning(torch.ones(30, 40, 1)) is None
    assert mask_polarity_warning(torch.zeros(30, 40, 1)) is None


@pytest.mark.parametrize("has_background", [True, False])
def test_alpha_of_a_capture_with_a_real_background_counts_only_beside_masks(
    has_background: bool, tmp_path: Path
) -> None:
    bare = view_of(saved(random_bytes(6, 8, 4), tmp_path / "a.png"), 8, 6)
    masked = replace(bare, mask_path=saved(random_bytes(6, 8), tmp_path / "m.png"))
    views = (bare, masked)
    dataset = Dataset(tmp_path, "colmap", views, (), None, torch.eye(4), has_background)
    load = photo_loader(dataset)
    assert (load(bare).alpha is None) is has_background
    assert load(masked).alpha is not None
    assert torch.equal(load(bare).rgb, load_photo(bare).rgb)


# Resizing


def test_downscaling_by_a_whole_factor_gives_block_means(tmp_path: Path) -> None:
    samples = random_bytes(6, 8, 3)
    photo = load_photo(view_of(saved(samples, tmp_path / "a.png"), 4, 3))
    means = samples.reshape(3, 2, 4, 2, 3).mean((1, 3)) / 255
    np.testing.assert_allclose(photo.rgb.numpy(), means, atol=1e-6)


def test_downscaling_weights_colour_by_coverage(tmp_path: Path) -> None:
    samples = random_bytes(6, 8, 4)
    samples[:2, :2, 3] = 0
    photo = load_photo(view_of(saved(samples, tmp_path / "a.png"), 4, 3))
    blocks = samples.reshape(3, 2, 4, 2, 4).astype(np.float64) / 255
    alpha = blocks[..., 3:].mean((1, 3))
    premultiplied = (blocks[..., :3] * blocks[..., 3:]).mean((1, 3))
    assert photo.alpha is not None
    np.testing.assert_allclose(photo.alpha.numpy(), alpha, atol=1e-6)
    np.testing.assert_allclose((photo.rgb * photo.alpha).numpy(), premultiplied, atol=1e-5)
    # Where nothing is covered the colour is the plain mean, not 0 / 0.
    np.testing.assert_allclose(
        photo.rgb[0, 0].numpy(), blocks[0, :, 0, :, :3].mean((0, 1)), atol=1e-3
    )


@pytest.mark.parametrize(("width", "height"), [(5, 4), (7, 6), (10, 5), (1, 1)])
def test_downscaling_by_any_factor_averages_exact_areas(width: int, height: int) -> None:
    values = torch.rand(9, 11, 2, generator=torch.Generator().manual_seed(0))
    # Repeating each pixel makes the old grid a multiple of the new one: block means are the areas.
    fine = values.repeat_interleave(height, 0).repeat_interleave(width, 1)
    blocks = fine.reshape(height, 9, width, 11, 2).mean((1, 3))
    torch.testing.assert_close(area_average(values, width, height), blocks, atol=1e-6, rtol=0)


def test_image_smaller_than_its_camera_is_refused(tmp_path: Path) -> None:
    image = saved(random_bytes(3, 4, 3), tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png is 4x3 pixels, smaller than its camera \(8x6\)"):
        load_photo(view_of(image, 8, 6))


def test_turned_image_is_refused_with_the_cause(tmp_path: Path) -> None:
    image = saved(random_bytes(80, 60, 3), tmp_path / "a.png")
    with pytest.raises(ValueError, match="turned by 90 degrees"):
        load_photo(view_of(image, 80, 60))


def test_sizes_rounded_in_downscaling_are_accepted(tmp_path: Path) -> None:
    image = saved(random_bytes(657, 1000, 3), tmp_path / "a.png")
    assert load_photo(view_of(image, 250, 164)).rgb.shape == (164, 250, 3)


# Undistortion

LENSES = {
    "SIMPLE_RADIAL": (90.0, 80.3, 59.1, 0.08),
    "OPENCV": (90.0, 92.0, 80.3, 59.1, -0.12, 0.03, 0.002, -0.001),
    "OPENCV_FISHEYE": (90.0, 92.0, 80.3, 59.1, 0.02, -0.005, 0.001, 0.0),
}


def radiance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Smooth colour of the ray (x, y, 1), in [0, 4]."""
    return np.stack([2 + 2 * np.sin(3 * x), 2 + 2 * np.cos(4 * y), 2 + x + y], -1)


def distorted_exr(path: Path, lens: Distortion, alpha: bool) -> Path:
    """What the lens sees of `radiance`; coverage is the half plane x > 0.1, softened."""
    camera = pycolmap.Camera(
        model=lens.model, width=lens.width, height=lens.height, params=list(lens.params)
    )
    rows, columns = np.mgrid[: lens.height, : lens.width] + 0.5
    pixels = np.stack([columns.ravel(), rows.ravel()], -1)
    rays = np.asarray(camera.cam_from_img(pixels)).reshape(lens.height, lens.width, 2)
    rgb = radiance(rays[..., 0], rays[..., 1]).astype(np.float32)
    coverage = np.clip(rays[..., :1] * 5 + 0.5, 0, 1).astype(np.float32)
    write_exr(path, rgb * coverage if alpha else rgb, coverage if alpha else None)
    return path


@pytest.mark.parametrize("model", LENSES)
@pytest.mark.parametrize("alpha", [False, True])
def test_undistorted_pixels_show_the_pinhole_rays(tmp_path: Path, model: str, alpha: bool) -> None:
    lens = Distortion(model, LENSES[model], 160, 120)
    path = distorted_exr(tmp_path / "a.exr", lens, alpha)
    view = view_of(path, 96, 72, distortion=lens, focal=105.0)
    photo = load_photo(view)
    x = (np.arange(96) + 0.5 - 48) / 105
    y = (np.arange(72) + 0.5 - 36) / 105
    expected = radiance(*np.meshgrid(x, y))
    seen = torch.ones(72, 96, dtype=torch.bool)
    if photo.alpha is not None:
        seen = photo.alpha[..., 0] > 0.5
    # Bilinear interpolation of a curvature of 32 over pixels of 1/90: 32 / 8 / 90**2 = 5e-4.
    # Weighting by a coverage that changes by 5.5 % a pixel moves the colour's place: 2e-3.
    np.testing.assert_allclose(photo.rgb[seen].numpy(), expected[seen.numpy()], atol=3e-3)
    if photo.alpha is not None:
        coverage = np.clip(np.meshgrid(x, y)[0] * 5 + 0.5, 0, 1)
        np.testing.assert_allclose(photo.alpha[..., 0].numpy(), coverage, atol=2e-2)


def test_undistorting_to_a_smaller_camera_averages_its_pixels(tmp_path: Path) -> None:
    lens = Distortion("OPENCV", LENSES["OPENCV"], 160, 120)
    path = distorted_exr(tmp_path / "a.exr", lens, False)
    large = view_of(path, 96, 72, distortion=lens, focal=96.0)
    small = View("v", large.camera.resized(24, 18), path, None, lens)
    means = load_photo(large).rgb.reshape(18, 4, 24, 4, 3).mean((1, 3))
    torch.testing.assert_close(load_photo(small).rgb, means, atol=2e-3, rtol=0)


def test_half_size_files_of_a_distorted_camera_are_understood(tmp_path: Path) -> None:
    lens = Distortion("OPENCV", LENSES["OPENCV"], 160, 120)
    path = distorted_exr(tmp_path / "a.exr", lens, False)
    full = load_photo(view_of(path, 48, 36, distortion=lens, focal=50.0)).rgb
    rgb = area_average(load_photo(view_of(path, 160, 120)).rgb, 80, 60)
    write_exr(tmp_path / "half.exr", rgb.numpy())
    half = load_photo(view_of(tmp_path / "half.exr", 48, 36, distortion=lens, focal=50.0)).rgb
    torch.testing.assert_close(half, full, atol=5e-3, rtol=0)


def test_pixels_past_the_edge_of_the_file_have_no_coverage(tmp_path: Path) -> None:
    lens = Distortion("SIMPLE_RADIAL", (50.0, 20.0, 15.0, 0.0), 40, 30)
    image = saved(np.full((30, 40, 4), 255, np.uint8), tmp_path / "a.png")
    photo = load_photo(view_of(image, 60, 30, distortion=lens, focal=50.0))
    assert photo.alpha is not None
    assert float(photo.alpha[:, :10].max()) == 0.0
    assert float(photo.alpha[:, 10:50].min()) > 0.9999


# Broken files


def test_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no image file .*gone\.png"):
        load_photo(view_of(tmp_path / "gone.png", 8, 6))


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "exr"])
@pytest.mark.parametrize("kept", [0.0, 0.05, 0.6])
def test_truncated_image_is_named(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "exr":
        write_exr(path, RNG.uniform(0, 1, (60, 80, 3)).astype(np.float32))
    else:
        saved(random_bytes(60, 80, 3), path)
    body = path.read_bytes()
    path.write_bytes(body[: int(len(body) * kept)])
    with pytest.raises(ValueError, match=rf"a\.{suffix}"):
        load_photo(view_of(path, 80, 60))


def test_truncated_sixteen_bit_png_is_named(tmp_path: Path) -> None:
    path = png_16(RNG.integers(0, 65536, (60, 80, 3), dtype=np.uint16), tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"a\.png"):
        load_photo(view_of(path, 80, 60))


def test_png_of_zero_size_is_named(tmp_path: Path) -> None:
    path = png_16(np.zeros((0, 0, 3), np.uint16), tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png"):
        load_photo(view_of(path, 8, 6))


def test_text_with_an_image_suffix_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ValueError, match=r"cannot read image .*a\.png"):
        load_photo(view_of(tmp_path / "a.png", 8, 6))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_exr_with_values_that_are_not_finite_is_named(tmp_path: Path, bad: float) -> None:
    rgb = np.ones((6, 8, 3), np.float32)
    rgb[2, 3, 1] = bad
    write_exr(tmp_path / "a.exr", rgb)
    with pytest.raises(ValueError, match=r"a\.exr holds NaN or infinite"):
        load_photo(view_of(tmp_path / "a.exr", 8, 6))


@pytest.mark.shared_data
def test_rendered_exr_and_png_show_the_same_object(shared_data: Path) -> None:
    spot = shared_data / "scenes" / "spot"
    linear = load_photo(view_of(spot / "linear/train/r_0.exr", 200, 200))
    encoded = load_photo(view_of(spot / "train/r_0.png", 200, 200))
    assert linear.alpha is not None and encoded.alpha is not None
    is_solid = encoded.alpha[..., 0] == 1.0
    shown = srgb_from_linear(linear.rgb).clamp(0, 1)
    # Half a step of 8 bits, and a half float's rounding.
    assert float((shown - encoded.rgb)[is_solid].abs().max()) < 0.5 / 255 + 3e-4
    assert float((linear.alpha - encoded.alpha).abs().max()) < 0.5 / 255 + 3e-4


@pytest.mark.parametrize("model", LENSES)
def test_the_readers_pinhole_camera_sees_only_the_file(tmp_path: Path, model: str) -> None:
    """No pixel of the undistorted camera that readers choose lies past the file's edge."""
    lens = Distortion(model, LENSES[model], 160, 120)
    K, width, height = pinhole(lens)
    image = saved(np.full((120, 160, 4), 255, np.uint8), tmp_path / "a.png")
    view = View("v", Camera(K.float(), torch.eye(4), width, height), image, None, lens)
    alpha = load_photo(view).alpha
    assert alpha is not None
    assert float((alpha < 0.999).float().mean()) < 0.01
