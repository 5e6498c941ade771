"""`splatir sfm`: which poses do photographs have, and which of them have none?"""

import sys
from dataclasses import dataclass
from pathlib import Path

from splatir.data.capture import listed
from splatir.data.colmap import find_model
from splatir.data.dataset import DataSettings
from splatir.data.photo_folder import PhotoFolder, find_photos, list_photos, undecoded_photos
from splatir.data.recognise import has_known_layout
from splatir.data.sfm import SfmResult, reconstruct
from splatir.data.sfm_work import SfmSettings
from splatir.messages import one_line


@dataclass(frozen=True)
class SfmCommandSettings(SfmSettings):
    """Find the camera poses of photographs: writes a COLMAP model, overwrites nothing.

    Attributes:
        path: Folder of photographs, or one that holds them in `images`.
        output: Folder of the capture: gets `images` with links to the photographs, and `sparse/0`.
            Without it the model is written as `sparse/0` beside or below the photographs.
    """

    path: Path | None = None
    output: Path | None = None


def run(settings: SfmCommandSettings) -> None:
    """Reconstruct and report."""
    if settings.path is None:
        raise ValueError("give a folder of photographs: splatir sfm DIR.")
    result = reconstruct(_photos(settings.path, None), settings, settings.output)
    print("\n".join(describe(result)))
    print(f"\nnext:\n  splatir info {result.root}\n  splatir train --data {result.root}")


def with_poses(data: Path, settings: DataSettings) -> Path:
    """The capture to train on: photographs alone get a model first, and it is said so.

    Args:
        data: Any folder; one with poses is returned as it is.
        settings: How the capture is read.

    Returns:
        The folder that holds the model.

    Raises:
        ValueError: Too few photographs, or too few that fit together.
    """
    if settings.format != "auto" or not data.is_dir() or has_known_layout(data):
        return data
    photos = find_photos(data) if settings.images is None else _photos(data, settings.images)
    if photos is None:
        # Whoever reads it says what was looked for.
        return data
    if find_model(photos.root) is not None:
        return photos.root
    print(
        f"no camera poses in {data}: finding those of {len(photos.names)} photographs first; "
        f"the model is kept in {photos.root / 'sparse' / '0'}.",
        file=sys.stderr,
    )
    result = reconstruct(photos, SfmSettings())
    print("\n".join(describe(result)), file=sys.stderr)
    return result.root


def describe(result: SfmResult) -> list[str]:
    """Lines about what became of the photographs.

    Args:
        result: Of `reconstruct`.
    """
    num_sound = len(result.registered) + len(result.unregistered)
    cameras = "camera" if result.num_cameras == 1 else "cameras"
    threads = "thread" if result.threads == 1 else "threads"
    lines = [
        f"poses        {len(result.registered)} of {num_sound} photographs, "
        f"{result.num_cameras} {cameras}, {result.num_points:,} points, "
        f"error {result.reprojection_error:.2f} pixels",
        f"time         {result.seconds:.0f} s on {result.threads} {threads}",
    ]
    if result.unregistered:
        lines.append(
            f"no pose      {listed(result.unregistered)}: nothing in common with the others was "
            "found; they are not trained on"
        )
    lines += [f"unreadable   {name}: {one_line(fault)}" for name, fault in result.broken]
    if result.blurred:
        lines.append(f"blurred      {listed(result.blurred)}")
    if result.turned:
        lines.append(
            f"turned       {listed(result.turned)}: by EXIF, otherwise than most; taken as stored"
        )
    return lines


def _photos(path: Path, images: str | None) -> PhotoFolder:
    """The photographs of a folder, or what is wrong with it."""
    if not path.is_dir():
        problem = "is a file, not a folder" if path.exists() else "does not exist"
        raise FileNotFoundError(f"{path} {problem}. Give a folder of photographs.")
    if images is None:
        found = find_photos(path)
    else:
        names = list_photos(path / images)
        found = PhotoFolder(path, path / images, names) if names else None
    if found is not None:
        return found
    other = undecoded_photos(path)
    if other:
        raise ValueError(
            f"the photographs in {path} are of a kind that cannot be read ({listed(other)}). "
            "Convert them to JPEG or PNG, keeping EXIF."
        )
    raise ValueError(f"no photographs in {path}: expected JPEG, PNG, TIFF, WebP, EXR or RAW files.")
