"""Where the presets of configs/ are, in a checkout and in an installed wheel."""

import difflib
from pathlib import Path

_PACKAGE = Path(__file__).parent


def folder() -> Path:
    """Folder of the presets: splatir/configs in a wheel, configs/ beside splatir/ in a checkout."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def names() -> list[str]:
    """Names of all presets, sorted."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def find(name_or_path: str | Path) -> Path:
    """File of a preset.

    Args:
        name_or_path: A TOML file, or the name of a preset such as "default".

    Raises:
        FileNotFoundError: Neither a file nor a preset; says which presets there are.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    preset = folder() / f"{name_or_path}.toml"
    if path.name == str(name_or_path) and preset.is_file():
        return preset
    known = names()
    close = difflib.get_close_matches(path.stem, known, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise FileNotFoundError(
        f"no configuration '{name_or_path}': neither a file nor one of the presets {known}.{hint}"
    )
