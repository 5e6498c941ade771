"""Which files make up a relightable splat, and how are they read back together?

`splats.ply` has the Gaussians, `splats.json` what a PLY cannot say, `splats.exr` and `splats.hdr`
the environment light, all in one frame: docs/files.md.
"""

import json
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from splatir import __version__
from splatir.codecs.atomic import write_text
from splatir.maths.frames import similarity_scale
from splatir.scene.gaussians import GaussianModel
from splatir.scene.light_transfer import LightTransfer
from splatir.scene.lights import EnvironmentLight
from splatir.storage.environment import (
    ENVIRONMENT_SUFFIXES,
    read_environment,
    turn_for_file,
    write_environment,
)
from splatir.storage.ply import FORMAT_VERSION, read_ply, write_ply


class SidecarError(ValueError):
    """A JSON sidecar that does not say what it should; the message says where."""


@dataclass(frozen=True)
class RelightableMetadata:
    """What stands beside a splat PLY in its JSON sidecar.

    Attributes:
        S_input_world: Similarity from the trained scene's world (+Z up) to the frame of the files;
            its inverse sets the splats upright. None if unknown.
        environment: Name of the environment map beside the PLY, or None.
        exposure_stops: Shaded radiance times 2^this, encoded as sRGB, gives the photographs.
        background_srgb: Background that was trained along, or None.
        appearance: What `f_dc` and `f_rest` show: "photographs", or the name of the light that
            was baked.
    """

    S_input_world: Float[Tensor, "4 4"] | None = None
    environment: str | None = None
    exposure_stops: float = 0.0
    background_srgb: tuple[float, float, float] | None = None
    appearance: str = "photographs"


def companion_files(path: Path) -> tuple[Path, ...]:
    """All files that `write_relightable` may write for a PLY, itself included."""
    suffixes = (".json", *ENVIRONMENT_SUFFIXES)
    return (path, *(path.with_suffix(suffix) for suffix in suffixes))


def write_relightable(
    path: Path,
    model: GaussianModel,
    light: EnvironmentLight | None,
    metadata: RelightableMetadata,
    transfer: LightTransfer | None = None,
) -> tuple[Path, ...]:
    """Write a PLY, its sidecar and, if there is a light, the environment as .exr and .hdr.

    Args:
        path: The PLY; the others have its name with their own suffix.
        model: Gaussians, world frame, with or without materials.
        light: Environment, world frame.
        metadata: `S_input_world` gives the frame of all files; `environment` is filled in here.
        transfer: How light reaches the Gaussians, world frame, for renderers that trace no rays.

    Returns:
        The files that were written.

    Raises:
        ValueError: The model or the light holds values that are not finite.
        OSError: A file cannot be written.
    """
    S = metadata.S_input_world
    write_ply(path, model, S, transfer=transfer)
    written = [path]
    if light is not None:
        R_file_world = torch.eye(3) if S is None else (S[:3, :3] / similarity_scale(S)).float()
        turned = turn_for_file(light, R_file_world)
        for suffix in (".exr", ".hdr"):
            write_environment(path.with_suffix(suffix), turned)
            written.append(path.with_suffix(suffix))
    sidecar = {
        "splatir_format": FORMAT_VERSION,
        "splatir_version": __version__,
        "primitive": model.primitive,
        "num_gaussians": model.num_gaussians,
        "sh_degree": model.sh_degree,
        "has_materials": model.has_materials,
        "has_transfer": transfer is not None,
        "appearance": metadata.appearance,
        "appearance_colour_space": "srgb",
        "material_colour_space": "linear_rec709",
        "frame": "world" if S is None else "input",
        "S_input_world": None if S is None else S.tolist(),
        "environment": None if light is None else path.with_suffix(".exr").name,
        "environment_colour_space": "linear_rec709",
        "exposure_stops": metadata.exposure_stops,
        "background_srgb": metadata.background_srgb,
    }
    write_text(path.with_suffix(".json"), json.dumps(sidecar, indent=1) + "\n")
    return (*written, path.with_suffix(".json"))


def read_relightable(
    path: Path,
) -> tuple[GaussianModel, EnvironmentLight | None, RelightableMetadata]:
    """Read a splat PLY with the sidecar and the environment beside it, as far as they are there.

    Args:
        path: The PLY, splatir's or any that `read_ply` reads.

    Returns:
        Gaussians, environment (None if there is none) and metadata, all in the files' frame.

    Raises:
        FileNotFoundError: No such PLY.
        ValueError: One of the files is broken.
    """
    model = read_ply(path)
    sidecar = path.with_suffix(".json")
    metadata = read_sidecar(sidecar) if sidecar.is_file() else RelightableMetadata()
    light = None
    if metadata.environment is not None:
        environment = path.with_name(metadata.environment)
        if environment.is_file():
            light = read_environment(environment)
        else:
            warnings.warn(
                f"{environment} is missing, which {sidecar.name} names as the light of "
                f"{path.name}; copy it along.",
                stacklevel=2,
            )
    return model, light, metadata


def read_sidecar(path: Path) -> RelightableMetadata:
    """Read a sidecar; keys that are absent take their defaults, unknown ones are ignored.

    Raises:
        SidecarError: Not JSON, a newer format, or a key with a value of another kind.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SidecarError(
            f"{path} is not valid JSON: {error}. Export again, or remove it to read the PLY alone."
        ) from error
    if not isinstance(values, dict):
        raise SidecarError(f"{path} must hold a JSON object, got {type(values).__name__}.")
    version = values.get("splatir_format", FORMAT_VERSION)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise SidecarError(
            f"{path} has splatir format {version}, this splatir reads up to {FORMAT_VERSION}. "
            "Update splatir to open it."
        )
    S = _numbers(path, values, "S_input_world", 16)
    if S is not None and not torch.tensor(S[12:]).equal(torch.tensor([0.0, 0.0, 0.0, 1.0])):
        raise SidecarError(f"{path}: the last row of 'S_input_world' must be 0 0 0 1.")
    background = _numbers(path, values, "background_srgb", 3)
    exposure = _numbers(path, values, "exposure_stops", 1)
    environment = _text(path, values, "environment")
    if environment is not None and Path(environment).name != environment:
        raise SidecarError(
            f"{path}: 'environment' must name a file beside the PLY, got '{environment}'."
        )
    return RelightableMetadata(
        None if S is None else torch.tensor(S, dtype=torch.float64).view(4, 4),
        environment,
        exposure[0] if exposure else 0.0,
        None if background is None else (background[0], background[1], background[2]),
        _text(path, values, "appearance") or RelightableMetadata.appearance,
    )


def _numbers(path: Path, values: dict[str, Any], key: str, count: int) -> list[float] | None:
    """A list of finite numbers, nested lists in row order; None if absent or null."""
    value = values.get(key)
    if value is None:
        return None
    flat: list[Any] = []
    for entry in value if isinstance(value, list) else [value]:
        flat += entry if isinstance(entry, list) else [entry]
    is_number = all(isinstance(entry, int | float) for entry in flat)
    if len(flat) != count or not is_number or not all(math.isfinite(entry) for entry in flat):
        raise SidecarError(f"{path}: '{key}' must hold {count} finite numbers, got {value!r:.80}.")
    return [float(entry) for entry in flat]


def _text(path: Path, values: dict[str, Any], key: str) -> str | None:
    value = values.get(key)
    if value is None or isinstance(value, str):
        return value
    raise SidecarError(f"{path}: '{key}' must be text, got {value!r:.80}.")
