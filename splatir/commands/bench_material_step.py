"""How long does a step of the materials stage take, and which part takes it?"""

import itertools
import time
from collections import defaultdict
from dataclasses import replace

import torch

from splatir.commands.bench_raster import time_rasterizer
from splatir.commands.bench_scene import BenchScene
from splatir.commands.bench_timing import cpu_time, frozen_rates, wall_time
from splatir.data.images import Photo
from splatir.optim.material_losses import material_losses, shown_over
from splatir.raster.contract import RasterOptions
from splatir.raster.selection import rasterizer
from splatir.render.deferred import render_scene
from splatir.scene.gaussians import PARAMETER_SPACES, GaussianModel
from splatir.scene.lights import EnvironmentLight
from splatir.train.material_settings import MaterialSettings
from splatir.train.material_step import (
    MaterialContext,
    lighting_of,
    material_step,
    paint_terms,
)
from splatir.train.radiance_view import RadianceComparison, compare_radiance, make_target
from splatir.train.settings import TrainSettings
from splatir.train.stages import MaterialStage, stages_of
from splatir.train.start_materials import initial_materials
from splatir.train.state import TrainState
from splatir.transport.scene import SceneTransport

# Of a stage long enough that no repeat meets its end, nor a correction but every 25th.
_STEPS = 10_000_000
_FIRST = _STEPS // 2 + 1


def measure_materials(
    scene: BenchScene, photo: Photo, with_transport: bool, repeats: int
) -> dict[str, float]:
    """Medians of the whole step and of its parts, milliseconds of CPU time but for `step_wall_ms`.

    Parts are those of the forward pass, then backward and the optimiser; what they do not account
    for (the picture for the report, the light bounced again every 25 steps) is `other_ms`.

    Args:
        scene: Splats and camera.
        photo: What the view is compared with.
        with_transport: Shade with shadows and bounced light.
        repeats: Timed steps.
    """
    state, context = _start(scene, with_transport)
    traced = {}
    if with_transport:
        start = time.process_time()
        context = replace(context, transport=SceneTransport.of(state.model.gaussians.detach()))
        traced["trace_ms"] = (time.process_time() - start) * 1e3
    camera = scene.camera

    def one_step() -> None:
        material_step(state, context, camera, photo)

    step, wall = cpu_time(one_step, repeats), wall_time(one_step, repeats)
    laps: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        for name, seconds in _time_parts(state, context, scene, photo).items():
            laps[name].append(seconds * 1e3)
    parts = {name: sorted(values)[len(values) // 2] for name, values in laps.items()}
    raster = time_rasterizer(scene, "cpu", RasterOptions(), repeats)
    return {
        "step_ms": step.median,
        "step_ms_spread": step.spread,
        "step_wall_ms": wall.median,
        **{f"{name}_ms": value for name, value in parts.items()},
        "other_ms": step.median - sum(parts.values()),
        "raster_forward_ms": raster.forward.median,
        "raster_backward_ms": raster.backward.median,
        "step_over_raster": step.median / (raster.forward.median + raster.backward.median),
        **traced,
    }


def _start(scene: BenchScene, with_transport: bool) -> tuple[TrainState, MaterialContext]:
    """A state in the middle of the stage, and what its steps need but transport."""
    g = scene.gaussians
    keys = ("means", "quats", "scales", "opacities")
    raw = {key: PARAMETER_SPACES[key].invert(getattr(g, key)) for key in keys}
    raw["sh0"], raw["shN"] = scene.features[:, None, :] - 0.5, torch.zeros(len(g.means), 0, 3)
    rates = frozen_rates()
    materials = MaterialSettings(steps=_STEPS, transport=with_transport)
    model = GaussianModel(raw, g.primitive)
    state = TrainState.start(model, False, rates, 1.0)
    environment = torch.zeros(materials.environment_height, 2 * materials.environment_height, 3)
    state = state.add_materials(initial_materials(model, materials), environment, True, rates)
    settings = TrainSettings(stages=("radiance", "materials"), steps=1, materials=materials)
    stage = stages_of(settings)[1]
    assert isinstance(stage, MaterialStage)
    state.step = _FIRST
    backend = rasterizer("cpu", torch.device("cpu"))
    radiance = RadianceComparison(backend, stage.radiance, 1.0, "white", 0)
    context = MaterialContext(stage, backend, rates, RasterOptions(), None, radiance, scale="given")
    return state, context


def _time_parts(
    state: TrainState, context: MaterialContext, scene: BenchScene, photo: Photo
) -> dict[str, float]:
    """Seconds of the parts of one step, in their order."""
    background, radiance = torch.ones(3), context.radiance
    assert radiance is not None
    clock = [time.process_time()]
    light = EnvironmentLight(state.radiance)
    lighting = lighting_of(state, context, light)
    clock.append(time.process_time())
    image = render_scene(
        state.model,
        scene.camera,
        lighting,
        context.rasterizer,
        context.options,
        moves_splats=True,
    )
    clock.append(time.process_time())
    stage = context.stage
    radiance = replace(radiance, loss=stage.radiance_at(state.step))
    compared = compare_radiance(state, radiance, scene.camera, photo)
    clock.append(time.process_time())
    target = make_target(photo, background)
    shown = shown_over(image, background)
    terms = material_losses(image, shown, target, light, stage.loss_at(state.step))
    terms.update(paint_terms(state, context, image.gbuffer))
    loss = torch.stack([*terms.values(), *compared.terms.values()]).sum()
    clock.append(time.process_time())
    loss.backward()
    clock.append(time.process_time())
    state.optimizer.step()
    state.optimizer.zero_grad()
    clock.append(time.process_time())
    names = ("light", "render_and_shade", "radiance", "loss", "backward", "optimizer")
    spans = (b - a for a, b in itertools.pairwise(clock))
    return dict(zip(names, spans, strict=True))
