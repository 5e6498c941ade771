"""The sRGB curve: known values, its inverse, and the native library against torch in float64."""

import pytest
import torch
from torch import Tensor

from splatir.maths.colour import (
    linear_from_srgb,
    linear_from_srgb_torch,
    mixed_in_linear_light,
    srgb_from_linear,
    srgb_from_linear_torch,
)
from splatir.maths.native_curve import Direction, srgb_curve_native
from splatir.native.library import NativeLibrary

REFERENCES = {
    "srgb_from_linear": srgb_from_linear_torch,
    "linear_from_srgb": linear_from_srgb_torch,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_known_values(dtype: torch.dtype) -> None:
    """Both ends, the toe, and mid-grey: sRGB 128 of 255 is a linear 0.2158605."""
    linear = torch.tensor([0.0, 1.0, 0.001, 0.2158605, -0.001], dtype=dtype)
    srgb = torch.tensor([0.0, 1.0, 0.01292, 128.0 / 255.0, -0.01292], dtype=dtype)
    assert torch.allclose(srgb_from_linear(linear), srgb, atol=3e-7)
    assert torch.allclose(linear_from_srgb(srgb), linear, atol=3e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_undoes_the_other(dtype: torch.dtype) -> None:
    values = torch.linspace(-0.2, 4.0, 5000, dtype=dtype)
    accuracy = 2e-6 if dtype == torch.float32 else 1e-7
    assert torch.allclose(linear_from_srgb(srgb_from_linear(values)), values, atol=accuracy)
    assert torch.allclose(srgb_from_linear(linear_from_srgb(values)), values, atol=accuracy)


@pytest.mark.parametrize("direction", ["srgb_from_linear", "linear_from_srgb"])
@pytest.mark.parametrize("shape", [(), (3,), (17, 1), (40_001,)])
def test_native_curve_equals_torch(
    build: NativeLibrary, direction: Direction, shape: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(0)
    values = (-0.1 + 4.0 * torch.rand(shape, generator=generator) ** 3).requires_grad_()
    values64 = values.detach().double().requires_grad_()
    got, expected = srgb_curve_native(direction, values, build), REFERENCES[direction](values64)
    assert got.shape == values.shape
    assert torch.allclose(got.double(), expected, rtol=1e-6, atol=1e-8)
    cotangent = torch.rand(shape, generator=generator)
    (slope,) = torch.autograd.grad(got, values, cotangent)
    (slope64,) = torch.autograd.grad(expected, values64, cotangent.double())
    assert torch.allclose(slope.double(), slope64, rtol=2e-6)


def test_native_curve_of_what_is_no_colour(build: NativeLibrary) -> None:
    """NaN and infinity stay what they are; so do the signs and what lies in another order."""
    infinity = float("inf")
    odd = torch.tensor([float("nan"), infinity, -infinity, 1e30, 1e-30])

    def same(a: Tensor, b: Tensor) -> bool:
        return torch.allclose(a, b, rtol=2e-5, equal_nan=True)

    table = torch.linspace(0.0, 1.0, 60).view(6, 10).mT
    for direction in ("srgb_from_linear", "linear_from_srgb"):
        reference = REFERENCES[direction]
        assert same(srgb_curve_native(direction, odd, build), reference(odd))
        assert same(srgb_curve_native(direction, table, build), reference(table))


@pytest.mark.parametrize("function", [srgb_from_linear_torch, linear_from_srgb_torch])
def test_gradients(function) -> None:
    values = torch.tensor([-0.1, 0.002, 0.02, 0.2, 0.9, 1.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(function, (values.requires_grad_(),))


def test_light_of_two_surfaces_in_a_pixel_adds_up() -> None:
    white, black, half = torch.ones(3), torch.zeros(3), torch.tensor([0.5])
    # sRGB of half of white.
    expected = torch.full((3,), 0.735357)
    torch.testing.assert_close(mixed_in_linear_light(white, half, black), expected)
    torch.testing.assert_close(mixed_in_linear_light(black, half, white), expected)
    grey = torch.tensor([0.2, 0.4, 0.6])
    torch.testing.assert_close(mixed_in_linear_light(grey, half, grey), grey)
    torch.testing.assert_close(mixed_in_linear_light(grey, torch.ones(1), white), grey)
    torch.testing.assert_close(mixed_in_linear_light(-grey, torch.ones(1), white), black)


def test_slopes_of_mixed_light() -> None:
    generator = torch.Generator().manual_seed(0)
    own, behind = torch.rand(2, 5, 3, dtype=torch.float64, generator=generator)
    alpha = torch.rand(5, 1, dtype=torch.float64, generator=generator)
    inputs = [x.requires_grad_() for x in (own, alpha, behind)]
    assert torch.autograd.gradcheck(mixed_in_linear_light, inputs)
