"""`splatir compose`: one object put into another scene, as a run of its own."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.frames import similarity, similarity_scale, transform_points
from splatir.scene.edits import parse_numbers
from splatir.scene.environment_map import rotation_about_z
from splatir.scene.gaussians import GaussianModel
from splatir.scene.ground import ground_height
from splatir.scene.joining import joined_models
from splatir.scene.mesh import sample_mesh
from splatir.scene.surface_samples import model_from_samples
from splatir.scene.transform import transform_model
from splatir.settings import Settings, check_range
from splatir.storage.mesh import MESH_SUFFIXES, read_mesh
from splatir.train.composed_run import new_folder, write_composed_run
from splatir.train.finished import FinishedRun, load_run

# Gaussians of a mesh.
_MESH_GAUSSIANS = 20_000


@dataclass(frozen=True)
class ComposeSettings(Settings):
    """Put a trained object or a mesh into the scene of another run.

    The result is a new run with the capture, light and frame of the first one: render, relight and
    export work on it, and the two shade each other.

    Attributes:
        run: Run folder of the scene.
        object: Run folder of what is put into it, or a mesh (.ply, .obj) with vertex colours.
        at: Where its foot goes, x,y,z in the frame of the scene's capture: the middle of the
            object, at its lowest.
        rotate: Turn it about the scene's up, degrees, counter-clockwise from above.
        scale: Make it so many times larger; 1 keeps the lengths of its own files.
        up: Axis of a mesh that points up; runs know theirs.
        output: New run folder; beside `run` if not given.
    """

    run: Path | None = None
    object: Path | None = None
    at: str | None = None
    rotate: float = 0.0
    scale: float = 1.0
    up: Literal["y", "z"] = "z"
    output: Path | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that are no pose.

        Raises:
            SettingsError: A value out of range.
        """
        check_range(self, "rotate", -1e6, 1e6)
        check_range(self, "scale", 1e-6, 1e6)


@dataclass(frozen=True)
class _Upright:
    """An object with +Z up, and the scale from the units of its own files."""

    model: GaussianModel
    scale: float


def run(settings: ComposeSettings) -> None:
    """Read, place, join, write, print."""
    if settings.run is None or settings.object is None or settings.at is None:
        raise ValueError("give a scene, an object and a place: splatir compose A B --at x,y,z.")
    at = torch.tensor(parse_numbers("--at", settings.at, 3), dtype=torch.float64)
    scene = load_run(settings.run, torch.device("cpu"))
    if not scene.model.has_materials or scene.light is None:
        raise ValueError(
            f"{settings.run} has no materials and no light to share. "
            "Train it with the stage 'materials' (the default)."
        )
    inserted = _read_object(settings.object, settings.up, scene)
    placed = transform_model(inserted.model, _placing(settings, inserted, scene, at))
    model = joined_models(scene.model, placed)
    folder = new_folder(_output(settings))
    record = {
        "scene": str(settings.run),
        "object": str(settings.object),
        "at": at.tolist(),
        "rotate": settings.rotate,
        "scale": settings.scale,
        "num_scene": scene.model.num_gaussians,
    }
    write_composed_run(folder, scene, model, record)
    count = inserted.model.num_gaussians
    print(f"run      {folder.root}  ({scene.model.num_gaussians:,} + {count:,} Gaussians)")
    print(f"light    that of {settings.run}; the object's own radiance is as it was photographed")
    print("\nnext:")
    root = shlex.quote(str(folder.root))
    print(f"  splatir render {root} --path turntable")
    print(f"  splatir relight {root} --envmap MAP.hdr --path turntable")


def _read_object(path: Path, up: Literal["y", "z"], scene: FinishedRun) -> _Upright:
    """What is put into the scene, from a run or a mesh."""
    if path.suffix.lower() in MESH_SUFFIXES and not path.is_dir():
        samples = sample_mesh(read_mesh(path), _MESH_GAUSSIANS)
        model = model_from_samples(samples, scene.model.primitive, 0)
        if up == "y":
            R = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64)
            model = transform_model(model, similarity(1.0, R, torch.zeros(3).double()))
        return _Upright(model, 1.0)
    found = load_run(path, torch.device("cpu"))
    if not found.model.has_materials:
        raise ValueError(
            f"{path} has no materials, so the scene's light cannot fall on it. "
            "Train it with the stage 'materials' (the default)."
        )
    if found.model.num_gaussians == 0:
        raise ValueError(f"{path} holds no Gaussians; there is nothing to put into the scene.")
    return _Upright(found.model, similarity_scale(found.S_world_input))


def _placing(
    settings: ComposeSettings, inserted: _Upright, scene: FinishedRun, at: Float[Tensor, " 3"]
) -> Float[Tensor, "4 4"]:
    """Similarity from the object's upright frame to the scene's world."""
    S = scene.S_world_input.double()
    scale = settings.scale * similarity_scale(S) / inserted.scale
    R = rotation_about_z(settings.rotate).double()
    means = inserted.model.means.detach().double()
    low, high = (means.sort(0).values[int(part * (len(means) - 1))] for part in (0.02, 0.98))
    foot = 0.5 * (low + high)
    foot[2] = ground_height(inserted.model)
    return similarity(scale, R, transform_points(S, at) - scale * (R @ foot))


def _output(settings: ComposeSettings) -> Path:
    """The folder that was asked for, or a name beside the scene that is not taken."""
    if settings.output is not None:
        return settings.output
    assert settings.run is not None and settings.object is not None
    scene = settings.run.resolve()
    inserted = settings.object.resolve()
    name = inserted.name if inserted.is_dir() else inserted.stem
    if inserted.is_dir() and name[:1].isdigit():
        # A run named by its time; the folder above says what it shows.
        name = inserted.parent.name
    first = scene.with_name(f"{scene.name}_with_{name}")
    candidate, number = first, 2
    while candidate.exists():
        candidate, number = first.with_name(f"{first.name}_{number}"), number + 1
    return candidate
