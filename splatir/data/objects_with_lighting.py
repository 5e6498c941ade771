"""Objects with Lighting (Ummenhofer et al. 2024): inputs/image_*.png, camera_*.txt, mask_*.png.

A camera file holds K (3 rows), R (3 rows), t and width, height, channels: x = K (R X + t), pixel
centres at +0.5, the camera looking along +z with y down.
"""

from pathlib import Path

import numpy as np
import torch

from splatir.data.capture import Capture, CapturedImage, Remarks, checked_pose
from splatir.data.dataset import DataSettings, Distortion
from splatir.data.lens import check_lens

_SKEW = 1e-6


def find_inputs(root: Path) -> Path | None:
    """The folder `inputs` at or below `root` that holds images with cameras, or None."""
    for folder in (root / "inputs", root / "test" / "inputs", root):
        if any(folder.glob("camera_*.txt")) and any(folder.glob("image_*.png")):
            return folder
    return None


def read_objects_with_lighting(root: Path, settings: DataSettings) -> Capture:
    """Read what may be used for a reconstruction; what `gt_*` shows has another light.

    The photographs are encoded with a gamma of 2.2, which is read as sRGB: up to 0.01 brighter in
    the shadows.

    Raises:
        FileNotFoundError: No images with cameras.
        ValueError: A broken camera file.
    """
    folder = find_inputs(root)
    if folder is None:
        raise FileNotFoundError(f"no inputs/image_*.png with inputs/camera_*.txt in {root}.")
    remarks = Remarks()
    images = []
    for path in sorted(folder.glob("image_*.png")):
        number = path.stem.removeprefix("image_")
        camera = folder / f"camera_{number}.txt"
        if not camera.is_file():
            remarks.note("{count} images have no camera file and are skipped: {names}.", path.name)
            continue
        mask = folder / f"mask_{number}.png"
        images.append(_captured_image(path, camera, mask if mask.is_file() else None))
    if not images:
        raise FileNotFoundError(f"none of the images in {folder} has a camera_*.txt.")
    return Capture(
        kind="objects-with-lighting",
        images=tuple(images),
        warnings=(
            *remarks.sentences(),
            f"{root.name} has no points: Gaussians will start at random positions.",
        ),
    )


def _captured_image(image: Path, camera: Path, mask: Path | None) -> CapturedImage:
    try:
        numbers = [[float(word) for word in line.split()] for line in _lines(camera)]
    except (ValueError, OSError) as error:
        raise ValueError(f"{camera} is not a table of numbers ({error}).") from error
    if [len(row) for row in numbers] != [3] * 8:
        raise ValueError(
            f"{camera} must hold 8 rows of 3 numbers: K, R, t, and width, height, channels."
        )
    values = np.array(numbers)
    if not np.isfinite(values).all():
        raise ValueError(f"{camera} holds NaN or infinite values.")
    K, R, t = values[:3] / values[2, 2], values[3:6], values[6]
    if abs(K[0, 1]) > _SKEW * abs(K[0, 0]):
        raise ValueError(f"{camera}: K has a skew of {K[0, 1]:g}, which is not supported.")
    width, height = round(values[7, 0]), round(values[7, 1])
    lens = Distortion("PINHOLE", (K[0, 0], K[1, 1], K[0, 2], K[1, 2]), width, height)
    check_lens(lens, str(camera))
    pose = torch.from_numpy(np.concatenate([R, t[:, None]], axis=1))
    return CapturedImage(image.name, image, lens, checked_pose(pose, str(camera)), mask)


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
