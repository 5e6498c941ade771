"""Colours from spherical harmonics: value, gradient and culling, torch and native."""

import pytest
import torch
from gsplat.cuda._torch_impl import _spherical_harmonics
from torch import Tensor

from splatir.scene.radiance import radiance_colours, radiance_colours_torch
from tests.gradients import assert_grads_agree

CAMERA = torch.tensor([0.3, -2.0, 1.1])


def make_inputs(
    n: int, stored: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """sh0, shN of `stored` degrees, means; some colours end below zero."""
    generator = torch.Generator().manual_seed(n + stored)
    k = (stored + 1) ** 2
    shapes = [(n, 1, 3), (n, k - 1, 3), (n, 3)]
    sh0, shN, means = (
        torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes
    )
    return sh0, shN, means


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 4])
def test_torch_colours_equal_gsplat(degree: int) -> None:
    sh0, shN, means = make_inputs(200, 4, torch.float64)
    camera = CAMERA.double()
    got = radiance_colours_torch(sh0, shN, means, camera, degree)
    expected = _spherical_harmonics(degree, means - camera, torch.cat([sh0, shN], 1)) + 0.5
    assert torch.allclose(got, expected.clamp_min(0), atol=1e-9)
    assert (got == 0).any()


def test_torch_colours_have_the_right_gradient() -> None:
    inputs = make_inputs(3, 4, torch.float64)
    assert torch.autograd.gradcheck(
        lambda *x: radiance_colours_torch(x[0], x[1], x[2], CAMERA.double(), 3), inputs
    )


def test_hidden_gaussians_are_black_and_get_no_gradient() -> None:
    inputs = make_inputs(40, 2)
    visible = torch.arange(40) % 3 == 0
    colours = radiance_colours(*inputs, CAMERA, 2, visible)
    everything = radiance_colours(*inputs, CAMERA, 2)
    assert not colours[~visible].any()
    assert torch.equal(colours[visible], everything[visible])
    got = torch.autograd.grad(colours.sum(), inputs)
    expected = torch.autograd.grad(everything[visible].sum(), inputs)
    names = ("sh0", "shN", "means")
    assert_grads_agree(dict(zip(names, got, strict=True)), dict(zip(names, expected, strict=True)))
    assert not any(gradient[~visible].any() for gradient in got)
