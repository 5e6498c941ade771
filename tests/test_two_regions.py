"""The minimal cut of a picture into two regions."""

import pytest
import torch

from splatir.maths.two_regions import two_regions, without_dust


def test_without_neighbours_each_pixel_takes_its_cheaper_side() -> None:
    generator = torch.Generator().manual_seed(0)
    cost = torch.randn(9, 13, generator=generator)
    cost = cost + 0.1 * cost.sign()
    found = two_regions(cost, torch.rand(9, 13, 3, generator=generator), smoothness=0.0)
    assert torch.equal(found > 0.5, cost < 0.0)


@pytest.mark.parametrize("value, stays", [(3.5, False), (4.5, True)])
def test_a_lone_pixel_stays_if_it_is_worth_its_outline(value: float, stays: bool) -> None:
    """Four edges of weight 1 on a flat picture; all else costs too much to join in."""
    cost = torch.full((7, 7), 5.0)
    cost[3, 3] = -value
    found = two_regions(cost, torch.full((7, 7, 3), 0.5), smoothness=1.0, iterations=2000)
    assert bool(found[3, 3] > 0.5) == stays
    assert float(found.sum()) == pytest.approx(float(stays), abs=0.05)


def test_an_outline_snaps_to_the_edge_of_the_picture() -> None:
    """Costs say nothing between columns 5 and 15; the picture has its edge at 12."""
    cost = torch.zeros(20, 20)
    cost[:, :5], cost[:, 15:] = -1.0, 1.0
    picture = torch.zeros(20, 20, 3)
    picture[:, 12:] = 1.0
    found = two_regions(cost, picture, smoothness=2.0, iterations=2000) > 0.5
    assert bool(found[:, :12].all()) and not bool(found[:, 12:].any())


def test_dust_is_swept_and_small_holes_are_filled() -> None:
    mask = torch.zeros(40, 40)
    mask[5:30, 5:30] = 1.0
    mask[10, 10], mask[35, 35] = 0.0, 1.0
    mask[15:22, 15:22] = 0.0
    clean = without_dust(mask)
    assert float(clean[10, 10]) == 1.0 and float(clean[35, 35]) == 0.0
    assert not bool(clean[15:22, 15:22].any())
