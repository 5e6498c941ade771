"""`splatir bench step`: every part of either stage has a time, and the file holds them."""

import json
import math
from pathlib import Path

import pytest

from splatir.commands.main import main

SMALL = ["--num-splats", "150", "--size", "32", "--repeats", "1"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--stage", "radiance"], ("colours", "loss", "optimizer", "other")),
        (["--stage", "materials", "--no-transport"], ("light", "render_and_shade", "backward")),
    ],
)
def test_steps_are_timed_by_part(tmp_path: Path, words: list[str], parts: tuple[str, ...]) -> None:
    path = tmp_path / "step.json"
    assert main(["bench", "step", *words, *SMALL, "--json", str(path)]) == 0
    report = json.loads(path.read_text())
    assert report["stage"] == words[1] and report["num_splats"] == 150
    assert all(math.isfinite(report[f"{part}_ms"]) for part in parts)
    raster = report["raster_forward_ms"] + report["raster_backward_ms"]
    assert report["step_over_raster"] == pytest.approx(report["step_ms"] / raster)
    assert "trace_ms" not in report
