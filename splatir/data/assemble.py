"""From a format's posed image files to the views of a data set: sizes, lenses, world, split."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.data.capture import Capture, CapturedImage, Remarks
from splatir.data.dataset import Dataset, DataSettings, Distortion, SparsePoints, View
from splatir.data.image_files import find_image, image_size, is_transparent, safe_name
from splatir.data.lens import is_pinhole, pinhole, rescaled
from splatir.data.splits import split_images
from splatir.data.world_frame import similarity_from_cameras
from splatir.maths.frames import transform_points
from splatir.scene.camera import Camera


@dataclass(frozen=True)
class _StoredImage:
    """The file that will be decoded, the lens of its own pixels, and what is left to divide by."""

    path: Path
    lens: Distortion
    downscale: float


def assemble(root: Path, capture: Capture, settings: DataSettings) -> Dataset:
    """Choose files, undo lenses, turn the world upright and split.

    Raises:
        ValueError: Wrong image or mask sizes, unreadable images, too few images.
    """
    train, test, split_warnings = split_images(capture.images, capture.split, settings.test_every)
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
        warnings=(*capture.warnings, *split_warnings, *remarks.sentences()),
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
    return SparsePoints(positions.float(), points.colours_srgb.float())


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
    K, width, height = pinhole(stored.lens)
    undistorted = Camera(K, image.T_camera_input, width, height)
    camera = undistorted.resized(*_target_size(width, height, stored.downscale, settings.max_size))
    if image.mask_path is not None:
        _check_mask(image, stored)
    return View(
        name=name,
        camera=camera.in_world(S_world_input).to(dtype=torch.float32),
        image_path=stored.path,
        mask_path=image.mask_path,
        distortion=None if is_pinhole(stored.lens) else stored.lens,
        invert_mask=settings.invert_masks,
    )


def _target_size(width: int, height: int, factor: float, max_size: int | None) -> tuple[int, int]:
    if max_size is not None:
        factor = max(factor, max(width, height) / max_size)
    # Halves round up, as most resizing tools do: 657 / 2 = 329 rows.
    return max(1, int(width / factor + 0.5)), max(1, int(height / factor + 0.5))


def _choose_file(
    image: CapturedImage, image_folder: Path | None, settings: DataSettings, remarks: Remarks
) -> _StoredImage:
    """The downscaled file if there is a fitting one, else the full-size file."""
    lens = image.lens
    width, height = image_size(image.image_path)
    if (width, height) != (lens.width, lens.height):
        if not _same_picture(width, height, lens):
            raise ValueError(
                f"{image.image_path} has {width}x{height} pixels but its camera was calibrated for "
                f"{lens.width}x{lens.height}. Use the images that the poses were computed from "
                "(not rotated, cropped or stretched)."
            )
        remarks.note(
            "{count} images have another size than their cameras; intrinsics are scaled: {names}.",
            image.name,
        )
        lens = rescaled(lens, width, height)
    factor = int(settings.downscale)
    if image_folder is not None and factor > 1 and factor == settings.downscale:
        folder = image_folder.with_name(f"{image_folder.name}_{factor}")
        smaller = find_image(folder, image.name) if folder.is_dir() else None
        if smaller is not None:
            small_width, small_height = image_size(smaller)
            if abs(small_width - width / factor) <= 1 and abs(small_height - height / factor) <= 1:
                small_lens = rescaled(lens, small_width, small_height)
                return _StoredImage(smaller, small_lens, 1.0)
            remarks.note(
                f"{{count}} files in {folder.name} are not 1/{factor} of the full size; the full "
                "images are used: {names}.",
                image.name,
            )
    return _StoredImage(image.image_path, lens, settings.downscale)


def _same_picture(width: int, height: int, lens: Distortion) -> bool:
    """Whether the file is the calibrated picture at another size, to within a pixel."""
    return (
        abs(width * lens.height / lens.width - height) <= 1
        or abs(height * lens.width / lens.height - width) <= 1
    )


def _check_mask(image: CapturedImage, stored: _StoredImage) -> None:
    """A mask may be stored at another size than its image, but must show the same picture."""
    assert image.mask_path is not None
    width, height = image_size(image.mask_path)
    if not _same_picture(width, height, stored.lens):
        raise ValueError(
            f"mask {image.mask_path} has {width}x{height} pixels, its image {stored.path} has "
            f"{stored.lens.width}x{stored.lens.height}. Make the mask from this image."
        )
