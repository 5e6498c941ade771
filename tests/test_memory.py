"""Freed memory is reused where the C library can be told so, and nothing else changes."""

import subprocess
import sys

import pytest

from splatir.commands.memory import keep_freed_memory


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc has the switch")
def test_blocks_that_were_freed_come_without_page_faults() -> None:
    code = """
import resource, sys, torch
from splatir.commands.memory import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else False
values = torch.ones(20_000_000)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        values * 2.0 + 1.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
faults()
print(int(kept), faults())
"""
    counts = {}
    for mode in ("keep", "default"):
        done = subprocess.run(
            [sys.executable, "-c", code, mode], capture_output=True, text=True, check=True
        )
        kept, counts[mode] = map(int, done.stdout.split())
        if mode == "keep" and not kept:
            pytest.skip("the C library is not glibc")
    assert counts["keep"] < 0.1 * counts["default"]
