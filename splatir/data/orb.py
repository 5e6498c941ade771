"""Where does Stanford-ORB keep its captures, their pictures under other lights, and the truth?

Folders as its README documents them: blender_HDR/<capture>/transforms_{train,test,novel}.json and
ground_truth/<capture>/{env_map,surface_normal,z_depth,pseudo_gt_albedo}/<number>.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from splatir.codecs.exr import read_exr
from splatir.codecs.ldr import read_ldr
from splatir.data.assemble import posed_view
from splatir.data.capture import CapturedImage
from splatir.data.dataset import DataSettings, View
from splatir.data.image_files import image_size
from splatir.data.resample import resize
from splatir.data.transforms_file import read_transforms_file
from splatir.maths.colour import linear_from_srgb

_HDR = "blender_HDR"
# Axes of a map's file (+X its centre, +Y to the left, +Z up) in OpenCV's camera: the benchmark's
# maps look where the camera looks, with the camera's right on their right.
_R_CAMERA_FILE = ((0.0, -1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0))


@dataclass(frozen=True)
class OrbCapture:
    """One object under one light.

    Attributes:
        name: Such as teapot_scene001.
        folder: With transforms_train.json; readable as a data set.
        truth: Folder of its ground truth.
    """

    name: str
    folder: Path
    truth: Path


@dataclass(frozen=True)
class NovelView:
    """A picture of the object under another light.

    Attributes:
        view: Its camera in the world of the capture, its picture and mask.
        environment: File of the light, in the camera's frame.
    """

    view: View
    environment: Path


def find_captures(root: Path) -> list[OrbCapture]:
    """Captures of the benchmark, sorted by name.

    Args:
        root: The folder that holds blender_HDR and ground_truth, or one folder of blender_HDR.

    Raises:
        FileNotFoundError: None is there.
    """
    if (root / "transforms_novel.json").is_file():
        folders = [root]
        top = root.resolve().parent.parent
    else:
        folders = sorted((root / _HDR).glob("*/"))
        top = root
    folders = [folder for folder in folders if (folder / "transforms_novel.json").is_file()]
    if not folders:
        raise FileNotFoundError(
            f"no captures of Stanford-ORB in {root}: expected {_HDR}/<capture>/"
            "transforms_{train,test,novel}.json and ground_truth/<capture>. Give the folder that "
            f"holds both, or one of {_HDR}."
        )
    names = [folder.resolve().name for folder in folders]
    return [
        OrbCapture(name, folder, top / "ground_truth" / name)
        for name, folder in zip(names, folders, strict=True)
    ]


def novel_views(
    capture: OrbCapture, S_world_input: Float[Tensor, "4 4"], settings: DataSettings
) -> list[NovelView]:
    """The test pictures of the object's other captures, which have poses in this one's frame.

    Args:
        capture: Whose object.
        S_world_input: From the capture's frame to the world.
        settings: Sizes.

    Raises:
        FileNotFoundError: A picture or an environment map is missing.
        ValueError: A broken file.
    """
    file = read_transforms_file(capture.folder / "transforms_novel.json")
    found = []
    for frame in file.frames:
        scene = frame.get("scene_name")
        if not isinstance(scene, str):
            raise ValueError(f"{file.path}: frame {frame['file_path']} has no scene_name.")
        below = Path(frame["file_path"]).with_suffix("")
        folder = capture.folder.resolve().parent / scene
        picture = (folder / below).with_suffix(".exr")
        environment = capture.truth.parent / scene / "env_map" / f"{below.name}.exr"
        for path in (picture, environment):
            if not path.is_file():
                raise FileNotFoundError(f"no file {path}, which {file.path} asks for.")
        mask = folder / f"{below.parent.name}_mask" / f"{below.name}.png"
        image = CapturedImage(
            name=f"{scene}/{below.name}",
            image_path=picture,
            lens=file.lens(frame, image_size(picture)),
            T_camera_input=file.pose(frame),
            mask_path=mask if mask.is_file() else None,
        )
        found.append(NovelView(posed_view(image, S_world_input, settings), environment))
    return found


def rotation_of_map(view: View) -> Float[Tensor, "3 3"]:
    """R_world_file of an environment map that is in the frame of a view's camera, float64.

    Args:
        view: Whose camera.
    """
    R_world_camera = view.camera.T_camera_world[:3, :3].double().mT
    return R_world_camera @ torch.tensor(_R_CAMERA_FILE, dtype=torch.float64)


def true_plane(
    capture: OrbCapture, kind: str, view: View
) -> Float[np.ndarray, "height width c"] | None:
    """What is known about a test view, at the size of its camera; None where there is no file.

    Args:
        capture: Of the view.
        kind: "surface_normal" (camera axes x right, y up, z back), "z_depth" or
            "pseudo_gt_albedo" (linear; PNG files are taken as sRGB).
        view: A test view.

    Raises:
        ValueError: A broken file.
    """
    stem = capture.truth / kind / view.image_path.stem
    values = None
    if stem.with_suffix(".npy").is_file():
        values = _read_npy(stem.with_suffix(".npy"))
    elif stem.with_suffix(".exr").is_file():
        values = read_exr(stem.with_suffix(".exr")).rgb
    elif stem.with_suffix(".png").is_file():
        samples = read_ldr(stem.with_suffix(".png"))
        encoded = torch.from_numpy(samples[..., :3] / np.float32(np.iinfo(samples.dtype).max))
        values = linear_from_srgb(encoded).numpy()
    if values is None:
        return None
    values = values[..., None] if values.ndim == 2 else values[..., :3]
    plane = torch.from_numpy(np.ascontiguousarray(values, np.float32))
    return resize(plane, view.camera.width, view.camera.height).numpy().astype(np.float64)


def _read_npy(path: Path) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is no readable .npy file of numbers ({error}).") from error
    if values.ndim not in (2, 3) or values.dtype.kind not in "fiu":
        raise ValueError(f"{path} must hold a plane of numbers, got shape {values.shape}.")
    return values
