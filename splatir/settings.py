"""Settings: defaults live in dataclasses, configs/*.toml holds only what differs from them."""

import dataclasses
import difflib
import math
import tomllib
import typing
from pathlib import Path
from typing import Any, TypeVar


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base of every settings dataclass; fields are plain values or nested settings."""


SettingsT = TypeVar("SettingsT", bound=Settings)


class SettingsError(ValueError):
    """A preset or an override that names or holds something unknown."""


def check_range(
    settings: Settings,
    names: str,
    low: int | float,
    high: int | float = math.inf,
    open_ends: bool = False,
    group: str = "",
) -> None:
    """Refuse numbers out of range; call it in `__post_init__`.

    Args:
        settings: Holds the fields.
        names: Fields with this range, separated by spaces; those that are None pass.
        low: Smallest value.
        high: Largest value; infinity itself never passes.
        open_ends: Whether `low` and `high` themselves are out of range.
        group: Where these settings stand among all, such as "densify", for the message.

    Raises:
        SettingsError: A value out of range or not a number.
    """
    for name in names.split():
        value = getattr(settings, name)
        if value is None:
            continue
        inside = low < value < high if open_ends else low <= value <= high
        if inside and math.isfinite(value):
            continue
        full_name = f"{group}.{name}" if group else name
        if high == math.inf:
            allowed = f"above {low:g}" if open_ends else f"at least {low:g}"
        else:
            between = "strictly between" if open_ends else "between"
            allowed = f"{between} {low:g} and {high:g}"
        raise SettingsError(f"{full_name} must be {allowed}, got {value}.")


def override(settings: SettingsT, values: dict[str, Any], where: str = "") -> SettingsT:
    """Return a copy of nested settings with `values` replaced.

    Args:
        settings: The defaults.
        values: Plain nested dict, as TOML gives it; only what differs.
        where: Dotted prefix for messages.

    Raises:
        SettingsError: An unknown key (with the closest known one) or a value of the wrong type.
    """
    known = {field.name for field in dataclasses.fields(settings)}
    types = typing.get_type_hints(type(settings))
    changes: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean '{where}{close[0]}'?" if close else f" Known: {sorted(known)}."
            raise SettingsError(f"unknown setting '{where}{key}'.{hint}")
        current = getattr(settings, key)
        if isinstance(current, Settings):
            if not isinstance(value, dict):
                raise SettingsError(
                    f"setting '{where}{key}' is a group, got {value!r}. "
                    f"Write a table: [{where}{key}]."
                )
            changes[key] = override(current, value, f"{where}{key}.")
        else:
            changes[key] = _convert(value, types[key], f"{where}{key}")
    return dataclasses.replace(settings, **changes)


def _convert(value: Any, expected: Any, name: str) -> Any:
    """Check a TOML value against a field's type; integers pass as floats, lists as tuples."""
    origin = typing.get_origin(expected)
    options = typing.get_args(expected)
    if origin is typing.Literal:
        if value in options:
            return value
        raise SettingsError(f"setting '{name}' must be one of {list(options)}, got {value!r}.")
    if origin in (typing.Union, type(int | None)):
        for option in options:
            if option is not type(None):
                return _convert(value, option, name)
    if origin is tuple and isinstance(value, list):
        inner = [options[0]] * len(value) if options[-1] is Ellipsis else list(options)
        if len(inner) != len(value):
            raise SettingsError(f"setting '{name}' takes {len(inner)} values, got {len(value)}.")
        return tuple(_convert(v, t, name) for v, t in zip(value, inner, strict=True))
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if expected is Path and isinstance(value, str):
        return Path(value)
    if isinstance(expected, type) and (
        not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool)
    ):
        raise SettingsError(f"setting '{name}' must be {expected.__name__}, got {value!r}.")
    return value


def load(path: Path, defaults: SettingsT) -> SettingsT:
    """Read a TOML preset over `defaults`.

    Raises:
        FileNotFoundError: No such file.
        SettingsError: Not TOML, an unknown key or a value of the wrong type.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no configuration file {path}; presets are in configs/.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        return override(defaults, values)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def to_plain(settings: Settings) -> dict[str, Any]:
    """Nested dict of plain values, without fields that are None (TOML has no null)."""
    plain: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, Settings):
            plain[field.name] = to_plain(value)
        elif isinstance(value, Path):
            plain[field.name] = str(value)
        elif isinstance(value, tuple):
            plain[field.name] = list(value)
        elif value is not None:
            plain[field.name] = value
    return plain
