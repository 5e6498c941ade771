"""How does a view's image file become pixels that agree with the view's pinhole camera?"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from splatir.codecs.exr import read_exr
from splatir.codecs.hdr import read_hdr
from splatir.codecs.ldr import read_ldr
from splatir.codecs.raw import is_raw, read_raw
from splatir.data.dataset import Dataset, View
from splatir.data.exif import turned
from splatir.data.maps import SurfaceMaps
from splatir.data.resample import area_average, check_matches_camera, resize, undistort
from splatir.maths.colour import srgb_from_linear

# Weight of uncovered pixels in alpha-weighted means: keeps their colour defined, moves covered
# ones by less than 1e-3 of an 8-bit step.
_UNCOVERED_WEIGHT = 1e-6


@dataclass(frozen=True)
class Rim:
    """Pixels about an object's outline, where nobody knows its coverage exactly.

    Attributes:
        is_rim: Which pixels.
        behind_srgb: What is seen there without the object, display values.
    """

    is_rim: Bool[Tensor, "h w 1"]
    behind_srgb: Float[Tensor, "h w 3"]


@dataclass(frozen=True)
class Photo:
    """Pixels of a view, on the CPU.

    Attributes:
        rgb: Straight colour (not multiplied by alpha). In [0, 1] where `encoding` is "srgb"; linear
            and not clipped where it is "linear".
        alpha: Coverage by the object in [0, 1], or None where file and mask say nothing about it.
        encoding: Whether `rgb` holds sRGB-encoded or linear Rec. 709 values.
        bits: Bits per sample of the file: 8, 16 or 32 (floats).
        maps: What the user's files say about the surface, or None.
        rim: Where `alpha` is uncertain and `rgb` shows object and background together, or None.
    """

    rgb: Float[Tensor, "h w 3"]
    alpha: Float[Tensor, "h w 1"] | None
    encoding: Literal["srgb", "linear"]
    bits: Literal[8, 16, 32]
    maps: SurfaceMaps | None = None
    rim: Rim | None = None

    @property
    def rgb_srgb(self) -> Float[Tensor, "h w 3"]:
        """Straight display values in [0, 1]; what is brighter than white is clipped."""
        return self.rgb if self.encoding == "srgb" else srgb_from_linear(self.rgb.clamp(0.0, 1.0))


def load_photo(view: View) -> Photo:
    """Read, undistort and resize a view's image and mask.

    Coverage is the product of the file's alpha and the mask. Resizing averages area in the file's
    own encoding (so that compositing and resizing commute, as compositing is done in sRGB) and
    weights colour by coverage. Undistortion is bilinear; where the pinhole camera sees past the
    edge of the file the nearest pixel is repeated, and coverage is 0 if there is any coverage.

    Args:
        view: The view.

    Returns:
        Pixels of `view.camera`.

    Raises:
        ValueError: Missing, unreadable or truncated file; sizes of file, mask and camera that
            disagree; values that are not finite.
    """
    file = read_photo_file(view.image_path)
    rgb = turned(file.rgb, view.orientation)
    alpha = None if file.alpha is None else turned(file.alpha, view.orientation)
    height, width = rgb.shape[:2]
    if view.mask_path is not None:
        mask = _read_mask(view, width, height)
        mask = 1.0 - mask if view.invert_mask else mask
        alpha = mask if alpha is None else alpha * mask
    check_matches_camera(view, width, height)
    if view.distortion is None and (width, height) == (view.camera.width, view.camera.height):
        return Photo(rgb, alpha, file.encoding, file.bits)
    if alpha is None:
        return Photo(_resample(rgb, view)[0], None, file.encoding, file.bits)
    weighted = torch.cat([rgb * (alpha + _UNCOVERED_WEIGHT), alpha], dim=-1)
    resampled, inside = _resample(weighted, view)
    alpha = resampled[..., 3:]
    rgb = resampled[..., :3] / (alpha + _UNCOVERED_WEIGHT)
    return Photo(rgb, (alpha * inside).clamp(0.0, 1.0), file.encoding, file.bits)


def read_photo_file(path: Path) -> Photo:
    """An image file's pixels as they are stored: not undistorted, resized or turned.

    Args:
        path: Integer samples are sRGB-encoded; EXR, Radiance and RAW files are linear.

    Raises:
        ValueError: Missing, unreadable or truncated file, or values that are not finite.
        ImportError: A RAW file without rawpy.
    """
    if path.suffix.lower() == ".exr":
        image = read_exr(path)
        return _linear_photo(path, image.rgb, image.alpha)
    if path.suffix.lower() == ".hdr":
        return _linear_photo(path, read_hdr(path), None)
    if is_raw(path):
        return Photo(_unit_range(read_raw(path)), None, "linear", 16)
    samples = read_ldr(path)
    if samples.shape[-1] in (1, 2):
        samples = np.concatenate([samples[..., :1]] * 3 + [samples[..., 1:]], axis=-1)
    values = _unit_range(samples)
    alpha = values[..., 3:] if values.shape[-1] == 4 else None
    bits = 8 if samples.dtype == np.uint8 else 16
    return Photo(values[..., :3].contiguous(), alpha, "srgb", bits)


def photo_loader(
    dataset: Dataset, load_maps: Callable[[View], SurfaceMaps] | None = None
) -> Callable[[View], Photo]:
    """The loader of a data set's photos: `load_photo`, without alpha that marks no object.

    Where the background is real, as in a capture that was saved as RGBA, alpha counts only in views
    that have a mask.

    Args:
        dataset: Whose views will be loaded.
        load_maps: Loads the maps that photos come with; None leaves them without.
    """

    def load(view: View) -> Photo:
        photo = load_photo(view)
        if load_maps is not None:
            photo = replace(photo, maps=load_maps(view))
        if dataset.has_background and view.mask_path is None:
            return replace(photo, alpha=None)
        return photo

    return load


def mask_polarity_warning(alpha: Float[Tensor, "h w 1"]) -> str | None:
    """Say so if a mask keeps most of the image's border and drops most of its centre.

    Args:
        alpha: Coverage as loaded, white = keep.

    Returns:
        A sentence for the user, or None if the mask looks right.
    """
    height, width = alpha.shape[:2]
    if min(height, width) < 8:
        return None
    rim_h, rim_w = height // 8, width // 8
    third_h, third_w = height // 3, width // 3
    centre = float(alpha[third_h : height - third_h, third_w : width - third_w].mean())
    inner = alpha[rim_h : height - rim_h, rim_w : width - rim_w]
    rim = float((alpha.sum() - inner.sum()) / (alpha.numel() - inner.numel()))
    if rim <= 0.5 or centre >= 0.5:
        return None
    return (
        f"the mask keeps {rim:.0%} of the image's rim and {centre:.0%} of its centre; "
        "white must mark the object. If the masks are the other way round, invert them."
    )


def _linear_photo(path: Path, rgb: np.ndarray, alpha: np.ndarray | None) -> Photo:
    """A float image with colour multiplied by alpha, as a photo with straight colour."""
    finite = np.isfinite(rgb).all() and (alpha is None or np.isfinite(alpha).all())
    if not finite:
        raise ValueError(
            f"{path} holds NaN or infinite values. Export it again as 32-bit float "
            "with such pixels repaired, or leave the view out."
        )
    colour = torch.from_numpy(rgb)
    if alpha is None:
        return Photo(colour, None, "linear", 32)
    coverage = torch.from_numpy(alpha).clamp(0.0, 1.0)
    straight = torch.where(coverage > 0, colour / coverage.clamp_min(1e-12), 0.0)
    return Photo(straight, coverage, "linear", 32)


def _read_mask(view: View, width: int, height: int) -> Float[Tensor, "h w 1"]:
    """Coverage in [0, 1] from a grey, RGB or RGBA mask file."""
    assert view.mask_path is not None
    mask = _grey_mask(read_ldr(view.mask_path))
    mask_height, mask_width = mask.shape[:2]
    if (mask_width, mask_height) == (width, height):
        return mask
    # A mask of the full-size image may serve its downscaled copy: same picture within a pixel.
    if (
        min(
            abs(mask_width * height / width - mask_height),
            abs(mask_height * width / height - mask_width),
        )
        > 1
    ):
        raise ValueError(
            f"mask {view.mask_path} is {mask_width}x{mask_height} pixels, its image "
            f"{view.image_path} is {width}x{height}. Make the mask from this image."
        )
    return resize(mask, width, height)


def _grey_mask(samples: np.ndarray) -> Float[Tensor, "h w 1"]:
    """Values of a mask file in [0, 1], whatever its channels."""
    if samples.max() == 1:  # Label images: 0 and 1 instead of 0 and 255.
        return torch.from_numpy(samples.max(axis=-1, keepdims=True).astype(np.float32))
    values = _unit_range(samples)
    if values.shape[-1] in (1, 3):
        return values.mean(dim=-1, keepdim=True)
    grey, alpha = values[..., :-1].mean(dim=-1, keepdim=True), values[..., -1:]
    # A mask kept in alpha alone has one colour everywhere; otherwise both say what to keep.
    return alpha if grey.max() == grey.min() else grey * alpha


def _unit_range(samples: np.ndarray) -> Float[Tensor, "h w c"]:
    """Integer samples to [0, 1]."""
    return torch.from_numpy(samples.astype(np.float32)) / float(np.iinfo(samples.dtype).max)


def _resample(
    values: Float[Tensor, "h w c"], view: View
) -> tuple[Float[Tensor, "h2 w2 c"], Float[Tensor, "h2 w2 1"]]:
    """Values of the view's pixels, and the share of each pixel that the file covers."""
    camera = view.camera
    if view.distortion is None:
        inside = torch.ones((camera.height, camera.width, 1))
        return area_average(values, camera.width, camera.height), inside
    return undistort(values, view.distortion, camera)
