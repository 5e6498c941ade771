"""The smallest RAW file that LibRaw develops, written by hand.

Tags: Adobe's Digital Negative specification 1.4 and TIFF 6.0.
"""

import struct
from pathlib import Path

import numpy as np
from jaxtyping import Integer

_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL, _SIGNED_RATIONAL = 1, 2, 3, 4, 5, 10
_LETTERS = {_BYTE: "B", _SHORT: "H", _LONG: "I", _RATIONAL: "II", _SIGNED_RATIONAL: "ii"}
# XYZ to linear Rec. 709: the sensor sees in the colours that are asked for.
_COLOUR_MATRIX = (3.2406, -1.5372, -0.4986, -0.9689, 1.8758, 0.0415, 0.0557, -0.2040, 1.0570)


def write_dng(
    path: Path,
    mosaic: Integer[np.ndarray, "h w"],
    seconds: tuple[int, int] = (1, 100),
    f_number: tuple[int, int] = (4, 1),
    iso: int = 200,
    orientation: int = 1,
) -> None:
    """Write an uncompressed DNG.

    Args:
        path: Where to.
        mosaic: Samples under a red, green / green, blue mosaic, 65535 saturated.
        seconds: Exposure time as a fraction.
        f_number: As a fraction.
        iso: Sensitivity.
        orientation: EXIF code.
    """
    height, width = mosaic.shape
    pixels = mosaic.astype("<u2").tobytes()
    exif_at = 8 + len(pixels)
    exif = _directory(
        exif_at,
        [(33434, _RATIONAL, [seconds]), (33437, _RATIONAL, [f_number]), (34855, _SHORT, [iso])],
    )
    matrix = [(round(x * 10_000), 10_000) for x in _COLOUR_MATRIX]
    main_at = exif_at + len(exif)
    main = _directory(
        main_at,
        [
            (254, _LONG, [0]), (256, _LONG, [width]), (257, _LONG, [height]), (258, _SHORT, [16]),
            (259, _SHORT, [1]), (262, _SHORT, [32803]), (271, _ASCII, b"ACME\0"),
            (272, _ASCII, b"One\0"), (273, _LONG, [8]), (274, _SHORT, [orientation]),
            (277, _SHORT, [1]), (278, _LONG, [height]), (279, _LONG, [len(pixels)]),
            (284, _SHORT, [1]), (33421, _SHORT, [2, 2]), (33422, _BYTE, [0, 1, 1, 2]),
            (34665, _LONG, [exif_at]), (50706, _BYTE, [1, 4, 0, 0]), (50707, _BYTE, [1, 1, 0, 0]),
            (50708, _ASCII, b"ACME One\0"), (50714, _SHORT, [0]), (50717, _LONG, [65535]),
            (50721, _SIGNED_RATIONAL, matrix), (50728, _RATIONAL, [(1, 1)] * 3),
            (50778, _SHORT, [21]),
        ],
    )  # fmt: skip
    path.write_bytes(b"II*\0" + struct.pack("<I", main_at) + pixels + exif + main)


def _directory(at: int, tags: list[tuple[int, int, list | bytes]]) -> bytes:
    """A TIFF directory with what does not fit into it behind it."""
    entries, behind = struct.pack("<H", len(tags)), b""
    behind_at = at + 2 + 12 * len(tags) + 4
    for number, kind, values in tags:
        if isinstance(values, bytes):
            raw = values
        else:
            flat = [v if isinstance(v, tuple) else (v,) for v in values]
            raw = b"".join(struct.pack("<" + _LETTERS[kind], *v) for v in flat)
        field = raw.ljust(4, b"\0")
        if len(raw) > 4:
            field = struct.pack("<I", behind_at + len(behind))
            behind += raw + b"\0" * (len(raw) % 2)
        entries += struct.pack("<HHI", number, kind, len(values)) + field
    return entries + bytes(4) + behind
