"""What a stranger gets: metadata, documentation that names what is there, presets, the wheel."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pycolmap
import pytest
from PIL import Image

import splatir
from splatir import presets, settings
from splatir.native.build import instruction_sets, library_name
from splatir.train.settings import TrainSettings
from tests.test_layers import LAYERS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def folders() -> list[str]:
    """Folders of splatir/ that hold code."""
    return sorted(path.parent.name for path in (ROOT / "splatir").glob("*/__init__.py"))


def documented_folders() -> list[str]:
    """Folders in the table of docs/architecture.md, top row first."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)


def test_version_is_the_newest_of_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)", changelog, flags=re.MULTILINE)
    assert newest is not None
    assert splatir.__version__ == newest.group(1)


def test_installed_metadata_is_of_this_version() -> None:
    try:
        installed = importlib.metadata.version("splatir")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("splatir is not installed here, only importable")
    assert installed == splatir.__version__, "run `make venv` (or pip install -e .) again"


def test_licence_is_the_one_that_the_metadata_names() -> None:
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in licence and "Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


def test_architecture_names_every_folder_and_no_other() -> None:
    assert sorted(documented_folders()) == folders()


def test_architecture_lists_folders_from_the_top_layer_down() -> None:
    level = {folder: i for i, layer in enumerate(LAYERS) for folder in layer}
    levels = [level[folder] for folder in documented_folders()]
    assert levels == sorted(levels, reverse=True)


def test_links_of_the_documentation_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_readme_shows_the_commands_of_the_makefile() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test", "venv"):
        assert f"make {target}" in readme
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_presets_say_their_purpose_first() -> None:
    for name in presets.names():
        first = presets.find(name).read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith("# ") and first.endswith("."), f"{name}: {first}"


def leaves(values: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Values of a nested dict by their dotted names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= leaves(value, f"{where}{key}.")
        else:
            found[where + key] = value
    return found


def test_presets_load_and_hold_only_what_differs_from_the_defaults() -> None:
    defaults = leaves(settings.to_plain(TrainSettings()))
    for name in presets.names():
        settings.load(presets.find(name), TrainSettings())
        preset = leaves(tomllib.loads(presets.find(name).read_text(encoding="utf-8")))
        same = [key for key, value in preset.items() if defaults.get(key) == value]
        assert preset and not same, f"{name} repeats defaults: {same}"


def test_a_preset_is_found_by_name_and_by_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "object.toml").write_text("# For objects.\n")
    monkeypatch.setattr(presets, "folder", lambda: tmp_path)
    assert presets.names() == ["object"]
    assert presets.find("object") == presets.find(tmp_path / "object.toml")


def test_an_unknown_preset_is_answered_with_the_closest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "object.toml").write_text("# For objects.\n")
    monkeypatch.setattr(presets, "folder", lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match="Did you mean 'object'"):
        presets.find("objekt")
    with pytest.raises(FileNotFoundError, match="neither a file nor"):
        presets.find("../object")


def test_png_can_be_written_after_pycolmap_was_imported() -> None:
    """Without splatir's order of imports this aborts the process."""
    code = (
        "import splatir, pycolmap; from PIL import Image; import io\n"
        "for _ in range(20): Image.effect_noise((99, 99), 90).save(io.BytesIO(), 'PNG')"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_demo_capture_is_complete_and_small() -> None:
    demo = ROOT / "assets" / "demo"
    model = pycolmap.Reconstruction(str(demo / "sparse" / "0"))
    images = sorted((demo / "images").iterdir())
    assert sorted(image.name for image in model.images.values()) == [path.name for path in images]
    assert len(images) == 40 and len(model.points3D) > 1000
    for path in images:
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("RGBA", (200, 200))
    assert sum(path.stat().st_size for path in demo.rglob("*") if path.is_file()) < 4e6
    assert "CC0" in (demo / "README.md").read_text(encoding="utf-8")


def build_wheel(folder: Path, **environment: str) -> zipfile.ZipFile:
    """Build a wheel from a copy of the checkout, without network access."""
    source = folder / "source"
    ignore = shutil.ignore_patterns(
        ".*", "runs", "build", "dist", "*.egg-info", "__pycache__", "*.so", "benchmarks"
    )
    shutil.copytree(ROOT, source, ignore=ignore)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder]
    result = subprocess.run(
        [*command, source], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel)


@pytest.mark.slow
def test_wheel_holds_every_library_the_presets_and_no_sources(tmp_path: Path) -> None:
    with build_wheel(tmp_path) as wheel:
        names = wheel.namelist()
        libraries = {Path(name).name for name in names if name.endswith(".so")}
        assert libraries == {library_name(isa) for isa in instruction_sets()}
        installed_presets = {Path(n).stem for n in names if n.startswith("splatir/configs/")}
        assert installed_presets == set(presets.names())
        installed_maps = {Path(n).name for n in names if n.startswith("splatir/maps/")}
        assert installed_maps == {path.name for path in (ROOT / "assets" / "demo").glob("*.hdr")}
        assert not [name for name in names if name.endswith((".cpp", ".h"))]
        assert {Path(name).parts[0] for name in names} == {
            "splatir",
            "viewer",
            f"splatir-{splatir.__version__}.dist-info",
        }
        _, _, *tag = Path(str(wheel.filename)).stem.split("-")
        assert tag[:2] == ["py3", "none"] and tag[2] != "any"


@pytest.mark.slow
def test_wheel_is_built_without_a_compiler_and_claims_no_platform(tmp_path: Path) -> None:
    with build_wheel(tmp_path, CXX=str(tmp_path / "no-such-compiler")) as wheel:
        assert not [name for name in wheel.namelist() if name.endswith(".so")]
        assert str(wheel.filename).endswith("py3-none-any.whl")
