"""How is an environment map read from and written to .hdr and .exr files?

A map is latitude-longitude, linear Rec. 709, row 0 at +Z of its frame: docs/files.md.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from splatir.codecs.exr import read_exr, write_exr
from splatir.codecs.hdr import read_hdr, write_hdr
from splatir.scene.environment_map import rotate_environment, sample_environment
from splatir.scene.lights import EnvironmentLight, environment_directions

ENVIRONMENT_SUFFIXES = (".hdr", ".exr")
_LDR_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
# Width over height beyond which a picture is no stretched map but a cube map or a light probe.
_ASPECT_RANGE = (1.5, 2.5)
# Maps are enlarged by this before they turn, up to so many rows, as bilinear values blur.
_ENLARGEMENT = 4
_MAX_ENLARGED = 512


def read_environment(path: Path, height: int | None = None) -> EnvironmentLight:
    """Read a latitude-longitude map; alpha is ignored, luminance becomes grey.

    Args:
        path: Radiance .hdr or OpenEXR .exr.
        height: Rows of the result, which then is twice as wide; averaged by solid angle. None
            keeps the file's size.

    Returns:
        The map in the file's own frame, float32, on the CPU.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a complete .hdr or .exr, a shape that is no latitude-longitude map, or
            radiance that is negative, NaN or infinite.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no environment map {path}. Give a .hdr or .exr file.")
    _check_suffix(path)
    rgb = read_hdr(path) if path.suffix.lower() == ".hdr" else read_exr(path).rgb
    _check_shape(path, rgb)
    _check_radiance(f"{path} holds", rgb)
    light = EnvironmentLight(torch.from_numpy(np.ascontiguousarray(rgb)))
    return light if height is None else resize_environment(light, height)


def write_environment(path: Path, light: EnvironmentLight) -> None:
    """Write a map; the file appears only when it is complete.

    .exr keeps float32 exactly, .hdr 8 bits below each texel's largest channel.

    Args:
        path: File to make or replace, .hdr or .exr.
        light: Map, in the frame that the file is to have.

    Raises:
        ValueError: Another suffix, or radiance that is negative, NaN or infinite.
        OSError: The file cannot be written; the previous one is unchanged.
    """
    _check_suffix(path)
    rgb = light.radiance.detach().cpu().float().numpy()
    _check_radiance(f"{path} was to hold", rgb)
    write = write_hdr if path.suffix.lower() == ".hdr" else write_exr
    write(path, rgb)


def resize_environment(light: EnvironmentLight, height: int) -> EnvironmentLight:
    """The same light on another grid, twice as wide as high; power is kept to rounding.

    Each new texel is the mean of what it overlaps, by solid angle.

    Args:
        light: Map, constant within each texel.
        height: Rows of the result, at least 1.
    """
    old_height, old_width = light.radiance.shape[:2]
    rows = _overlap(_edges(old_height, torch.pi).cos(), _edges(height, torch.pi).cos())
    columns = _overlap(_edges(old_width), _edges(2 * height))
    radiance = torch.einsum("ij,jkc,lk->ilc", rows, light.radiance.double().cpu(), columns)
    return EnvironmentLight(radiance.to(light.radiance))


def turn_for_file(light: EnvironmentLight, R_file_light: Float[Tensor, "3 3"]) -> EnvironmentLight:
    """A map in the frame of a file; larger than `light` where the turn has to resample it.

    Args:
        light: Map.
        R_file_light: Rotation from the map's frame to the file's.
    """
    is_about_z = bool((R_file_light[2, :2].abs() < 1e-6).all()) and R_file_light[2, 2] > 0
    height = light.radiance.shape[0]
    larger = min(_ENLARGEMENT * height, _MAX_ENLARGED)
    if not is_about_z and larger > height:
        directions = environment_directions(larger, 2 * larger, light.radiance)
        light = EnvironmentLight(sample_environment(light, directions))
    return rotate_environment(light, R_file_light)


def _edges(count: int, end: float = 1.0) -> Float[Tensor, " edges"]:
    return torch.linspace(0.0, end, count + 1, dtype=torch.float64)


def _overlap(
    old_edges: Float[Tensor, " old_edges"], new_edges: Float[Tensor, " new_edges"]
) -> Float[Tensor, "new old"]:
    """Share of each old interval in each new one; edges are monotonic and share both ends."""
    old_low, old_high = torch.stack([old_edges[:-1], old_edges[1:]]).aminmax(dim=0)
    new_low, new_high = torch.stack([new_edges[:-1], new_edges[1:]]).aminmax(dim=0)
    low = torch.maximum(old_low, new_low[:, None])
    high = torch.minimum(old_high, new_high[:, None])
    return (high - low).clamp_min(0.0) / (new_high - new_low)[:, None]


def _check_suffix(path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix in ENVIRONMENT_SUFFIXES:
        return
    why = "its pixels end at white, and light does not" if suffix in _LDR_SUFFIXES else "unknown"
    raise ValueError(f"{path} cannot be an environment map ({why}); use .hdr or .exr.")


def _check_shape(path: Path, rgb: Float32[np.ndarray, "h w 3"]) -> None:
    height, width = rgb.shape[:2]
    if not _ASPECT_RANGE[0] <= width / height <= _ASPECT_RANGE[1]:
        raise ValueError(
            f"{path} has {width}x{height} pixels; a latitude-longitude map is twice as wide as "
            "high. Convert cube maps and light probes first."
        )
    if width != 2 * height:
        warnings.warn(
            f"{path} has {width}x{height} pixels; it is taken for a latitude-longitude map, "
            "which is twice as wide as high.",
            stacklevel=3,
        )


def _check_radiance(subject: str, rgb: Float32[np.ndarray, "h w 3"]) -> None:
    for fault, is_bad in (
        ("NaN", np.isnan(rgb)),
        ("infinite", np.isinf(rgb)),
        ("negative", rgb < 0.0),
    ):
        texels = np.argwhere(is_bad.any(-1))
        if len(texels):
            row, column = texels[0].tolist()
            raise ValueError(
                f"{subject} {fault} radiance in {len(texels)} texels, the first at row {row}, "
                f"column {column}. Replace such values before using it as light."
            )
