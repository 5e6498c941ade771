"""Which frames does a command render, and where do they go?"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from splatir.codecs.mp4 import ffmpeg_program, write_mp4
from splatir.data.broken import without_broken
from splatir.data.recognise import read_dataset
from splatir.evaluate.frames import frame_names
from splatir.render.paths import CameraPath, read_camera_path, turntable
from splatir.scene.camera import Camera
from splatir.settings import Settings, check_range
from splatir.train.finished import FinishedRun

Format = Literal["npz", "png", "exr", "mp4"]
_TURNTABLE = "turntable"


@dataclass(frozen=True)
class FrameSettings(Settings):
    """Which cameras, and what kind of files.

    Attributes:
        split: Cameras of the capture's held-out views, training views or all; "test" unless a path
            is given.
        path: "turntable", or a JSON file with a camera path (docs/use.md).
        frames: Frames of the turntable.
        fps: Frames a second of a video; the path file's, or 30.
        size: Longer side of a path's frames, pixels; as the photos, or as the path file says.
        format: "npz" for programs, "png" and "exr" frames, "mp4" of a path; png for a split and mp4
            for a path if not given.
        output: Folder, or for a video also an .mp4 file; inside the run if not given.
        overwrite: Write into a folder that holds files already; those of the same name are
            replaced.
    """

    split: Literal["test", "train", "all"] | None = None
    path: str | None = None
    frames: int = 60
    fps: float | None = None
    size: int | None = None
    format: Format | None = None
    output: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that no video has.

        Raises:
            SettingsError: A value out of range.
        """
        check_range(self, "frames", 1)
        check_range(self, "fps", 0.01, 1000)

    @property
    def kind(self) -> Format:
        """Format of the files.

        Raises:
            ValueError: A video of photographs' cameras.
        """
        if self.format is None:
            return "png" if self.path is None else "mp4"
        if self.format == "mp4" and self.path is None:
            raise ValueError("--format mp4 films a path: add --path turntable or --path FILE.json.")
        return self.format


@dataclass(frozen=True)
class Frames:
    """What is to be rendered.

    Attributes:
        names: Of the files, without suffix; may have folders.
        cameras: One per name, world frame.
        kind: Format of the files.
        target: Folder, or the video.
        fps: Of the video.
    """

    names: tuple[str, ...]
    cameras: tuple[Camera, ...]
    kind: Format
    target: Path
    fps: float

    def file(self, name: str) -> Path:
        """Where a frame goes."""
        return self.target / f"{name}.{self.kind}"

    def each(self, label: str) -> Iterator[tuple[str, Camera]]:
        """Names and cameras, with a progress bar."""
        pairs = list(zip(self.names, self.cameras, strict=True))
        yield from tqdm(pairs, desc=label, unit="frame")

    def write_video(self, label: str, picture: Callable[[Camera], np.ndarray]) -> None:
        """Render all frames into the video."""
        frames = (picture(camera) for _, camera in self.each(label))
        write_mp4(self.target, frames, self.fps)


def plan_frames(finished: FinishedRun, settings: FrameSettings, default_folder: Path) -> Frames:
    """Find the cameras and check that the files may be written.

    Args:
        finished: Run.
        settings: What is wanted.
        default_folder: Where to without `output`.

    Raises:
        ValueError: Both a split and a path, no such views, or a broken path file.
        FileNotFoundError: No such path file, or the capture is gone.
        FileExistsError: The output holds something and `overwrite` was not given.
        ImportError: A video is wanted and there is no ffmpeg.
    """
    if settings.split is not None and settings.path is not None:
        raise ValueError("give --split or --path, not both.")
    kind = settings.kind
    name = settings.split or "test"
    if settings.path is not None:
        name = Path(settings.path).stem
    target = _target(settings, kind, name, default_folder)
    if kind == "mp4":
        ffmpeg_program()
    if settings.path is None:
        names, cameras = _split_views(finished, name)
        return Frames(frame_names(names), cameras, kind, target, 0.0)
    path = _camera_path(finished, settings)
    numbers = tuple(f"frame_{index:04d}" for index in range(len(path.cameras)))
    return Frames(numbers, path.cameras, kind, target, path.fps)


def _target(settings: FrameSettings, kind: Format, name: str, default_folder: Path) -> Path:
    """The output, after a look at what is there."""
    output = default_folder if settings.output is None else settings.output
    if kind == "mp4":
        video = output if output.suffix.lower() == ".mp4" else output / f"{name}.mp4"
        if video.exists() and not (settings.overwrite and video.is_file()):
            raise FileExistsError(f"{video} exists. Give another --output, or add --overwrite.")
        return video
    folder = output / name if settings.output is None else output
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"the output {folder} is a file; give a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not settings.overwrite:
        raise FileExistsError(
            f"the output folder {folder} is not empty. Give another --output, or add --overwrite."
        )
    return folder


def _split_views(finished: FinishedRun, split: str) -> tuple[list[str], tuple[Camera, ...]]:
    settings = finished.settings
    assert settings.data is not None
    dataset = read_dataset(settings.data, settings.dataset)
    if finished.corrections is not None:
        # As the training took them.
        dataset = without_broken(dataset).with_corrections(finished.corrections)
    views = {
        "test": dataset.test,
        "train": dataset.train,
        "all": (*dataset.train, *dataset.test),
    }[split]
    if not views:
        raise ValueError(
            f"{settings.data} has no held-out views (too few images, or test_every is 0). "
            "Use --split train, or --path turntable."
        )
    return [view.name for view in views], tuple(view.camera for view in views)


def _camera_path(finished: FinishedRun, settings: FrameSettings) -> CameraPath:
    assert settings.path is not None
    if settings.path != _TURNTABLE:
        found = read_camera_path(Path(settings.path), finished.S_world_input, settings.size)
        return found if settings.fps is None else CameraPath(found.cameras, settings.fps)
    train = finished.settings
    assert train.data is not None
    cameras = [view.camera for view in read_dataset(train.data, train.dataset).train]
    fps = 30.0 if settings.fps is None else settings.fps
    return turntable(cameras, settings.frames, settings.size, fps)


def describe(frames: Frames, device: torch.device) -> str:
    """One line for the user: how many frames, how large, and where they are."""
    sizes = {(camera.width, camera.height) for camera in frames.cameras}
    shape = "several sizes" if len(sizes) > 1 else "{} x {}".format(*next(iter(sizes)))
    return f"{frames.target}  ({len(frames.names)} frames, {shape}, on {device})"
