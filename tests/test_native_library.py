"""Which build is loaded, how it refuses what it cannot take, and the thread pool under it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from splatir.native import build as native_build
from splatir.native import library as native_library
from splatir.native.build import BuildFailed, CompilerMissing, build, instruction_sets, library_name
from splatir.native.library import NativeLibrary, NativeLibraryMissing, available, library, load
from splatir.raster.contract import RasterOptions
from splatir.raster.cpu import CpuBackend
from tests.scenes import outputs_and_gradients, random_scene

needs_library = pytest.mark.skipif(not available(), reason="the native library is not built")
needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("c++", "g++", "clang++")), reason="no C++ compiler"
)


@needs_library
def test_the_fastest_build_that_the_processor_runs_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(native_library.ISA_VARIABLE, raising=False)
    runs = [isa for isa in instruction_sets() if load("baseline").supports_this_processor(isa)]
    assert library().isa == runs[0]
    assert runs[-1] == "baseline"


@needs_library
def test_the_environment_can_force_a_slower_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native_library.ISA_VARIABLE, "baseline")
    assert library().isa == "baseline"
    assert library() is load("baseline")
    monkeypatch.setenv(native_library.ISA_VARIABLE, "sse9")
    with pytest.raises(ValueError, match=r"must be one of .*baseline.*'sse9'"):
        library()


def test_a_missing_library_says_how_to_build_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(native_library.DIRECTORY_VARIABLE, str(tmp_path))
    with pytest.raises(NativeLibraryMissing, match=r"missing.*python -m splatir\.native\.build"):
        NativeLibrary("baseline")


def test_a_file_that_is_no_library_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / library_name("baseline")).write_bytes(b"no library")
    monkeypatch.setenv(native_library.DIRECTORY_VARIABLE, str(tmp_path))
    with pytest.raises(NativeLibraryMissing, match="cannot be loaded"):
        NativeLibrary("baseline")


@needs_library
def test_a_library_of_other_sources_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_library, "source_hash", lambda: "0" * 16)
    with pytest.raises(NativeLibraryMissing, match="other sources"):
        NativeLibrary("baseline")


@needs_library
@pytest.mark.parametrize(
    "tensor", [torch.zeros(4, 4).T[1:], torch.zeros(3, device="meta")], ids=["strided", "meta"]
)
def test_tensors_without_plain_memory_are_refused(tensor: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="argument 1 must be a contiguous CPU tensor"):
        library().call("splatir_processor_supports", 0, tensor)


@needs_library
def test_an_unknown_function_is_an_error() -> None:
    with pytest.raises(AttributeError, match="splatir_no_such_kernel"):
        library().call("splatir_no_such_kernel")


def test_a_machine_without_compiler_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(CompilerMissing, match=r"no C\+\+ compiler.*Install one"):
        build(tmp_path)
    with pytest.raises(CompilerMissing, match="no-such-compiler"):
        build(tmp_path, compiler="no-such-compiler")
    assert list(tmp_path.iterdir()) == []


@needs_compiler
def test_a_failed_build_shows_the_compilers_words_and_keeps_the_old_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sources, out = tmp_path / "src", tmp_path / "out"
    sources.mkdir()
    out.mkdir()
    (sources / "broken.cpp").write_text("int f() { return undeclared_name; }\n")
    kept = out / library_name("baseline")
    kept.write_bytes(b"old")
    monkeypatch.setattr(native_build, "SOURCE_DIR", sources)
    with pytest.raises(BuildFailed, match="undeclared_name"):
        build(out)
    assert kept.read_bytes() == b"old"
    assert [path.name for path in out.iterdir()] == [kept.name], "scratch files were left"


@needs_compiler
def test_a_build_gives_every_instruction_set_its_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sources, out = tmp_path / "src", tmp_path / "out"
    sources.mkdir()
    for name in ("abi.h", "library.cpp"):
        shutil.copy(native_build.SOURCE_DIR / name, sources)
    monkeypatch.setattr(native_build, "SOURCE_DIR", sources)
    built = build(out)
    assert [path.name for path in built] == [library_name(isa) for isa in instruction_sets()]
    assert all(path.is_file() for path in built)


_IN_A_CHILD = """
import os, torch
from splatir.raster.cpu import CpuBackend
from tests.scenes import random_scene, rasterize

torch.set_num_threads(2)
scene = random_scene(400, 1)
want = rasterize(CpuBackend(), scene).features
child = os.fork()
if child == 0:
    # The parent's pool threads do not exist here.
    same = torch.equal(rasterize(CpuBackend(), scene).features, want)
    os._exit(0 if same else 1)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0
assert torch.equal(rasterize(CpuBackend(), scene).features, want)
"""


@needs_library
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_the_thread_pool_survives_a_fork() -> None:
    result = subprocess.run(
        [sys.executable, "-c", _IN_A_CHILD],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@needs_library
def test_more_threads_than_work_is_no_fault() -> None:
    before = torch.get_num_threads()
    scene = random_scene(3, 2, width=5, height=4)
    _, want = outputs_and_gradients(CpuBackend(), scene, RasterOptions())
    try:
        torch.set_num_threads(16)
        _, got = outputs_and_gradients(CpuBackend(), scene, RasterOptions())
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(got[key], want[key]) for key in want)


@needs_library
def test_an_instruction_set_the_processor_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native_library.ISA_VARIABLE, "baseline")
    monkeypatch.setattr(NativeLibrary, "supports_this_processor", lambda self, isa: False)
    with pytest.raises(ValueError, match="does not have"):
        library()


@needs_compiler
def test_where_there_is_a_compiler_no_native_test_is_skipped_for_a_missing_library() -> None:
    assert native_library.why_unavailable() is None
