"""Camera poses from photographs alone: features, matches and mapping through pycolmap, on CPU."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pycolmap

from splatir.data.capture import listed
from splatir.data.colmap import find_model
from splatir.data.exif import read_exif
from splatir.data.photo_folder import PhotoFolder
from splatir.data.sfm_photos import PreparedPhoto
from splatir.data.sfm_work import MIN_PHOTOS, SfmSettings, SfmWork
from splatir.data.sharpness import are_blurred


@dataclass(frozen=True)
class SfmResult:
    """What became of the photographs.

    Attributes:
        root: The capture: a COLMAP folder.
        registered: Names with a pose.
        unregistered: Names that are fine but show nothing that the model knows.
        broken: Name and reason of files that cannot be read.
        blurred: Names of photographs far less sharp than the others.
        turned: Names of those that EXIF turns otherwise than most; they are taken as stored.
        num_cameras: Different cameras.
        num_points: Triangulated points.
        reprojection_error: Mean over the points, pixels of the photographs.
        seconds: It took.
        threads: It used at most.
    """

    root: Path
    registered: tuple[str, ...]
    unregistered: tuple[str, ...]
    broken: tuple[tuple[str, str], ...]
    blurred: tuple[str, ...]
    turned: tuple[str, ...]
    num_cameras: int
    num_points: int
    reprojection_error: float
    seconds: float
    threads: int


def reconstruct(
    photos: PhotoFolder, settings: SfmSettings, output: Path | None = None
) -> SfmResult:
    """Find the poses of photographs and write a COLMAP folder.

    Args:
        photos: At least three photographs of one scene, from different places.
        settings: How.
        output: Folder that gets `images` (links to the photographs, or copies where the file system
            has no links) and `sparse/0`; None writes `sparse/0` into the photographs' own folder.

    Raises:
        FileExistsError: There is a model already; nothing is overwritten.
        ValueError: Too few photographs, or too few that fit together; the message names them.
    """
    started = time.perf_counter()
    root = photos.root if output is None else output
    _require_room(photos, root, output)
    threads = settings.threads or (os.cpu_count() or 1)
    with _quiet(), tempfile.TemporaryDirectory(prefix="splatir-sfm-") as folder:
        work = SfmWork(Path(folder), settings, threads)
        prepared, broken = work.prepare(photos)
        _require_enough(prepared, broken, photos)
        work.find_features(prepared)
        work.match(prepared)
        model = work.map(prepared)
        registered = _names(model)
        if len(registered) < max(MIN_PHOTOS, settings.min_registered * len(prepared)):
            raise ValueError(_too_few(registered, prepared, broken))
        assert model is not None
        _write(model, photos, root, output)
    blurred = are_blurred([photo.sharpness for photo in prepared])
    return SfmResult(
        root=root,
        registered=tuple(registered),
        unregistered=tuple(p.name for p in prepared if p.name not in set(registered)),
        broken=tuple(broken),
        blurred=tuple(p.name for p, flag in zip(prepared, blurred, strict=True) if flag),
        turned=_turned_otherwise(photos.folder, [photo.name for photo in prepared]),
        num_cameras=model.num_cameras(),
        num_points=model.num_points3D(),
        reprojection_error=model.compute_mean_reprojection_error(),
        seconds=time.perf_counter() - started,
        threads=threads,
    )


def _turned_otherwise(folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Photographs whose EXIF orientation is not that of most."""
    turns = [read_exif(folder / name).orientation for name in names]
    usual = max(set(turns), key=turns.count)
    return tuple(name for name, turn in zip(names, turns, strict=True) if turn != usual)


def _require_room(photos: PhotoFolder, root: Path, output: Path | None) -> None:
    """Nothing that is there may be in the way."""
    model = find_model(root)
    if model is not None:
        raise FileExistsError(
            f"{root} holds a COLMAP model already ({model}). Train on it, or give another --output."
        )
    taken = [root / "sparse" / "0"] if output is None else [output / "sparse", output / "images"]
    for folder in taken:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(f"{folder} is not empty. Give another --output.")
    if output is not None and photos.folder.resolve().is_relative_to(output.resolve()):
        raise ValueError(
            f"the photographs {photos.folder} lie in the output folder {output}. "
            "Leave --output away to write the model beside them, or give another folder."
        )
    if output is None and not os.access(root, os.W_OK):
        raise PermissionError(
            f"the model would be written into {root}, which cannot be written to. Give another "
            f"folder: splatir sfm {photos.root} --output DIR, then train on DIR."
        )


def _require_enough(
    prepared: Sequence[PreparedPhoto], broken: Sequence[tuple[str, str]], photos: PhotoFolder
) -> None:
    if len(prepared) >= MIN_PHOTOS:
        return
    reasons = "".join(f" {name}: {fault}" for name, fault in broken[:3])
    raise ValueError(
        f"{len(prepared)} readable photographs in {photos.folder}; poses need at least "
        f"{MIN_PHOTOS}, and good results some twenty or more.{reasons}"
    )


def _too_few(
    registered: Sequence[str], prepared: Sequence[PreparedPhoto], broken: Sequence[tuple[str, str]]
) -> str:
    """How many, which not, what to do."""
    without = [photo.name for photo in prepared if photo.name not in set(registered)]
    unreadable = f" {len(broken)} more cannot be read ({listed([n for n, _ in broken])})."
    return (
        f"only {len(registered)} of {len(prepared)} photographs fit together; without a pose: "
        f"{listed(without)}.{unreadable if broken else ''} Neighbouring photographs should share "
        "two thirds of what they show, sharp and with texture (put a newspaper under a smooth "
        "object); walk around it without turning on the spot, and take away photographs of "
        "anything else. To look closer: --max-size 3200. To keep the part that fits: "
        "--min-registered 0."
    )


def _names(model: pycolmap.Reconstruction | None) -> list[str]:
    if model is None:
        return []
    return sorted(model.images[i].name for i in model.reg_image_ids())


def _write(
    model: pycolmap.Reconstruction, photos: PhotoFolder, root: Path, output: Path | None
) -> None:
    """The model as `sparse/0`, complete or not at all, and the photographs beside it."""
    sparse = root / "sparse"
    sparse.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".model-", dir=sparse) as folder:
        fresh = Path(folder) / "0"
        fresh.mkdir()
        model.write_binary(fresh)
        if output is not None:
            for name in photos.names:
                _link(photos.path(name), output / "images" / name)
        # An empty folder of that name is replaced.
        os.replace(fresh, sparse / "0")


def _link(source: Path, target: Path) -> None:
    """The same file at a second place, or a copy where the file system cannot."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copy2(source, target)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """COLMAP says nothing below an error: it logs several lines for every photograph."""
    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before
