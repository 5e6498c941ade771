import math

import numpy as np
import pytest
import torch
from gsplat.cuda._torch_impl import _spherical_harmonics as gsplat_spherical_harmonics
from scipy.special import sph_harm_y
from torch import Tensor

from splatir.maths.rotations import rotation_from_quat
from splatir.maths.spherical_harmonics import (
    degree_of,
    evaluate_basis,
    evaluate_sh,
    rotate_sh,
    rotation_matrices,
)


def unit_directions(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    d = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(d, dim=-1)


def random_rotation(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return rotation_from_quat(torch.randn(4, generator=generator, dtype=torch.float64))


def random_coefficients(count: int, degree: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, (degree + 1) ** 2, 3, generator=generator, dtype=torch.float64)


def test_degree_one_is_minus_y_z_minus_x() -> None:
    d = torch.tensor([[0.6, 0.0, 0.8]], dtype=torch.float64)
    c0, c1 = 0.28209479177387814, 0.4886025119029199
    expected = torch.tensor([[c0, 0.0, c1 * 0.8, -c1 * 0.6]], dtype=torch.float64)
    torch.testing.assert_close(evaluate_basis(d, 1), expected)


def test_basis_equals_scipys_complex_harmonics() -> None:
    """The real basis is sqrt(2) times the real and imaginary parts, phase (-1)^m included."""
    d = unit_directions(50)
    theta = np.arccos(d[:, 2].numpy())
    phi = np.arctan2(d[:, 1].numpy(), d[:, 0].numpy())
    basis = evaluate_basis(d, 4).numpy()
    for band in range(5):
        for m in range(-band, band + 1):
            value = sph_harm_y(band, abs(m), theta, phi)
            part = value.real if m == 0 else math.sqrt(2) * (value.imag if m < 0 else value.real)
            np.testing.assert_allclose(basis[:, band * (band + 1) + m], part, atol=1e-13)


@pytest.mark.parametrize("degree", range(5))
def test_values_and_gradients_equal_gsplats(degree: int) -> None:
    d = (unit_directions(40) * 3.7).requires_grad_()
    c = random_coefficients(40, 4).requires_grad_()
    ours = evaluate_sh(c, d, degree)
    theirs = gsplat_spherical_harmonics(degree, d, c)
    # gsplat's constants are written with 8 to 17 digits.
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)
    weights = unit_directions(40, seed=5)
    grads_ours = torch.autograd.grad((ours * weights).sum(), (c, d), allow_unused=degree == 0)
    grads_theirs = torch.autograd.grad((theirs * weights).sum(), (c, d), allow_unused=degree == 0)
    torch.testing.assert_close(grads_ours[0], grads_theirs[0], rtol=1e-6, atol=1e-7)
    if degree > 0:
        torch.testing.assert_close(grads_ours[1], grads_theirs[1], rtol=1e-6, atol=1e-7)


def test_basis_is_orthonormal() -> None:
    """Gauss-Legendre in z times equal steps in azimuth integrates products of degree 8 exactly."""
    z, weights = np.polynomial.legendre.leggauss(6)
    azimuth = np.arange(12) * 2 * np.pi / 12
    zz, pp = np.meshgrid(z, azimuth, indexing="ij")
    r = np.sqrt(1 - zz**2)
    d = torch.from_numpy(np.stack([r * np.cos(pp), r * np.sin(pp), zz], -1).reshape(-1, 3))
    w = torch.from_numpy(np.repeat(weights, 12) * 2 * np.pi / 12)
    basis = evaluate_basis(d, 4)
    gram = basis.mT @ (w[:, None] * basis)
    torch.testing.assert_close(gram, torch.eye(25, dtype=torch.float64), rtol=0, atol=1e-13)


def test_gradients_in_coefficients_and_directions() -> None:
    c = random_coefficients(3, 4).requires_grad_()
    d = (unit_directions(3) * 1.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda c, d: evaluate_sh(c, d, 4), (c, d))


def test_bands_above_the_degree_are_ignored_and_missing_ones_refused() -> None:
    c, d = random_coefficients(5, 3), unit_directions(5)
    torch.testing.assert_close(evaluate_sh(c, d, 1), evaluate_sh(c[:, :4], d, 1))
    with pytest.raises(ValueError, match="needs 25 coefficients"):
        evaluate_sh(c, d, 4)
    with pytest.raises(ValueError, match="degree 0 to 4"):
        evaluate_basis(d, 5)


@pytest.mark.parametrize("degree", range(5))
def test_rotated_function_at_rotated_direction_is_unchanged(degree: int) -> None:
    c, d, R = random_coefficients(20, degree), unit_directions(20), random_rotation(degree)
    before = evaluate_sh(c, d, degree)
    after = evaluate_sh(rotate_sh(c, R), d @ R.mT, degree)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12)


def test_rotation_matrices_are_orthogonal_and_compose() -> None:
    R, Q = random_rotation(3), random_rotation(4)
    for D_r, D_q, D_rq in zip(
        rotation_matrices(R, 4), rotation_matrices(Q, 4), rotation_matrices(R @ Q, 4), strict=True
    ):
        identity = torch.eye(len(D_r), dtype=torch.float64)
        torch.testing.assert_close(D_r @ D_r.mT, identity, rtol=0, atol=1e-12)
        torch.testing.assert_close(D_r @ D_q, D_rq, rtol=0, atol=1e-12)


def test_half_turn_about_z_negates_odd_orders() -> None:
    R = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))
    for band, D in enumerate(rotation_matrices(R, 4)):
        signs = torch.tensor([(-1.0) ** m for m in range(-band, band + 1)], dtype=torch.float64)
        torch.testing.assert_close(D, torch.diag(signs), rtol=0, atol=1e-12)


def test_reflection_or_scaled_block_is_refused() -> None:
    c = random_coefficients(1, 1)
    with pytest.raises(ValueError, match="must be a rotation"):
        rotate_sh(c, torch.diag(torch.tensor([1.0, 1.0, -1.0])))
    with pytest.raises(ValueError, match="must be a rotation"):
        rotate_sh(c, 2 * torch.eye(3))


def test_coefficient_counts_of_no_degree_are_refused() -> None:
    assert [degree_of(k) for k in (1, 4, 9, 16, 25)] == [0, 1, 2, 3, 4]
    for count in (0, 2, 8, 36):
        with pytest.raises(ValueError, match="fit no degree"):
            degree_of(count)
