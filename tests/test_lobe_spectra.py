"""Lobes on a latitude-longitude grid: the closed form against quadrature, and what both keep."""

import math

import pytest
import torch
from torch import Tensor

from splatir.scene.lights import environment_directions, texel_solid_angles
from splatir.shade.lobe_spectra import sampled_spectrum, sharp_spectrum

# Parts of a texel's side in the quadrature.
PARTS = 15


def weights_of(spectrum: Tensor, width: int) -> Tensor:
    """Shares [row of the axis, row, column] for an axis at the centre of column 0."""
    return torch.fft.irfft(spectrum, n=width, dim=0).permute(1, 2, 0)


def shares_by_quadrature(height: int, row: int, roughness: float) -> Tensor:
    """Shares of the lobe D(cos(t/2)) cos t around the first texel of a row."""
    like = torch.empty(0, dtype=torch.float64)
    axis = environment_directions(height, 2 * height, like)[row, 0]
    fine = environment_directions(height * PARTS, 2 * height * PARTS, like)
    angles = texel_solid_angles(height * PARTS, 2 * height * PARTS, like)[:, None]
    cosine = fine @ axis
    value = cosine.clamp_min(0.0) / ((1.0 + cosine) * 0.5 * (roughness**4 - 1.0) + 1.0).square()
    shares = (value * angles).unflatten(1, (-1, PARTS)).sum(2).unflatten(0, (-1, PARTS)).sum(1)
    return shares / shares.sum()


@pytest.mark.parametrize("row", [0, 1, 13, 23])
@pytest.mark.parametrize("roughness", [0.2, 0.25])
def test_closed_form_is_the_integral_of_the_lobe_over_texels(row: int, roughness: float) -> None:
    """Within what cos^4(t/2) differs from cos t, 0.6 alpha^2 of the weight."""
    height = 48
    got = weights_of(sharp_spectrum(height, 2 * height, roughness), 2 * height)[row]
    expected = shares_by_quadrature(height, row, roughness)
    assert (got.double() - expected).abs().sum() < 2.5 * roughness**4
    near = expected > 0.01
    torch.testing.assert_close(got.double()[near], expected[near], rtol=0.01, atol=0.0)


@pytest.mark.parametrize(("height", "width"), [(32, 64), (33, 66), (48, 95)])
def test_shares_are_not_negative_and_sum_to_one(height: int, width: int) -> None:
    for spectrum in (sharp_spectrum(height, width, 0.2), sampled_spectrum(height, width, 0.5, 64)):
        shares = weights_of(spectrum, width)
        torch.testing.assert_close(shares.sum((1, 2)), torch.ones(len(shares)), rtol=1e-4, atol=0.0)
        assert shares.min() > -1e-6 * shares.max()


def test_closed_form_agrees_with_samples_of_both_halves() -> None:
    """Rows of the lower half are those of the upper one upside down."""
    height, width, roughness = 64, 128, 0.2
    sampled = sampled_spectrum(height, width, roughness, 7 * height)
    upper = sharp_spectrum(height, width, roughness)
    torch.testing.assert_close(upper, sampled[:, :32], atol=0.02, rtol=0.0)
    torch.testing.assert_close(upper.flip(1, 2), sampled[:, 32:], atol=0.02, rtol=0.0)
    assert math.isclose(float(upper[0].sum()), 32.0, rel_tol=1e-4)
