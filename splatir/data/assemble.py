"""From a format's posed image files to the views of a data set: sizes, lenses, world, split."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.data.broken import BrokenPhoto, broken_warnings
from splatir.data.capture import Capture, CapturedImage, Remarks
from splatir.data.dataset import Dataset, DataSettings, Distortion, SparsePoints, View
from splatir.data.exif import read_exif, turned_size
from splatir.data.image_files import find_image, image_size, is_transparent, safe_name
from splatir.data.lens import is_pinhole, pinhole, rescaled
from splatir.data.splits import split_images
from splatir.data.world_frame import similarity_from_cameras
from splatir.maths.frames import transform_points
from splatir.scene.camera import Camera

# Camera positions that differ by less than this, in their own size or in units, are one place.
_SAME_PLACE = 1e-9


@dataclass(frozen=True)
class _StoredImage:
    """The file that will be decoded, the lens of its pixels once turned, what is left to divide."""

    path: Path
    lens: Distortion
    downscale: float
    orientation: int = 1


def assemble(root: Path, capture: Capture, settings: DataSettings) -> Dataset:
    """Choose files, undo lenses, turn the world upright and split.

    Raises:
        ValueError: Wrong image or mask sizes, unreadable images, too few images.
    """
    images, broken_warnings = _readable(root, capture.images)
    train, test, split_warnings = split_images(images, capture.split, settings.test_every)
    _require_parallax(root, train)
    S_world_input = _world(capture, settings)
    remarks = Remarks()
    names = _view_names([*train, *test])
    views = {
        image.name: _view(image, names[image.name], S_world_input, capture, settings, remarks)
        for image in [*train, *test]
    }
    masked = sum(view.mask_path is not None for view in views.values())
    if 0 < masked < len(views):
        for image in [*train, *test]:
            if views[image.name].mask_path is None:
                remarks.note("{count} images have no mask and are kept whole: {names}.", image.name)
    # Three files stand for all: formats with alpha have it in every image.
    has_alpha = capture.has_alpha or any(is_transparent(image.image_path) for image in train[:3])
    return Dataset(
        root=root,
        kind=capture.kind,
        train=tuple(views[image.name] for image in train),
        test=tuple(views[image.name] for image in test),
        points=_points_in_world(capture.points, S_world_input),
        S_world_input=S_world_input,
        has_background=not (has_alpha or masked),
        warnings=(*capture.warnings, *broken_warnings, *split_warnings, *remarks.sentences()),
    )


def posed_view(
    image: CapturedImage, S_world_input: Float[Tensor, "4 4"], settings: DataSettings
) -> View:
    """One view beside those of a data set, such as a picture of the same object elsewhere.

    Args:
        image: In the input frame of the data set.
        S_world_input: Of the data set.
        settings: Sizes and masks, as the data set was read with.

    Raises:
        ValueError: Wrong image or mask size, an unreadable image.
    """
    stored = _choose_file(image, None, settings, Remarks())
    return _view_of(stored, image, safe_name(image.name), S_world_input, settings)


def _readable(
    root: Path, images: Sequence[CapturedImage]
) -> tuple[list[CapturedImage], tuple[str, ...]]:
    """The images whose headers can be read, and what is to be said about the others."""
    readable, faults = [], []
    for image in images:
        try:
            image_size(image.image_path)
        except ValueError as error:
            faults.append(BrokenPhoto(image.name, str(error)))
        else:
            readable.append(image)
    return readable, broken_warnings(root, faults, len(images))


def _require_parallax(root: Path, images: Sequence[CapturedImage]) -> None:
    """Refuse photos from one place: nothing tells depth, and lengths have no unit."""
    poses = torch.stack([image.T_camera_input for image in images])
    positions = -(poses[:, :3, :3].mT @ poses[:, :3, 3:])[..., 0]
    spread = float((positions - positions[0]).abs().max())
    if spread <= _SAME_PLACE * max(1.0, float(positions.abs().max())):
        raise ValueError(
            f"all {len(images)} training cameras of {root} stand at the same place "
            f"{positions[0].tolist()}. Geometry needs photographs from different places; are the "
            "poses' translations missing?"
        )


def _world(capture: Capture, settings: DataSettings) -> Float[Tensor, "4 4"]:
    keep = capture.is_synthetic if settings.world == "auto" else settings.world == "input"
    if keep:
        return torch.eye(4, dtype=torch.float64)
    poses = torch.stack([image.T_camera_input for image in capture.images])
    return similarity_from_cameras(poses, capture.points.positions if capture.points else None)


def _points_in_world(
    points: SparsePoints | None, S_world_input: Float[Tensor, "4 4"]
) -> SparsePoints | None:
    if points is None:
        return None
    positions = transform_points(S_world_input, points.positions.double())
    return SparsePoints(positions.float(), points.colours_srgb.float(), points.error)


def _view_names(images: Sequence[CapturedImage]) -> dict[str, str]:
    """Names without extension; images that differ in it alone keep it."""
    stems: dict[str, list[str]] = {}
    for image in images:
        stem = PurePosixPath(safe_name(image.name)).with_suffix("").as_posix()
        stems.setdefault(stem, []).append(image.name)
    return {
        name: stem if len(names) == 1 else safe_name(name)
        for stem, names in stems.items()
        for name in names
    }


def _view(
    image: CapturedImage,
    name: str,
    S_world_input: Float[Tensor, "4 4"],
    capture: Capture,
    settings: DataSettings,
    remarks: Remarks,
) -> View:
    """One view with the camera of its final pixels."""
    stored = _choose_file(image, capture.image_folder, settings, remarks)
    return _view_of(stored, image, name, S_world_input, settings)


def _view_of(
    stored: _StoredImage,
    image: CapturedImage,
    name: str,
    S_world_input: Float[Tensor, "4 4"],
    settings: DataSettings,
) -> View:
    """The view of a chosen file."""
    K, width, height = pinhole(stored.lens)
    undistorted = Camera(K, image.T_camera_input, width, height)
    camera = undistorted.resized(*_target_size(width, height, stored.downscale, settings.max_size))
    return View(
        name=name,
        camera=camera.in_world(S_world_input).to(dtype=torch.float32),
        image_path=stored.path,
        mask_path=image.mask_path,
        distortion=None if is_pinhole(stored.lens) else stored.lens,
        invert_mask=settings.invert_masks,
        orientation=stored.orientation,
        exposure=read_exif(image.image_path).exposure,
    )


def _target_size(width: int, height: int, factor: float, max_size: int | None) -> tuple[int, int]:
    if max_size is not None:
        factor = max(factor, max(width, height) / max_size)
    # Halves round up, as most resizing tools do: 657 / 2 = 329 rows.
    return max(1, int(width / factor + 0.5)), max(1, int(height / factor + 0.5))


def _choose_file(
    image: CapturedImage, image_folder: Path | None, settings: DataSettings, remarks: Remarks
) -> _StoredImage:
    """The downscaled file if there is a fitting one, else the full-size file.

    Masks are as large as the full image, so images with one are read at full size.
    """
    orientation, lens = _turn_and_lens(image, remarks)
    if image.mask_path is not None:
        mask_size = image_size(image.mask_path)
        if mask_size != (lens.width, lens.height):
            raise ValueError(
                f"mask {image.mask_path} has {mask_size[0]}x{mask_size[1]} pixels, its image "
                f"{image.image_path} has {lens.width}x{lens.height}. Masks must be as large as "
                "their images."
            )
    elif image_folder is not None and settings.downscale in range(2, 65):
        factor = int(settings.downscale)
        folder = image_folder.with_name(f"{image_folder.name}_{factor}")
        path = find_image(folder, image.name) if folder.is_dir() else None
        if path is not None:
            width, height = turned_size(image_size(path), orientation)
            if abs(width - lens.width / factor) <= 1 and abs(height - lens.height / factor) <= 1:
                smaller = rescaled(lens, width, height)
                return _StoredImage(path, smaller, 1.0, orientation)
            remarks.note(
                f"{{count}} files in {folder.name} are not 1/{factor} of the full size; the full "
                "images are used: {names}.",
                image.name,
            )
    return _StoredImage(image.image_path, lens, settings.downscale, orientation)


def _turn_and_lens(image: CapturedImage, remarks: Remarks) -> tuple[int, Distortion]:
    """How the file's pixels are turned to be the calibrated picture, and its lens then.

    Poses are those of the stored pixels, unless only the EXIF turn makes the picture fit.
    """
    stored = image_size(image.image_path)
    wanted = (image.lens.width, image.lens.height)
    orientation = 1
    if _misfit(stored, wanted) > 1:
        turn = read_exif(image.image_path).orientation
        if _misfit(turned_size(stored, turn), wanted) <= 1:
            orientation = turn
            remarks.note(
                "{count} photographs are turned as their EXIF headers say, for their cameras "
                "describe them so: {names}.",
                image.name,
            )
    return orientation, _lens_of_file(image, turned_size(stored, orientation), remarks)


def _misfit(size: tuple[int, int], calibrated: tuple[int, int]) -> float:
    """Pixels by which a size is off the calibrated picture's proportions."""
    (width, height), (lens_width, lens_height) = size, calibrated
    return min(
        abs(width * lens_height / lens_width - height),
        abs(height * lens_width / lens_height - width),
    )


def _lens_of_file(image: CapturedImage, size: tuple[int, int], remarks: Remarks) -> Distortion:
    """The lens scaled to the pixels that the file really has.

    Raises:
        ValueError: The file is not the calibrated picture, to within a pixel.
    """
    lens = image.lens
    width, height = size
    if size == (lens.width, lens.height):
        return lens
    if _misfit(size, (lens.width, lens.height)) > 1:
        raise ValueError(
            f"{image.image_path} has {width}x{height} pixels but its camera was calibrated for "
            f"{lens.width}x{lens.height}. Use the images that the poses were computed from "
            "(not rotated, cropped or stretched)."
        )
    remarks.note(
        "{count} images have another size than their cameras; intrinsics are scaled: {names}.",
        image.name,
    )
    return rescaled(lens, width, height)
