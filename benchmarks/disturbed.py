"""How much of what wrong cameras and drifting exposures cost does training win back?

    python -m benchmarks.disturbed SCENE --output benchmarks/results/disturbed.md

SCENE is NeRF-synthetic. Every training camera is turned by half a degree about a random axis and
moved by half a percent of the radius of the cameras in a random direction; in another copy every
training photo gets a random exposure within half a stop, in linear light, clipped to 8 bits. The
test views stay as they are; cameras and exposures of theirs are fitted with the model fixed before
they are scored, in all rows of a table alike, and the scores without that stand beside it.
"""

import argparse
import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from splatir.codecs.atomic import write_text
from splatir.commands.evaluate import evaluate_run
from splatir.data.recognise import read_dataset
from splatir.maths.colour import linear_from_srgb, srgb_from_linear
from splatir.scene.corrections import gauge_directions, remove_gauge
from splatir.train.finished import load_run
from splatir.train.run_folder import RunFolder
from splatir.train.session import train
from splatir.train.settings import TrainSettings

DEGREES = 0.5
PERCENT = 0.5
STOPS = 0.5


_What = Literal["nothing", "cameras", "exposures"]


@dataclass(frozen=True)
class _Row:
    """What is disturbed, and what training may learn of it."""

    disturbed: _What
    cameras: Literal["refine", "fixed"]
    exposures: Literal["per-photo", "shared"]


_ROWS = (
    _Row("nothing", "fixed", "shared"),
    _Row("cameras", "fixed", "shared"),
    _Row("cameras", "refine", "shared"),
    _Row("exposures", "fixed", "shared"),
    _Row("exposures", "fixed", "per-photo"),
)


@dataclass(frozen=True)
class Disturbed:
    """A capture that was made worse, and by how much.

    Attributes:
        folder: NeRF-synthetic.
        corrections: That training should find [views,7], as in `scene.corrections`.
        log_gains: Of each training photo, linear light.
    """

    folder: Path
    corrections: Float[Tensor, "views 7"]
    log_gains: Float[Tensor, " views"]


def disturb(scene: Path, folder: Path, what: _What, seed: int) -> Disturbed:
    """Copy a capture with disturbed training cameras or exposures.

    Args:
        scene: NeRF-synthetic.
        folder: To be made.
        what: Is disturbed.
        seed: Of the disturbance.
    """
    folder.mkdir(parents=True)
    (folder / "train").mkdir()
    for name in ("test", "transforms_test.json", "transforms_val.json"):
        if (scene / name).exists():
            (folder / name).symlink_to((scene / name).resolve())
    meta = json.loads((scene / "transforms_train.json").read_text())
    frames: list[dict[str, Any]] = meta["frames"]
    # In the order in which the reader numbers views.
    order = {Path(view.name).name: i for i, view in enumerate(read_dataset(scene).train)}
    frames.sort(key=lambda frame: order[Path(frame["file_path"]).name])
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(2, len(frames), 3, generator=generator, dtype=torch.float64)
    turns, shifts = torch.nn.functional.normalize(directions, dim=-1)
    stops = STOPS * (2.0 * torch.rand(len(frames), generator=generator) - 1.0)
    corrections = torch.zeros(len(frames), 7, dtype=torch.float64)
    if what == "cameras":
        corrections[:, :3] = math.radians(DEGREES) * turns
        corrections[:, 3:6] = PERCENT / 100.0 * shifts
    log_gains = stops * math.log(2.0) if what == "exposures" else torch.zeros_like(stops)
    extent = _radius(frames)
    for frame, correction, log_gain in zip(frames, corrections, log_gains, strict=True):
        name = Path(frame["file_path"]).name + ".png"
        _write_exposed(scene / "train" / name, folder / "train" / name, float(log_gain))
        # Training should turn and move it back.
        frame["transform_matrix"] = _moved(frame["transform_matrix"], -correction, extent)
    (folder / "transforms_train.json").write_text(json.dumps(meta))
    return Disturbed(folder, corrections, log_gains)


def _radius(frames: list[dict[str, Any]]) -> float:
    """Radius of the scene as `Dataset.extent` takes it."""
    positions = torch.tensor([frame["transform_matrix"] for frame in frames])[:, :3, 3]
    return 1.1 * float((positions - positions.mean(0)).norm(dim=-1).max())


def _moved(
    matrix: list[list[float]], correction: Float[Tensor, " 7"], extent: float
) -> list[list[float]]:
    """A camera-to-world matrix turned about its own centre and shifted, world axes."""
    T = torch.tensor(matrix, dtype=torch.float64)
    turn = torch.linalg.matrix_exp(_cross_matrix(correction[:3]))
    T[:3, :3] = turn @ T[:3, :3]
    T[:3, 3] += extent * correction[3:6]
    return T.tolist()


def _cross_matrix(v: Float[Tensor, " 3"]) -> Float[Tensor, "3 3"]:
    x, y, z = v.tolist()
    return torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=torch.float64)


def _write_exposed(source: Path, target: Path, log_gain: float) -> None:
    """Copy a PNG with its linear colours multiplied."""
    pixels = np.asarray(Image.open(source).convert("RGBA"), dtype=np.float32) / 255.0
    rgb = linear_from_srgb(torch.from_numpy(pixels[..., :3].copy())) * math.exp(log_gain)
    pixels = np.concatenate([srgb_from_linear(rgb).clamp(0.0, 1.0).numpy(), pixels[..., 3:]], -1)
    Image.fromarray((pixels * 255.0 + 0.5).astype(np.uint8)).save(target)


def measure(capture: Disturbed, steps: int, row: _Row, folder: Path) -> dict[str, float]:
    """Train, score, and compare what was learned of the photos with the truth.

    Args:
        capture: To train on.
        steps: Of the radiance stage.
        row: What is learned.
        folder: For the run.
    """
    settings = TrainSettings(
        data=capture.folder,
        output=folder,
        stages=("radiance",),
        steps=steps,
        eval_every=0,
        checkpoint_every=0,
        cameras=row.cameras,
        exposures=row.exposures,
    )
    train(settings)
    finished = load_run(folder, torch.device("cpu"))
    scores = evaluate_run(finished, torch.device("cpu"), aligned=True)
    found = {
        "psnr": scores["psnr_full"],
        "aligned": scores["aligned_psnr_full"],
        "seconds": finished.seconds,
    }
    state = RunFolder(folder).load_latest()["state"]
    found.update(_camera_errors(capture, finished.corrections))
    if state["exposures"] is not None:
        found.update(_exposure_errors(capture, state["exposures"]))
    return found


def _camera_errors(
    capture: Disturbed, corrections: Float[Tensor, "views 7"] | None
) -> dict[str, float]:
    """Mean distance of the cameras from the truth, but for motions of the whole scene."""
    dataset = read_dataset(capture.folder)
    missing = capture.corrections.clone()
    if corrections is not None:
        missing -= corrections.double()
    remove_gauge(missing, gauge_directions([v.camera for v in dataset.train], dataset.extent))
    return {
        "degrees": math.degrees(float(missing[:, :3].norm(dim=-1).mean())),
        "percent": 100.0 * float(missing[:, 3:6].norm(dim=-1).mean()),
    }


def _exposure_errors(capture: Disturbed, log_gains: Float[Tensor, "views 3"]) -> dict[str, float]:
    """Relative errors of the gains, all photos' mean aside, in percent.

    `gain_rest` is the mean of what is left but for a linear function of where the camera stands:
    colours that depend on the view look the same.
    """
    true = capture.log_gains - capture.log_gains.mean()
    missing = log_gains.double() - true[:, None].double()
    views = read_dataset(capture.folder).train
    positions = torch.stack([view.camera.position_world for view in views]).double()
    linear = torch.cat([torch.ones(len(positions), 1, dtype=torch.float64), positions], dim=-1)
    rest = missing - linear @ torch.linalg.lstsq(linear, missing).solution
    errors, errors_of_rest = ((left.exp() - 1.0).abs() for left in (missing, rest))
    return {
        "gain_mean": 100.0 * float(errors.mean()),
        "gain_max": 100.0 * float(errors.max()),
        "gain_rest": 100.0 * float(errors_of_rest.mean()),
    }


def main() -> None:
    """Disturb, train and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as name:
        for index, row in enumerate(_ROWS):
            capture = disturb(
                arguments.scene, Path(name) / f"{index}", row.disturbed, arguments.seed
            )
            found = measure(capture, arguments.steps, row, Path(name) / f"{index}_run")
            print(row, found, flush=True)
            lines.append(_line(row, found))
    write_text(arguments.output, _report(arguments, lines))


def _line(row: _Row, found: dict[str, float]) -> str:
    gains = ""
    if "gain_max" in found:
        gains = ", ".join(f"{found[f'gain_{name}']:.1f}" for name in ("mean", "max", "rest"))
    cells = (
        row.disturbed,
        row.cameras,
        row.exposures,
        f"{found['psnr']:.2f}",
        f"{found['aligned']:.2f}",
        f"{found['degrees']:.3f}, {found['percent']:.3f}",
        gains,
        f"{found['seconds']:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def _report(arguments: argparse.Namespace, lines: list[str]) -> str:
    return (
        "# Disturbed cameras and exposures\n\n"
        f"`python -m benchmarks.disturbed .../{arguments.scene.name} --steps {arguments.steps} "
        f"--seed {arguments.seed} --output ...`\n\n"
        f"Disturbed: each training camera turned by {DEGREES} degrees and moved by {PERCENT} % of "
        f"the scene's radius, or each training photo's exposure within {STOPS} stops. PSNR of the "
        "radiance over the test views, as calibrated and with camera and gains fitted to each. "
        "Errors left: of cameras in degrees and in percent of the radius (mean, but for motions "
        "of the whole scene), of gains in percent (mean and largest, but for a common gain, and "
        "mean but for a linear function of the camera's position).\n\n"
        "| Disturbed | cameras | exposures | PSNR | aligned | camera errors | gain errors | s |\n"
        "|---|---|---|---|---|---|---|---|\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    main()
