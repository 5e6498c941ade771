"""HDR and EXR files: known bytes, round trips, extremes, and broken files named."""

import errno
import os
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splatir.codecs.exr import read_exr, write_exr, write_exr_channels
from splatir.codecs.hdr import RGBE_MAX, encode_rgbe, read_hdr, write_hdr
from splatir.codecs.ldr import read_ldr

RNG = np.random.default_rng(0)
HEADER = b"#?RADIANCE\n# a comment\nFORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n"


def floats(values: list) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def high_range(height: int, width: int) -> np.ndarray:
    return np.exp(RNG.normal(0, 4, (height, width, 3))).astype(np.float32)


# Radiance .hdr


def test_flat_pixels_of_known_bytes(tmp_path: Path) -> None:
    # e = 129 means mantissa / 128; e = 0 is black whatever the mantissas.
    pixels = bytes([128, 64, 0, 129, 255, 255, 255, 0])
    (tmp_path / "a.hdr").write_bytes(HEADER % (1, 2) + pixels)
    np.testing.assert_array_equal(read_hdr(tmp_path / "a.hdr"), [[[1.0, 0.5, 0.0], [0, 0, 0]]])


def test_run_length_pixels_of_known_bytes(tmp_path: Path) -> None:
    row = bytes([2, 2, 0, 8])
    row += bytes([136, 128])  # red: a run of 8
    row += bytes([4, 1, 2, 3, 4, 132, 9])  # green: 4 literal bytes, a run of 4
    row += bytes([8, *range(8)])  # blue: 8 literal bytes
    row += bytes([136, 136])  # exponent: values are the mantissas
    (tmp_path / "a.hdr").write_bytes(HEADER % (1, 8) + row)
    rgb = read_hdr(tmp_path / "a.hdr")
    np.testing.assert_array_equal(rgb[0, :, 0], [128] * 8)
    np.testing.assert_array_equal(rgb[0, :, 1], [1, 2, 3, 4, 9, 9, 9, 9])
    np.testing.assert_array_equal(rgb[0, :, 2], range(8))


def test_written_header_and_bytes_are_the_standard_ones(tmp_path: Path) -> None:
    write_hdr(tmp_path / "a.hdr", np.full((1, 8, 3), (1.0, 0.5, 0.0), np.float32))
    expected = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 8\n"
    expected += bytes([2, 2, 0, 8, 136, 128, 136, 64, 136, 0, 136, 129])
    assert (tmp_path / "a.hdr").read_bytes() == expected


def test_exposure_lines_are_divided_out(tmp_path: Path) -> None:
    header = b"#?RGBE\nEXPOSURE=2\nFORMAT=32-bit_rle_rgbe\nEXPOSURE= 4.0\n\n-Y 1 +X 1\n"
    (tmp_path / "a.hdr").write_bytes(header + bytes([128, 128, 128, 132]))
    np.testing.assert_array_equal(read_hdr(tmp_path / "a.hdr"), np.ones((1, 1, 3)))


@pytest.mark.parametrize("shape", [(5, 7), (3, 8), (4, 300), (1, 1), (2, 513)])
def test_hdr_round_trip_keeps_eight_bits_of_the_largest_channel(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    rgb = high_range(*shape)
    rgb[0, : shape[1] // 2] = 3.0  # runs
    write_hdr(tmp_path / "a.hdr", rgb)
    error = np.abs(read_hdr(tmp_path / "a.hdr") - rgb).max(-1)
    assert (error <= rgb.max(-1) / 256 * 1.000001).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 2]), min_size=8, max_size=600))
def test_every_pattern_of_runs_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, pattern: list[int]
) -> None:
    path = tmp_path_factory.mktemp("hdr") / "a.hdr"
    rgb = floats([0.0, 1.0, 64.0])[np.array(pattern)][None, :, None].repeat(3, 2)
    write_hdr(path, rgb)
    np.testing.assert_array_equal(read_hdr(path), rgb)


def test_reading_and_writing_again_changes_nothing(tmp_path: Path) -> None:
    write_hdr(tmp_path / "a.hdr", high_range(6, 40))
    once = read_hdr(tmp_path / "a.hdr")
    write_hdr(tmp_path / "b.hdr", once)
    assert (tmp_path / "a.hdr").read_bytes() == (tmp_path / "b.hdr").read_bytes()


def test_exponent_extremes_do_not_wrap(tmp_path: Path) -> None:
    tiny = 2.0**-127  # e = 2
    values = [3e38, RGBE_MAX, tiny, 2.0**-135, 1e-45, -5.0, 0.998, 255.9]
    rgb = floats(values)[None, :, None].repeat(3, 2)
    write_hdr(tmp_path / "a.hdr", rgb)
    got = read_hdr(tmp_path / "a.hdr")[0, :, 0]
    np.testing.assert_array_equal(got[:2], floats([RGBE_MAX, RGBE_MAX]))
    assert got[2] == np.float32(tiny)
    assert got[3] == np.float32(2.0**-135)
    np.testing.assert_array_equal(got[4:6], [0.0, 0.0])
    # Mantissas that round up to 256 move to the next exponent instead of wrapping to 0.
    np.testing.assert_array_equal(encode_rgbe(floats([0.998, 0, 0])), [255, 0, 0, 128])
    np.testing.assert_array_equal(encode_rgbe(floats([255.9, 0, 0])), [128, 0, 0, 137])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_rgbe_cannot_hold_are_refused(tmp_path: Path, bad: float) -> None:
    with pytest.raises(ValueError, match=r"a\.hdr.*NaN or infinite"):
        write_hdr(tmp_path / "a.hdr", np.full((2, 8, 3), bad, np.float32))
    assert not list(tmp_path.iterdir())


GOOD_ROW = bytes([2, 2, 0, 8]) + bytes([136, 128]) * 4


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not '#\\?RADIANCE'"),
        (b"\x89PNG\r\n", "not '#\\?RADIANCE'"),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", "no end"),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_xyze\n\n-Y 1 +X 8\n" + GOOD_ROW, "xyze"),
        (b"#?RADIANCE\nEXPOSURE=0\n\n-Y 1 +X 8\n" + GOOD_ROW, "exposure"),
        (b"#?RADIANCE\nEXPOSURE=x\n\n-Y 1 +X 8\n" + GOOD_ROW, "could not convert"),
        (b"#?RADIANCE\n\n+Y 1 +X 8\n" + GOOD_ROW, "size line"),
        (b"#?RADIANCE\n\n-Y 0 +X 8\n" + GOOD_ROW, "8x0"),
        (b"#?RADIANCE\n\n-Y 999999 +X 32767\n" + bytes([2, 2, 127, 255]), "cannot hold"),
        (HEADER % (2, 8) + GOOD_ROW, "row 1"),
        (HEADER % (1, 8) + GOOD_ROW[:-1], "row 0"),
        (HEADER % (1, 8) + GOOD_ROW[:7], "row 0"),
        (HEADER % (1, 8) + bytes([2, 2, 0, 8, 137, 1]) + GOOD_ROW, "does not fit"),
        (HEADER % (1, 8) + bytes([2, 2, 0, 8, 0, 1]) + GOOD_ROW, "does not fit"),
        (HEADER % (1, 8) + bytes([2, 2, 0, 8, 9]) + GOOD_ROW, "does not fit"),
        (HEADER % (4, 4) + bytes(63), "63 bytes of pixels, 64 expected"),
    ],
)
def test_broken_hdr_is_named_with_its_fault(tmp_path: Path, body: bytes, message: str) -> None:
    (tmp_path / "a.hdr").write_bytes(body)
    with pytest.raises(ValueError, match=rf"a\.hdr.*{message}"):
        read_hdr(tmp_path / "a.hdr")


def test_hdr_cut_anywhere_is_an_error(tmp_path: Path) -> None:
    write_hdr(tmp_path / "a.hdr", high_range(4, 20))
    body = (tmp_path / "a.hdr").read_bytes()
    for size in range(len(body)):
        (tmp_path / "a.hdr").write_bytes(body[:size])
        with pytest.raises(ValueError, match=r"a\.hdr"):
            read_hdr(tmp_path / "a.hdr")


@pytest.mark.shared_data
def test_environment_maps_survive_a_round_trip(shared_data: Path, tmp_path: Path) -> None:
    rgb = read_hdr(shared_data / "env" / "quarry_01_1k.hdr")
    assert rgb.shape == (512, 1024, 3) and rgb.max() > 1.0
    write_hdr(tmp_path / "a.hdr", rgb)
    np.testing.assert_array_equal(read_hdr(tmp_path / "a.hdr"), rgb)


# EXR


@pytest.mark.parametrize("has_alpha", [False, True])
def test_float_exr_round_trip_is_exact(tmp_path: Path, has_alpha: bool) -> None:
    rgb = high_range(5, 7)
    rgb[0, 0] = (np.inf, -np.inf, 3e38)
    alpha = RNG.uniform(0, 1, (5, 7, 1)).astype(np.float32) if has_alpha else None
    write_exr(tmp_path / "a.exr", rgb, alpha)
    image = read_exr(tmp_path / "a.exr")
    np.testing.assert_array_equal(image.rgb, rgb)
    assert (image.alpha is None) == (alpha is None)
    if image.alpha is not None and alpha is not None:
        np.testing.assert_array_equal(image.alpha, alpha)


def test_half_exr_rounds_and_clamps_instead_of_overflowing(tmp_path: Path) -> None:
    rgb = floats([[[1e6, -1e6, 0.1], [np.inf, 6e-8, np.nan]]])
    write_exr(tmp_path / "a.exr", rgb, half=True)
    got = read_exr(tmp_path / "a.exr").rgb
    np.testing.assert_array_equal(got[0, 0], floats([65504, -65504, np.float16(0.1)]))
    np.testing.assert_array_equal(got[0, 1], floats([np.inf, np.float16(6e-8), np.nan]))


def test_luminance_and_layered_exr_are_understood(tmp_path: Path) -> None:
    plane = high_range(5, 7)[..., 0]
    write_exr_channels(tmp_path / "y.exr", {"Y": plane})
    np.testing.assert_array_equal(read_exr(tmp_path / "y.exr").rgb, plane[..., None].repeat(3, 2))
    layer = {f"view.{name}": plane * i for i, name in enumerate("RGBA", 1)}
    write_exr_channels(tmp_path / "l.exr", layer | {"depth.Z": plane})
    image = read_exr(tmp_path / "l.exr")
    np.testing.assert_array_equal(image.rgb[..., 2], plane * 3)
    assert image.alpha is not None
    np.testing.assert_array_equal(image.alpha[..., 0], plane * 4)


def test_tiled_half_exr_of_another_writer_is_understood(tmp_path: Path) -> None:
    rgba = RNG.uniform(0, 1, (70, 90, 4)).astype(np.float16)
    tiles = OpenEXR.TileDescription()
    tiles.xSize = tiles.ySize = 32
    header = {
        "type": OpenEXR.tiledimage,
        "tiles": tiles,
        "compression": OpenEXR.PIZ_COMPRESSION,
    }
    with OpenEXR.File(header, {"RGBA": rgba}) as file:
        file.write(str(tmp_path / "a.exr"))
    np.testing.assert_array_equal(read_exr(tmp_path / "a.exr").rgb, rgba[..., :3])


def test_exr_without_colour_is_named(tmp_path: Path) -> None:
    write_exr_channels(tmp_path / "a.exr", {"Z": np.ones((4, 4), np.float32)})
    with pytest.raises(ValueError, match=r"a\.exr has no R, G, B or Y channels, only \['Z'\]"):
        read_exr(tmp_path / "a.exr")


def test_luminance_with_chroma_is_not_taken_for_grey(tmp_path: Path) -> None:
    plane = np.ones((4, 4), np.float32)
    write_exr_channels(tmp_path / "a.exr", {"Y": plane, "RY": plane, "BY": plane})
    with pytest.raises(ValueError, match=r"a\.exr.*luminance and chroma"):
        read_exr(tmp_path / "a.exr")


@pytest.mark.parametrize("body", [b"", b"\x89PNG\r\n\x1a\n", b"#?RADIANCE\n"])
def test_files_that_are_not_exr_are_named(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "a.exr").write_bytes(body)
    with pytest.raises(ValueError, match=r"a\.exr is not an OpenEXR file"):
        read_exr(tmp_path / "a.exr")


def test_exr_cut_anywhere_is_an_error(tmp_path: Path) -> None:
    write_exr(tmp_path / "a.exr", high_range(40, 20))
    body = (tmp_path / "a.exr").read_bytes()
    for size in range(0, len(body), 97):
        (tmp_path / "a.exr").write_bytes(body[:size])
        with pytest.raises(ValueError, match=r"a\.exr"):
            read_exr(tmp_path / "a.exr")


@pytest.mark.parametrize("shape", [(0, 8), (8, 0)])
def test_empty_images_are_not_written(tmp_path: Path, shape: tuple[int, int]) -> None:
    empty = np.zeros((*shape, 3), np.float32)
    with pytest.raises(ValueError, match=r"a\.exr"):
        write_exr(tmp_path / "a.exr", empty)
    with pytest.raises(ValueError, match=r"a\.hdr"):
        write_hdr(tmp_path / "a.hdr", empty)


def test_missing_files_are_named(tmp_path: Path) -> None:
    for read in (read_exr, read_hdr, read_ldr):
        with pytest.raises(ValueError, match=r"no image file .*gone"):
            read(tmp_path / "gone")


def test_failed_writes_keep_the_old_file_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_hdr(tmp_path / "a.hdr", high_range(2, 8))
    before = (tmp_path / "a.hdr").read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    for write in (write_hdr, write_exr):
        with pytest.raises(OSError, match=r"no space left to write .*a\.hdr; the previous file"):
            write(tmp_path / "a.hdr", high_range(2, 8))
    assert [path.name for path in tmp_path.iterdir()] == ["a.hdr"]
    assert (tmp_path / "a.hdr").read_bytes() == before


def test_missing_folders_are_made(tmp_path: Path) -> None:
    for write in (write_exr, write_hdr):
        write(tmp_path / write.__name__ / "new" / "a", high_range(2, 8))
        assert (tmp_path / write.__name__ / "new" / "a").is_file()
