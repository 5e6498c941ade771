"""What a format's reader hands over: posed images as the files have them, in the input frame."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from splatir.data.dataset import DatasetKind, Distortion, SparsePoints
from splatir.maths.frames import invert_rigid

# Departure of R^T R from the identity that rounding in text files explains (six digits or more).
_RIGID_TOLERANCE = 1e-2
# Coordinates beyond this are damage, whatever the unit; far below what float32 holds.
_MAX_COORDINATE = 1e12
# Names in a message.
_NUM_LISTED = 8


@dataclass(frozen=True)
class CapturedImage:
    """One posed image file, before undistortion, downscaling and the world frame.

    Attributes:
        name: Path below the image folder, with extension.
        image_path: The full-size file; exists.
        lens: Camera of the full-size file, in its own model ("PINHOLE" included).
        T_camera_input: World-to-camera, OpenCV axes, float64.
        mask_path: White = keep, or None.
    """

    name: str
    image_path: Path
    lens: Distortion
    T_camera_input: Float[Tensor, "4 4"]
    mask_path: Path | None = None


@dataclass(frozen=True)
class NamedSplit:
    """A split that the data bring along.

    Attributes:
        source: File that says so, for messages.
        train: Image names with extension; None means all that are not in `test`.
        test: Image names with extension.
    """

    source: str
    train: frozenset[str] | None
    test: frozenset[str]


@dataclass(frozen=True)
class Capture:
    """All images of one folder.

    Attributes:
        kind: Which reader made it.
        images: In any order, names unique.
        image_folder: Folder that the names are relative to; `images_2` is looked for beside it.
            None where the format knows no downscaled folders.
        points: Input frame, float64; None where there are none.
        split: The data's own split, or None.
        is_synthetic: The input frame is +Z up and in sensible units already.
        has_alpha: The format marks the object with the image's alpha channel.
        warnings: One sentence each.
    """

    kind: DatasetKind
    images: tuple[CapturedImage, ...]
    image_folder: Path | None = None
    points: SparsePoints | None = None
    split: NamedSplit | None = None
    is_synthetic: bool = False
    has_alpha: bool = False
    warnings: tuple[str, ...] = field(default=())


class Remarks:
    """Collects what is wrong with single images, so that 500 missing files give one sentence."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def note(self, template: str, name: str) -> None:
        """Add one image to a remark.

        Args:
            template: Sentence with `{count}` and `{names}`.
            name: Image that it is about.
        """
        self._names.setdefault(template, []).append(name)

    def sentences(self) -> tuple[str, ...]:
        """One sentence per template, with the count and the first three names."""
        found = []
        for template, names in self._names.items():
            listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            found.append(template.format(count=len(names), names=listed))
        return tuple(found)


def listed(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are.

    Args:
        names: Any number.
    """
    more = f" and {len(names) - _NUM_LISTED} more" if len(names) > _NUM_LISTED else ""
    return ", ".join(names[:_NUM_LISTED]) + more


def checked_pose(T: Float[Tensor, "rows 4"], where: str) -> Float[Tensor, "4 4"]:
    """Return a pose as an exactly rigid 4x4 matrix.

    Args:
        T: 3x4 or 4x4; either direction.
        where: File and image, for messages.

    Raises:
        ValueError: Not finite, absurdly far, mirrored, or not a rotation within 1 % (small noise is
            removed).
    """
    if T.shape[0] not in (3, 4):
        raise ValueError(f"{where}: expected a 3x4 or 4x4 pose matrix, got {tuple(T.shape)}.")
    if not bool(torch.isfinite(T).all()):
        raise ValueError(
            f"{where}: the pose holds NaN or infinite values. "
            "Remove this image from the file or estimate its pose again."
        )
    if float(T[:3, 3].abs().max()) > _MAX_COORDINATE:
        raise ValueError(
            f"{where}: the pose lies at {T[:3, 3].tolist()}, farther than {_MAX_COORDINATE:g}. "
            "The file is damaged."
        )
    if T.shape[0] == 4 and not torch.allclose(
        T[3], torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=T.dtype), atol=1e-6
    ):
        raise ValueError(
            f"{where}: the pose's last row must be 0 0 0 1, got {T[3].tolist()}. "
            "Is the matrix stored column by column?"
        )
    R = T[:3, :3]
    departure = float((R.mT @ R - torch.eye(3, dtype=T.dtype)).abs().max())
    if departure > _RIGID_TOLERANCE or float(torch.linalg.det(R)) < 0:
        raise ValueError(
            f"{where}: the pose is not a rotation and a translation (R^T R is off the identity by "
            f"{departure:.2g}, determinant {float(torch.linalg.det(R)):.3g}). "
            "Remove scale, shear and mirroring from the camera before exporting."
        )
    U, _, Vh = torch.linalg.svd(R)
    rigid = torch.eye(4, dtype=T.dtype)
    rigid[:3, :3] = U @ Vh
    rigid[:3, 3] = T[:3, 3]
    return rigid


def pose_from_opengl(T_input_camera: Float[Tensor, "rows 4"], where: str) -> Float[Tensor, "4 4"]:
    """T_camera_input with OpenCV axes from a camera-to-world matrix with OpenGL's (and Blender's).

    Args:
        T_input_camera: 3x4 or 4x4; the camera has y up and looks along -z.
        where: File and image, for messages.

    Raises:
        ValueError: As `checked_pose`.
    """
    rigid = checked_pose(T_input_camera, where)
    rigid[:, 1:3] *= -1.0
    return invert_rigid(rigid)


def sparse_points(
    positions: Float[np.ndarray, "n 3"],
    colours_srgb: Float[np.ndarray, "n 3"],
    where: str,
    error: float | None = None,
) -> tuple[SparsePoints | None, tuple[str, ...]]:
    """The points of a file that can be used, and what is to be said about the others.

    Args:
        positions: Input frame.
        colours_srgb: Clipped to [0, 1].
        where: File, for the warnings.
        error: As in `SparsePoints`.
    """
    # False for NaN as well.
    usable = (np.abs(positions) <= _MAX_COORDINATE).all(axis=1)
    warnings = []
    if not usable.all():
        warnings.append(
            f"{int((~usable).sum())} points of {where} are not finite or absurdly far and are "
            "dropped."
        )
    if not usable.any():
        warnings.append(f"{where} holds no points: Gaussians will start at random positions.")
        return None, tuple(warnings)
    colours = np.nan_to_num(colours_srgb[usable]).clip(0.0, 1.0)
    points = SparsePoints(torch.from_numpy(positions[usable]), torch.from_numpy(colours), error)
    return points, tuple(warnings)
