"""`splatir export`: a run as splat PLYs that any viewer opens, relightable or under a new light."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from splatir.commands.envmap import world_environment
from splatir.data.recognise import read_dataset
from splatir.maths.frames import invert_similarity
from splatir.raster.selection import rasterizer
from splatir.render.bake import bake_radiance
from splatir.render.relighting import lighting_for
from splatir.render.surrounded import radiance_alone, whole_scene
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.lights import EnvironmentLight
from splatir.settings import Settings, check_range
from splatir.storage.relightable import (
    RelightableMetadata,
    companion_files,
    write_relightable,
)
from splatir.train.device import pick_device
from splatir.train.finished import FinishedRun, load_run
from splatir.train.run_folder import RunFolder
from splatir.transport.materials import SurfaceMaterials
from splatir.transport.orientation import orient_outwards, surrounding_cameras
from splatir.transport.scene import SceneTransport
from splatir.transport.transfer import light_transfer

_LOST = {
    ".ply": "viewers show the radiance and ignore materials; sharp highlights are smoothed",
    ".exr": "nothing",
    ".hdr": "8 bits below each texel's largest channel; .exr has all",
}


@dataclass(frozen=True)
class ExportSettings(Settings):
    """Write a run as a splat PLY, in the capture's own frame, with its light beside it.

    Attributes:
        run: Run folder.
        output: PLY file, whose name the other files take; in RUN/export if not given.
        format: "relightable" has materials, "plain" only what viewers show; relightable where the
            run has materials and no `envmap` is given.
        surroundings: Also what stands around the object, where the run told them apart; plain PLYs
            only.
        transfer: Write into a relightable PLY how light reaches each splat past the others and from
            them, for renderers that trace no rays; 172 bytes a splat.
        envmap: Bake this light into a plain PLY that any viewer shows relit: latitude-longitude
            map, .hdr or .exr, in the capture's own frame (row 0 is its +Z).
        upright: The top of the map is the scene's up, whatever the axes of the capture's files.
        rotate: Turn the map about its vertical axis, degrees, from +X towards +Y.
        exposure: Stops (EV) that the baked picture is brighter by.
        overwrite: Allow `output` to replace files outside the run folder.
        device: "auto" takes CUDA where there is one.
    """

    run: Path | None = None
    output: Path | None = None
    format: Literal["relightable", "plain"] | None = None
    surroundings: bool = False
    transfer: bool = False
    envmap: Path | None = None
    upright: bool = False
    rotate: float = 0.0
    exposure: float = 0.0
    overwrite: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        """Refuse numbers that make no picture.

        Raises:
            SettingsError: A value out of range.
        """
        check_range(self, "rotate", -1e6, 1e6)
        check_range(self, "exposure", -30, 30)


def run(settings: ExportSettings) -> None:
    """Write the files and say what each holds and what it does not."""
    if settings.run is None:
        raise ValueError("give a run folder: splatir export RUN.")
    if settings.output is not None:
        _check_output(settings.output, settings.overwrite)
    if settings.surroundings and (settings.format != "plain" or settings.envmap is not None):
        raise ValueError(
            "--surroundings have radiance alone, and no other light falls on them: add "
            "--format plain, and leave out --envmap."
        )
    if settings.envmap is not None:
        if settings.transfer:
            raise ValueError("--transfer leaves the light open; leave out --envmap.")
        _export_baked(settings, settings.run, settings.envmap)
        return
    for name in ("rotate", "exposure", "upright"):
        if getattr(settings, name):
            raise ValueError(f"--{name} acts on a light that is baked: add --envmap MAP.hdr.")
    finished = load_run(settings.run, pick_device(settings.device))
    if settings.format == "relightable" and not finished.model.has_materials:
        raise ValueError(
            f"{settings.run} has no materials; train it with the stage 'materials', "
            "or use --format plain."
        )
    if settings.transfer and (settings.format == "plain" or not finished.model.has_materials):
        raise ValueError("--transfer belongs to a relightable PLY, of a run that has materials.")
    with_materials = settings.format != "plain"
    if settings.surroundings:
        finished = replace(finished, model=whole_scene(finished.model, finished.surroundings))
    written = _export_finished(finished, settings.output, with_materials, settings.transfer)
    _report(written, finished.model.has_materials and settings.format != "plain")
    root = shlex.quote(str(settings.run))
    print("\nnext:")
    print(f"  splatir info {shlex.quote(str(written[0]))}")
    if finished.model.has_materials:
        print(f"  splatir relight {root} --envmap MAP.hdr --path turntable")
        print(f"  splatir export {root} --envmap MAP.hdr")


def export_run(folder: RunFolder, output: Path | None = None) -> Path:
    """Write a run's newest Gaussians with their light and a JSON sidecar.

    Args:
        folder: The run.
        output: PLY file, RUN/export/splats.ply if None.

    Returns:
        The PLY's path.
    """
    finished = load_run(folder.root, torch.device("cpu"))
    return _export_finished(finished, output, with_materials=True)[0]


def _export_finished(
    finished: FinishedRun,
    output: Path | None,
    with_materials: bool,
    with_transfer: bool = False,
) -> tuple[Path, ...]:
    """Write what was trained; materials and light only if they are wanted and there."""
    path = finished.folder.export / "splats.ply" if output is None else output
    model, light = finished.model, finished.light
    if model.has_materials:
        model = _oriented(finished)
    if not with_materials:
        model, light = radiance_alone(model), None
    transfer = None
    if with_transfer:
        directions = finished.settings.materials.directions
        scene = SceneTransport.of(model.gaussians, directions)
        transfer = light_transfer(scene, SurfaceMaterials.of(model))
    return write_relightable(path, model, light, _metadata(finished), transfer)


def _export_baked(settings: ExportSettings, root: Path, envmap: Path) -> None:
    if settings.format == "relightable":
        raise ValueError("a light is baked into a plain PLY; leave out --format or --envmap.")
    finished = load_run(root, pick_device(settings.device))
    if not finished.model.has_materials:
        raise ValueError(
            f"{root} has no materials, so no new light can fall on it. "
            "Train it with the stage 'materials' (the default)."
        )
    light = world_environment(envmap, finished.S_world_input, settings.upright, settings.rotate)
    radiance = light.radiance.to(finished.model.means) * 2.0**settings.exposure
    finished = replace(finished, model=_oriented(finished))
    lighting = lighting_for(finished.model, EnvironmentLight(radiance), finished.transport())
    baked = bake_radiance(finished.model, lighting)
    path = settings.output
    if path is None:
        path = finished.folder.export / f"relit_{envmap.stem}.ply"
    metadata = replace(
        _metadata(finished), appearance=envmap.name, exposure_stops=settings.exposure
    )
    _report(write_relightable(path, baked, None, metadata), has_materials=False)
    has_shadows = finished.settings.materials.transport
    print(f"baked    {'with' if has_shadows else 'without'} shadows and light between surfaces")
    print("\nnext:")
    print("  open the PLY in any splat viewer; compare it with")
    name = shlex.quote(str(envmap))
    print(f"  splatir relight {shlex.quote(str(root))} --envmap {name} --path turntable")


def _metadata(finished: FinishedRun) -> RelightableMetadata:
    background = finished.background_srgb
    return RelightableMetadata(
        invert_similarity(finished.S_world_input),
        background_srgb=None if background is None else _triple(background.tolist()),
    )


def _triple(values: list[float]) -> tuple[float, float, float]:
    return values[0], values[1], values[2]


def _oriented(finished: FinishedRun) -> GaussianModel:
    """The model with its normals outwards, by the capture's cameras as long as it is there."""
    device = finished.model.means.device
    return orient_outwards(finished.model, _cameras(finished), rasterizer("auto", device))


def _cameras(finished: FinishedRun) -> list[Camera]:
    data = finished.settings.data
    if data is not None:
        try:
            return [view.camera for view in read_dataset(data, finished.settings.dataset).train]
        except (OSError, ValueError) as error:
            reason = str(error)
    else:
        reason = "the run names no capture"
    print(f"note     normals are turned outwards by cameras all around, not the photos': {reason}")
    return surrounding_cameras(finished.model)


def _check_output(output: Path, overwrite: bool) -> None:
    """Refuse a place where the PLY or a file beside it would destroy something.

    Raises:
        ValueError: Not the name of a PLY file.
        FileExistsError: Something is there and may not be replaced.
    """
    if output.suffix.lower() != ".ply" or output.is_dir():
        raise ValueError(f"--output must be a .ply file, got {output}.")
    for path in companion_files(output):
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists; give another --output, or add --overwrite.")


def _report(written: tuple[Path, ...], has_materials: bool) -> None:
    """One line per file: what it is, and what it loses."""
    for path in written:
        size = path.stat().st_size
        shown = f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
        kind = {".ply": "splat", ".json": "sidecar"}.get(path.suffix, "light")
        lost = _LOST.get(path.suffix)
        if path.suffix == ".ply" and not has_materials:
            lost = "no materials, so no other light can fall on it"
        print(f"{kind:<8} {path}  ({shown})" + ("" if lost is None else f"; lost: {lost}"))
    if not any(path.suffix == ".exr" for path in written):
        return
    print("frame    the capture's own, of splats and light; the sidecar has the way to +Z up")
