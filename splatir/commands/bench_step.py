"""`splatir bench step`: how long a whole training step takes, and which part takes it."""

import json
import resource
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from splatir.codecs.atomic import write_text
from splatir.commands.bench_material_step import measure_materials
from splatir.commands.bench_raster import Timing, describe_machine, time_rasterizer
from splatir.commands.bench_scene import BenchScene, knot_scene
from splatir.commands.bench_timing import cpu_time, frozen_rates, noise_photo, wall_time
from splatir.data.images import Photo
from splatir.optim.losses import LossWeights, Target, radiance_losses
from splatir.raster.contract import RasterOptions
from splatir.raster.selection import rasterizer
from splatir.render.radiance import RadianceImage, render_radiance
from splatir.scene.camera import Camera
from splatir.scene.gaussians import PARAMETER_SPACES, GaussianModel, Primitive
from splatir.scene.radiance import radiance_colours
from splatir.settings import Settings
from splatir.train.settings import TrainSettings
from splatir.train.stages import RadianceStage, for_capture, stages_of
from splatir.train.state import TrainState
from splatir.train.step import StepContext, train_step

# Of a stage long enough that no repeat meets a refinement.
_STEPS = 10_000_000


@dataclass(frozen=True)
class BenchStepSettings(Settings):
    """Time a training step of the native backend on a built-in scene, in CPU time.

    Attributes:
        stage: Stage of the training that the step is of.
        transport: Materials: with shadows and bounced light, as trained by default.
        primitive: Shape of the splats.
        num_splats: How many.
        size: Width and height of the photo, pixels.
        sh_degree: Highest spherical-harmonic degree.
        threads: Threads of the native kernels and of torch.
        repeats: Timed steps.
        json: Also write the numbers to this file, as one flat object.
    """

    stage: Literal["radiance", "materials"] = "radiance"
    transport: bool = True
    primitive: Primitive = "ellipsoid"
    num_splats: int = 50_000
    size: int = 400
    sh_degree: int = 3
    threads: int = 1
    repeats: int = 20
    json: Path | None = None


def run(settings: BenchStepSettings) -> None:
    """Measure, print, write."""
    for name in ("num_splats", "size", "threads", "repeats"):
        if getattr(settings, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(settings, name)}.")
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        is_radiance = settings.stage == "radiance"
        report = measure(settings) if is_radiance else _measure_materials(settings)
    finally:
        torch.set_num_threads(before)
    for name, value in report.items():
        print(f"{name:<28}{value:.3f}" if isinstance(value, float) else f"{name:<28}{value}")
    if settings.json is not None:
        write_text(settings.json, json.dumps(report, indent=1) + "\n")
        print(f"\nfile     {settings.json}")


def measure(settings: BenchStepSettings) -> dict[str, Any]:
    """Medians of the whole step and of its parts, milliseconds of CPU time but for `step_wall_ms`.

    Parts are timed alone, forward and backward together, rasterisation with three channels; what
    they do not account for (channels of normals and planes, activations, autograd, statistics for
    densification) is `other_ms`.
    """
    scene = knot_scene(settings.num_splats, settings.size, settings.size, 3, settings.primitive)
    state = _state(scene, settings)
    # Half way: full image, full SH degree, normals, and no refinement for many steps.
    state.step = _STEPS // 2 + 1
    photo = noise_photo(settings.size)
    context = _context(settings)

    def one_step() -> None:
        train_step(state, context, scene.camera, photo)

    step = cpu_time(one_step, settings.repeats)
    wall = wall_time(one_step, settings.repeats)
    raster = time_rasterizer(scene, "cpu", RasterOptions(), settings.repeats)
    assert raster.projection is not None and raster.projection_backward is not None
    parts = {
        "raster_forward": raster.forward.median,
        "raster_backward": raster.backward.median,
        "projection": raster.projection.median + raster.projection_backward.median,
        "colours": _time_colours(state.model, scene.camera, settings).median,
        "loss": _time_loss(state.model, scene.camera, photo, settings).median,
        "optimizer": _time_optimizer(state, settings.repeats).median,
    }
    raster_only = parts["raster_forward"] + parts["raster_backward"]
    return {
        "step_ms": step.median,
        "step_ms_spread": step.spread,
        "step_wall_ms": wall.median,
        **{f"{name}_ms": value for name, value in parts.items()},
        "other_ms": step.median - sum(parts.values()),
        "step_over_raster": step.median / raster_only,
        **_described(settings),
        "sh_degree": settings.sh_degree,
    }


def _measure_materials(settings: BenchStepSettings) -> dict[str, Any]:
    scene = knot_scene(settings.num_splats, settings.size, settings.size, 3, settings.primitive)
    photo = noise_photo(settings.size)
    times = measure_materials(scene, photo, settings.transport, settings.repeats)
    return {**times, **_described(settings), "transport": settings.transport}


def _described(settings: BenchStepSettings) -> dict[str, Any]:
    """What was measured, and on what."""
    return {
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "stage": settings.stage,
        "primitive": settings.primitive,
        "num_splats": settings.num_splats,
        "size": settings.size,
        "threads": settings.threads,
        "repeats": settings.repeats,
        "machine": describe_machine(),
    }


def _state(scene: BenchScene, settings: BenchStepSettings) -> TrainState:
    g = scene.gaussians
    raw = {key: PARAMETER_SPACES[key].invert(getattr(g, key)) for key in
           ("means", "quats", "scales", "opacities")}  # fmt: skip
    num_sh = (settings.sh_degree + 1) ** 2
    raw["sh0"] = scene.features[:, None, :] - 0.5
    raw["shN"] = 0.05 * torch.randn(
        settings.num_splats, num_sh - 1, 3, generator=torch.Generator().manual_seed(0)
    )
    model = GaussianModel(raw, settings.primitive)
    return TrainState.start(model, False, frozen_rates(), extent=1.0)


def _context(settings: BenchStepSettings) -> StepContext:
    training = TrainSettings(steps=_STEPS, stages=("radiance",))
    stage = stages_of(for_capture(training, has_background=False))[0]
    assert isinstance(stage, RadianceStage)
    backend = rasterizer("cpu", torch.device("cpu"))
    return StepContext(stage, backend, frozen_rates(), 1.0, "white", False, None, 0)


def _time_colours(model: GaussianModel, camera: Camera, settings: BenchStepSettings) -> Timing:
    position = camera.position_world
    cotangent = torch.ones(settings.num_splats, 3)

    def body() -> None:
        colours = radiance_colours(
            model.params["sh0"], model.params["shN"], model.means, position, settings.sh_degree
        )
        colours.backward(cotangent)
        model.zero_grad()

    return cpu_time(body, settings.repeats)


def _time_loss(
    model: GaussianModel, camera: Camera, photo: Photo, settings: BenchStepSettings
) -> Timing:
    with torch.no_grad():
        image = render_radiance(
            model, camera, rasterizer("cpu", torch.device("cpu")), with_surface=True
        )
    assert image.normals is not None
    rgb, alpha, normals = (
        x.clone().requires_grad_() for x in (image.rgb_srgb, image.raster.alpha, image.normals)
    )
    rendered = RadianceImage(rgb, replace(image.raster, alpha=alpha), normals, image.depth)
    target, weights = Target(photo.rgb, photo.alpha), LossWeights()

    def body() -> None:
        terms = radiance_losses(rendered, target, camera, model, weights, 1.0, 1.0)
        torch.stack(list(terms.values())).sum().backward()
        rgb.grad = alpha.grad = normals.grad = None

    return cpu_time(body, settings.repeats)


def _time_optimizer(state: TrainState, repeats: int) -> Timing:
    for param in state.model.params.values():
        param.grad = torch.zeros_like(param)
    timing = cpu_time(state.optimizer.step, repeats)
    state.optimizer.zero_grad()
    return timing
