"""Backend selection: the fastest that runs, one warning where that is the slow one."""

import warnings

import pytest
import torch

import splatir.raster.selection as selection
from splatir.native import library
from splatir.raster.selection import rasterizer

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def forget_warnings() -> None:
    selection._warn_that_it_is_slow.cache_clear()


def test_auto_on_a_cuda_device_is_gsplat() -> None:
    assert rasterizer("auto", torch.device("cuda")).name == "gsplat"


@pytest.mark.skipif(not library.available(), reason="native library is not built")
def test_auto_on_the_cpu_is_native_where_built() -> None:
    assert rasterizer("auto", CPU).name == "cpu"
    assert rasterizer("cpu", CPU).name == "cpu"


def test_auto_without_native_library_warns_once_how_to_build(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(library, "why_unavailable", lambda: "not built. Build it with: X")
    with pytest.warns(UserWarning, match="hundreds of times slower: not built. Build it with: X"):
        assert rasterizer("auto", CPU).name == "reference"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rasterizer("auto", CPU).name == "reference"


def test_reference_by_name_does_not_warn() -> None:
    assert rasterizer("reference", CPU).name == "reference"
    assert rasterizer("reference", torch.device("cuda")).name == "reference"


def test_backends_on_the_wrong_device_are_refused() -> None:
    with pytest.raises(ValueError, match="gsplat rasteriser needs a CUDA device, got cpu"):
        rasterizer("gsplat", CPU)
    with pytest.raises(ValueError, match="cpu rasteriser needs tensors on the CPU, got cuda"):
        rasterizer("cpu", torch.device("cuda"))
