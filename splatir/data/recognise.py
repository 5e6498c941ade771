"""Which layout does a folder have? Recognises it and returns its views as a `Dataset`."""

from pathlib import Path

from splatir.data.assemble import assemble
from splatir.data.colmap import find_model, read_colmap
from splatir.data.dataset import Dataset, DatasetKind, DataSettings
from splatir.data.llff import POSES_FILE, read_llff
from splatir.data.objects_with_lighting import find_inputs, read_objects_with_lighting
from splatir.data.tensoir import is_tensoir, read_tensoir
from splatir.data.transforms import read_nerf_synthetic, read_transforms

_LOOKED_FOR = (
    "a COLMAP model (cameras, images, points3D in sparse/0, sparse or colmap/sparse/0), "
    "transforms.json (nerfstudio, instant-ngp), transforms_train.json (NeRF-synthetic), "
    "train_000/metadata.json (TensoIR), poses_bounds.npy (LLFF, NeRD), or inputs/camera_*.txt "
    "(Objects with Lighting)"
)


def recognise(root: Path) -> DatasetKind:
    """Tell the layout of a folder from the names of its files.

    A `transforms_train.json` or `transforms.json` at the top comes before a COLMAP model, from
    which such files are often made.

    Raises:
        FileNotFoundError: No such folder, or an empty one.
        ValueError: A folder of no known layout.
    """
    _require_folder(root)
    kind = _kind(root)
    if kind is not None:
        return kind
    entries = sorted(path.name for path in root.iterdir())
    if not entries:
        raise FileNotFoundError(f"data folder {root} is empty. Expected {_LOOKED_FOR}.")
    listed = ", ".join(entries[:8]) + (", ..." if len(entries) > 8 else "")
    raise ValueError(
        f"data folder {root} has no known layout. Looked for {_LOOKED_FOR}; found {listed}. "
        f"Photographs alone need camera poses first: splatir sfm {root}."
    )


def has_known_layout(root: Path) -> bool:
    """Whether a folder is one of those that `read_dataset` reads."""
    return root.is_dir() and _kind(root) is not None


def _kind(root: Path) -> DatasetKind | None:
    if (root / "transforms_train.json").is_file():
        return "nerf-synthetic"
    if (root / "transforms.json").is_file():
        return "transforms"
    if is_tensoir(root):
        return "tensoir"
    if find_model(root) is not None:
        return "colmap"
    if find_inputs(root) is not None:
        return "objects-with-lighting"
    return "llff" if (root / POSES_FILE).is_file() else None


def read_dataset(root: Path, settings: DataSettings | None = None) -> Dataset:
    """Read a folder of posed photographs, whatever its layout.

    Only headers are read, no pixels.

    Args:
        root: The data folder.
        settings: How to read it; None for the defaults.

    Raises:
        FileNotFoundError: No such folder, or no images.
        ValueError: A layout that is not known, or a fault in the data; the message names the file,
            what was expected and what to do.
    """
    settings = settings or DataSettings()
    _require_folder(root)
    kind = recognise(root) if settings.format == "auto" else settings.format
    return assemble(root, _READERS[kind](root, settings), settings)


def _require_folder(root: Path) -> None:
    if not root.is_dir():
        problem = "is a file, not a folder" if root.exists() else "does not exist"
        raise FileNotFoundError(f"data folder {root} {problem}. Expected {_LOOKED_FOR}.")


_READERS = {
    "colmap": read_colmap,
    "transforms": read_transforms,
    "nerf-synthetic": read_nerf_synthetic,
    "tensoir": read_tensoir,
    "llff": read_llff,
    "objects-with-lighting": read_objects_with_lighting,
}
