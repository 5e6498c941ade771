"""How are the buffers of a view kept: as numbers for programs, or as pictures for people?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32
from PIL import Image
from torch import Tensor

from splatir.codecs.atomic import atomic_file
from splatir.codecs.exr import write_exr_channels
from splatir.evaluate.pictures import (
    albedo_picture,
    depth_picture,
    normal_picture,
    srgb_picture,
    value_picture,
)
from splatir.evaluate.report import save_png
from splatir.render.buffers import ViewBuffers
from splatir.render.tone import ToneCurve, composite_srgb, display_srgb

FrameFormat = Literal["npz", "png", "exr"]

# What a light decides; the rest is the surface's own.
_PICTURE = ("rgb", "alpha")
_AXES = {"rgb": "RGB", "albedo": "RGB", "normal": "XYZ"}


def buffer_arrays(
    buffers: ViewBuffers, only_picture: bool = False
) -> dict[str, Float32[np.ndarray, "..."]]:
    """Buffers by the names of the stable output; those that the model does not have are left out.

    Args:
        buffers: Of a view.
        only_picture: Leave out all but `rgb` and `alpha`.

    Returns:
        rgb, albedo and normal [h,w,3]; alpha, depth, roughness, metallic and, where there is cloth,
        sheen [h,w].
    """
    named = {
        "rgb": buffers.rgb,
        "alpha": buffers.alpha,
        "albedo": buffers.albedo,
        "roughness": buffers.roughness,
        "metallic": buffers.metallic,
        "sheen": buffers.sheen,
        "depth": buffers.depth,
        "normal": buffers.normals,
    }
    return {
        name: (value if name in _AXES else value[..., 0]).detach().cpu().float().numpy()
        for name, value in named.items()
        if value is not None and (name in _PICTURE or not only_picture)
    }


def write_npz(path: Path, buffers: ViewBuffers, only_picture: bool = False) -> None:
    """Write float32 buffers, straight and not clipped, by the names of `buffer_arrays`.

    Raises:
        OSError: The file cannot be written.
    """
    with atomic_file(path) as stream:
        np.savez_compressed(stream, **buffer_arrays(buffers, only_picture))  # pyright: ignore[reportArgumentType]


def write_exr_buffers(
    path: Path,
    buffers: ViewBuffers,
    only_picture: bool = False,
    background: Float[Tensor, "*size 3"] | None = None,
) -> None:
    """Write one EXR file: R, G, B multiplied by A, then "albedo.R", "normal.X", "roughness", ....

    Args:
        path: File to make or replace.
        buffers: Of a view.
        only_picture: Leave out all but colour and alpha.
        background: Linear colour or picture behind everything; None keeps coverage in A.

    Raises:
        OSError: The file cannot be written.
    """
    arrays = buffer_arrays(buffers, only_picture)
    alpha = arrays.pop("alpha")
    rgb = arrays.pop("rgb") * alpha[..., None]
    if background is not None:
        behind = background.detach().cpu().float().numpy()
        rgb, alpha = rgb + (1.0 - alpha[..., None]) * behind, np.ones_like(alpha)
    planes = {axis: rgb[..., i] for i, axis in enumerate("RGB")} | {"A": alpha}
    for name, values in arrays.items():
        if name in _AXES:
            planes |= {f"{name}.{axis}": values[..., i] for i, axis in enumerate(_AXES[name])}
        else:
            planes[name] = values
    write_exr_channels(path, {name: np.ascontiguousarray(p) for name, p in planes.items()})


def write_png(
    path: Path,
    buffers: ViewBuffers,
    curve: ToneCurve,
    background_srgb: Float[Tensor, "*size 3"] | None = None,
) -> None:
    """Write the picture alone as an 8-bit PNG.

    Args:
        path: File to make or replace.
        buffers: Of a view.
        curve: From linear to display.
        background_srgb: Colour or picture behind everything; None writes straight alpha.

    Raises:
        OSError: The file cannot be written.
    """
    if background_srgb is not None:
        save_png(path, Image.fromarray(frame_picture(buffers, curve, background_srgb)))
        return
    colour = srgb_picture(display_srgb(buffers.rgb, curve))
    alpha = srgb_picture(buffers.alpha.expand_as(buffers.rgb))[..., :1]
    save_png(path, Image.fromarray(np.concatenate([colour, alpha], axis=-1)))


def write_buffer_pngs(path: Path, buffers: ViewBuffers) -> None:
    """Write the buffers besides the picture as PNG files beside it: NAME_albedo.png and so on.

    Args:
        path: NAME.png, which is not written.
        buffers: Of a view; those that the model does not have are left out.

    Raises:
        OSError: A file cannot be written.
    """
    alpha = buffers.alpha[..., 0]
    pictures = {
        "depth": depth_picture(buffers.depth[..., 0], alpha),
        "normal": normal_picture(buffers.normals, alpha),
    }
    if buffers.albedo is not None:
        pictures["albedo"] = albedo_picture(buffers.albedo, buffers.alpha)
    for name in ("roughness", "metallic", "sheen"):
        values = getattr(buffers, name)
        if values is not None:
            pictures[name] = value_picture(values[..., 0], alpha)
    for name, picture in pictures.items():
        save_png(path.with_name(f"{path.stem}_{name}.png"), Image.fromarray(picture))


def frame_picture(
    buffers: ViewBuffers, curve: ToneCurve, background_srgb: Float[Tensor, "*size 3"]
) -> np.ndarray:
    """The picture over a background as 8-bit sRGB [h,w,3].

    Args:
        buffers: Of a view.
        curve: From linear to display.
        background_srgb: Colour or picture behind everything.
    """
    shown = display_srgb(buffers.rgb, curve)
    return srgb_picture(composite_srgb(shown, buffers.alpha, background_srgb))


def frame_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of files for views: the last part of the view's name, or all of it if two share that.

    Args:
        names: Of the views, unique, folders separated by "/".
    """
    stems = [name.rpartition("/")[2] for name in names]
    if len(set(stems)) == len(stems):
        return tuple(stems)
    # Names of images outside the image folder are absolute.
    return tuple(name.lstrip("/") for name in names)
