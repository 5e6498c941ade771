"""Colours from spherical harmonics: value, gradient and culling, torch and native."""

import pytest
import torch
from gsplat.cuda._torch_impl import _spherical_harmonics
from torch import Tensor

from splatir.native.library import NativeLibrary
from splatir.scene.radiance import (
    radiance_colours,
    radiance_colours_native,
    radiance_colours_torch,
)
from tests.gradients import assert_grads_agree

NAMES = ("sh0", "shN", "means")
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
    assert_grads_agree(dict(zip(NAMES, got, strict=True)), dict(zip(NAMES, expected, strict=True)))
    assert not any(gradient[~visible].any() for gradient in got)


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("n", [1, 16, 203])
def test_native_colours_equal_torch(build: NativeLibrary, degree: int, n: int) -> None:
    """Values, gradients and which colours are cut, also where fewer bands are used than stored."""
    for stored in range(degree, 5):
        sh0, shN, means = make_inputs(n, stored)
        doubles = [value.detach().double().requires_grad_() for value in (sh0, shN, means)]
        visible = torch.arange(n) % 5 != 1
        weights = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
        got = radiance_colours_native(sh0, shN, means, CAMERA, degree, visible, build)
        expected = radiance_colours_torch(
            doubles[0], doubles[1], doubles[2], CAMERA.double(), degree, visible
        )
        assert torch.allclose(got.double(), expected, atol=2e-6)
        # Degree 0 knows neither direction nor higher bands: nothing is computed for them.
        count = 3 if degree > 0 else 1
        gradients = torch.autograd.grad((got * weights).sum(), [sh0, shN, means][:count])
        wanted = torch.autograd.grad((expected * weights).sum(), doubles[:count])
        assert_grads_agree(
            dict(zip(NAMES, gradients, strict=False)),
            dict(zip(NAMES, wanted, strict=False)),
            rel_l2=1e-5,
        )


@pytest.mark.parametrize("is_native", [False, True])
def test_degree_zero_gives_higher_bands_no_gradient(is_native: bool) -> None:
    """None and not zeros: an optimiser must not count steps that taught it nothing."""
    dtype = torch.float32 if is_native else torch.float64
    sh0, shN, means = make_inputs(5, 3, dtype)
    radiance_colours(sh0, shN, means, CAMERA.to(dtype), 0).sum().backward()
    assert sh0.grad is not None
    assert shN.grad is None and means.grad is None


def test_threads_do_not_change_a_bit(build: NativeLibrary) -> None:
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2):
        torch.set_num_threads(count)
        sh0, shN, means = make_inputs(1001, 3)
        visible = torch.arange(1001) % 7 != 1
        colours = radiance_colours_native(sh0, shN, means, CAMERA, 3, visible, build)
        results.append([colours, *torch.autograd.grad(colours.square().sum(), [sh0, shN, means])])
    torch.set_num_threads(threads)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


def test_too_few_coefficients_are_refused(build: NativeLibrary) -> None:
    sh0, shN, means = make_inputs(3, 2)
    with pytest.raises(ValueError, match="degree must lie in 0 to 2"):
        radiance_colours_native(sh0, shN, means, CAMERA, 3, None, build)
