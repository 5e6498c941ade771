"""The transport benchmark: what it reports."""

import json
from pathlib import Path

import pytest
import torch

from splatir.commands import bench_transport
from splatir.commands.bench_transport import BenchTransportSettings, run


def test_all_numbers_of_splats_and_directions_are_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Prefiltering a map of full size takes a second each time.
    monkeypatch.setattr(bench_transport, "_MAP_HEIGHT", 16)
    before = torch.get_num_threads()
    path = tmp_path / "transport.json"
    run(BenchTransportSettings((60, 90), (16, 20), repeats=2, json=path))
    report = json.loads(path.read_text())
    sizes = [(row["num_splats"], row["directions"]) for row in report["rows"]]
    assert sizes == [(60, 16), (60, 20), (90, 16), (90, 20)]
    for row in report["rows"]:
        assert 0 < row["facing"] < row["num_splats"] and 0.0 < row["occluded"] < 1.0
        assert all(value > 0.0 for key, value in row.items() if key.endswith("_ms"))
    printed = capsys.readouterr().out
    assert "specular" in printed and str(path) in printed
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    "settings",
    [BenchTransportSettings(num_splats=()), BenchTransportSettings(directions=(16, 0))],
)
def test_nothing_to_measure_is_refused(settings: BenchTransportSettings) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        run(settings)
