"""COLMAP models: cameras, poses and sparse points through pycolmap, images and masks by name."""

import json
import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from statistics import median

import numpy as np
import pycolmap
import torch
from jaxtyping import Float
from torch import Tensor

from splatir.data.capture import (
    Capture,
    CapturedImage,
    NamedSplit,
    Remarks,
    checked_pose,
    listed,
    sparse_points,
)
from splatir.data.colmap_check import check_model
from splatir.data.dataset import DataSettings, SparsePoints
from splatir.data.image_files import chosen_folder, find_image, find_mask
from splatir.data.lens import check_lens, lens_from_colmap
from splatir.data.photo_folder import list_photos
from splatir.maths.frames import invert_rigid

# A camera stands where another does: this close, as a part of the cameras' mean distance from their
# middle. So many of a model's cameras must, for its frame to be the capture's.
_SAME_PLACE, _SAME_SHARE = 1e-3, 0.9
# Photos that must show a point for it to say how right they are.
_MIN_TRACK = 2

MODEL_FOLDERS = ("sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", ".")


def find_model(root: Path) -> Path | None:
    """The folder at or below `root` that holds a COLMAP model, or None."""
    for folder in MODEL_FOLDERS:
        if _extension(root / folder) is not None:
            return root / folder
    return None


def read_colmap(root: Path, settings: DataSettings) -> Capture:
    """Read a COLMAP folder; the input frame is the model's own.

    Args:
        root: Folder with `sparse/0`, `sparse` or `colmap/sparse/0` and the images, or the model's
            own folder.
        settings: `images` and `masks` name folders that are not found by themselves.

    Raises:
        FileNotFoundError: No model, or none of its images.
        ValueError: A damaged model, no registered images, unusable cameras.
    """
    model = find_model(root)
    if model is None:
        raise FileNotFoundError(
            f"no COLMAP model in {root}: looked for cameras, images and points3D (.bin or .txt) in "
            f"{', '.join(MODEL_FOLDERS)}."
        )
    reconstruction, registered = _read_model(model)
    if not registered:
        raise ValueError(
            f"{model} holds no registered images ({reconstruction.num_images()} unregistered). "
            "Run COLMAP's mapper again; the photographs may overlap too little."
        )
    image_folder = _image_folder(root, model, [image.name for image in registered], settings)
    mask_folder = _mask_folder(root, image_folder, settings)
    remarks = Remarks()
    images = _captured_images(reconstruction, model, image_folder, mask_folder, remarks)
    if not images:
        raise FileNotFoundError(
            f"none of the {len(registered)} images of {model} is in {image_folder} (first: "
            f"{registered[0].name}). Name the image folder with --images."
        )
    points, point_warnings = _points(reconstruction, model)
    return Capture(
        kind="colmap",
        images=tuple(images),
        image_folder=image_folder,
        points=points,
        split=_own_split(root, [image.name for image in registered]),
        warnings=(
            *_several_models(model),
            *_without_pose(image_folder, [image.name for image in registered]),
            *remarks.sentences(),
            *point_warnings,
        ),
    )


def points_beside(
    root: Path, T_camera_input: Sequence[Float[Tensor, "4 4"]]
) -> tuple[SparsePoints | None, tuple[str, ...]]:
    """Points of a COLMAP model that lies in the folder of another format, if its frame is the same.

    It is if its cameras stand where the capture's cameras do; how near the points lie to where
    cameras expect them is said of the model's own.

    Args:
        root: The capture's folder.
        T_camera_input: Its poses.

    Returns:
        Points, or None, and warnings: a model that is broken or has another frame is not used.
    """
    model = find_model(root)
    if model is None:
        return None, ()
    try:
        reconstruction, registered = _read_model(model)
    except (OSError, ValueError) as error:
        return None, (f"the points of the COLMAP model in {model} are not used: {error}",)
    own = invert_rigid(torch.stack([T.double() for T in T_camera_input]))[:, :3, 3]
    spread = float((own - own.mean(0)).norm(dim=-1).mean())
    centres = torch.tensor(np.array([image.projection_center() for image in registered]))
    if len(centres):
        is_same = torch.cdist(centres.reshape(-1, 3), own).amin(1) < _SAME_PLACE * spread
        if float(is_same.double().mean()) >= _SAME_SHARE:
            return _points(reconstruction, model)
    return None, (
        f"the points of the COLMAP model in {model} are not used: its cameras do not stand where "
        "those of the capture do.",
    )


def _captured_images(
    reconstruction: pycolmap.Reconstruction,
    model: Path,
    image_folder: Path,
    mask_folder: Path | None,
    remarks: Remarks,
) -> list[CapturedImage]:
    """The registered images whose files exist."""
    registered = [reconstruction.images[i] for i in reconstruction.reg_image_ids()]
    lenses = {}
    for camera_id in {image.camera_id for image in registered}:
        lens = lens_from_colmap(reconstruction.cameras[camera_id])
        check_lens(lens, f"{model}: camera {camera_id}")
        lenses[camera_id] = lens
    images = []
    for image in registered:
        path = find_image(image_folder, image.name)
        if path is None:
            remarks.note(
                "{count} images of the model are missing and skipped: {names}.", image.name
            )
            continue
        T_camera_input = torch.from_numpy(np.array(image.cam_from_world().matrix()))
        images.append(
            CapturedImage(
                name=image.name,
                image_path=path,
                lens=lenses[image.camera_id],
                T_camera_input=checked_pose(T_camera_input, f"{model}: image {image.name}"),
                mask_path=None if mask_folder is None else find_mask(mask_folder, image.name),
            )
        )
    return images


def _extension(folder: Path) -> str | None:
    """The extension of the model in `folder`, binary first as in pycolmap; None for no model."""
    for extension in (".bin", ".txt"):
        if all((folder / f"{name}{extension}").is_file() for name in ("cameras", "images")):
            return extension
    return None


def _read_model(folder: Path) -> tuple[pycolmap.Reconstruction, list[pycolmap.Image]]:
    """The model and its registered images."""
    extension = _extension(folder)
    assert extension is not None
    if not (folder / f"points3D{extension}").is_file():
        raise FileNotFoundError(
            f"{folder} holds cameras{extension} and images{extension} but no points3D{extension}. "
            "Copy the whole model (without points an empty text file will do)."
        )
    check_model(folder, extension)
    try:
        reconstruction = pycolmap.Reconstruction()
        if extension == ".bin":
            reconstruction.read_binary(str(folder))
        else:
            reconstruction.read_text(str(folder))
        registered = [reconstruction.images[i] for i in reconstruction.reg_image_ids()]
    except (ValueError, IndexError, KeyError, RuntimeError, MemoryError) as error:
        # COLMAP's messages name its own source lines; only what follows is of use.
        reason = str(error).split("] ", 1)[-1]
        raise ValueError(
            f"the COLMAP model in {folder} cannot be read: {reason}. "
            "A file is damaged or belongs to another model."
        ) from error
    return reconstruction, registered


def _image_folder(root: Path, model: Path, names: list[str], settings: DataSettings) -> Path:
    """The candidate folder that holds most of the images."""
    if settings.images is not None:
        return chosen_folder(root, settings.images, "--images")
    # From the model's own folder the capture lies one or two levels up.
    above = [model / "..", model / "../.."] if model.resolve() == root.resolve() else []
    bases = [root, root / "colmap", *above]
    candidates = [base / "images" for base in bases] + [root]
    existing = [folder for folder in candidates if folder.is_dir()]
    counts = [sum(find_image(folder, name) is not None for name in names) for folder in existing]
    best = existing[counts.index(max(counts))]
    return best.resolve() if ".." in best.parts else best


def _mask_folder(root: Path, image_folder: Path, settings: DataSettings) -> Path | None:
    if settings.masks is not None:
        return chosen_folder(root, settings.masks, "--masks")
    folder = image_folder.with_name("masks")
    return folder if folder.is_dir() else None


def _points(
    reconstruction: pycolmap.Reconstruction, model: Path
) -> tuple[SparsePoints | None, tuple[str, ...]]:
    # pycolmap keeps them in a hash map; a resumed run needs the same order again.
    points = [reconstruction.points3D[i] for i in sorted(reconstruction.points3D)]
    positions = np.array([point.xyz for point in points], dtype=np.float64).reshape(-1, 3)
    colours = np.array([point.color for point in points], dtype=np.float64).reshape(-1, 3) / 255.0
    return sparse_points(positions, colours, str(model), _reprojection_error(reconstruction))


def _reprojection_error(reconstruction: pycolmap.Reconstruction) -> float | None:
    """Median over the points, as a part of the images' longer side; None without tracks.

    Worked out anew: the errors that a model brings along may be those of other cameras.
    """
    reconstruction.update_point_3d_errors()
    points = reconstruction.points3D.values()
    errors = [point.error for point in points if point.track.length() >= _MIN_TRACK]
    sides = [max(camera.width, camera.height) for camera in reconstruction.cameras.values()]
    usable = [error for error in errors if 0.0 <= error < math.inf]
    return median(usable) / median(sides) if usable and sides else None


def _several_models(model: Path) -> tuple[str, ...]:
    if model.name != "0":
        return ()
    others = sorted(
        folder.name
        for folder in model.parent.iterdir()
        if folder.is_dir() and folder.name.isdigit() and folder != model
    )
    if not others:
        return ()
    return (
        f"COLMAP left {len(others) + 1} separate models in {model.parent}; only {model.name} is "
        f"used, the images of {', '.join(others)} are not.",
    )


def _without_pose(image_folder: Path, registered: list[str]) -> tuple[str, ...]:
    """Names the photographs beside the registered ones that the model does not hold."""
    known = {PurePosixPath(name).with_suffix("") for name in registered}
    folders = {PurePosixPath(name).parent for name in registered}
    paths = (PurePosixPath(name) for name in list_photos(image_folder))
    missing = [p for p in paths if p.parent in folders and p.with_suffix("") not in known]
    if not missing:
        return ()
    return (
        f"{len(missing)} of {len(missing) + len(registered)} photographs have no pose in the model "
        f"and are not used: {listed([path.as_posix() for path in missing])}.",
    )


def _own_split(root: Path, registered: Sequence[str]) -> NamedSplit | None:
    """`split.json` in the data folder, or the lists of Stanford-ORB."""
    lists = [root / f"{part}_id.txt" for part in ("train", "test")]
    if all(path.is_file() for path in lists):
        return _split_of_lists(lists, registered)
    return _split_file(root)


def _split_of_lists(lists: Sequence[Path], registered: Sequence[str]) -> NamedSplit:
    """Names, one a line, with or without an extension."""
    by_stem = {PurePosixPath(name).with_suffix("").as_posix(): name for name in registered}
    found = []
    for path in lists:
        words = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
        stems = (PurePosixPath(word).with_suffix("").as_posix() for word in words if word)
        found.append(frozenset(by_stem[stem] for stem in stems if stem in by_stem))
    return NamedSplit(str(lists[1]), *found)


def _split_file(root: Path) -> NamedSplit | None:
    """`split.json`: {"train": [names], "test": [names]}."""
    path = next(
        (p for p in (root / "split.json", root / "colmap" / "split.json") if p.is_file()), None
    )
    if path is None:
        return None
    try:
        lists = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(lists, dict) or not isinstance(lists.get("test"), list):
        raise ValueError(f'{path} must hold {{"train": [names], "test": [names]}}.')
    train = lists.get("train")
    return NamedSplit(
        source=str(path),
        train=frozenset(map(str, train)) if isinstance(train, list) else None,
        test=frozenset(map(str, lists["test"])),
    )
