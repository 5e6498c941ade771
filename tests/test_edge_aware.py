"""Variation of a buffer away from the photo's edges: value, edges, coverage, gradient."""

import math

import pytest
import torch
from torch import Tensor

from splatir.optim.edge_aware import edge_aware_variation


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def frame(height: int, width: int, value: float) -> Tensor:
    return torch.full((height, width, 1), value, dtype=torch.float64)


def test_value_is_the_weighted_mean_of_differences() -> None:
    height, width = 5, 7
    values, photo = random(height, width, 2), random(height, width, 3, seed=1)
    alpha, sharpness = random(height, width, 1, seed=2), 9.0 * random(height, width, 1, seed=3)
    expected = 0.0
    for y in range(height):
        for x in range(width):
            for j, i in ((y + 1, x), (y, x + 1)):
                if j == height or i == width:
                    continue
                strictness = min(sharpness[y, x].item(), sharpness[j, i].item())
                edge = math.exp(-strictness * (photo[y, x] - photo[j, i]).abs().mean().item())
                weight = edge * min(alpha[y, x].item(), alpha[j, i].item())
                expected += weight * (values[y, x] - values[j, i]).abs().mean().item()
    got = edge_aware_variation(values, photo, alpha, sharpness)
    assert got.item() == pytest.approx(expected / (height * width), rel=1e-12)


@pytest.mark.parametrize("channels", [1, 3])
def test_gradient_is_right_and_reaches_the_values_alone(channels: int) -> None:
    values = random(4, 5, channels).requires_grad_()
    photo = random(4, 5, 3, seed=1).requires_grad_()
    alpha, sharpness = frame(4, 5, 0.8), frame(4, 5, 3.0)
    assert torch.autograd.gradcheck(
        lambda v: 2.0 * edge_aware_variation(v, photo.detach(), alpha, sharpness), (values,)
    )
    edge_aware_variation(values, photo, alpha, sharpness).backward()
    assert photo.grad is None


def test_an_edge_of_the_photo_allows_one_of_the_buffer() -> None:
    step = torch.zeros(4, 6, 3, dtype=torch.float64)
    step[:, 3:] = 1.0
    alpha, sharpness = frame(4, 6, 1.0), frame(4, 6, 20.0)
    with_edge = edge_aware_variation(step, step, alpha, sharpness)
    without = edge_aware_variation(step, torch.zeros_like(step), alpha, sharpness)
    assert without.item() == pytest.approx(4 / 24)
    assert with_edge.item() == pytest.approx(4 / 24 * math.exp(-20.0))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 4), (4, 1)])
def test_frames_of_one_row_or_column_have_a_value(height: int, width: int) -> None:
    values = random(height, width, 1).requires_grad_()
    photo = torch.zeros(height, width, 3, dtype=torch.float64)
    value = edge_aware_variation(
        values, photo, frame(height, width, 1.0), frame(height, width, 1.0)
    )
    value.backward()
    assert value.isfinite() and values.grad is not None and values.grad.isfinite().all()
