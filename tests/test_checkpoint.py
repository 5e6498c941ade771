import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splatir.codecs.atomic import atomic_file, write_text
from splatir.storage.checkpoint import (
    CheckpointError,
    checkpoint_path,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)

CONTENTS = {
    "step": 7,
    "name": "chair",
    "ratio": 0.25,
    "flags": [True, None, (1, 2)],
    "big": 2**120 + 1,
    "params": {"means": torch.arange(6.0).reshape(2, 3), "rng": torch.get_rng_state()},
    "adam": {0: {"step": torch.tensor(3.0)}},
}


def visible_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_contents_come_back_equal(tmp_path: Path) -> None:
    path = checkpoint_path(tmp_path / "new" / "folder", 7)
    save_checkpoint(path, CONTENTS)
    loaded = load_checkpoint(path)
    assert torch.equal(loaded["params"]["means"], CONTENTS["params"]["means"])
    assert torch.equal(loaded["params"]["rng"], CONTENTS["params"]["rng"])
    assert torch.equal(loaded["adam"][0]["step"], torch.tensor(3.0))
    for key in ("step", "name", "ratio", "flags", "big"):
        assert loaded[key] == CONTENTS[key]
    assert visible_files(path.parent) == ["step_00000007.pt"]


def test_parameters_are_stored_plain_and_views_without_their_storage(tmp_path: Path) -> None:
    whole = torch.nn.Parameter(torch.zeros(100_000))
    save_checkpoint(tmp_path / "a.pt", {"row": whole[:10], "parameter": torch.nn.Parameter(whole)})
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert type(loaded["parameter"]) is torch.Tensor
    assert not loaded["row"].requires_grad
    assert (tmp_path / "a.pt").stat().st_size < 100_000 * 4 + 5_000


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": [Path("x")]}, r"contents\['a'\]\[0\] is a PosixPath"),
        ({"a": {"b": torch.float32}}, r"contents\['a'\]\['b'\] is a dtype"),
        ({"a": {(1, 2): 3}}, "keys must be strings or integers"),
    ],
)
def test_values_that_are_not_plain_are_named_and_nothing_is_written(
    tmp_path: Path, value: dict, place: str
) -> None:
    with pytest.raises(ValueError, match=place):
        save_checkpoint(tmp_path / "a.pt", value)
    assert visible_files(tmp_path) == []


def test_truncated_files_are_refused_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, CONTENTS)
    whole = path.read_bytes()
    for length in [0, 3, 10, 500, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"a\.pt is (truncated|no splatir)"):
            load_checkpoint(path)


def test_flipped_bits_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"x": torch.zeros(10_000)})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged: the checksum"):
        load_checkpoint(path)


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "whole.pt"
    save_checkpoint(path, {"x": torch.zeros(2), "y": [1, "z"]})
    return path


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damaged_file_gives_anything_but_a_checkpoint_error(
    whole_file: Path, data: st.DataObject
) -> None:
    content = bytearray(whole_file.read_bytes())
    path = whole_file.with_name("damaged.pt")
    for _ in range(data.draw(st.integers(1, 3))):
        # Half of the damage in the archive's directory, which stands at the end.
        first = data.draw(st.sampled_from([0, len(content) - 600]))
        content[data.draw(st.integers(first, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError):
        load_checkpoint(path)


class RunsCode:
    def __reduce__(self):
        return (os.system, ("touch was_run",))


def test_foreign_files_are_refused_and_no_pickle_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    foreign = tmp_path / "a.pt"
    foreign.write_bytes(b"ply\nformat ascii 1.0\n")
    with pytest.raises(CheckpointError, match="not a torch file"):
        load_checkpoint(foreign)
    foreign.write_bytes(pickle.dumps({"splatir_checkpoint": 1, "contents": RunsCode()}))
    with pytest.raises(CheckpointError, match="not a torch file"):
        load_checkpoint(foreign)
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.writestr("hello", "x")
    with pytest.raises(CheckpointError, match="never loaded"):
        load_checkpoint(foreign)
    torch.save({"splatir_checkpoint": 1, "contents": RunsCode()}, foreign)
    with pytest.raises(CheckpointError, match="never loaded"):
        load_checkpoint(foreign)
    assert not (tmp_path / "was_run").exists()
    for other in ({"weights": torch.zeros(2)}, [1, 2], {"splatir_checkpoint": "1", "contents": {}}):
        torch.save(other, foreign)
        with pytest.raises(CheckpointError, match="key 'splatir_checkpoint' is missing"):
            load_checkpoint(foreign)


def test_newer_versions_and_missing_files_are_named(tmp_path: Path) -> None:
    torch.save({"splatir_checkpoint": 2, "contents": {}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="version 2, this splatir reads up to 1"):
        load_checkpoint(tmp_path / "a.pt")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*b\.pt"):
        load_checkpoint(tmp_path / "b.pt")


def test_latest_is_the_newest_one_that_loads(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "nowhere") is None
    assert latest_checkpoint(tmp_path) is None
    for step in (200, 1000, 30):
        save_checkpoint(checkpoint_path(tmp_path, step), {"step": step})
    assert latest_checkpoint(tmp_path) == checkpoint_path(tmp_path, 1000)
    newest = checkpoint_path(tmp_path, 1000)
    newest.write_bytes(newest.read_bytes()[:-20])
    with pytest.warns(UserWarning, match=r"skipped .*step_00001000\.pt is truncated"):
        assert latest_checkpoint(tmp_path) == checkpoint_path(tmp_path, 200)


def test_failed_writes_keep_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="stop"), atomic_file(path) as stream:
        stream.write(b"new")
        raise RuntimeError("stop")
    assert path.read_text() == "old"
    assert visible_files(tmp_path) == ["a.txt"]


FULL_DISK = """
import resource, sys, torch
from pathlib import Path
from splatir.storage.checkpoint import save_checkpoint
path = Path(sys.argv[1])
save_checkpoint(path, {"x": torch.zeros(10)})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_checkpoint(path, {"x": torch.zeros(100_000)})
except OSError as error:
    print(error)
"""


def test_full_disk_is_said_and_the_old_checkpoint_kept(tmp_path: Path) -> None:
    """A limit on file size stands for the full disk: writes fail part of the way."""
    path = tmp_path / "a.pt"
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True
    )
    assert "no space left to write" in run.stdout
    assert "the previous file is unchanged" in run.stdout
    assert load_checkpoint(path)["x"].shape == (10,)
    assert visible_files(tmp_path) == ["a.pt"]


WRITE_FOREVER = """
import itertools, sys, torch
from pathlib import Path
from splatir.storage.checkpoint import checkpoint_path, save_checkpoint
for step in itertools.count():
    save_checkpoint(checkpoint_path(Path(sys.argv[1]), step % 3),
                    {"step": step, "x": torch.full((1_000_000,), float(step))})
    print(step, flush=True)
"""


def test_kill_while_writing_leaves_a_usable_checkpoint(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITE_FOREVER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    with writer, writer.stdout as lines:
        for _ in range(4):
            assert lines.readline()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            # Frozen first, so that the kill surely falls into a write.
            writer.send_signal(signal.SIGSTOP)
            if list(tmp_path.glob(".*.splatir-tmp")):
                break
            writer.send_signal(signal.SIGCONT)
            time.sleep(0.002)
        writer.send_signal(signal.SIGKILL)
    assert list(tmp_path.glob(".*.splatir-tmp")), "no write was interrupted, nothing was tested"
    for path in tmp_path.glob("*.pt"):
        contents = load_checkpoint(path)
        assert torch.equal(contents["x"], torch.full((1_000_000,), float(contents["step"])))
    assert latest_checkpoint(tmp_path) is not None
    save_checkpoint(checkpoint_path(tmp_path, 9), {"step": 9})
    assert not list(tmp_path.glob(".*.splatir-tmp"))
