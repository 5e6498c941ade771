"""`splatir relight`: a run under another light, or with other materials."""

import functools
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from splatir.commands.envmap import world_environment
from splatir.commands.frames import Frames, FrameSettings, describe, plan_frames
from splatir.evaluate.frames import frame_picture, write_exr_buffers, write_npz, write_png
from splatir.maths.colour import linear_from_srgb
from splatir.maths.frames import similarity_scale
from splatir.raster.contract import RasterBackend, RasterOptions
from splatir.raster.selection import rasterizer
from splatir.render.buffers import PictureOptions, ViewBuffers, shaded_buffers
from splatir.render.deferred import Lighting
from splatir.render.grounded import GroundedScene
from splatir.render.relighting import Quality, environment_background, lighting_for
from splatir.render.surrounded import SurroundedView, surrounded_view, whole_scene
from splatir.render.tone import ToneCurve, display_srgb
from splatir.scene.camera import Camera
from splatir.scene.edits import edited_model, parse_edit
from splatir.scene.environment_map import rotate_environment, rotation_about_z
from splatir.scene.gaussians import GaussianModel
from splatir.scene.ground import GroundSettings, ground_height, ground_under
from splatir.scene.joining import joined_models
from splatir.scene.light_text import parse_light
from splatir.scene.lights import (
    DirectionalLight,
    EnvironmentLight,
    Light,
    LightSum,
    PointLight,
)
from splatir.scene.surface_samples import model_from_samples
from splatir.settings import Settings, SettingsError, check_range
from splatir.shade.surface import Shader
from splatir.train.device import pick_device
from splatir.train.finished import FinishedRun, load_run
from splatir.transport.lighting import GaussianLighting
from splatir.transport.path_integrator import PathSettings

# Part of a pixel below which nothing beside the object shows.
_MIN_SHARE = 1e-3


@dataclass(frozen=True)
class RelightSettings(Settings):
    """Show a run under another light, or with other materials.

    Attributes:
        run: Run folder.
        envmap: Latitude-longitude map, .hdr or .exr, in the capture's own frame (row 0 is its +Z);
            the run's recovered light if neither this nor `light` is given.
        upright: The top of map and sky is the scene's up, whatever the axes of the capture's files.
        rotate: Turn the map about its vertical axis, degrees, from +X towards +Y.
        light: Further lights: point:x,y,z,r,g,b (irradiance at distance 1) or
            sun:azimuth,elevation,r,g,b (degrees; irradiance).
        exposure: Stops (EV) that everything is brighter by.
        tone: From linear to display: "srgb" clips, the others compress highlights.
        background: Behind the scene: transparent frames, white, the environment, or the
            surroundings as they were photographed, where the run has them; "auto" is transparent
            for frames and white for videos. npz is always transparent.
        transport: Shadows and light from surface to surface, where the run was trained with them.
        quality: "fast" is split-sum shading with baked transport, "reference" Monte Carlo with
            traced rays.
        samples: Directions per pixel of the reference.
        bounces: Surfaces that its paths go on from by sampling, before baked light ends them.
        denoise: Filter the noise of the reference; softens edges of shadows by two pixels.
        supersample: Samples of surface and light along each side of a pixel.
        ground: Stand the scene on a plane across its up.
        ground_height: Of the plane above the capture's origin, in its units; just under the scene
            if not given.
        ground_albedo: Linear grey of the plane, 0 to 1: how much light it sends back up.
        ground_shows: Of the plane: its shadow alone, transparent elsewhere, or all of it.
        set: Materials to change: roughness=0.2 metallic=1 sheen=0.5 albedo=r,g,b (linear).
        tint: Colour r,g,b (linear) that albedo is multiplied by.
        box: Change materials in this box only: xmin,ymin,zmin,xmax,ymax,zmax, capture's frame.
        view: Which cameras, and what kind of files.
        device: "auto" takes CUDA where there is one.
    """

    run: Path | None = None
    envmap: Path | None = None
    upright: bool = False
    rotate: float = 0.0
    light: tuple[str, ...] = ()
    exposure: float = 0.0
    tone: ToneCurve = "srgb"
    background: Literal["auto", "transparent", "white", "environment", "surroundings"] = "auto"
    transport: bool = True
    quality: Quality = "fast"
    samples: int = 256
    bounces: int = 1
    denoise: bool = False
    supersample: int = 1
    ground: bool = False
    ground_height: float | None = None
    ground_albedo: float = 0.5
    ground_shows: Literal["shadow", "floor"] = "shadow"
    set: tuple[str, ...] = ()
    tint: str | None = None
    box: str | None = None
    view: Annotated[FrameSettings, tyro.conf.arg(name="")] = field(default_factory=FrameSettings)
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        """Refuse numbers that make no picture.

        Raises:
            SettingsError: A value out of range.
        """
        check_range(self, "rotate", -1e6, 1e6)
        check_range(self, "exposure", -30, 30)
        check_range(self, "samples", 4, 65536)
        check_range(self, "bounces", 0, 16)
        check_range(self, "supersample", 1, 8)
        check_range(self, "ground_albedo", 0, 1)
        if self.ground and not self.transport:
            raise SettingsError("--ground catches shadows, and --no-transport leaves them out.")
        if self.ground_height is not None and not self.ground:
            raise SettingsError("--ground-height says where --ground lies; add --ground.")


@dataclass(frozen=True)
class _NewLight:
    """Lights in the world frame."""

    environment: EnvironmentLight | None
    others: tuple[PointLight | DirectionalLight, ...]

    def to(self, device: torch.device) -> "_NewLight":
        environment = self.environment
        if environment is not None:
            environment = EnvironmentLight(environment.radiance.to(device))
        others = []
        for light in self.others:
            tensors = {name: value.to(device) for name, value in vars(light).items()}
            others.append(replace(light, **tensors))
        return _NewLight(environment, tuple(others))

    @property
    def all(self) -> LightSum:
        environment = () if self.environment is None else (self.environment,)
        return LightSum((*environment, *self.others))


def run(settings: RelightSettings) -> None:
    """Light, render, write, print."""
    if settings.run is None:
        raise ValueError("give a run folder: splatir relight RUN --envmap MAP.hdr.")
    edit = parse_edit(settings.set, settings.tint, settings.box)
    background = _background(settings)
    device = pick_device(settings.device)
    finished = load_run(settings.run, device)
    if not finished.model.has_materials:
        raise ValueError(
            f"{settings.run} has no materials, so no new light can fall on it. "
            "Train it with the stage 'materials' (the default); splatir render shows it as it is."
        )
    light = _read_light(settings, finished).to(device)
    if background == "environment" and light.environment is None:
        raise ValueError("--background environment needs an environment map: add --envmap.")
    if background == "surroundings" and (finished.surroundings is None or settings.ground):
        raise ValueError(
            "--background surroundings needs a run that told its object from what stands around it "
            "(a capture with a background), and no --ground."
        )
    model = edited_model(finished.model, edit, finished.S_world_input)
    frames = plan_frames(
        finished, settings.view, finished.folder.root / "relight" / _light_name(settings)
    )
    shown = _shown(settings, replace(finished, model=model), light.all)
    backend = rasterizer(finished.settings.backend, device)
    options = RasterOptions(antialiased=finished.settings.uses_antialiasing)
    picture = PictureOptions(settings.supersample, settings.denoise)
    gain = 2.0**settings.exposure

    around = None
    if background == "surroundings":
        around = _Around(finished, backend, options)

    def render(camera: Camera) -> ViewBuffers:
        found = shown(camera.to(device), backend, options, picture)
        if around is not None:
            found = replace(found, alpha=around.seen_from(camera.to(device)).share)
        return replace(found, rgb=found.rgb * gain)

    def behind(camera: Camera) -> Float[Tensor, "*size 3"] | None:
        if background == "transparent":
            return None
        if around is not None:
            return around.behind(camera.to(device))
        if background == "white" or light.environment is None:
            return torch.ones(3, device=device)
        return environment_background(light.environment, camera.to(device)) * gain

    _write(frames, settings.tone, render, behind)
    has_shadows = settings.transport and finished.settings.materials.transport
    _report(settings, frames, device, has_shadows)


class _Around:
    """The surroundings of a run's object, from any camera."""

    def __init__(
        self, finished: FinishedRun, backend: RasterBackend, options: RasterOptions
    ) -> None:
        self._whole = whole_scene(finished.model, finished.surroundings)
        self._count = finished.model.num_gaussians
        self._background = finished.background_srgb
        self._raster = (backend, options)
        self._last: tuple[Camera, SurroundedView] | None = None

    def seen_from(self, camera: Camera) -> SurroundedView:
        """The view of a camera; a frame asks twice."""
        backend, options = self._raster
        if self._last is None or self._last[0] is not camera:
            view = surrounded_view(
                self._whole, self._count, camera, backend, self._background, options
            )
            self._last = (camera, view)
        return self._last[1]

    def behind(self, camera: Camera) -> Float[Tensor, "h w 3"]:
        """Linear colour of what is seen beside the object."""
        view = self.seen_from(camera)
        rest = view.rest_srgb / (1.0 - view.share).clamp_min(_MIN_SHARE)
        return linear_from_srgb(rest.clamp(0.0, 1.0))


# Buffers of a camera, by a backend with its options.
_Shown = Callable[[Camera, RasterBackend, RasterOptions, PictureOptions], ViewBuffers]


def _shown(settings: RelightSettings, finished: FinishedRun, light: Light) -> _Shown:
    """The scene under the light, on its ground if there is one."""
    scene = finished.model
    paths = PathSettings(settings.samples, settings.bounces)
    if not settings.ground:
        transport = finished.transport() if settings.transport else None
        lighting = lighting_for(scene, light, transport, settings.quality, paths)
        return functools.partial(_plain_buffers, scene, lighting)
    S = finished.S_world_input
    height = ground_height(scene)
    if settings.ground_height is not None:
        height = similarity_scale(S) * settings.ground_height + float(S[2, 3])
    ground = ground_under(scene, GroundSettings(height, settings.ground_albedo))
    model = joined_models(scene, model_from_samples(ground, scene.primitive, 0))
    transport = replace(finished, model=model).transport()
    if transport is None:
        raise ValueError(
            f"{settings.run} is shaded without shadows (materials.transport is off in its "
            "config.toml), so a ground would catch none. Train it with transport."
        )
    lighting = lighting_for(model, light, transport, settings.quality, paths)
    assert isinstance(lighting, GaussianLighting)
    alone = None
    if settings.ground_shows == "shadow":
        alone = lighting_for(model, light, None, settings.quality, paths)
        assert isinstance(alone, Shader)
    return GroundedScene(model, scene.num_gaussians, height, lighting, alone).buffers


def _plain_buffers(
    model: GaussianModel,
    lighting: Lighting,
    camera: Camera,
    backend: RasterBackend,
    options: RasterOptions,
    picture: PictureOptions,
) -> ViewBuffers:
    return shaded_buffers(model, camera, lighting, backend, options, picture)


def _write(
    frames: Frames,
    curve: ToneCurve,
    render: Callable[[Camera], ViewBuffers],
    behind: Callable[[Camera], Float[Tensor, "*size 3"] | None],
) -> None:
    def shown_behind(camera: Camera) -> Float[Tensor, "*size 3"] | None:
        colour = behind(camera)
        return (
            None if colour is None else display_srgb(colour, "srgb" if colour.dim() == 1 else curve)
        )

    if frames.kind == "mp4":

        def picture(camera: Camera) -> np.ndarray:
            shown = shown_behind(camera)
            assert shown is not None
            return frame_picture(render(camera), curve, shown)

        frames.write_video("relight", picture)
        return
    for name, camera in frames.each("relight"):
        buffers, path = render(camera), frames.file(name)
        if frames.kind == "npz":
            write_npz(path, buffers, only_picture=True)
        elif frames.kind == "exr":
            write_exr_buffers(path, buffers, only_picture=True, background=behind(camera))
        else:
            write_png(path, buffers, curve, shown_behind(camera))


def _background(
    settings: RelightSettings,
) -> Literal["transparent", "white", "environment", "surroundings"]:
    is_video = settings.view.kind == "mp4"
    if settings.background == "auto":
        return "white" if is_video else "transparent"
    if is_video and settings.background == "transparent":
        raise ValueError("a video has no transparency; use --background white, or --format png.")
    return settings.background


def _read_light(settings: RelightSettings, finished: FinishedRun) -> _NewLight:
    """The light that was asked for, in the world frame."""
    S = finished.S_world_input.double()
    R_world_sky = S[:3, :3] / similarity_scale(S)
    if settings.upright:
        R_world_sky = torch.eye(3, dtype=torch.float64)
    others = tuple(parse_light(word, S, R_world_sky) for word in settings.light)
    if settings.envmap is None:
        recovered = None if others else finished.light
        if recovered is None and not others:
            raise ValueError(
                f"{settings.run} holds no recovered light. Give one: --envmap MAP.hdr."
            )
        if recovered is not None:
            recovered = rotate_environment(recovered, rotation_about_z(settings.rotate))
        return _NewLight(recovered, others)
    environment = world_environment(settings.envmap, S, settings.upright, settings.rotate)
    return _NewLight(environment, others)


def _light_name(settings: RelightSettings) -> str:
    if settings.envmap is not None:
        return settings.envmap.stem
    return "lights" if settings.light else "recovered"


def _report(
    settings: RelightSettings, frames: Frames, device: torch.device, has_shadows: bool
) -> None:
    light = settings.envmap or ("--light" if settings.light else "the run's recovered light")
    print(f"frames   {describe(frames, device)}")
    shadows = "shadows and interreflection" if has_shadows else "no shadows"
    print(f"light    {light}, {settings.quality} shading, {shadows}")
    root = shlex.quote(str(settings.run))
    print("\nnext:")
    if settings.view.path is None:
        again = "" if settings.envmap is None else f" --envmap {shlex.quote(str(settings.envmap))}"
        print(f"  splatir relight {root}{again} --path turntable")
    print(f"  splatir relight {root} --set roughness=0.2 --path turntable")
    print(f"  splatir export {root}")
