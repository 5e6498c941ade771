"""Second differences of normals: what is even is free, what is not has its price and gradient."""

import math

import pytest
import torch
from torch import Tensor

from splatir.maths.rotations import rotation_from_quat
from splatir.optim.bending import bending

FOCAL = 50.0


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ones(height: int, width: int) -> Tensor:
    return torch.ones(height, width, 1, dtype=torch.float64)


def price(normals: Tensor, alpha: Tensor | None = None, depth: Tensor | None = None) -> float:
    """Of a solid plane that faces the camera, unless said otherwise."""
    flat = ones(*normals.shape[:2])
    alpha, depth = flat if alpha is None else alpha, flat if depth is None else depth
    return bending(normals, alpha, depth, FOCAL).item()


def test_value_is_the_weighted_sum_of_second_differences_per_pixel() -> None:
    height, width = 5, 7
    normals, alpha = random(height, width, 3), random(height, width, 1, seed=1)
    depth = 2.0 + 0.2 * random(height, width, 1, seed=2)
    expected = 0.0
    for y in range(height):
        for x in range(width):
            for dy, dx in ((1, 0), (0, 1)):
                places = [(y + k * dy, x + k * dx) for k in (-1, 0, 1)]
                if not all(0 <= j < height and 0 <= i < width for j, i in places):
                    continue
                a, b, c = (normals[place] for place in places)
                near = [1.0 / depth[place].item() for place in places]
                jump = FOCAL * abs(near[0] - 2.0 * near[1] + near[2]) / near[1]
                weight = min(alpha[place].item() for place in places) * math.exp(-jump / 3.0)
                squared = (a - 2.0 * b + c).square().sum().item()
                expected += weight * ((squared + 1e-6) ** 0.5 - 1e-3)
    assert price(normals, alpha, depth) == pytest.approx(expected / (height * width), rel=1e-9)


def test_slopes_are_free_and_steps_are_not() -> None:
    across = torch.arange(8, dtype=torch.float64).expand(6, 8)[..., None]
    slope = across * torch.tensor([0.1, -0.2, 0.05], dtype=torch.float64)
    assert price(slope) == pytest.approx(0.0, abs=1e-12)
    step = (across >= 4).double() * torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    # Each of six rows has two second differences of length 1.
    assert price(step) == pytest.approx(12 / 48, rel=2e-3)
    # Nothing is asked of what no Gaussian covers.
    assert price(step, 0.0 * ones(6, 8), 0.0 * ones(6, 8)) == 0.0


def test_normals_may_jump_where_one_surface_hides_another_but_not_on_a_slanted_plane() -> None:
    across = torch.arange(8, dtype=torch.float64).expand(6, 8)[..., None]
    step = (across >= 4).double() * torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    # 1 / z of a plane is linear in the pixel.
    plane = 1.0 / (0.5 + 0.02 * across)
    assert price(step, depth=plane) == pytest.approx(price(step), rel=1e-9)
    hidden = torch.where(across >= 4, 3.0, 2.0)
    assert price(step, depth=hidden) < 0.02 * price(step)


def test_turning_all_normals_and_the_unit_of_length_change_nothing() -> None:
    normals, alpha, depth = random(6, 5, 3), random(6, 5, 1, seed=1), 1.0 + random(6, 5, 1, seed=2)
    R = rotation_from_quat(torch.tensor([0.3, -0.5, 0.7, 0.2], dtype=torch.float64))
    expected = price(normals, alpha, depth)
    assert price(normals @ R.mT, alpha, depth) == pytest.approx(expected, rel=1e-12)
    assert price(normals, alpha, 1e3 * depth) == pytest.approx(expected, rel=1e-9)


def test_gradient_is_right_and_reaches_the_normals_alone() -> None:
    normals, alpha = random(4, 5, 3).requires_grad_(), random(4, 5, 1, seed=1).requires_grad_()
    depth = (1.0 + random(4, 5, 1, seed=2)).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda n: bending(n, alpha.detach(), depth.detach(), FOCAL), (normals,)
    )
    bending(normals, alpha, depth, FOCAL).backward()
    assert alpha.grad is None and depth.grad is None
    flat = torch.zeros(4, 5, 3, requires_grad=True)
    bending(flat, torch.ones(4, 5, 1), torch.ones(4, 5, 1), FOCAL).backward()
    assert flat.grad is not None and bool((flat.grad == 0.0).all())


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (1, 4), (4, 2)])
def test_small_frames(height: int, width: int) -> None:
    normals = random(height, width, 3)
    assert price(normals) == pytest.approx(price(normals.movedim(0, 1)))
