"""How fast does the viewer answer: pictures while the camera moves and stands, and a new light?

    python -m benchmarks.viewer --output benchmarks/results/viewer_cpu.json

Per number of splats (a bumpy torus knot, surfels with random materials under a random environment,
at 1280x720) the page is driven by a stand-in for the browser that encodes what it is sent, as the
viewer's server does. "Moving" turns the camera, each picture asked for when the one before was
sent, until the height has settled. "Latency" is from a changed control to the picture, first the
coarse one, then the full one after the camera has stood for a moment. Seconds are of the clock, so
other work on the machine counts; CPU seconds over all threads stand beside them.

With --training CAPTURE, also what a page that nobody looks at costs a training: CPU time a step of
the radiance stage with and without it, in turns.
"""

import argparse
import io
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from splatir.codecs.atomic import write_text
from splatir.commands.bench_raster import describe_machine
from splatir.commands.bench_scene import knot_scene
from splatir.commands.watch import watched
from splatir.raster.selection import rasterizer
from splatir.scene.gaussians import GaussianModel
from splatir.scene.lights import EnvironmentLight
from splatir.train.observer import TrainingObserver, TrainingProgress
from splatir.train.session import train
from splatir.train.settings import TrainSettings
from splatir.transport.scene import SceneTransport
from viewer.client import Client
from viewer.page import Page
from viewer.pose import Pose, pose_of
from viewer.scene import ViewedScene

_WIDTH, _HEIGHT = 1280, 720
_MOVES = 40
_SETTLED = 20
_REPEATS = 5
# Trainings of each kind, and the steps between which they are timed: the first ones start the page.
_TRAININGS, _FIRST, _LAST = 5, 20, 120


@dataclass(frozen=True)
class ViewerRow:
    """Medians for one number of splats and one look.

    Attributes:
        num_splats: How many.
        look: Channel, and whether shadows are on.
        still_ms: One full picture with its depth.
        still_cpu_ms: Likewise, CPU time over all threads.
        moving_rows: Height that moving pictures settled at.
        moving_ms: From one moving picture to the next, encoding included.
        moving_cpu_ms: Likewise, CPU time over all threads.
        moving_fps: Pictures a second.
        coarse_latency_ms: From a changed exposure to the first picture that shows it.
        full_latency_ms: Likewise to the full picture.
        relight_latency_ms: From a turned environment to the first picture that shows it.
    """

    num_splats: int
    look: str
    still_ms: float
    still_cpu_ms: float
    moving_rows: int
    moving_ms: float
    moving_cpu_ms: float
    moving_fps: float
    coarse_latency_ms: float
    full_latency_ms: float
    relight_latency_ms: float


class StandIn:
    """What the page uses of a browser; encodes the pictures and counts them."""

    client_id = 0
    gui: Any = None

    def __init__(self, pose: Pose) -> None:
        self.camera = SimpleNamespace(on_update=lambda _: None)
        self.scene = SimpleNamespace(set_background_image=self._take)
        self.sent: list[tuple[float, int]] = []
        self.place(pose)

    def place(self, pose: Pose) -> None:
        """Move the camera."""
        self.camera.wxyz, self.camera.position = pose.wxyz, pose.position
        self.camera.fov, self.camera.aspect = pose.fov, pose.aspect
        self.camera.image_height = pose.height

    def _take(self, picture: np.ndarray, format: str, jpeg_quality: int, depth: np.ndarray) -> None:
        Image.fromarray(picture).save(io.BytesIO(), format="JPEG", quality=jpeg_quality)
        fixed = np.clip(depth * 1e5, 0, 2**24 - 1).astype(np.uint32)[..., None]
        Image.fromarray(fixed.view(np.uint8)[..., :3]).save(
            io.BytesIO(), format="PNG", compress_level=1
        )
        self.sent.append((time.perf_counter(), picture.shape[0]))

    def add_notification(self, title: str, body: str, **options: Any) -> Any:
        """A fault of a picture ends the measurement; what only takes a while does not."""
        if not options.get("loading"):
            raise RuntimeError(f"{title}: {body}")
        return SimpleNamespace(remove=lambda: None)

    def send_file_download(self, filename: str, content: bytes, **_: Any) -> None:
        """Never asked for."""

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """Nothing is held back."""
        yield

    def wait(self, condition: Callable[[list[tuple[float, int]]], bool]) -> float:
        """When a condition on what was sent came true."""
        end = time.monotonic() + 300.0
        while not condition(self.sent):
            if time.monotonic() > end:
                raise TimeoutError("no picture came.")
            time.sleep(0.0005)
        return self.sent[-1][0]


def scene_of(num_splats: int) -> tuple[ViewedScene, Pose]:
    """The knot with materials, and where it is seen from."""
    knot = knot_scene(num_splats, _WIDTH, _HEIGHT, 3, "surfel")
    shapes, generator = knot.gaussians, torch.Generator().manual_seed(0)
    params = {
        "means": shapes.means,
        "quats": shapes.quats,
        "scales": shapes.scales.log(),
        "opacities": torch.logit(shapes.opacities.clamp(1e-4, 1.0 - 1e-4)),
        "sh0": torch.zeros(num_splats, 1, 3),
        "shN": torch.zeros(num_splats, 0, 3),
        "albedo": torch.randn(num_splats, 3, generator=generator),
        "roughness": torch.randn(num_splats, generator=generator),
        "metallic": torch.randn(num_splats, generator=generator) - 2.0,
    }
    scene = ViewedScene(
        "knot",
        GaussianModel(params, "surfel"),
        EnvironmentLight(torch.rand(64, 128, 3, generator=generator)),
        torch.eye(4, dtype=torch.float64),
        rasterizer("auto", torch.device("cpu")),
        trace=lambda model: SceneTransport.of(model.gaussians, 128),
    )
    return scene, pose_of(knot.camera)


def measure(page: Page, client: Client, browser: StandIn, start: Pose, look: str) -> ViewerRow:
    """Time one look.

    Args:
        page: With the scene.
        client: Of the page.
        browser: Of the client.
        start: Where the camera stands.
        look: "image", "image, shadows", or "albedo".
    """
    channel, _, shadows = look.partition(", ")
    browser.place(start)
    begun = len(browser.sent)
    client.change_look(channel=channel)
    client.change_light(shadows=bool(shadows))
    browser.wait(lambda sent: len(sent) > begun and sent[-1][1] == _HEIGHT)
    stills = [_timed(lambda: _still(page, client, start)) for _ in range(_REPEATS)]
    gaps, cpus = _move(client, browser, start)
    rows = browser.sent[-1][1]
    browser.place(start)
    client.refresh()
    browser.wait(lambda sent: sent[-1][1] == _HEIGHT)
    coarse, full = _latencies(browser, lambda i: client.change_look(exposure=0.1 * (i + 1)))
    relight, _ = _latencies(browser, lambda i: client.change_light(rotate=10.0 * (i + 1)))
    return ViewerRow(
        page.scene.model.num_gaussians,
        look,
        statistics.median(wall for wall, _ in stills),
        statistics.median(cpu for _, cpu in stills),
        rows,
        statistics.median(gaps),
        statistics.median(cpus),
        1000.0 / statistics.median(gaps),
        coarse,
        full,
        relight,
    )


def _still(page: Page, client: Client, pose: Pose) -> None:
    page.renderer.frame(pose.camera(_HEIGHT), client.look, page.history.now, client.choice)


def _move(client: Client, browser: StandIn, start: Pose) -> tuple[list[float], list[float]]:
    """Milliseconds from picture to picture once the height has settled: of the clock, of CPUs."""
    gaps, cpus = [], []
    x, y, z = start.position
    for index in range(_MOVES):
        turn = 0.02 * index
        place = (
            x * math.cos(turn) - y * math.sin(turn),
            x * math.sin(turn) + y * math.cos(turn),
            z,
        )
        sent, wall, cpu = len(browser.sent), time.perf_counter(), time.process_time()
        browser.place(Pose(start.wxyz, place, start.fov, start.aspect, start.height))
        client.refresh()
        browser.wait(lambda found, sent=sent: len(found) > sent)
        if index >= _SETTLED:
            gaps.append(1e3 * (time.perf_counter() - wall))
            cpus.append(1e3 * (time.process_time() - cpu))
    return gaps, cpus


def _latencies(browser: StandIn, change: Callable[[int], None]) -> tuple[float, float]:
    coarse, full = [], []
    for index in range(_REPEATS):
        sent, begun = len(browser.sent), time.perf_counter()
        change(index)
        coarse.append(1e3 * (browser.wait(lambda found, sent=sent: len(found) > sent) - begun))
        full.append(1e3 * (browser.wait(lambda found, sent=sent: len(found) > sent + 1) - begun))
    return statistics.median(coarse), statistics.median(full)


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)


class _Stopwatch:
    """Notes the CPU time at steps; hands them on to a page, if there is one."""

    def __init__(self, page: TrainingObserver | None) -> None:
        self.page = page
        self.at: dict[int, float] = {}

    def after_step(self, progress: TrainingProgress) -> bool:
        goes_on = self.page is None or self.page.after_step(progress)
        self.at[progress.step] = time.process_time()
        return goes_on


def watching_cost(capture: Path) -> dict[str, float]:
    """CPU milliseconds a step with a page that nobody looks at, and without: the least of several.

    Other work on the machine adds to CPU time as well where two CPUs share a core.

    Args:
        capture: To train on.
    """
    laps: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(_TRAININGS):
        for is_watched, found in laps.items():
            with tempfile.TemporaryDirectory() as folder, watched(is_watched, 0) as page:
                watch = _Stopwatch(page)
                train(_training(capture, Path(folder) / "run"), watch)
                steps = _LAST - _FIRST
                found.append(1e3 * (watch.at[_LAST] - watch.at[_FIRST]) / steps)
    alone, seen = (min(laps[is_watched]) for is_watched in (False, True))
    return {"step_cpu_ms": alone, "watched_step_cpu_ms": seen, "slowdown": seen / alone - 1.0}


def _training(capture: Path, run: Path) -> TrainSettings:
    return TrainSettings(
        data=capture,
        output=run,
        stages=("radiance",),
        steps=_LAST,
        eval_every=0,
        checkpoint_every=0,
        device="cpu",
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--num-splats", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--training", type=Path)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = []
    for num_splats in given.num_splats:
        scene, start = scene_of(num_splats)
        page = Page(scene, _HEIGHT, 1.0)
        browser = StandIn(start)
        client = page.connect(browser)
        for look in ("albedo", "image", "image, shadows"):
            rows.append(measure(page, client, browser, start, look))
            print(json.dumps(asdict(rows[-1])), flush=True)
        page.close()
    watching = None
    if given.training is not None:
        watching = watching_cost(given.training)
        print(json.dumps(watching))
    if given.output is not None:
        report = {
            "rows": [asdict(row) for row in rows],
            "watching": watching,
            "threads": given.threads,
            "clock": "wall; beside it CPU time over all threads",
            "load_average": os.getloadavg()[0],
            "machine": describe_machine(),
        }
        write_text(given.output, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
