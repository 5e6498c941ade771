"""Where do benchmark scenes keep the truth about their test views, and in which encoding?

docs/data.md has the layouts. Everything is returned in the frame of the data.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from splatir.codecs.ldr import read_ldr
from splatir.data.dataset import View
from splatir.maths.colour import linear_from_srgb

Protocol = Literal["splatir", "tensoir", "synthetic4relight", "nerf-synthetic"]

_MAPS = (".exr", ".hdr")


@dataclass(frozen=True)
class TruePicture:
    """A picture as a file has it.

    Attributes:
        rgb_srgb: Straight sRGB values in [0, 1].
        alpha: Coverage; 1 where the file has none.
    """

    rgb_srgb: Float[np.ndarray, "height width 3"]
    alpha: Float[np.ndarray, "height width"]


@dataclass(frozen=True)
class TrueBuffers:
    """What is known of a test view; None where the data does not say.

    Attributes:
        alpha: Coverage by the object.
        albedo: Linear base colour.
        roughness: Perceptual.
        metallic: 0 to 1.
        normals: Shading normals, unit.
        geo_normals: Normals of the mesh, unit.
        depth: Camera z.
    """

    alpha: Float[np.ndarray, "height width"]
    albedo: Float[np.ndarray, "height width 3"] | None = None
    roughness: Float[np.ndarray, "height width"] | None = None
    metallic: Float[np.ndarray, "height width"] | None = None
    normals: Float[np.ndarray, "height width 3"] | None = None
    geo_normals: Float[np.ndarray, "height width 3"] | None = None
    depth: Float[np.ndarray, "height width"] | None = None


def protocol_of(root: Path) -> Protocol:
    """Whose layout a scene folder has; NeRF-synthetic if nothing else is recognised."""
    if (root / "gt").is_dir():
        return "splatir"
    if any(root.glob("test_*/albedo.png")):
        return "tensoir"
    if (root / "test_rli").is_dir():
        return "synthetic4relight"
    return "nerf-synthetic"


def true_buffers(root: Path, protocol: Protocol, view: View) -> TrueBuffers:
    """What is known of a test view.

    Args:
        root: Scene folder.
        protocol: Its layout.
        view: Of the scene's test split.

    Raises:
        ValueError: A file that is missing or broken, or a photo without alpha.
    """
    if protocol == "splatir":
        return _read_npz(root / "gt" / f"{view.image_path.stem}.npz")
    alpha = read_picture(view.image_path).alpha
    folder, stem = view.image_path.parent, view.image_path.stem
    if protocol == "tensoir":
        # Its evaluation compares albedo.png as stored with linear predictions.
        albedo = read_picture(folder / "albedo.png").rgb_srgb
        return TrueBuffers(alpha, albedo, normals=_read_normals(folder / "normal.png"))
    if protocol == "synthetic4relight":
        stem = stem.removesuffix("_rgba")
        colour = read_picture(folder / f"{stem}_albedo.png").rgb_srgb
        rough = read_picture(folder / f"{stem}_rough.png").rgb_srgb[..., 0]
        albedo = linear_from_srgb(torch.from_numpy(colour)).numpy()
        return TrueBuffers(alpha, albedo, rough)
    normals = sorted(folder.glob(f"{stem}_normal*.png"))
    return TrueBuffers(alpha, normals=_read_normals(normals[0]) if normals else None)


def relit_lights(root: Path, protocol: Protocol, view: View) -> tuple[str, ...]:
    """Names of the lights under which the truth has a test view, besides its own.

    Args:
        root: Scene folder.
        protocol: Its layout.
        view: Of the scene's test split.
    """
    if protocol == "splatir":
        return tuple(sorted(p.name for p in (root / "relight").glob("*") if p.is_dir()))
    folder, stem = view.image_path.parent, view.image_path.stem
    if protocol == "tensoir":
        names = {path.stem.removeprefix("rgba_") for path in folder.glob("rgba_*.png")}
        return tuple(sorted(names - {stem.removeprefix("rgba_")}))
    if protocol == "synthetic4relight":
        ending = f"_{stem.removesuffix('_rgba')}.png"
        paths = (root / "test_rli").glob(f"*{ending}")
        return tuple(sorted(path.name.removesuffix(ending) for path in paths))
    return ()


def relit_picture(root: Path, protocol: Protocol, view: View, light: str) -> TruePicture:
    """The truth about a test view under another light.

    Args:
        root: Scene folder.
        protocol: Its layout.
        view: Of the scene's test split.
        light: One of `relit_lights`.

    Raises:
        ValueError: A file that is missing or broken.
    """
    if protocol == "splatir":
        return read_picture(root / "relight" / light / view.image_path.name)
    if protocol == "tensoir":
        return read_picture(view.image_path.parent / f"rgba_{light}.png")
    stem = view.image_path.stem.removesuffix("_rgba")
    return read_picture(root / "test_rli" / f"{light}_{stem}.png")


def environment_file(root: Path, folder: Path | None, light: str) -> Path:
    """Environment map of a light.

    Args:
        root: Scene folder; its `envs` is looked into without `folder`.
        folder: Where the maps are.
        light: Name of the light.

    Raises:
        FileNotFoundError: No such map.
    """
    where = root / "envs" if folder is None else folder
    for suffix in _MAPS:
        if (where / f"{light}{suffix}").is_file():
            return where / f"{light}{suffix}"
    raise FileNotFoundError(
        f"no environment map {light}.exr or {light}.hdr in {where}, under which {root} has "
        "relit pictures. Say where the maps are with --envmaps DIR."
    )


def read_picture(path: Path) -> TruePicture:
    """Read an 8- or 16-bit picture.

    Raises:
        ValueError: A file that is missing or broken.
    """
    pixels = read_ldr(path)
    values = pixels.astype(np.float64) / np.iinfo(pixels.dtype).max
    channels = values.shape[-1]
    alpha = values[..., -1] if channels in (2, 4) else np.ones(values.shape[:2])
    colour = values[..., :3] if channels >= 3 else np.repeat(values[..., :1], 3, axis=-1)
    return TruePicture(colour, alpha)


def _read_normals(path: Path) -> Float[np.ndarray, "height width 3"]:
    """Normals n stored as 0.5 + 0.5 n."""
    return 2.0 * read_picture(path).rgb_srgb - 1.0


def _read_npz(path: Path) -> TrueBuffers:
    if not path.is_file():
        raise ValueError(f"no ground truth {path}; each test view has one, see docs/data.md.")
    with np.load(path) as found:
        held = {name: found[name].astype(np.float64) for name in found.files}
    if "alpha" not in held:
        raise ValueError(f"{path} has no array alpha; it has {sorted(held)}.")
    return TrueBuffers(
        held["alpha"],
        held.get("albedo"),
        held.get("roughness"),
        held.get("metallic"),
        held.get("normal"),
        held.get("geo_normal"),
        held.get("depth"),
    )
