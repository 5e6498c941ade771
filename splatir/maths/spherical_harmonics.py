"""Real spherical harmonics in the sign convention of splat files: basis, evaluation, rotation.

Order within a band is m = -l..l (sine terms, zonal, cosine terms) and the Condon-Shortley phase is
kept, so band 1 is (-y, z, -x) times sqrt(3 / 4 pi): what 3DGS files and gsplat hold.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

MAX_DEGREE = 4
# The constant basis function of degree 0: a splat's mean colour is 0.5 + SH_DC * sh0.
SH_DC = 0.5 / math.sqrt(math.pi)


def num_coefficients(degree: int) -> int:
    """Number of coefficients of all bands up to `degree`, (degree + 1)^2."""
    return (degree + 1) ** 2


def degree_of(num_coefficients: int) -> int:
    """Degree whose bands have this many coefficients in all.

    Raises:
        ValueError: The count is not a square from 1 to 25.
    """
    degree = math.isqrt(max(num_coefficients, 1)) - 1
    if (degree + 1) ** 2 != num_coefficients or degree > MAX_DEGREE:
        raise ValueError(
            f"{num_coefficients} spherical harmonic coefficients per channel fit no degree; "
            "degrees 0 to 4 have 1, 4, 9, 16 and 25."
        )
    return degree


def _check_degree(degree: int) -> None:
    if not 0 <= degree <= MAX_DEGREE:
        raise ValueError(f"spherical harmonics have degree 0 to {MAX_DEGREE} here, got {degree}.")


def evaluate_basis(
    directions: Float[Tensor, "*batch 3"], degree: int
) -> Float[Tensor, "*batch coefficients"]:
    """Values of all real spherical harmonics up to `degree`.

    Y_lm = sqrt(2 - [m = 0]) K_lm Q_lm(z) Re or Im (x + i y)^|m|, where Q_lm is the associated
    Legendre function divided by (1 - z^2)^(|m|/2), a polynomial given by the usual three-term
    recurrence, and K_lm makes the basis orthonormal over the sphere.

    Args:
        directions: Unit vectors. Other lengths give no meaningful value.
        degree: Highest band, 0 to 4.

    Returns:
        (degree + 1)^2 values, bands in order, m = -l..l within each.

    Raises:
        ValueError: A degree that is not supported.
    """
    _check_degree(degree)
    x, y, z = directions.unbind(-1)
    columns: list[Tensor] = [z] * num_coefficients(degree)
    cosine, sine = torch.ones_like(z), torch.zeros_like(z)
    leading = torch.ones_like(z)
    for m in range(degree + 1):
        below, legendre = torch.zeros_like(z), leading
        for band in range(m, degree + 1):
            norm = _normalisation(band, m)
            centre = band * (band + 1)
            columns[centre + m] = norm * legendre * cosine
            if m > 0:
                columns[centre - m] = norm * legendre * sine
            above = ((2 * band + 1) * z * legendre - (band + m) * below) / (band + 1 - m)
            below, legendre = legendre, above
        leading = -(2 * m + 1) * leading
        cosine, sine = x * cosine - y * sine, x * sine + y * cosine
    return torch.stack(columns, dim=-1)


def _normalisation(band: int, m: int) -> float:
    """K_lm, with the sqrt(2) of the real basis folded in for m > 0."""
    area = (2 * band + 1) / (4 * math.pi) * math.factorial(band - m) / math.factorial(band + m)
    return math.sqrt(area if m == 0 else 2 * area)


def evaluate_sh_torch(
    coefficients: Float[Tensor, "n k 3"], directions: Float[Tensor, "n 3"], degree: int
) -> Float[Tensor, "n 3"]:
    """`evaluate_sh` in plain torch: any device and floating dtype, the reference for others."""
    used = num_coefficients(degree)
    if coefficients.shape[1] < used:
        raise ValueError(
            f"degree {degree} needs {used} coefficients per channel, got {coefficients.shape[1]}."
        )
    basis = evaluate_basis(torch.nn.functional.normalize(directions, dim=-1), degree)
    return (basis[:, :, None] * coefficients[:, :used]).sum(1)


def evaluate_sh(
    coefficients: Float[Tensor, "n k 3"], directions: Float[Tensor, "n 3"], degree: int
) -> Float[Tensor, "n 3"]:
    """Evaluate one spherical function per row: sum_k c_k Y_k(d / |d|).

    Differentiable in both arguments. The 0.5 that splat colours add is not added here.

    Args:
        coefficients: Per row, coefficient and channel; bands above `degree` are ignored.
        directions: Any non-zero length. For splats: from the camera to the centre.
        degree: Highest band used, 0 to 4.

    Raises:
        ValueError: Fewer coefficients than the degree needs, or a degree that is not supported.
    """
    return evaluate_sh_torch(coefficients, directions, degree)


def rotate_sh(
    coefficients: Float[Tensor, "*batch k channels"], R_a_b: Float[Tensor, "3 3"]
) -> Float[Tensor, "*batch k channels"]:
    """Coefficients, in frame a, of functions whose coefficients in frame b are given.

    For every direction, sum c_a Y(R_a_b d) = sum c_b Y(d). Bands do not mix, so this is exact: one
    matrix of size 2 l + 1 per band, computed in float64. Differentiable in the coefficients only.

    Args:
        coefficients: All bands up to some degree of at most 4, in frame b.
        R_a_b: Rotation from frame b to frame a.

    Raises:
        ValueError: The number of coefficients fits no degree, or `R_a_b` is no proper rotation.
    """
    degree = degree_of(coefficients.shape[-2])
    rotation = rotation_matrices(R_a_b, degree)
    parts = []
    for band, matrix in enumerate(rotation):
        part = coefficients[..., band**2 : (band + 1) ** 2, :]
        parts.append(matrix.to(part) @ part)
    return torch.cat(parts, dim=-2)


def rotation_matrices(R_a_b: Float[Tensor, "3 3"], degree: int) -> list[Float[Tensor, "m m"]]:
    """Real Wigner matrices D_l with Y_l(R_a_b d) = D_l Y_l(d), one per band, float64.

    D_l is what maps the basis at many well-spread directions to the basis at their images; the
    system is consistent, so the least-squares solution is exact to rounding.

    Raises:
        ValueError: `R_a_b` is not a rotation to within 1e-4.
    """
    _check_degree(degree)
    R = R_a_b.detach().double()
    identity = torch.eye(3, dtype=R.dtype, device=R.device)
    if not torch.allclose(R @ R.mT, identity, atol=1e-4) or torch.linalg.det(R) < 0:
        raise ValueError(
            "R_a_b must be a rotation (orthonormal, determinant 1), "
            f"got {R.tolist()}. Divide a similarity's block by its scale first."
        )
    directions = spread_directions(64).to(R)
    before = evaluate_basis(directions, degree)
    after = evaluate_basis(directions @ R.mT, degree)
    matrices = []
    for band in range(degree + 1):
        columns = slice(band**2, (band + 1) ** 2)
        matrices.append(torch.linalg.lstsq(before[:, columns], after[:, columns]).solution.mT)
    return matrices


def spread_directions(count: int) -> Float[Tensor, "n 3"]:
    """Near-uniform unit vectors, float64, from +z to -z: the Fibonacci lattice on the sphere.

    Args:
        count: How many.
    """
    index = torch.arange(count, dtype=torch.float64) + 0.5
    z = 1 - 2 * index / count
    azimuth = index * math.pi * (3 - math.sqrt(5))
    radius = (1 - z * z).sqrt()
    return torch.stack([radius * azimuth.cos(), radius * azimuth.sin(), z], dim=-1)
