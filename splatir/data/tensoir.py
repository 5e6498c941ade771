"""TensoIR-synthetic folders: one subfolder per view with metadata.json and rgba*.png."""

from pathlib import Path

import torch

from splatir.data.capture import Capture, CapturedImage, NamedSplit, Remarks, pose_from_opengl
from splatir.data.dataset import DataSettings, Distortion
from splatir.data.image_files import has_alpha_channel
from splatir.data.lens import check_lens, focal_length
from splatir.data.transforms_file import read_json


def is_tensoir(root: Path) -> bool:
    """Whether `root` has view folders train_*, each with its metadata.json."""
    return any((folder / "metadata.json").is_file() for folder in root.glob("train_*"))


def read_tensoir(root: Path, settings: DataSettings) -> Capture:
    """Read view folders train_* and test_* (val_* is not used); the frame is Blender's, +Z up.

    Raises:
        FileNotFoundError: No view folders, or none with the light asked for.
        ValueError: Broken metadata.
    """
    train_folders, test_folders = (
        sorted(p for p in root.glob(f"{part}_*") if p.is_dir()) for part in ("train", "test")
    )
    if not train_folders:
        raise FileNotFoundError(f"no view folders train_* in {root}.")
    file_name, warnings = _image_name(train_folders, settings)
    remarks = Remarks()
    images = {"train": [], "test": []}
    for part, folders in (("train", train_folders), ("test", test_folders)):
        for folder in folders:
            image_path = folder / file_name
            if not image_path.is_file():
                remarks.note(
                    f"{{count}} view folders have no {file_name} and are skipped: {{names}}.",
                    folder.name,
                )
                continue
            images[part].append(_captured_image(folder, image_path))
    if not images["train"]:
        raise FileNotFoundError(f"none of the training folders of {root} holds {file_name}.")
    split = None
    if images["test"]:
        train, test = (frozenset(image.name for image in images[p]) for p in ("train", "test"))
        split = NamedSplit("the folder names", train, test)
    return Capture(
        kind="tensoir",
        images=(*images["train"], *images["test"]),
        split=split,
        is_synthetic=True,
        has_alpha=has_alpha_channel(images["train"][0].image_path),
        warnings=(*warnings, *remarks.sentences()),
    )


def _image_name(folders: list[Path], settings: DataSettings) -> tuple[str, tuple[str, ...]]:
    """rgba.png, or rgba_<light>.png."""
    if settings.light is not None:
        return f"rgba_{settings.light}.png", ()
    if (folders[0] / "rgba.png").is_file():
        return "rgba.png", ()
    names = [{path.name for path in folder.glob("rgba_*.png")} for folder in folders]
    common = sorted(set.intersection(*names))
    if not common:
        raise FileNotFoundError(
            f"{folders[0]} has no rgba.png, and no rgba_<light>.png is in all training folders."
        )
    if len(common) == 1:
        return common[0], ()
    lights = ", ".join(name[len("rgba_") : -len(".png")] for name in common)
    return common[0], (f"several lights ({lights}): {common[0]} is used; --light chooses.",)


def _captured_image(folder: Path, image_path: Path) -> CapturedImage:
    path = folder / "metadata.json"
    metadata = read_json(path)
    missing = [
        key for key in ("imw", "imh", "cam_angle_x", "cam_transform_mat") if key not in metadata
    ]
    if missing:
        raise ValueError(f"{path} has no {', '.join(missing)}.")
    try:
        width, height = (int(float(metadata[key])) for key in ("imw", "imh"))
        angle = float(metadata["cam_angle_x"])
        numbers = [float(word) for word in str(metadata["cam_transform_mat"]).split(",")]
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path}: a value is not a number ({error}).") from error
    if len(numbers) != 16:
        raise ValueError(
            f"{path}: cam_transform_mat must be 16 numbers with commas, got {len(numbers)}."
        )
    focal = focal_length(angle, width, f"{path}: cam_angle_x")
    lens = Distortion("PINHOLE", (focal, focal, width / 2.0, height / 2.0), width, height)
    check_lens(lens, str(path))
    matrix = torch.tensor(numbers, dtype=torch.float64).reshape(4, 4)
    return CapturedImage(
        name=f"{folder.name}.png",
        image_path=image_path,
        lens=lens,
        T_camera_input=pose_from_opengl(matrix, str(path)),
    )
