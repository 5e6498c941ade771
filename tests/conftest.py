"""Fixtures and the two kinds of test that not every machine can run."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import PIL.Image  # noqa: F401 - before any test imports pycolmap, see splatir/__init__.py
import pytest
import torch

if TYPE_CHECKING:
    # At run time only inside of fixtures: shapes are checked in modules that load after this one.
    from splatir.native.library import NativeLibrary

# Development scenes, outside the project: tests that use them skip where they are absent.
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip marked tests, with the reason in the summary, where their means are missing."""
    no_cuda = pytest.mark.skip(reason="no CUDA device")
    no_data = pytest.mark.skip(reason="development scenes are not on this machine")
    for item in items:
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(no_cuda)
        if item.get_closest_marker("shared_data") and not SHARED_DATA.is_dir():
            item.add_marker(no_data)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the development scenes; use with `@pytest.mark.shared_data`."""
    return SHARED_DATA


@pytest.fixture(params=["avx512", "avx2", "baseline"])
def build(request: pytest.FixtureRequest) -> "NativeLibrary":
    """Each build of the native library that this processor runs."""
    from splatir.native.library import available, library, load

    isa = request.param
    if not available() or not library().supports_this_processor(isa):
        pytest.skip(f"no native library that this processor runs for {isa}")
    return load(isa)


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a capture, a finished run of it and old.ply; tests must leave it as it is."""
    from tests.faults import write_results

    folder = tmp_path_factory.mktemp("results")
    write_results(folder)
    return folder


@pytest.fixture
def command(results: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """A `FailingCommand`; whatever it ran must have left the results as they were."""
    from splatir.commands.main import main
    from tests.faults import contents, the_error

    before = contents(results)

    def fail(*words: str | Path, code: int = 1) -> str:
        capsys.readouterr()
        returned = main([str(word) for word in words])
        printed = capsys.readouterr()
        assert returned == code, printed
        return the_error(printed.err, printed.out)

    yield fail
    after = contents(results)
    assert after.keys() == before.keys()
    assert [name for name in before if before[name] != after[name]] == []
