"""Smoothness and entropy in the native library against torch in float64, on every build."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from splatir.native.library import NativeLibrary
from splatir.optim.bending import bending, bending_native, bending_torch
from splatir.optim.edge_aware import (
    edge_aware_variation,
    edge_aware_variation_native,
    edge_aware_variation_torch,
)
from splatir.optim.few_paints import paint_entropy_native, paint_entropy_torch
from tests.gradients import assert_grads_agree

SIZES = [(1, 1), (1, 5), (2, 2), (3, 40), (17, 16), (33, 5), (61, 83)]
FOCAL = 60.0


def random(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def gradient_of(value: Tensor, inputs: Tensor) -> Tensor:
    """Of three times the value; frames without any link have none."""
    if not value.requires_grad:
        return torch.zeros_like(inputs)
    return torch.autograd.grad(3.0 * value, inputs)[0]


def assert_same(value: Tensor, given: Tensor, expected: Tensor, given64: Tensor) -> None:
    """Values, and gradients of three times them."""
    assert value.dtype == torch.float32 and value.shape == ()
    assert value.item() == pytest.approx(expected.item(), rel=2e-6, abs=1e-7)
    got, wanted = gradient_of(value, given), gradient_of(expected, given64)
    if wanted.any():
        assert_grads_agree({"gradient": got}, {"gradient": wanted}, rel_l2=2e-5)
    else:
        assert not got.any()


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_variation(build: NativeLibrary, height: int, width: int, channels: int) -> None:
    values = random(height, width, channels, seed=0).requires_grad_()
    photo, alpha = random(height, width, 3, seed=1), random(height, width, 1, seed=2)
    sharpness = 20.0 * random(height, width, 1, seed=3)
    values64 = values.detach().double().requires_grad_()
    expected = edge_aware_variation_torch(
        values64, *(image.double() for image in (photo, alpha, sharpness))
    )
    got = edge_aware_variation_native(values, photo, alpha, sharpness, build)
    assert_same(got, values, expected, values64)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_bending(build: NativeLibrary, height: int, width: int) -> None:
    normals = random(height, width, 3, seed=0).requires_grad_()
    alpha, depth = random(height, width, 1, seed=1), 2.0 + 0.1 * random(height, width, 1, seed=2)
    depth[:, width // 2 :] += 1.0
    if height > 3:
        alpha[3], depth[3] = 0.0, 0.0
    normals64 = normals.detach().double().requires_grad_()
    expected = bending_torch(normals64, alpha.double(), depth.double(), FOCAL)
    got = bending_native(normals, alpha, depth, FOCAL, build)
    assert_same(got, normals, expected, normals64)


@pytest.mark.parametrize(("count", "num_paints"), [(1, 1), (3, 17), (40, 64), (512, 1000)])
def test_entropy(build: NativeLibrary, count: int, num_paints: int) -> None:
    albedo = (0.4 + 0.2 * random(count, 3, seed=0)).requires_grad_()
    paints = 0.4 + 0.2 * random(num_paints, 3, seed=1)
    # A colour like nothing else is pulled nowhere.
    albedo.data[-1] = torch.tensor([1.0, 0.0, 0.0])
    albedo64 = albedo.detach().double().requires_grad_()
    got = paint_entropy_native(albedo, paints, build)
    expected = paint_entropy_torch(albedo64, paints.double())
    assert got.item() == pytest.approx(expected.item(), rel=2e-6)
    pulls, wanted = gradient_of(got, albedo), gradient_of(expected, albedo64)
    assert float(pulls[-1].abs().max()) < 1e-9
    if count > 1:
        assert_grads_agree({"albedo": pulls[:-1]}, {"albedo": wanted[:-1]}, rel_l2=2e-5)


def test_nothing_depends_on_the_number_of_threads() -> None:
    photo, plane = random(31, 37, 3, seed=0), random(31, 37, 1, seed=1)
    values = photo.clone().requires_grad_()
    threads = torch.get_num_threads()
    found = []
    for count in (1, 2, 3, 5):
        torch.set_num_threads(count)
        terms = (
            edge_aware_variation(values, photo, plane, plane),
            bending(values, plane, plane + 1.0, FOCAL),
        )
        found.append([*terms, *(gradient_of(term, values) for term in terms)])
    torch.set_num_threads(threads)
    for others in found[1:]:
        assert all(bool((a == b).all()) for a, b in zip(found[0], others, strict=True))


def test_broken_values_reach_the_loss(build: NativeLibrary) -> None:
    values, plane = random(6, 7, 3, seed=0), torch.ones(6, 7, 1)
    values[2, 3, 1] = torch.nan
    assert edge_aware_variation_native(values, torch.zeros(6, 7, 3), plane, plane, build).isnan()
    assert bending_native(values, plane, plane, FOCAL, build).isnan()
    assert paint_entropy_native(values.flatten(0, 1), torch.ones(5, 3), build).isnan()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_empty_images_are_refused(dtype: torch.dtype) -> None:
    values, plane = torch.ones(0, 5, 3, dtype=dtype), torch.ones(0, 5, 1, dtype=dtype)
    with pytest.raises(ValueError, match="not empty"):
        edge_aware_variation(values, values, plane, plane)
    with pytest.raises(ValueError, match="not be empty"):
        bending(values, plane, plane, FOCAL)


def test_images_of_other_sizes_are_refused_where_shapes_are_not_checked() -> None:
    """As users run it: kernels must not read past the end of an image."""
    code = """
import torch
from splatir.optim.bending import bending
from splatir.optim.edge_aware import edge_aware_variation
values, plane = torch.ones(4, 5, 3), torch.ones(4, 5, 1)
for call in (
    lambda: edge_aware_variation(values, values, plane[:3], plane),
    lambda: bending(values, plane, plane[:, :4], 50.0),
):
    try:
        call()
    except ValueError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    variation, unevenness = done.stdout.splitlines()
    assert "must have the size of values" in variation and "(3, 5, 1)" in variation
    assert "must have one size" in unevenness and "(4, 4, 1)" in unevenness
