import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from splatir.evaluate.metrics import (
    ImageScores,
    mean_scores,
    on_white,
    psnr,
    psnr_fg,
    psnr_full,
    score_image,
    ssim_full,
)
from splatir.maths.ssim import ssim


def pictures(height: int = 24, width: int = 33) -> tuple[np.ndarray, ...]:
    """Two pictures with values beyond [0, 1] in the first, and their alphas."""
    rng = np.random.default_rng(0)
    a = rng.normal(0.5, 0.4, (height, width, 3))
    b = rng.random((height, width, 3))
    return a, b, rng.random((height, width)), (rng.random((height, width)) > 0.4).astype(float)


def protocol_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM with scipy's Gaussian filter: 11 taps, mirrored borders."""

    def smooth(x: np.ndarray) -> np.ndarray:
        return np.stack([gaussian_filter(x[..., c], 1.5, truncate=3.34) for c in range(3)], -1)

    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
    cov = smooth(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + 1e-4) * (2 * cov + 9e-4)
    return float((top / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))).mean())


def test_psnr_of_a_known_error() -> None:
    a = np.zeros((2, 2, 3))
    assert psnr(a, a + 0.1) == pytest.approx(20.0)
    assert psnr(a, a) == pytest.approx(100.0)
    mask = np.array([[True, False], [False, False]])
    b = a.copy()
    b[0, 0] = 0.01
    assert psnr(a, b, mask) == pytest.approx(40.0)


def test_scores_follow_the_protocol() -> None:
    a, b, alpha_a, alpha_b = pictures()
    x = np.clip(a, 0, 1) * alpha_a[..., None] + 1 - alpha_a[..., None]
    y = b * alpha_b[..., None] + 1 - alpha_b[..., None]
    scores = score_image(a, b, alpha_a, alpha_b)
    assert scores.psnr_full == pytest.approx(-10 * np.log10(((x - y) ** 2).mean()), abs=1e-9)
    inside = alpha_b > 0.5
    expected = -10 * np.log10(((x - y)[inside] ** 2).mean())
    assert scores.psnr_fg == pytest.approx(expected, abs=1e-9)
    assert scores.ssim == pytest.approx(protocol_ssim(x, y), abs=1e-12)


def test_arrays_and_tensors_of_any_dtype_score_alike() -> None:
    a, b, alpha_a, alpha_b = (x.astype(np.float32) for x in pictures())
    arrays = score_image(a, b, alpha_a, alpha_b)
    tensors = score_image(*(torch.from_numpy(x).requires_grad_() for x in (a, b, alpha_a, alpha_b)))
    mixed = score_image(torch.from_numpy(a), b, alpha_a, torch.from_numpy(alpha_b))
    assert arrays == tensors == mixed


def test_pictures_without_alpha_are_opaque() -> None:
    a, b, _, _ = pictures()
    ones = np.ones(a.shape[:2])
    assert psnr_full(a, b) == psnr_full(a, b, ones, ones)
    assert ssim_full(a, b) == ssim_full(a, b, ones, ones)
    assert score_image(a, b).psnr_fg is None
    assert psnr_fg(a, b, None, ones) == psnr_full(a, b)


def test_empty_masks_have_no_foreground_score() -> None:
    a, b, alpha_a, _ = pictures()
    assert psnr_fg(a, b, alpha_a, np.zeros(a.shape[:2])) is None
    with pytest.raises(ValueError, match="no pixels"):
        psnr(a, b, np.zeros(a.shape[:2], bool))


def test_colour_behind_full_transparency_does_not_count() -> None:
    a, _, _, _ = pictures()
    zeros = np.zeros(a.shape[:2])
    assert (on_white(a, zeros) == 1.0).all()
    assert psnr_full(a, 1 - a, zeros, zeros) == pytest.approx(100.0)


def test_pictures_that_are_not_finite_are_refused() -> None:
    a, b, _, _ = pictures()
    a[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="1 values that are not finite"):
        psnr_full(a, b)


def test_training_and_evaluation_ssim_differ_at_the_border_only() -> None:
    """Inside the frame both windows hold the same pixels; at the border zeros raise the value."""
    _, b, _, _ = pictures(60, 60)
    a = torch.from_numpy(np.clip(b + 0.1 * np.random.default_rng(1).normal(size=b.shape), 0, 1))
    evaluation, training = ssim_full(a, b), float(ssim(a, torch.from_numpy(b)))
    assert 0 < training - evaluation < 0.02


def test_means_skip_pictures_without_foreground() -> None:
    mean = mean_scores([ImageScores(20.0, 10.0, 0.5), ImageScores(30.0, None, 0.75)])
    assert mean == ImageScores(25.0, 10.0, 0.625)
    assert mean_scores([ImageScores(20.0, None, 0.5)]).psnr_fg is None
    with pytest.raises(ValueError, match="no pictures"):
        mean_scores([])
