"""Does metal grow as far as it may, and are patches of little core dropped?"""

import torch

from splatir.optim.metal_patches import grown_patches


def row(length: int, reach: int = 1) -> torch.Tensor:
    """Neighbours on a line: each itself and those within reach, ends repeated."""
    offsets = torch.arange(-reach, reach + 1)
    return (torch.arange(length)[:, None] + offsets).clamp(0, length - 1)


def chosen(length: int, *indices: int) -> torch.Tensor:
    return torch.isin(torch.arange(length), torch.tensor(indices))


def test_candidates_join_one_after_the_other_up_to_a_gap() -> None:
    cores, candidates = chosen(12, *range(6)), chosen(12, 6, 7, 8, 10)
    found = grown_patches(cores, candidates, torch.ones(12), row(12))
    assert torch.equal(found, chosen(12, *range(9)))


def test_a_core_that_could_not_grow_stays() -> None:
    cores = chosen(8, 2, 3)
    none = torch.zeros(8, dtype=torch.bool)
    assert torch.equal(grown_patches(cores, none, torch.ones(8), row(8)), cores)


def test_what_photos_hardly_show_carries_nothing_on() -> None:
    """The one between core and candidates weighs a tenth: a twentieth of what the next one sees."""
    weights = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.1, 1.0, 1.0, 1.0])
    cores, candidates = chosen(8, 0, 1, 2, 3), chosen(8, 4, 5)
    found = grown_patches(cores, candidates, weights, row(8))
    assert torch.equal(found, chosen(8, 0, 1, 2, 3, 4))


def test_a_small_core_amid_much_that_might_be_metal_is_dropped_and_a_large_one_stays() -> None:
    cores = chosen(20, 0, 1, 12, 13, 14, 15)
    candidates = chosen(20, 2, 3, 4, 5, 16)
    found = grown_patches(cores, candidates, torch.ones(20), row(20))
    assert torch.equal(found, chosen(20, 12, 13, 14, 15, 16))


def test_the_size_of_a_patch_is_what_photos_show_of_it() -> None:
    cores, candidates = chosen(6, 0), chosen(6, 1, 2)
    light = torch.tensor([1.0, 0.3, 0.2, 0.5, 1.0, 1.0])
    assert torch.equal(grown_patches(cores, candidates, light, row(6)), chosen(6, 0, 1, 2))
    heavy = torch.tensor([1.0, 0.8, 0.4, 0.0, 0.0, 0.0])
    assert not grown_patches(cores, candidates, heavy, row(6)).any()


def test_a_patch_that_photos_hardly_show_is_chance() -> None:
    cores = chosen(10, 0, 1, 8)
    weights = torch.tensor([1.0] * 8 + [0.05, 1.0])
    none = torch.zeros(10, dtype=torch.bool)
    assert torch.equal(grown_patches(cores, none, weights, row(10)), chosen(10, 0, 1))


def test_none_and_unseen_ones_are_no_fault() -> None:
    none = torch.zeros(5, dtype=torch.bool)
    assert not grown_patches(none, ~none, torch.ones(5), row(5)).any()
    assert not grown_patches(~none, ~none, torch.zeros(5), row(5)).any()
    assert len(grown_patches(none[:0], none[:0], torch.ones(0), row(1)[:0])) == 0
