"""The photos of a capture as photos of its object alone: with its masks, and equally exposed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from splatir.codecs.atomic import atomic_path
from splatir.codecs.ldr import read_ldr
from splatir.data.cache import PhotoSource
from splatir.data.dataset import View
from splatir.data.images import Photo, Rim
from splatir.maths.colour import exposed_srgb

# Where less than this of what is near shows the surroundings, the photo says nothing of them.
_NONE_NEAR = 1e-3
# Uncertain pixels on each side of an outline: a share of the longer side of the photo, or more.
_RIM_SHARE, _MIN_RIM = 0.008, 2


class ObjectPhotos:
    """Photos whose alpha marks the object; a `PhotoSource`.

    What lies outside the object keeps its colour.
    """

    def __init__(
        self,
        photos: PhotoSource,
        masks: Sequence[UInt8[Tensor, "h w"]],
        behind: Sequence[UInt8[Tensor, "h w 3"]],
        exposures: Float[Tensor, "views 3"] | None,
    ) -> None:
        """Put masks over photos.

        Args:
            photos: Of the whole capture.
            masks: Of each, 255 where the object is.
            behind: What each would show without the object, about: sRGB.
            exposures: Log gains of each photo, which are taken out; None for none.
        """
        self._photos = photos
        self._masks = masks
        self._behind = behind
        self._mended: dict[int, UInt8[Tensor, "h w 3"]] = {}
        self._log_gains = None if exposures is None else exposures.detach().cpu()

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, view_index: int) -> Photo:
        """Pixels of a view, as `PhotoCache` gives them."""
        photo = self._photos[view_index]
        if self._log_gains is not None:
            photo = evenly_exposed(photo, self._log_gains[view_index])
        mask = self._masks[view_index].float()[..., None] / 255.0
        width = _rim_width(mask.shape)
        is_rim = _largest(mask, width) + _largest(1.0 - mask, width) > 1.5
        if view_index not in self._mended:
            behind = self._behind[view_index].float() / 255.0
            mended = mended_background(behind, photo.rgb_srgb, mask)
            self._mended[view_index] = (255.0 * mended + 0.5).to(torch.uint8)
        rim = Rim(is_rim, self._mended[view_index].float() / 255.0)
        return Photo(photo.rgb, mask, photo.encoding, photo.bits, photo.maps, rim)

    def with_larger_masks(self) -> "ObjectPhotos":
        """The same photos with masks larger by a pixel all around.

        A shape that is carved from many masks lacks whatever a single one of them lacks.
        """
        masks = [(255.0 * _largest(m[..., None] / 255.0, 1)[..., 0]).byte() for m in self._masks]
        return ObjectPhotos(self._photos, masks, self._behind, self._log_gains)

    def prefetch(self, view_index: int) -> None:
        """Start to decode a view that is needed soon."""
        self._photos.prefetch(view_index)

    def white(self, view_index: int) -> float:
        """What white of the photo's file is by now, in its darkest channel."""
        if self._log_gains is None:
            return 1.0
        return float(exposed_srgb(torch.ones(3), -self._log_gains[view_index]).min())


def evenly_exposed(photo: Photo, log_gains: Float[Tensor, " 3"]) -> Photo:
    """A photo as it would be without gains of its own.

    Args:
        photo: Pixels.
        log_gains: What its exposure multiplied linear light by.
    """
    is_srgb = photo.encoding == "srgb"
    rgb = exposed_srgb(photo.rgb, -log_gains) if is_srgb else photo.rgb * (-log_gains).exp()
    return replace(photo, rgb=rgb)


def mended_background(
    behind_srgb: Float[Tensor, "h w 3"],
    photo_srgb: Float[Tensor, "h w 3"],
    mask: Float[Tensor, "h w 1"],
) -> Float[Tensor, "h w 3"]:
    """What a photo would show without its object, as right near the outline as the photo tells.

    The surroundings' splat is blurred, and how much of a pixel the object covers is told by what is
    behind it. Whatever the splat is off by just outside the object it is also off by at the edge.

    Args:
        behind_srgb: The surroundings' splat alone, display values.
        photo_srgb: Likewise, with the object.
        mask: Where that is, in [0, 1].
    """
    width = _rim_width(mask.shape)
    is_bare = (_largest(mask, width) < 0.5).float()
    error = torch.cat([is_bare * (photo_srgb - behind_srgb), is_bare], -1)
    near = ndimage.gaussian_filter(error.numpy(), sigma=(width, width, 0))
    error, share = torch.from_numpy(near).split([3, 1], -1)
    return (behind_srgb + error / (share + _NONE_NEAR)).clamp(0.0, 1.0)


def _largest(mask: Float[Tensor, "h w 1"], reach: int) -> Float[Tensor, "h w 1"]:
    """The largest value within so many pixels."""
    grown = functional.max_pool2d(mask[None, ..., 0], 2 * reach + 1, 1, reach)
    return grown[0][..., None]


def _rim_width(size: Sequence[int]) -> int:
    """Pixels on each side of an outline in which coverage is uncertain."""
    return max(_MIN_RIM, round(_RIM_SHARE * max(size)))


def mask_path(folder: Path, view: View) -> Path:
    """Where the mask of a view is kept."""
    return folder / f"{view.name}.png"


def write_masks(folder: Path, views: Sequence[View], masks: Sequence[UInt8[Tensor, "h w"]]) -> None:
    """Write masks as grey PNG files, as large as the training's photos, 255 inside.

    Args:
        folder: Made if need be; files of the same name are replaced.
        views: Name the files.
        masks: Of each view.
    """
    for view, mask in zip(views, masks, strict=True):
        path = mask_path(folder, view)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            Image.fromarray(mask.cpu().numpy(), "L").save(temporary, format="PNG")


def read_masks(folder: Path, views: Sequence[View]) -> list[UInt8[Tensor, "h w"]]:
    """Read what `write_masks` wrote.

    Args:
        folder: As there.
        views: Likewise.

    Raises:
        FileNotFoundError: A mask is not there.
        ValueError: A mask is no picture of its view's size.
    """
    masks = []
    for view in views:
        path = mask_path(folder, view)
        if not path.is_file():
            raise FileNotFoundError(
                f"no mask {path}: the run was trained with one for each photo. Restore the "
                "folder, or train again."
            )
        samples = read_ldr(path)
        size = (view.camera.height, view.camera.width)
        if samples.shape[:2] != size or samples.dtype != np.uint8:
            raise ValueError(
                f"mask {path} must be an 8-bit picture of {size[1]}x{size[0]} pixels, got "
                f"{samples.shape[1]}x{samples.shape[0]} of {samples.dtype}."
            )
        masks.append(torch.from_numpy(samples[..., 0].copy()))
    return masks
