"""How do frames become a video that every player shows?

The ffmpeg program of the imageio-ffmpeg wheel encodes it, as a process of its own: its x264 is GPL,
and so never becomes part of this one. `IMAGEIO_FFMPEG_EXE` names another ffmpeg.
"""

import contextlib
import itertools
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import UInt8

from splatir.codecs.atomic import atomic_path

# Constant quality of x264: hard to tell from the frames.
_QUALITY = 18
# The frames are sRGB; video is Rec. 709 in limited range, and says so, or players guess.
_COLOUR = [
    "-vf", "scale=out_color_matrix=bt709:out_range=tv,"
    "setparams=colorspace=bt709:color_primaries=bt709:color_trc=iec61966-2-1",
    "-pix_fmt", "yuv420p",
]  # fmt: skip


def ffmpeg_program() -> str:
    """Path of the ffmpeg to use.

    Raises:
        ImportError: The package imageio-ffmpeg is not installed, or has no program for this system.
    """
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise ImportError(
            f"videos need the package imageio-ffmpeg ({error}). Run pip install imageio-ffmpeg, "
            "name an ffmpeg in IMAGEIO_FFMPEG_EXE, or write frames with --format png."
        ) from error


def write_mp4(path: Path, frames: Iterable[UInt8[np.ndarray, "h w 3"]], fps: float) -> None:
    """Write an H.264 video with 4:2:0 colour; the file appears only when it is complete.

    Args:
        path: File to make or replace.
        frames: sRGB, all of one size with even width and height; taken one by one.
        fps: Frames a second, positive.

    Raises:
        ValueError: No frames, odd or differing sizes.
        ImportError: As `ffmpeg_program`.
        OSError: The file cannot be written, for instance because the disk is full.
    """
    program = ffmpeg_program()
    remaining = iter(frames)
    first = next(remaining, None)
    if first is None:
        raise ValueError(f"{path}: a video needs at least one frame.")
    height, width = first.shape[:2]
    if height % 2 or width % 2 or not height or not width:
        raise ValueError(
            f"{path}: a video needs even width and height, got {width} x {height}. "
            "Give another --size."
        )
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:g}"]
    coding = ["-c:v", "libx264", "-crf", str(_QUALITY), *_COLOUR, "-movflags", "+faststart"]
    quiet = [program, "-y", "-v", "error", "-nostdin"]
    with atomic_path(path) as temporary, tempfile.TemporaryFile() as said:
        words = [*quiet, *source, "-i", "pipe:", *coding, "-f", "mp4", str(temporary)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=said) as process:
            assert process.stdin is not None
            try:
                _feed(process.stdin, path, itertools.chain([first], remaining), first.shape)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            said.seek(0)
            reason = said.read().decode("utf-8", "replace").strip() or f"{process.returncode}"
            raise OSError(f"ffmpeg could not write {path}: {reason}")


def _feed(
    pipe: IO[bytes],
    path: Path,
    frames: Iterable[UInt8[np.ndarray, "h w 3"]],
    shape: tuple[int, ...],
) -> None:
    """Hand frames to the program and close; where it ended early its own words say why."""
    with contextlib.suppress(BrokenPipeError):
        for frame in frames:
            if frame.shape != shape:
                raise ValueError(f"{path}: a video has one size, got {shape} and {frame.shape}.")
            pipe.write(np.ascontiguousarray(frame).tobytes())
        pipe.close()
