"""What is known of the surface in a photo: the user's normal, depth and albedo maps, per view."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.data.dataset import Dataset, View
from splatir.data.map_files import MAP_EXTENSIONS, MapKind, StoredMap, read_map
from splatir.data.resample import resize, undistort
from splatir.maths.frames import similarity_scale
from splatir.settings import Settings, check_range

NormalsFrame = Literal["opengl", "opencv", "input"]
DepthsKind = Literal["relative", "inverse", "metric"]

# A pixel is known where this share of what it covers is.
_MIN_KNOWN = 0.5
# Share of normals that may face away from the camera: rounding at silhouettes, not a wrong frame.
_MAX_AVERTED = 0.2
# What unknown albedo holds; colours are not negative.
_UNKNOWN_ALBEDO = -1.0
_NUM_NAMED = 3


@dataclass(frozen=True)
class MapSettings(Settings):
    """Maps of what is already known about surfaces, one per training photo; docs/data.md.

    Attributes:
        normals: Folder of normal maps, named like the photos (.npz, .npy, .exr, .png).
        normals_frame: Axes of the normals: "opengl" (camera: x right, y up, z to the viewer),
            "opencv" (camera: x right, y down, z into the scene), or "input" (the capture's own).
        depths: Folder of depth maps.
        depths_kind: "metric" camera z, "relative" camera z of unknown scale and shift, or "inverse"
            depth of unknown scale and shift.
        depths_unit: Units of the capture per stored value of metric depth.
        albedos: Folder of albedo maps: sRGB in .png, linear otherwise.
        albedos_scale: "known", or "free" for the brightness of each map.
    """

    normals: Path | None = None
    normals_frame: NormalsFrame = "opengl"
    depths: Path | None = None
    depths_kind: DepthsKind = "relative"
    depths_unit: float = 1.0
    albedos: Path | None = None
    albedos_scale: Literal["known", "free"] = "known"

    def __post_init__(self) -> None:
        """Refuse units that give no depth.

        Raises:
            SettingsError: A value out of range.
        """
        check_range(self, "depths_unit", 0, 1e9, open_ends=True)

    @property
    def folders(self) -> dict[MapKind, Path]:
        """Those that were given, by kind."""
        given: dict[MapKind, Path | None] = {
            "normal": self.normals,
            "depth": self.depths,
            "albedo": self.albedos,
        }
        return {kind: folder for kind, folder in given.items() if folder is not None}


@dataclass(frozen=True)
class SurfaceMaps:
    """What is known of the surface at the pixels of a view; None for what no file tells.

    Attributes:
        normals: Unit, world frame, facing the camera; 0 where unknown.
        depth: In scene units, or in those of `depth_kind`; 0 where unknown.
        albedo: Linear, 0 to 1; negative where unknown.
        depth_kind: As in `MapSettings`.
        albedo_scale_is_free: Whether the brightness of `albedo` says nothing.
    """

    normals: Float[Tensor, "h w 3"] | None = None
    depth: Float[Tensor, "h w 1"] | None = None
    albedo: Float[Tensor, "h w 3"] | None = None
    depth_kind: DepthsKind = "relative"
    albedo_scale_is_free: bool = False

    @property
    def memory_bytes(self) -> int:
        """Bytes of all tensors."""
        images = (self.normals, self.depth, self.albedo)
        return sum(x.numel() * x.element_size() for x in images if x is not None)

    def packed(self) -> "SurfaceMaps":
        """The same in half floats, but for depth, whose steps would show."""
        return self._with(lambda image: image if image.shape[-1] == 1 else image.half())

    def unpacked(self) -> "SurfaceMaps":
        """The same in floats."""
        return self._with(Tensor.float)

    def to(self, device: torch.device | str) -> "SurfaceMaps":
        """The same on a device."""
        return self._with(lambda image: image.to(device))

    def reduced(self, divisor: int, height: int, width: int) -> "SurfaceMaps":
        """One pixel of each block of `divisor` x `divisor`, for `height` x `width` blocks."""
        rows, columns = (slice(divisor // 2, size * divisor, divisor) for size in (height, width))
        return self._with(lambda image: image[rows, columns])

    def _with(self, change: Callable[[Tensor], Tensor]) -> "SurfaceMaps":
        images = {"normals": self.normals, "depth": self.depth, "albedo": self.albedo}
        changed = {name: None if x is None else change(x) for name, x in images.items()}
        return replace(self, **changed)


def map_loader(dataset: Dataset, settings: MapSettings) -> Callable[[View], SurfaceMaps] | None:
    """How to load the maps of training views; None where no folder was given.

    Args:
        dataset: Capture; every training view needs a file in every folder.
        settings: Folders and conventions.

    Raises:
        FileNotFoundError: No such folder, or views without a map.
    """
    if not settings.folders:
        return None
    files: dict[MapKind, dict[str, Path]] = {
        kind: _find_files(folder, kind, dataset.train) for kind, folder in settings.folders.items()
    }
    S_world_input = dataset.S_world_input

    def load(view: View) -> SurfaceMaps:
        found: dict[MapKind, Path] = {kind: files[kind][view.name] for kind in files}
        return load_maps(view, found, settings, S_world_input)

    return load


def load_maps(
    view: View,
    files: Mapping[MapKind, Path],
    settings: MapSettings,
    S_world_input: Float[Tensor, "4 4"],
) -> SurfaceMaps:
    """Read the maps of a view, on the pixels of its camera and in the world frame.

    Maps show what the photo's file shows, in any size of the same shape; they are undistorted and
    resized like it.

    Args:
        view: The view.
        files: By kind.
        settings: Conventions.
        S_world_input: Of the data set.

    Raises:
        ValueError: A file that is no map, of another shape than the photo, or with normals that
            face away.
    """
    images: dict[MapKind, Tensor] = {}
    for kind, path in files.items():
        stored = read_map(path, kind)
        values, known = _at_camera(stored, view, path)
        if kind == "normal":
            images[kind] = _world_normals(values, known, view, path, settings, S_world_input)
        elif kind == "depth":
            unit = 1.0
            if settings.depths_kind == "metric":
                unit = settings.depths_unit * similarity_scale(S_world_input)
            images[kind] = torch.where(known, values * unit, 0.0)
        else:
            images[kind] = torch.where(known, values.clamp(0.0, 1.0), _UNKNOWN_ALBEDO)
    return SurfaceMaps(
        images.get("normal"),
        images.get("depth"),
        images.get("albedo"),
        settings.depths_kind,
        settings.albedos_scale == "free",
    )


def _find_files(folder: Path, kind: MapKind, views: Sequence[View]) -> dict[str, Path]:
    """The file of each view: its name below the folder, or the last part of that if unique."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}, which --{kind}s names. Give one that exists.")
    last = [view.name.rpartition("/")[2] for view in views]
    may_shorten = len(set(last)) == len(last)
    found, missing = {}, []
    for view, short in zip(views, last, strict=True):
        names = [view.name.lstrip("/"), *([short] if may_shorten else [])]
        paths = (folder / f"{name}{suffix}" for name in names for suffix in MAP_EXTENSIONS)
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            missing.append(view.name)
        else:
            found[view.name] = path
    if missing:
        listed = ", ".join(missing[:_NUM_NAMED]) + (", ..." if len(missing) > _NUM_NAMED else "")
        raise FileNotFoundError(
            f"{len(missing)} of {len(views)} training photos have no map of {kind} in {folder}: "
            f"{listed}. Name maps like the photos, with one of {', '.join(MAP_EXTENSIONS)}."
        )
    return found


def _at_camera(stored: StoredMap, view: View, path: Path) -> tuple[Tensor, Tensor]:
    """Means over what is known, on the camera's pixels, and where enough is known."""
    height, width, _ = stored.values.shape
    camera = view.camera
    full = (camera.width, camera.height)
    if view.distortion is not None:
        full = (view.distortion.width, view.distortion.height)
    if min(abs(width * full[1] / full[0] - height), abs(height * full[0] / full[1] - width)) > 1.0:
        raise ValueError(
            f"{path} is {width}x{height} pixels, another shape than its photo {view.image_path} "
            f"({full[0]}x{full[1]}). Make the map from this very file, whole."
        )
    known = stored.is_known.float()
    weighted = torch.cat([stored.values * known, known], dim=-1)
    if view.distortion is None:
        moved = resize(weighted, camera.width, camera.height)
    else:
        moved, inside = undistort(weighted, view.distortion, camera)
        moved = moved * (inside > _MIN_KNOWN)
    share = moved[..., -1:]
    return moved[..., :-1] / share.clamp_min(1e-6), share > _MIN_KNOWN


def _world_normals(
    values: Tensor,
    known: Tensor,
    view: View,
    path: Path,
    settings: MapSettings,
    S_world_input: Tensor,
) -> Float[Tensor, "h w 3"]:
    """Unit normals of the world frame, checked to face the camera."""
    T_camera_world = view.camera.T_camera_world
    if settings.normals_frame == "input":
        R_world_input = S_world_input[:3, :3] / similarity_scale(S_world_input)
        R_world_map = R_world_input.to(values)
    else:
        flip = -1.0 if settings.normals_frame == "opengl" else 1.0
        R_world_map = T_camera_world[:3, :3].mT.to(values) * torch.tensor([1.0, flip, flip])
    normals = torch.nn.functional.normalize(values @ R_world_map.mT, dim=-1)
    averted = _averted_share(normals, known, view)
    if averted > _MAX_AVERTED:
        raise ValueError(
            f"{averted:.0%} of the normals in {path} face away from the camera, read as "
            f"--normals-frame {settings.normals_frame}. Give the frame that they are in: opengl "
            "(towards the viewer is +z), opencv (towards the viewer is -z) or input."
        )
    return torch.where(known, normals, 0.0)


def _averted_share(normals: Tensor, known: Tensor, view: View) -> float:
    """Part of the known normals that face away from the camera."""
    K, camera = view.camera.K.to(normals), view.camera
    columns, rows = torch.arange(camera.width) + 0.5, torch.arange(camera.height) + 0.5
    y, x = torch.meshgrid((rows - K[1, 2]) / K[1, 1], (columns - K[0, 2]) / K[0, 0], indexing="ij")
    rays = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    rays_world = rays @ camera.T_camera_world[:3, :3].to(normals)
    is_averted = (normals * rays_world).sum(-1, keepdim=True) > 0.0
    return float(is_averted[known].float().mean()) if bool(known.any()) else 0.0
