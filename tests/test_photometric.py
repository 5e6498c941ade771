"""L1 + SSIM: the native comparison against torch in float64, and what the loss means."""

import pytest
import torch
from torch import Tensor

from splatir.maths.native_comparison import compare_images
from splatir.maths.photometric import photometric_loss, photometric_loss_torch
from splatir.maths.ssim import ssim, ssim_torch
from splatir.native.library import NativeLibrary
from tests.gradients import assert_grads_agree


def make_images(height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """A photo with structure, a rendering that is noisy and shifted, and weights of pixels."""
    generator = torch.Generator().manual_seed(height * 1000 + width)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    waves = torch.stack([(x / 5).sin(), (y / 7).cos(), ((x + y) / 9).sin()], -1)
    photo = 0.5 + 0.4 * waves
    image = photo + 0.1 * torch.randn(photo.shape, generator=generator) - 0.05
    return image.requires_grad_(), photo, torch.rand(height, width, generator=generator)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 40), (17, 16), (33, 5), (61, 83)])
@pytest.mark.parametrize("ssim_weight", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("masked", [False, True])
def test_native_loss_equals_torch(
    build: NativeLibrary, height: int, width: int, ssim_weight: float, masked: bool
) -> None:
    image, photo, weights = make_images(height, width)
    pixel_weights = weights if masked else None
    got = ssim_weight + compare_images(
        image, photo, 1 - ssim_weight, -ssim_weight, pixel_weights, build
    )
    image64 = image.detach().double().requires_grad_()
    expected = photometric_loss_torch(
        image64, photo.double(), ssim_weight, weights.double() if masked else None
    )
    assert got.item() == pytest.approx(expected.item(), abs=1e-6)
    (gradient,) = torch.autograd.grad(3.0 * got, image)
    (wanted,) = torch.autograd.grad(3.0 * expected, image64)
    assert_grads_agree({"image": gradient}, {"image": wanted}, rel_l2=2e-5)


def test_flat_images_keep_their_gradient(build: NativeLibrary) -> None:
    """Variances are differences of nearly equal numbers there and lose digits in float32."""
    photo = torch.full((40, 40, 3), 0.9)
    noise = torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    image = (photo + 1e-3 * noise).requires_grad_()
    image64 = image.detach().double().requires_grad_()
    (got,) = torch.autograd.grad(compare_images(image, photo, 0.0, 1.0, None, build), image)
    (expected,) = torch.autograd.grad(ssim_torch(image64, photo.double()), image64)
    assert_grads_agree({"image": got}, {"image": expected}, rel_l2=2e-3, cosine=0.9999)


def test_equal_images_have_similarity_one_and_no_gradient(build: NativeLibrary) -> None:
    _, photo, _ = make_images(30, 31)
    image = photo.clone().requires_grad_()
    value = compare_images(image, photo, 1.0, -1.0, None, build)
    (gradient,) = torch.autograd.grad(value, image)
    assert value.item() == pytest.approx(-1.0, abs=1e-6)
    assert gradient.abs().max() < 1e-7


def test_threads_do_not_change_a_bit(build: NativeLibrary) -> None:
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2):
        torch.set_num_threads(count)
        image, photo, weights = make_images(97, 45)
        value = compare_images(image, photo, 0.8, -0.2, weights, build)
        results.append([value.detach(), *torch.autograd.grad(value, image)])
    torch.set_num_threads(threads)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


def test_non_contiguous_images_are_taken_as_they_look() -> None:
    image, photo, _ = make_images(20, 30)
    turned = image.detach().transpose(0, 1).contiguous().transpose(0, 1)
    assert ssim(turned, photo) == ssim(image, photo)


def test_gradients_to_both_images_exist() -> None:
    image, photo, _ = make_images(20, 30)
    photo.requires_grad_()
    gradients = torch.autograd.grad(ssim(image, photo), [image, photo])
    assert all(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_empty_images_are_refused(dtype: torch.dtype) -> None:
    nothing = torch.zeros(0, 5, 3, dtype=dtype)
    with pytest.raises(ValueError, match=r"one size.*\(0, 5, 3\)"):
        photometric_loss(nothing, nothing, 0.2)


def test_loss_has_the_right_gradient() -> None:
    image, photo, weights = make_images(6, 7)
    assert torch.autograd.gradcheck(
        lambda x: photometric_loss_torch(x, photo.double(), 0.3, weights.double()),
        image.detach().double().requires_grad_(),
    )
