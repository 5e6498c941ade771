"""Second differences of a buffer: what is even is free, what is not has its price and gradient."""

import pytest
import torch
from torch import Tensor

from splatir.maths.rotations import rotation_from_quat
from splatir.optim.bending import bending


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def solid(height: int, width: int) -> Tensor:
    return torch.ones(height, width, 1, dtype=torch.float64)


def test_value_is_the_weighted_sum_of_second_differences_per_pixel() -> None:
    height, width = 5, 7
    values, alpha = random(height, width, 2), random(height, width, 1, seed=1)
    expected = 0.0
    for y in range(height):
        for x in range(width):
            for dy, dx in ((1, 0), (0, 1)):
                places = [(y + k * dy, x + k * dx) for k in (-1, 0, 1)]
                if not all(0 <= j < height and 0 <= i < width for j, i in places):
                    continue
                a, b, c = (values[place] for place in places)
                weight = min(alpha[place].item() for place in places)
                squared = (a - 2.0 * b + c).square().sum().item()
                expected += weight * ((squared + 1e-6) ** 0.5 - 1e-3)
    assert bending(values, alpha).item() == pytest.approx(expected / (height * width), rel=1e-9)


def test_slopes_are_free_and_steps_are_not() -> None:
    across = torch.arange(8, dtype=torch.float64).expand(6, 8)[..., None]
    slope = across * torch.tensor([0.1, -0.2, 0.05], dtype=torch.float64)
    assert bending(slope, solid(6, 8)).item() == pytest.approx(0.0, abs=1e-12)
    step = (across >= 4).double()
    # Each of six rows has two second differences of length 1.
    assert bending(step, solid(6, 8)).item() == pytest.approx(12 / 48, rel=2e-3)
    # Nothing is asked of what no Gaussian covers.
    assert bending(step, 0.0 * solid(6, 8)).item() == 0.0


def test_turning_all_values_changes_nothing() -> None:
    values, alpha = random(6, 5, 3), random(6, 5, 1, seed=1)
    R = rotation_from_quat(torch.tensor([0.3, -0.5, 0.7, 0.2], dtype=torch.float64))
    turned = bending(values @ R.mT, alpha)
    assert turned.item() == pytest.approx(bending(values, alpha).item(), rel=1e-12)


def test_gradient_is_right_and_reaches_the_values_alone() -> None:
    values, alpha = random(4, 5, 3).requires_grad_(), random(4, 5, 1, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: bending(v, alpha.detach()), (values,))
    bending(values, alpha).backward()
    assert alpha.grad is None
    flat = torch.zeros(4, 5, 3, requires_grad=True)
    bending(flat, torch.ones(4, 5, 1)).backward()
    assert flat.grad is not None and bool((flat.grad == 0.0).all())


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (1, 4), (4, 2)])
def test_small_frames(height: int, width: int) -> None:
    values = random(height, width, 3)
    expected = bending(values.movedim(0, 1), solid(width, height)).item()
    assert bending(values, solid(height, width)).item() == pytest.approx(expected)
