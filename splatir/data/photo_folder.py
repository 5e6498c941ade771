"""Which photographs does a folder without camera poses hold?"""

from dataclasses import dataclass
from pathlib import Path

from splatir.codecs.raw import is_raw
from splatir.data.image_files import IMAGE_EXTENSIONS

_KNOWN = frozenset(extension.lower() for extension in IMAGE_EXTENSIONS)
# Photographs that nothing here decodes.
_UNDECODED = (".heic", ".heif", ".avif", ".jxl")
# Folders beside or between photographs that hold something else, or the same ones smaller.
_OTHER_FOLDERS = ("masks", "sparse", "colmap", "database", "images_2", "images_4", "images_8")


@dataclass(frozen=True)
class PhotoFolder:
    """Photographs without poses.

    Attributes:
        root: The capture's folder, in which a model is looked for.
        folder: Folder that names are relative to: `root`, or `images` below it.
        names: Paths below `folder` with forward slashes, sorted, at least one.
    """

    root: Path
    folder: Path
    names: tuple[str, ...]

    def path(self, name: str) -> Path:
        """File of a photograph."""
        return self.folder / name


def find_photos(given: Path) -> PhotoFolder | None:
    """The photographs at or below a folder; None where there are none.

    Args:
        given: A capture's folder with its photographs in `images`, or directly in it or in folders
            of its own; or the folder `images` itself.
    """
    if (given / "images").is_dir():
        root, folder = given, given / "images"
    elif given.resolve().name == "images":
        root, folder = given.resolve().parent, given
    else:
        root, folder = given, given
    names = list_photos(folder)
    return PhotoFolder(root, folder, names) if names else None


def list_photos(folder: Path) -> tuple[str, ...]:
    """Names of the image files below a folder, sorted, in folders of any depth.

    Hidden files and folders are left out, and so are folders of masks and models. A RAW file beside
    a picture of the same name is that picture again and is left out.

    Args:
        folder: Where to look.
    """
    found: list[Path] = []
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if any(part.startswith(".") for part in below.parts):
            continue
        if any(part in _OTHER_FOLDERS for part in below.parts[:-1]):
            continue
        if path.suffix.lower() in _KNOWN and path.is_file():
            found.append(below)
    developed = {path.with_suffix("") for path in found if not is_raw(path)}
    kept = (p for p in found if not (is_raw(p) and p.with_suffix("") in developed))
    return tuple(sorted(path.as_posix() for path in kept))


def undecoded_photos(folder: Path) -> tuple[str, ...]:
    """Names of photographs below a folder whose format is not read, such as HEIC.

    Args:
        folder: Where to look.
    """
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in _UNDECODED)
    return tuple(sorted(path.relative_to(folder).as_posix() for path in paths))
