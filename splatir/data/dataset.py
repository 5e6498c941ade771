"""What every reader returns: calibrated views, a split, sparse points and a world frame."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.scene.camera import Camera

DatasetKind = Literal["colmap", "transforms", "nerf-synthetic", "tensoir"]


@dataclass(frozen=True)
class Distortion:
    """A lens that must be undone before the view is a pinhole one.

    Attributes:
        model: COLMAP's camera model name, such as "OPENCV".
        params: COLMAP's parameters of that model, for an image of `width` x `height`.
        width: Width of the distorted image the parameters describe, pixels.
        height: Its height.
    """

    model: str
    params: tuple[float, ...]
    width: int
    height: int


@dataclass(frozen=True)
class View:
    """One photograph and the pinhole camera that took it.

    Attributes:
        name: Unique within the data set; the image's path below the image folder, no extension.
        camera: Camera of the pixels that `images.load_photo` returns: after undistortion and
            downscaling. World frame.
        image_path: The file as it was found.
        mask_path: File that marks the object (white = keep), or None.
        distortion: How to undistort the file, or None for a pinhole image.
    """

    name: str
    camera: Camera
    image_path: Path
    mask_path: Path | None = None
    distortion: Distortion | None = None


@dataclass(frozen=True)
class SparsePoints:
    """Triangulated points of a structure-from-motion model.

    Attributes:
        positions: World frame.
        colours_srgb: In [0, 1].
    """

    positions: Float[Tensor, "n 3"]
    colours_srgb: Float[Tensor, "n 3"]


@dataclass(frozen=True)
class Dataset:
    """Posed photographs in the world frame.

    Attributes:
        root: Folder that was read.
        kind: Which reader recognised it.
        train: Views to optimise on.
        test: Held-out views.
        points: Sparse points, or None where the format has none.
        S_world_input: Similarity from the data's own frame to the world (+Z up); exports undo it.
        has_background: Whether pixels outside the object show something real. False for data with
            alpha or masks.
        warnings: What is wrong with the data but does not stop training, one sentence each.
    """

    root: Path
    kind: DatasetKind
    train: tuple[View, ...]
    test: tuple[View, ...]
    points: SparsePoints | None
    S_world_input: Float[Tensor, "4 4"]
    has_background: bool
    warnings: tuple[str, ...] = field(default=())

    @property
    def extent(self) -> float:
        """Radius of the training cameras about their centroid, scene units; rates scale with it."""
        positions = torch.stack([view.camera.position_world for view in self.train])
        return float((positions - positions.mean(0)).norm(dim=-1).max()) * 1.1
