"""transforms.json of nerfstudio and instant-ngp, and the transforms_*.json of NeRF-synthetic.

The input frame is that of the poses as they are saved: a nerfstudio `applied_transform` (from the
original capture to the saved poses) is not undone, so exports lie over what the file describes, and
over the points of its `ply_file_path`, which are saved in the same frame.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from plyfile import PlyData, PlyParseError

from splatir.data.capture import Capture, CapturedImage, NamedSplit, Remarks, sparse_points
from splatir.data.colmap import points_beside
from splatir.data.dataset import DataSettings, SparsePoints
from splatir.data.image_files import (
    chosen_folder,
    find_image,
    find_mask,
    has_alpha_channel,
    image_size,
)
from splatir.data.transforms_file import TransformsFile, read_transforms_file


def read_transforms(root: Path, settings: DataSettings) -> Capture:
    """Read a folder with one transforms.json (nerfstudio, instant-ngp).

    Raises:
        FileNotFoundError: No transforms.json, or none of its images.
        ValueError: Broken JSON, poses or cameras.
    """
    file = read_transforms_file(root / "transforms.json")
    remarks = Remarks()
    image_folder = _common_folder(root, file, settings)
    images = _captured_images(root, image_folder or root, file, settings, remarks)
    own_test = root / "transforms_test.json"
    split = _filename_split(file, images)
    if own_test.is_file():
        held_out = _captured_images(
            root, image_folder or root, read_transforms_file(own_test), settings, remarks
        )
        split = NamedSplit(own_test.name, None, frozenset(held_out))
        images = {**held_out, **images}
    _require_images(images, file)
    points, warnings = _seed_points(root, file)
    # Files with a field of view alone are Blender renderings; captures have fl_x or camera models.
    measured = {"fl_x", "ply_file_path", "applied_transform", "camera_model", "k1"}
    is_synthetic = not (measured & file.top.keys()) and "fl_x" not in file.per_frame
    return Capture(
        kind="transforms",
        images=tuple(images.values()),
        image_folder=image_folder,
        points=points,
        split=split,
        is_synthetic=is_synthetic,
        warnings=(*remarks.sentences(), *warnings),
    )


def read_nerf_synthetic(root: Path, settings: DataSettings) -> Capture:
    """Read a folder with transforms_train.json, and transforms_test.json or transforms_val.json.

    Only the files that the frames name are views (`r_0_normal.png` is none). The test views are
    those of transforms_test.json, else of transforms_val.json, else split off the training views.

    Raises:
        FileNotFoundError: No transforms_train.json, or none of its images.
        ValueError: Broken JSON, poses or cameras.
    """
    file = read_transforms_file(root / "transforms_train.json")
    remarks = Remarks()
    train = _captured_images(root, root, file, settings, remarks)
    _require_images(train, file)
    names = ("transforms_test.json", "transforms_val.json")
    test_path = next((root / name for name in names if (root / name).is_file()), None)
    split, test = None, {}
    if test_path is not None:
        test = _captured_images(root, root, read_transforms_file(test_path), settings, remarks)
        shared = sorted(train.keys() & test.keys())
        if shared:
            raise ValueError(
                f"{test_path} holds out images that {file.path} trains on (first: {shared[0]}). "
                "Remove them from one of the two."
            )
        split = NamedSplit(test_path.name, frozenset(train), frozenset(test))
    if "ply_file_path" in file.top:
        points, warnings = _seed_points(root, file)
    else:
        poses = [image.T_camera_input for image in (*train.values(), *test.values())]
        points, warnings = points_beside(root, poses)
    return Capture(
        kind="nerf-synthetic",
        images=(*train.values(), *test.values()),
        points=points,
        split=split,
        is_synthetic=True,
        has_alpha=has_alpha_channel(next(iter(train.values())).image_path),
        warnings=(*remarks.sentences(), *warnings),
    )


def _common_folder(root: Path, file: TransformsFile, settings: DataSettings) -> Path | None:
    """The folder that all images are in, such as root/images, or None."""
    if settings.images is not None:
        return chosen_folder(root, settings.images, "--images")
    firsts = {_parts(frame["file_path"])[:-1][:1] for frame in file.frames}
    first = firsts.pop() if len(firsts) == 1 else ()
    return root / first[0] if first and (root / first[0]).is_dir() else None


def _parts(file_path: str) -> tuple[str, ...]:
    """Components without "." (Windows separators too)."""
    return tuple(p for p in PurePosixPath(file_path.replace("\\", "/")).parts if p != ".")


def _captured_images(
    root: Path, image_folder: Path, file: TransformsFile, settings: DataSettings, remarks: Remarks
) -> dict[str, CapturedImage]:
    """The file's frames whose images exist, by name below `image_folder`."""
    images: dict[str, CapturedImage] = {}
    for frame in file.frames:
        T_camera_input = file.pose(frame)
        path = _find_frame(root, image_folder, frame["file_path"], settings)
        if path is None:
            remarks.note(
                f"{{count}} images of {file.path.name} are missing and skipped: {{names}}.",
                frame["file_path"],
            )
            continue
        inside = path.is_relative_to(image_folder)
        name = path.relative_to(image_folder).as_posix() if inside else path.as_posix()
        if name in images:
            raise ValueError(
                f"{file.path} lists the image {name} twice. Remove one of the two frames."
            )
        images[name] = CapturedImage(
            name=name,
            image_path=path,
            lens=file.lens(frame, image_size(path)),
            T_camera_input=T_camera_input,
            mask_path=_mask(root, image_folder, name, frame, settings, remarks),
        )
    return images


def _find_frame(
    root: Path, image_folder: Path, file_path: str, settings: DataSettings
) -> Path | None:
    parts = _parts(file_path)
    if not parts:
        return None
    if settings.images is None:
        return find_image(root, str(Path(*parts)))
    return find_image(image_folder, str(Path(*(parts[1:] or parts))))


def _mask(
    root: Path,
    image_folder: Path,
    name: str,
    frame: dict[str, Any],
    settings: DataSettings,
    remarks: Remarks,
) -> Path | None:
    """The frame's own mask, else one in `masks` beside the images or in `<folder>_mask`."""
    if settings.masks is not None:
        return find_mask(chosen_folder(root, settings.masks, "--masks"), name)
    listed = frame.get("mask_path")
    if isinstance(listed, str):
        path = root / Path(*_parts(listed))
        if path.is_file():
            return path
        remarks.note("{count} masks that frames name are missing: {names}.", listed)
        return None
    first, _, rest = name.partition("/")
    candidates = [(root / "masks", name)]
    if image_folder != root:
        candidates.append((image_folder.with_name(f"{image_folder.name}_mask"), name))
    elif rest:
        candidates.append((root / f"{first}_mask", rest))
    found = (find_mask(folder, below) for folder, below in candidates if folder.is_dir())
    return next((path for path in found if path is not None), None)


def _filename_split(file: TransformsFile, images: dict[str, CapturedImage]) -> NamedSplit | None:
    """nerfstudio's train_filenames, val_filenames and test_filenames."""
    lists = {
        key: file.top[f"{key}_filenames"]
        for key in ("train", "val", "test")
        if isinstance(file.top.get(f"{key}_filenames"), list)
    }
    held_out: Sequence[Any] | None = lists.get("test") or lists.get("val")
    if not held_out:
        return None
    paths = {image.image_path: name for name, image in images.items()}

    def names(listed: Sequence[Any]) -> frozenset[str]:
        found = (find_image(file.path.parent, str(Path(*_parts(str(p))))) for p in listed)
        return frozenset(paths[path] for path in found if path in paths)

    train = names(lists["train"]) if "train" in lists else None
    return NamedSplit(file.path.name, train, names(held_out))


def _require_images(images: dict[str, CapturedImage], file: TransformsFile) -> None:
    if not images:
        raise FileNotFoundError(
            f"none of the {len(file.frames)} images of {file.path} was found (first: "
            f"{file.frames[0]['file_path']}). Paths count from the folder of the file."
        )


def _seed_points(root: Path, file: TransformsFile) -> tuple[SparsePoints | None, tuple[str, ...]]:
    """Points of `ply_file_path`, in the frame of the saved poses."""
    listed = file.top.get("ply_file_path")
    random_start = "Gaussians will start at random positions."
    if not isinstance(listed, str):
        return None, (f"{file.path.name} names no ply_file_path: {random_start}",)
    path = root / Path(*_parts(listed))
    if not path.is_file():
        return None, (f"the points {listed} of {file.path.name} are missing: {random_start}",)
    try:
        vertices = PlyData.read(str(path))["vertex"]
        positions = np.stack([np.asarray(vertices[axis], np.float64) for axis in "xyz"], axis=1)
        properties = {p.name for p in vertices.properties}
        colours = np.full_like(positions, 0.5)
        if {"red", "green", "blue"} <= properties:
            channels = [np.asarray(vertices[c]) for c in ("red", "green", "blue")]
            is_byte = channels[0].dtype.kind in "ui"
            colours = np.stack(channels, axis=1).astype(np.float64) / (255.0 if is_byte else 1.0)
    except (PlyParseError, KeyError, ValueError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as a PLY with vertices x, y, z ({error}). "
            "Write it again, or remove ply_file_path."
        ) from error
    return sparse_points(positions, colours, str(path))
