"""The import arrows of splatir/ point one way only."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1] / "splatir"

# Lower layers first. A module may import from its own folder and from folders of lower layers.
# Files directly in splatir/ (settings, version) are below all folders and import none of them.
LAYERS = [
    {"native"},
    {"codecs"},
    {"maths"},
    {"scene"},
    {"data", "raster", "shade", "storage"},
    {"transport"},
    {"render"},
    {"optim", "evaluate"},
    {"train"},
    {"commands"},
]
LEVEL = {folder: i for i, folders in enumerate(LAYERS) for folder in folders}


def imported_folders(path: Path) -> set[str]:
    """Folders of splatir/ that the file imports, wherever in the file the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full, `from splatir.x import y`"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for parts in (name.split(".") for name in names):
            if parts[0] == "splatir" and len(parts) > 1 and parts[1] in LEVEL:
                found.add(parts[1])
    return found


def test_imports_point_downwards() -> None:
    checked = 0
    for path in sorted(ROOT.rglob("*.py")):
        folder = path.relative_to(ROOT).parts[0]
        if path.parent == ROOT:
            assert not imported_folders(path), f"{path} lies below all folders, must import none"
            continue
        assert folder in LEVEL, f"{folder}/ has no place in LAYERS yet"
        for target in imported_folders(path) - {folder}:
            assert LEVEL[target] < LEVEL[folder], f"{path} ({folder}) must not import {target}"
        checked += 1
    assert checked > 10


# The viewer stands above what makes pictures and knows nothing of training.
SEEN_BY_VIEWER = {
    "codecs",
    "maths",
    "scene",
    "raster",
    "shade",
    "storage",
    "transport",
    "render",
    "evaluate",
}


def test_viewer_knows_pictures_and_no_training() -> None:
    files = sorted((ROOT.parent / "viewer").rglob("*.py"))
    assert len(files) > 5
    for path in files:
        unknown = imported_folders(path) - SEEN_BY_VIEWER
        assert not unknown, f"{path} must not import {unknown}"


def test_package_needs_the_viewer_in_two_commands_alone() -> None:
    users = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        if "from viewer" in path.read_text() or "import viewer" in path.read_text()
    }
    assert users == {"commands/view.py", "commands/watch.py"}
