"""`splatir render`: the buffers of a run on disk."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from splatir.commands.frames import Frames, FrameSettings, describe, plan_frames
from splatir.evaluate.frames import (
    frame_picture,
    write_buffer_pngs,
    write_exr_buffers,
    write_npz,
    write_png,
)
from splatir.maths.frames import invert_similarity
from splatir.raster.contract import RasterOptions
from splatir.raster.selection import rasterizer
from splatir.render.buffers import (
    PictureOptions,
    ViewBuffers,
    radiance_buffers,
    shaded_buffers,
)
from splatir.render.relighting import lighting_for
from splatir.scene.camera import Camera
from splatir.settings import Settings, check_range
from splatir.train.device import pick_device
from splatir.train.finished import FinishedRun, load_run


@dataclass(frozen=True)
class RenderSettings(Settings):
    """Write the buffers of a run: picture, coverage, materials, depth and normals.

    Lengths and normals are in the frame of the capture's own files.

    Attributes:
        run: Run folder.
        view: Which cameras, and what kind of files.
        radiance: The picture is the radiance splat's, not the shaded one.
        supersample: Samples of surface and light along each side of a pixel.
        device: "auto" takes CUDA where there is one.
    """

    run: Path | None = None
    view: Annotated[FrameSettings, tyro.conf.arg(name="")] = field(default_factory=FrameSettings)
    radiance: bool = False
    supersample: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        """Refuse numbers that make no picture.

        Raises:
            SettingsError: A value out of range.
        """
        check_range(self, "supersample", 1, 8)


def run(settings: RenderSettings) -> None:
    """Render, write, print."""
    if settings.run is None:
        raise ValueError("give a run folder: splatir render RUN.")
    device = pick_device(settings.device)
    finished = load_run(settings.run, device)
    frames = plan_frames(finished, settings.view, finished.folder.root / "render")
    write_frames(frames, _renderer(finished, settings, device))
    print(f"frames   {describe(frames, device)}")
    print(f"holds    {_contents(finished, settings.radiance, frames.kind)}")
    print("\nnext:")
    root = shlex.quote(str(settings.run))
    if not finished.model.has_materials:
        print(f"  splatir eval {root}")
        return
    print(f"  splatir relight {root} --envmap MAP.hdr --path turntable")


def write_frames(frames: Frames, render: Callable[[Camera], ViewBuffers]) -> None:
    """Render every frame and write its buffers, pictures on white where a video needs a background.

    Args:
        frames: What is wanted.
        render: Buffers of a camera, input frame.
    """
    if frames.kind == "mp4":
        white = torch.ones(3)
        frames.write_video("render", lambda camera: frame_picture(render(camera), "srgb", white))
        return
    for name, camera in frames.each("render"):
        buffers, path = render(camera), frames.file(name)
        if frames.kind == "npz":
            write_npz(path, buffers)
        elif frames.kind == "exr":
            write_exr_buffers(path, buffers)
        else:
            write_png(path, buffers, "srgb")
            write_buffer_pngs(path, buffers)


def _renderer(
    finished: FinishedRun, settings: RenderSettings, device: torch.device
) -> Callable[[Camera], ViewBuffers]:
    backend = rasterizer(finished.settings.backend, device)
    options = RasterOptions(antialiased=finished.settings.uses_antialiasing)
    picture = PictureOptions(settings.supersample)
    S_input_world = invert_similarity(finished.S_world_input)
    lighting = None
    if finished.model.has_materials and finished.light is not None and not settings.radiance:
        lighting = lighting_for(finished.model, finished.light, finished.transport())

    def render(camera: Camera) -> ViewBuffers:
        camera = camera.to(device)
        if lighting is None:
            found = radiance_buffers(finished.model, camera, backend, options, picture)
        else:
            found = shaded_buffers(finished.model, camera, lighting, backend, options, picture)
        return found.in_frame(S_input_world)

    return render


def _contents(finished: FinishedRun, wants_radiance: bool, kind: str) -> str:
    has_materials = finished.model.has_materials
    shaded = has_materials and finished.light is not None and not wants_radiance
    picture = "shaded picture" if shaded else "picture of the radiance splat"
    if kind == "mp4":
        return picture
    if has_materials:
        materials = ", ".join(finished.model.material_keys)
        return f"{picture}, alpha, {materials}, depth, normal"
    missing = "no albedo, roughness, metallic: the run was trained without the stage 'materials'"
    return f"{picture}, alpha, depth, normal; {missing}"
