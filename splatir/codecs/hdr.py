"""How are Radiance .hdr images (RGBE, flat or run-length encoded) read and written?"""

import re
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from splatir.codecs.atomic import atomic_file

_MAGICS = (b"#?RADIANCE", b"#?RGBE")
_MAX_HEADER_BYTES = 65536
# Largest value a pixel can hold: mantissa 255/256 times 2**(255 - 128).
RGBE_MAX = 255.0 * 2.0 ** (255 - 136)


def read_hdr(path: Path) -> Float32[np.ndarray, "h w 3"]:
    """Read a Radiance picture; values are divided by its EXPOSURE lines, as Radiance defines.

    A pixel (r, g, b, e) with e > 0 stands for (r, g, b) * 2**(e - 136), the convention of image
    libraries (Radiance's own tools add half a step to r, g, b).

    Args:
        path: File with format 32-bit_rle_rgbe and orientation -Y h +X w.

    Returns:
        Linear, not negative; all values are finite.

    Raises:
        ValueError: Missing file, not Radiance, XYZ colour, another orientation, broken or short
            pixel data.
    """
    if not path.is_file():
        raise ValueError(f"no image file {path}.")
    body = path.read_bytes()
    try:
        width, height, exposure, start = _parse_header(body)
        rgbe = _decode_pixels(np.frombuffer(body, np.uint8), start, width, height)
    except ValueError as error:
        raise ValueError(
            f"cannot read {path}: {error}. Expected a complete Radiance .hdr file; "
            "copy or export it again."
        ) from error
    exponent = rgbe[..., 3:].astype(np.int32)
    scale = np.where(exponent > 0, np.ldexp(np.float32(1.0), exponent - 136), np.float32(0.0))
    rgb = rgbe[..., :3] * scale.astype(np.float32)
    return rgb if exposure == 1.0 else (rgb / exposure).astype(np.float32)


def write_hdr(path: Path, rgb: Float32[np.ndarray, "h w 3"]) -> None:
    """Write a run-length encoded Radiance picture; the file appears only when it is complete.

    Each pixel keeps 8 bits below its largest channel (error up to 0.4 % of that channel).

    Args:
        path: File to make or replace.
        rgb: Linear values. Negative ones become 0, those above 1.7e38 that value.

    Raises:
        ValueError: NaN or infinite values, or no pixels.
    """
    height, width = rgb.shape[:2]
    if not np.isfinite(rgb).all():
        raise ValueError(f"{path}: RGBE holds no NaN or infinite values; repair them first.")
    if height == 0 or width == 0:
        raise ValueError(f"{path}: the image has no pixels ({width}x{height}).")
    rgbe = encode_rgbe(rgb)
    header = f"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y {height} +X {width}\n".encode()
    # The run-length layout exists only for these widths.
    rows = [_encode_row(row) for row in rgbe] if 8 <= width < 32768 else [rgbe.tobytes()]
    with atomic_file(path) as stream:
        stream.write(header + b"".join(rows))


def encode_rgbe(rgb: Float32[np.ndarray, "*batch 3"]) -> UInt8[np.ndarray, "*batch 4"]:
    """Shared-exponent bytes of finite colours, each mantissa rounded to the nearest.

    Args:
        rgb: Linear; negative values become 0.
    """
    rgb = np.clip(rgb.astype(np.float64), 0.0, RGBE_MAX)
    peak = rgb.max(axis=-1)
    _, exponent = np.frexp(peak)
    # Rounding up may carry the largest mantissa to 256: it then needs the next exponent.
    exponent = exponent + (np.round(np.ldexp(peak, 8 - exponent)) >= 256)
    exponent = np.maximum(exponent, -127)
    mantissa = np.round(np.ldexp(rgb, (8 - exponent)[..., None]))
    rgbe = np.concatenate([mantissa, (exponent + 128)[..., None]], axis=-1)
    return np.where(mantissa.any(axis=-1, keepdims=True), rgbe, 0.0).astype(np.uint8)


def _parse_header(body: bytes) -> tuple[int, int, float, int]:
    """Width, height, exposure and the offset of the pixels."""
    if not body.startswith(_MAGICS):
        raise ValueError(f"it begins with {body[:10]!r}, not '#?RADIANCE'")
    end = body.find(b"\n\n", 0, _MAX_HEADER_BYTES)
    line_end = body.find(b"\n", end + 2)
    if end < 0 or line_end < 0:
        raise ValueError("the header has no end")
    exposure = 1.0
    for line in body[:end].decode("latin-1").split("\n")[1:]:
        key, _, value = line.partition("=")
        if key.strip() == "FORMAT" and value.strip() != "32-bit_rle_rgbe":
            raise ValueError(f"its format is {value.strip()!r}, not 32-bit_rle_rgbe")
        if key.strip() == "EXPOSURE":
            exposure *= float(value)
    if not (np.isfinite(exposure) and exposure > 0):
        raise ValueError(f"its exposure is {exposure}")
    resolution = body[end + 2 : line_end].decode("latin-1")
    match = re.fullmatch(r"-Y (\d{1,6}) \+X (\d{1,6})", resolution.strip())
    if match is None:
        raise ValueError(f"its size line is {resolution!r}, not '-Y <height> +X <width>'")
    height, width = int(match[1]), int(match[2])
    if height == 0 or width == 0:
        raise ValueError(f"its size is {width}x{height}")
    return width, height, exposure, line_end + 1


def _decode_pixels(
    body: UInt8[np.ndarray, " n"], start: int, width: int, height: int
) -> UInt8[np.ndarray, "h w 4"]:
    """RGBE pixels of all rows."""
    first = body[start : start + 4].tolist()
    is_rle = 8 <= width < 32768 and first == [2, 2, width >> 8, width & 255]
    if not is_rle:
        size = width * height * 4
        if len(body) - start < size:
            raise ValueError(
                f"{len(body) - start} bytes of pixels, {size} expected of flat data "
                "(Radiance's old run-length encoding is not supported)"
            )
        return body[start : start + size].reshape(height, width, 4)
    # A run of up to 127 equal bytes takes two: a size beyond that cannot be in the file.
    if width * height * 4 > (len(body) - start) * 64:
        raise ValueError(f"{len(body) - start} bytes cannot hold {width}x{height} pixels")
    rgbe = np.empty((height, 4, width), np.uint8)
    offset = start
    for row in range(height):
        offset = _decode_row(body, offset, rgbe[row], row)
    return rgbe.transpose(0, 2, 1)


def _decode_row(
    body: UInt8[np.ndarray, " n"], offset: int, planes: UInt8[np.ndarray, "4 w"], row: int
) -> int:
    """Decode one row's four byte planes in place; returns the offset behind it."""
    width = planes.shape[1]
    if body[offset : offset + 4].tolist() != [2, 2, width >> 8, width & 255]:
        raise ValueError(f"row {row} has no run-length mark")
    offset += 4
    for plane in planes:
        column = 0
        while column < width:
            if offset + 1 >= len(body):
                raise ValueError(f"the data ends in row {row}")
            count = int(body[offset])
            is_run = count > 128
            length = count - 128 if is_run else count
            behind = offset + 2 if is_run else offset + 1 + length
            if length == 0 or column + length > width or behind > len(body):
                raise ValueError(f"a run of row {row} does not fit its {width} pixels")
            plane[column : column + length] = (
                body[offset + 1] if is_run else body[offset + 1 : behind]
            )
            column += length
            offset = behind
    return offset


def _encode_row(row: UInt8[np.ndarray, "w 4"]) -> bytes:
    """A row as four run-length encoded byte planes."""
    width = len(row)
    return bytes([2, 2, width >> 8, width & 255]) + b"".join(
        _encode_plane(np.ascontiguousarray(row[:, channel])) for channel in range(4)
    )


def _encode_plane(plane: UInt8[np.ndarray, " w"]) -> bytes:
    """Runs of at least 4 equal bytes as (128 + n, byte), all else as (n, bytes)."""
    edges = np.flatnonzero(np.diff(plane)) + 1
    starts = np.concatenate([[0], edges])
    ends = np.concatenate([edges, [len(plane)]])
    long = ends - starts >= 4
    out = bytearray()
    data = plane.tobytes()
    done = 0
    for start, end in [*zip(starts[long].tolist(), ends[long].tolist(), strict=True), (-1, -1)]:
        stop = len(data) if start < 0 else start
        for at in range(done, stop, 128):
            literal = data[at : min(at + 128, stop)]
            out += bytes([len(literal)]) + literal
        for at in range(start, end, 127):
            out += bytes([128 + min(127, end - at), data[start]])
        done = end
    return bytes(out)
