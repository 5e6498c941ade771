"""What every reader returns: calibrated views, a split, sparse points and a world frame."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.scene.camera import Camera
from splatir.scene.corrections import corrected_camera
from splatir.settings import Settings, SettingsError

DatasetKind = Literal[
    "colmap", "transforms", "nerf-synthetic", "tensoir", "llff", "objects-with-lighting"
]


@dataclass(frozen=True)
class DataSettings(Settings):
    """How a folder is read; the defaults suit every supported layout.

    Attributes:
        downscale: Divide image width and height by this, at least 1. Folders `images_2`,
            `images_4`, ... are used where they hold the files.
        max_size: After `downscale`, shrink further until the longer side has at most this many
            pixels; None for no limit. Images are never enlarged.
        images: Image folder below the data folder, None to find it.
        masks: Mask folder below the data folder, None for `masks` beside the images.
        invert_masks: Masks mark what to ignore in white. By default white (above half) is kept.
        test_every: Hold out every n-th image by sorted name where the data brings no split of its
            own; 0 trains on all images.
        format: Layout of the folder, "auto" to recognise it.
        world: "auto" turns captures upright and scales them, and keeps synthetic scenes as they
            are; "cameras" and "input" force the one or the other.
        light: TensoIR only: train on rgba_<light>.png. None takes rgba.png, or the first light
            that every view has.
    """

    downscale: float = 1.0
    max_size: int | None = None
    images: str | None = None
    masks: str | None = None
    invert_masks: bool = False
    test_every: int = 8
    format: Literal[
        "auto",
        "colmap",
        "transforms",
        "nerf-synthetic",
        "tensoir",
        "llff",
        "objects-with-lighting",
    ] = "auto"
    world: Literal["auto", "cameras", "input"] = "auto"
    light: str | None = None

    def __post_init__(self) -> None:
        """Refuse values that no data set can be read with.

        Raises:
            SettingsError: A value out of range.
        """
        if not 1.0 <= self.downscale < float("inf"):
            raise SettingsError(f"downscale must be at least 1, got {self.downscale}.")
        if self.max_size is not None and self.max_size < 1:
            raise SettingsError(f"max_size must be at least 1 pixel, got {self.max_size}.")
        if self.test_every < 0 or self.test_every == 1:
            raise SettingsError(
                f"test_every must be 0 (no held-out views) or at least 2, got {self.test_every}."
            )


@dataclass(frozen=True)
class Distortion:
    """A camera in its lens model's own terms.

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
        name: Unique within the data set; the image's path below the image folder, no extension,
            and never with "..".
        camera: Camera of the pixels that `images.load_photo` returns: after undistortion and
            downscaling. World frame, float32.
        image_path: The file as it was found.
        mask_path: File that marks the object (white = keep), or None. As large as the image file.
        distortion: How to undistort the file, or None for a pinhole image. It describes the file's
            own pixels (same width and height). Undistortion comes before resizing and is
            pycolmap's with default options, so `lens.pinhole` says what it gives.
        invert_mask: White in `mask_path` means ignore, not keep.
        orientation: EXIF code of the turn that makes the file's pixels those that `distortion` or
            `camera` describe; 1 where they are, as nearly always: poses belong to stored pixels.
        exposure: Seconds times ISO / 100 over the squared f-number, from EXIF: what a pixel records
            of a radiance is proportional to it. None where the file does not say all three.
    """

    name: str
    camera: Camera
    image_path: Path
    mask_path: Path | None = None
    distortion: Distortion | None = None
    invert_mask: bool = False
    orientation: int = 1
    exposure: float | None = None


@dataclass(frozen=True)
class SparsePoints:
    """Triangulated points of a structure-from-motion model.

    Attributes:
        positions: World frame in a `Dataset`, input frame in a `Capture`.
        colours_srgb: In [0, 1].
        error: Median distance between where photos show them and where their cameras see them, as
            a part of the photos' longer side; None where the format does not say.
    """

    positions: Float[Tensor, "n 3"]
    colours_srgb: Float[Tensor, "n 3"]
    error: float | None = None


@dataclass(frozen=True)
class Dataset:
    """Posed photographs in the world frame.

    Attributes:
        root: Folder that was read.
        kind: Which reader recognised it.
        train: Views to optimise on, at least two.
        test: Held-out views; empty where there are too few images or `test_every` is 0.
        points: Sparse points, or None where the format has none or the file is empty.
        S_world_input: Similarity from the data's own frame to the world (+Z up); exports undo it.
            Float64: inputs in geographic units lose centimetres in float32.
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

    @property
    def reprojection_error(self) -> float | None:
        """Median error of the cameras by the sparse points, pixels of the training photos.

        Distance between where photos show the points and where their cameras see them; None where
        the data do not say.
        """
        if self.points is None or self.points.error is None:
            return None
        sides = [max(view.camera.width, view.camera.height) for view in self.train]
        return self.points.error * median(sides)

    def with_corrections(self, corrections: Float[Tensor, "views 7"]) -> "Dataset":
        """The same photographs with the training cameras corrected.

        Args:
            corrections: Of each training view, see `scene.corrections`.

        Raises:
            ValueError: Not one for each training view.
        """
        if len(corrections) != len(self.train):
            raise ValueError(
                f"the run refined {len(corrections)} cameras, but {self.root} has "
                f"{len(self.train)} training views: it has changed since."
            )
        extent = self.extent
        views = (
            replace(view, camera=corrected_camera(view.camera, correction.cpu(), extent))
            for view, correction in zip(self.train, corrections, strict=True)
        )
        return replace(self, train=tuple(views))
