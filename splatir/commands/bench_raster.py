"""`splatir bench raster`: how long projection and rasterisation take, forward and backward."""

import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from splatir.codecs.atomic import write_text
from splatir.commands.bench_scene import GEOMETRY, BenchScene, knot_scene, read_scene
from splatir.native.library import library
from splatir.raster.contract import RasterOptions, RasterOutput, ScreenSpace
from splatir.raster.selection import RasterizerName, rasterizer
from splatir.settings import Settings

_WARM_UP = 2


@dataclass(frozen=True)
class BenchRasterSettings(Settings):
    """Time a rasteriser backend; without a scene on a built-in one.

    On the CPU times are the process's CPU time over all threads, else time until the device is
    done. gsplat's projection is not timed apart: it is part of forward and backward.

    Attributes:
        scene: .npz with float32 means [N,3], quats [N,4] wxyz, scales [N,3] linear, opacities [N]
            in 0..1, features [N,C], T_camera_world [4,4], K [3,3], width and height.
        backend: Which rasteriser.
        primitive: How the splats are drawn.
        threads: Threads of the native kernels and of torch.
        json: Also write the numbers to this file, as one flat object.
        repeats: Timed iterations.
        num_splats: Splats of the built-in scene.
        size: Width and height of the built-in scene's image.
        channels: Channels of the built-in scene.
        all_outputs: Also composite depth, and normals and distortion of surfels.
    """

    scene: Path | None = None
    backend: Literal["cpu", "reference", "gsplat"] = "cpu"
    primitive: Literal["ellipsoid", "surfel"] = "ellipsoid"
    threads: int = 1
    json: Path | None = None
    repeats: int = 20
    num_splats: int = 50_000
    size: int = 400
    channels: int = 16
    all_outputs: bool = False


@dataclass(frozen=True)
class Timing:
    """Milliseconds of repeated runs.

    Attributes:
        median: Of all.
        spread: Between the first and third quartile.
        minimum: The least disturbed run.
    """

    median: float
    spread: float
    minimum: float

    @staticmethod
    def of(milliseconds: list[float]) -> "Timing":
        """Summarise."""
        if len(milliseconds) < 2:
            return Timing(milliseconds[0], 0.0, milliseconds[0])
        low, median, high = statistics.quantiles(milliseconds, n=4, method="inclusive")
        return Timing(median, high - low, min(milliseconds))


@dataclass(frozen=True)
class RasterTimings:
    """What one benchmark measured.

    Attributes:
        projection: Footprints of all splats; None where it is part of the next two.
        projection_backward: Its gradient; likewise.
        forward: Images from footprints.
        backward: Gradients of footprints, opacities and features.
        splats_per_pixel: Splats whose screen rectangle covers a pixel, mean over the image.
    """

    projection: Timing | None
    projection_backward: Timing | None
    forward: Timing
    backward: Timing
    splats_per_pixel: float


def run(settings: BenchRasterSettings) -> None:
    """Measure, print, write."""
    for name in ("threads", "repeats", "num_splats", "size", "channels"):
        minimum = 0 if name in ("num_splats", "channels") else 1
        if getattr(settings, name) < minimum:
            raise ValueError(f"--{name} must be at least {minimum}, got {getattr(settings, name)}.")
    if settings.scene is not None:
        scene = read_scene(settings.scene, settings.primitive)
    else:
        scene = knot_scene(
            settings.num_splats,
            settings.size,
            settings.size,
            settings.channels,
            settings.primitive,
        )
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        timings = time_rasterizer(scene, settings.backend, _options(settings), settings.repeats)
    finally:
        torch.set_num_threads(before)
    report = _report(settings, scene, timings)
    for name, value in report.items():
        print(f"{name:<32}{value:.3f}" if isinstance(value, float) else f"{name:<32}{value}")
    if settings.json is not None:
        write_text(settings.json, json.dumps(report, indent=1) + "\n")
        print(f"\nfile     {settings.json}")


def _options(settings: BenchRasterSettings) -> RasterOptions:
    is_surfel = settings.primitive == "surfel"
    if not settings.all_outputs:
        return RasterOptions()
    return RasterOptions(depth=True, normals=is_surfel, distortion=is_surfel)


def time_rasterizer(
    scene: BenchScene, backend: RasterizerName, options: RasterOptions, repeats: int
) -> RasterTimings:
    """Time one backend on one scene.

    Args:
        scene: What is drawn.
        backend: Which rasteriser.
        options: Outputs.
        repeats: Timed iterations.

    Raises:
        ValueError: The backend does not run here.
    """
    device = torch.device("cuda" if backend == "gsplat" else "cpu")
    rasterizer(backend, device)
    scene = scene.to(device)
    phases = _phases(scene, backend, options)
    laps: list[_Lap] = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cotangents = [torch.randn_like(i) for i in _images(_once(phases, scene))]
    for iteration in range(_WARM_UP + repeats):
        lap = _time_once(phases, scene, cotangents, _clock(device))
        if iteration >= _WARM_UP:
            laps.append(lap)
    screen = _once(phases, scene).screen
    timings = {
        field.name: Timing.of([getattr(lap, field.name) for lap in laps]) for field in fields(_Lap)
    }
    no_projection = phases.project is None
    return RasterTimings(
        projection=None if no_projection else timings["projection"],
        projection_backward=None if no_projection else timings["projection_backward"],
        forward=timings["forward"],
        backward=timings["backward"],
        splats_per_pixel=_rectangle_coverage(screen, scene.camera.width, scene.camera.height),
    )


@dataclass(frozen=True)
class _Lap:
    """Milliseconds of one iteration."""

    projection: float
    projection_backward: float
    forward: float
    backward: float


@dataclass(frozen=True)
class _Phases:
    """A backend in two steps; where it has only one, `project` is None and `composite` is all."""

    project: Callable[[BenchScene], Any] | None
    composite: Callable[[BenchScene, Any], RasterOutput]


def _phases(scene: BenchScene, backend: RasterizerName, options: RasterOptions) -> _Phases:
    if backend == "cpu":
        return _native_phases(scene, options)

    def everything(scene: BenchScene, _: Any) -> RasterOutput:
        rasterize = rasterizer(backend, scene.features.device).rasterize
        return rasterize(scene.gaussians, scene.camera, scene.features, None, options)

    return _Phases(None, everything)


def _native_phases(scene: BenchScene, options: RasterOptions) -> _Phases:
    # Imported here: the other backends run where the native library is not built.
    from splatir.raster.native_ellipsoids import composite_ellipsoids
    from splatir.raster.native_projection import project_ellipsoids, project_surfels
    from splatir.raster.native_surfels import composite_surfels

    kernels = library()
    size = (scene.camera.width, scene.camera.height)
    is_surfel = scene.gaussians.primitive == "surfel"
    composite = composite_surfels if is_surfel else composite_ellipsoids

    def project(scene: BenchScene) -> Any:
        g = scene.gaussians
        if is_surfel:
            return project_surfels(g.means, g.quats, g.scales, scene.camera, options, kernels)
        return project_ellipsoids(
            g.means, g.quats, g.scales, g.opacities, scene.camera, options, kernels
        )

    def draw(scene: BenchScene, projected: Any) -> RasterOutput:
        opacities, features = scene.gaussians.opacities, scene.features
        return composite(projected, opacities, features, None, size, options, kernels)

    return _Phases(project, draw)


def _once(phases: _Phases, scene: BenchScene) -> RasterOutput:
    with torch.no_grad():
        projected = None if phases.project is None else phases.project(scene)
        return phases.composite(scene, projected)


def _images(output: RasterOutput) -> list[Tensor]:
    found = (output.features, output.alpha, output.depth, output.normals, output.distortion)
    return [image for image in found if image is not None]


def _time_once(
    phases: _Phases, scene: BenchScene, cotangents: list[Tensor], clock: Callable[[], float]
) -> _Lap:
    """One iteration, projection and compositing differentiated apart."""
    scene = _with_leaves(scene)
    start = clock()
    projected = None if phases.project is None else phases.project(scene)
    projection = clock() - start
    footprints = _as_leaves(projected)
    start = clock()
    output = phases.composite(scene, footprints)
    forward = clock() - start
    images = _images(output)
    start = clock()
    torch.autograd.backward(images, cotangents)
    backward = clock() - start
    start = clock()
    if projected is not None:
        _backward_through(projected, footprints)
    return _Lap(projection, clock() - start, forward, backward)


def _with_leaves(scene: BenchScene) -> BenchScene:
    g = scene.gaussians
    leaves = {key: getattr(g, key).detach().requires_grad_() for key in GEOMETRY}
    features = scene.features.detach().requires_grad_()
    return BenchScene(replace(g, **leaves), features, scene.camera)


def _as_leaves(projected: Any) -> Any:
    """The same footprints cut from what made them."""
    if projected is None:
        return None
    leaves = {
        field.name: value.detach().requires_grad_()
        for field in fields(projected)
        if (value := getattr(projected, field.name)) is not None and value.is_floating_point()
    }
    return replace(projected, **leaves)


def _backward_through(projected: Any, footprints: Any) -> None:
    """Carry the gradients of the cut footprints on to the splats."""
    outputs, gradients = [], []
    for field in fields(projected):
        leaf = getattr(footprints, field.name)
        if leaf is not None and leaf.grad is not None:
            outputs.append(getattr(projected, field.name))
            gradients.append(leaf.grad)
    torch.autograd.backward(outputs, gradients)


def _clock(device: torch.device) -> Callable[[], float]:
    """Milliseconds: of CPU, over all threads, or until the device is idle."""
    if device.type == "cpu":
        return lambda: time.process_time() * 1e3

    def device_time() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter() * 1e3

    return device_time


def _rectangle_coverage(screen: ScreenSpace, width: int, height: int) -> float:
    """Mean over the image of the number of splats whose rectangle covers a pixel."""
    size = torch.tensor([width, height], dtype=torch.float64)
    centres, radii = screen.means2d.detach().cpu().double(), screen.radii.cpu().double()
    low = torch.minimum((centres - radii).clamp_min(0), size)
    high = torch.minimum((centres + radii).clamp_min(0), size)
    return float((high - low).prod(-1).sum() / (width * height))


def _report(
    settings: BenchRasterSettings, scene: BenchScene, timings: RasterTimings
) -> dict[str, Any]:
    report: dict[str, Any] = {}
    for name in ("projection", "projection_backward", "forward", "backward"):
        timing = getattr(timings, name)
        for key, value in (asdict(timing) if timing is not None else {}).items():
            report[f"{name}_ms" if key == "median" else f"{name}_ms_{key}"] = value
        if timing is None:
            report[f"{name}_ms"] = None
    report["splats_per_pixel"] = timings.splats_per_pixel
    report["num_splats"] = scene.gaussians.means.shape[0]
    report["channels"] = scene.features.shape[1]
    report["width"], report["height"] = scene.camera.width, scene.camera.height
    for name in ("backend", "primitive", "threads", "repeats"):
        report[name] = getattr(settings, name)
    report["clock"] = "process CPU time" if settings.backend != "gsplat" else "wall time"
    report["instruction_set"] = library().isa if settings.backend == "cpu" else None
    report["peak_memory_mb"] = _peak_memory(settings.backend) / 2**20
    report["machine"] = describe_machine()
    return report


def _peak_memory(backend: RasterizerName) -> int:
    """Most bytes held so far: allocated on the device, or resident for the process."""
    if backend == "gsplat":
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in kibibytes, macOS in bytes.
    return peak if sys.platform == "darwin" else peak * 1024


def describe_machine() -> str:
    """Processor model, number of logical CPUs, and the GPU if there is one."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    description = f"{model}, {os.cpu_count()} logical CPUs"
    if torch.cuda.is_available():
        description += f", {torch.cuda.get_device_name()}"
    return f"{description}, torch {torch.__version__}"
