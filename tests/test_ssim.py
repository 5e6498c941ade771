import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d
from torch import Tensor

from splatir.maths.ssim import Padding, gaussian_window, ssim, ssim_torch


def random_image(height: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(height, width, 3, generator=generator, dtype=torch.float64)


def ssim_of_moments(a: Tensor, b: Tensor, smooth) -> float:
    """The formula over any smoother of numpy channels; written apart from the code under test."""
    values = []
    for x, y in zip(a.numpy().transpose(2, 0, 1), b.numpy().transpose(2, 0, 1), strict=True):
        mx, my = smooth(x), smooth(y)
        vx, vy, cxy = smooth(x * x) - mx**2, smooth(y * y) - my**2, smooth(x * y) - mx * my
        top = (2 * mx * my + 1e-4) * (2 * cxy + 9e-4)
        values.append(top / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
    return float(np.mean(values))


@pytest.mark.parametrize("size", [(23, 31), (11, 5), (3, 2), (1, 1)])
def test_zero_padding_equals_a_dense_convolution(size: tuple[int, int]) -> None:
    a, b = random_image(*size, 0), random_image(*size, 1)
    w = gaussian_window(a).numpy()
    window = np.outer(w, w)
    expected = ssim_of_moments(a, b, lambda x: convolve2d(np.pad(x, 5), window, mode="valid"))
    assert ssim(a, b).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("size", [(23, 31), (11, 5), (3, 2)])
def test_symmetric_padding_equals_scipys_gaussian_filter(size: tuple[int, int]) -> None:
    a, b = random_image(*size, 0), random_image(*size, 1)
    expected = ssim_of_moments(a, b, lambda x: gaussian_filter(x, 1.5, truncate=3.34))
    assert ssim_torch(a, b, "symmetric").item() == pytest.approx(expected, abs=1e-12)


def test_window_is_normalised_and_has_eleven_taps() -> None:
    window = gaussian_window(torch.zeros(1, dtype=torch.float64))
    assert len(window) == 11
    assert window.sum().item() == pytest.approx(1.0, abs=1e-15)
    assert (window[5] / window[4]).item() == pytest.approx(np.exp(0.5 / 2.25))


@pytest.mark.parametrize("padding", ["zero", "symmetric"])
def test_equal_images_score_one_and_order_does_not_matter(padding: Padding) -> None:
    a, b = random_image(20, 17, 0), random_image(20, 17, 1)
    assert ssim_torch(a, a, padding).item() == pytest.approx(1.0, abs=1e-12)
    assert ssim_torch(a, b, padding).item() == pytest.approx(ssim_torch(b, a, padding).item())
    assert ssim_torch(a, b, padding).item() < 0.5


def test_constant_images_score_the_luminance_term() -> None:
    a, b = torch.full((12, 12, 3), 0.5), torch.full((12, 12, 3), 0.25)
    expected = (2 * 0.5 * 0.25 + 1e-4) / (0.5**2 + 0.25**2 + 1e-4)
    assert ssim_torch(a, b, "symmetric").item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("padding", ["zero", "symmetric"])
def test_gradients_in_both_images(padding: Padding) -> None:
    a, b = random_image(6, 7, 0).requires_grad_(), random_image(6, 7, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: ssim_torch(a, b, padding), (a, b), fast_mode=True)


def test_empty_images_are_refused() -> None:
    with pytest.raises(ValueError, match="one size"):
        ssim_torch(random_image(0, 5, 0), random_image(0, 5, 0))
