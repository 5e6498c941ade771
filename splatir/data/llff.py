"""LLFF folders, which NeRD and its successors have: images/, masks/, poses_bounds.npy.

Layout of the file: 17 numbers for each image, in the order of the image names: a 3x5 matrix of
camera-to-world (columns: down, right, backwards, position) with height, width and focal length in
pixels as its last column, then the nearest and farthest depth, which are not used.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from splatir.data.capture import Capture, CapturedImage, pose_from_opengl
from splatir.data.dataset import DataSettings, Distortion
from splatir.data.image_files import chosen_folder, find_mask
from splatir.data.lens import check_lens
from splatir.data.photo_folder import list_photos

POSES_FILE = "poses_bounds.npy"
_NUMBERS = 17


def read_llff(root: Path, settings: DataSettings) -> Capture:
    """Read images, masks and poses; the input frame is that of the poses.

    Raises:
        FileNotFoundError: No images.
        ValueError: A broken file, or another number of poses than of images.
    """
    rows = _read_rows(root / POSES_FILE)
    folder = root / "images" if settings.images is None else root / settings.images
    if not folder.is_dir():
        raise FileNotFoundError(f"no image folder {folder}. Name it with --images.")
    names = list_photos(folder)
    if len(names) != len(rows):
        raise ValueError(
            f"{root / POSES_FILE} holds {len(rows)} poses, but {folder} {len(names)} images. Poses "
            "belong to images by the order of their names: restore what is missing."
        )
    if settings.masks is not None:
        masks = chosen_folder(root, settings.masks, "--masks")
    else:
        masks = folder.with_name("masks")
    return Capture(
        kind="llff",
        images=tuple(
            _captured_image(folder, name, row, masks, f"{root / POSES_FILE}: {name}")
            for name, row in zip(names, rows, strict=True)
        ),
        image_folder=folder,
        warnings=(f"{root.name} has no points: Gaussians will start at random positions.",),
    )


def _read_rows(path: Path) -> Float[np.ndarray, "n 17"]:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}.")
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is no readable .npy file of numbers ({error}).") from error
    if rows.ndim != 2 or rows.shape[1] != _NUMBERS or rows.dtype.kind not in "fiu":
        raise ValueError(
            f"{path} must hold {_NUMBERS} numbers for each image, got {rows.dtype} of shape "
            f"{rows.shape}."
        )
    return rows.astype(np.float64)


def _captured_image(
    folder: Path, name: str, row: Float[np.ndarray, " 17"], masks: Path, where: str
) -> CapturedImage:
    matrix = row[:15].reshape(3, 5)
    down, right, back, position, (height, width, focal) = matrix.T
    if not np.isfinite(row[:15]).all():
        raise ValueError(f"{where}: the pose holds NaN or infinite values.")
    lens = Distortion(
        "SIMPLE_PINHOLE", (focal, width / 2.0, height / 2.0), round(width), round(height)
    )
    check_lens(lens, where)
    T_input_camera = torch.from_numpy(np.stack([right, -down, back, position], axis=1))
    return CapturedImage(
        name=name,
        image_path=folder / name,
        lens=lens,
        T_camera_input=pose_from_opengl(T_input_camera, where),
        mask_path=find_mask(masks, name) if masks.is_dir() else None,
    )
