"""Normals against normals from depth: native, torch, and what the loss means."""

import pytest
import torch
from torch import Tensor

from splatir.native.library import NativeLibrary
from splatir.optim.normal_consistency import (
    normal_consistency,
    normal_consistency_native,
    normal_consistency_torch,
)
from splatir.render.geometry import normals_from_depth
from splatir.scene.camera import Camera
from tests.gradients import assert_grads_agree
from tests.scenes import random_camera
from tests.surfaces import plane_depth

Images = tuple[Tensor, Tensor, Tensor]


def make_images(camera: Camera, dtype: torch.dtype = torch.float32) -> Images:
    """Alpha with holes, the depth of a bumpy surface and normals that do not fit it."""
    generator = torch.Generator().manual_seed(camera.height * 1000 + camera.width)
    size = (camera.height, camera.width, 1)
    alpha = 0.92 + 0.07 * torch.rand(size, generator=generator)
    alpha[torch.rand(size, generator=generator) < 0.03] = 0.3
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    waves = 0.3 * ((x / 9).sin() * (y / 7).cos())[..., None]
    expected = 3.0 + waves + 0.01 * torch.rand(size, generator=generator)
    direction = torch.randn(*size[:2], 3, generator=generator)
    normals = alpha * torch.nn.functional.normalize(direction, dim=-1)
    depth, normals = (alpha * expected).to(dtype), normals.to(dtype)
    return alpha.to(dtype), depth.requires_grad_(), normals.requires_grad_()


def in_float64(images: Images) -> Images:
    alpha, depth, normals = (image.detach().double() for image in images)
    return alpha, depth.requires_grad_(), normals.requires_grad_()


@pytest.mark.parametrize(("height", "width"), [(3, 3), (3, 40), (17, 16), (33, 5), (61, 83)])
def test_native_loss_equals_torch(build: NativeLibrary, height: int, width: int) -> None:
    camera = random_camera(width, height, seed=0)
    images = make_images(camera)
    if (height, width) == (3, 3):
        images[0].fill_(0.95)
    got = normal_consistency_native(*images, camera, 0.7, build)
    images64 = in_float64(images)
    expected = normal_consistency_torch(*images64, camera.to(dtype=torch.float64), 0.7)
    assert got.item() == pytest.approx(expected.item(), abs=1e-6)
    for factor in (1.0, 3.0):
        gradients = torch.autograd.grad(factor * got, images[1:], retain_graph=True)
        wanted = torch.autograd.grad(factor * expected, images64[1:], retain_graph=True)
        names = ("depth", "normals")
        assert_grads_agree(
            dict(zip(names, gradients, strict=True)), dict(zip(names, wanted, strict=True))
        )


def test_torch_gradient_is_right() -> None:
    camera = random_camera(6, 5, seed=0).to(dtype=torch.float64)
    alpha, depth, normals = make_images(camera, torch.float64)
    alpha.fill_(0.95)
    assert torch.autograd.gradcheck(
        lambda z, n: normal_consistency_torch(alpha, z, n, camera), (depth, normals)
    )


@pytest.mark.parametrize("native", [False, True])
def test_tilted_plane_with_its_own_normal_has_no_error(native: bool) -> None:
    camera = random_camera(24, 20, seed=0)
    normal_camera = torch.nn.functional.normalize(torch.tensor([0.3, -0.4, -0.8]), dim=0)
    normal_world = camera.T_world_camera[:3, :3] @ normal_camera
    alpha = torch.full((20, 24, 1), 0.95)
    depth = alpha * plane_depth(camera, normal_camera, 2.0)
    normals = alpha * normal_world
    loss = normal_consistency if native else normal_consistency_torch
    assert loss(alpha, depth, normals, camera).abs() < 1e-6
    # Turned away by 60 degrees, each of the 18 x 22 inner pixels errs by alpha (1 - 1/2).
    side = torch.linalg.cross(normal_world, torch.tensor([0.0, 0.0, 1.0]))
    turned = 0.5 * normal_world + 0.75**0.5 * torch.nn.functional.normalize(side, dim=0)
    expected = 0.95 * 0.5 * (18 * 22) / (20 * 24)
    got = loss(alpha, depth, (alpha * turned).contiguous(), camera)
    assert got.item() == pytest.approx(expected, rel=1e-5)


def test_pixels_next_to_a_silhouette_do_not_count(build: NativeLibrary) -> None:
    """Whatever is behind or in the holes, also NaN, neither value nor gradient sees it."""
    camera = random_camera(40, 30, seed=0)
    alpha, depth, normals = make_images(camera)
    alpha[:, 20:] = 0.0
    reference = normal_consistency_native(alpha, depth, normals, camera, library=build)
    spoilt_depth, spoilt_normals = depth.detach().clone(), normals.detach().clone()
    spoilt_depth[:, 20:], spoilt_normals[:, 20:] = torch.nan, torch.nan
    spoilt = (spoilt_depth.requires_grad_(), spoilt_normals.requires_grad_())
    value = normal_consistency_native(alpha, *spoilt, camera, library=build)
    assert value == reference
    for gradient in torch.autograd.grad(value, spoilt):
        assert gradient.isfinite().all() and gradient.any()
        assert not gradient[:, 20:].any()


def test_neighbours_of_no_plane_have_no_normal_and_no_gradient(build: NativeLibrary) -> None:
    """Zero depth puts all neighbours into the camera's centre."""
    camera = random_camera(24, 20, seed=0)
    alpha, _, normals = make_images(camera)
    alpha.fill_(0.95)
    depth = torch.zeros_like(alpha).requires_grad_()
    for value in (
        normal_consistency_native(alpha, depth, normals, camera, library=build),
        normal_consistency_torch(alpha, depth, normals, camera),
    ):
        assert value.item() == pytest.approx(0.95 * (18 * 22) / (20 * 24), rel=1e-6)
        for gradient in torch.autograd.grad(value, (depth, normals)):
            assert not gradient.any()


def test_a_broken_depth_reaches_the_loss(build: NativeLibrary) -> None:
    camera = random_camera(24, 20, seed=0)
    alpha, depth, normals = make_images(camera)
    alpha.fill_(0.95)
    depth.detach()[10, 10] = torch.nan
    assert normal_consistency_native(alpha, depth, normals, camera, library=build).isnan()


def test_threads_do_not_change_a_bit(build: NativeLibrary) -> None:
    threads = torch.get_num_threads()
    camera = random_camera(45, 97, seed=0)
    results = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        images = make_images(camera)
        value = normal_consistency_native(*images, camera, library=build)
        results.append([value.detach(), *torch.autograd.grad(value, images[1:])])
    torch.set_num_threads(threads)
    for one, *others in zip(*results, strict=True):
        assert all(torch.equal(one, other) for other in others)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 5), (5, 1), (1, 40)])
def test_images_without_an_inner_pixel_have_no_loss(
    build: NativeLibrary, height: int, width: int
) -> None:
    camera = random_camera(width, height, seed=0)
    images = make_images(camera)
    for value in (
        normal_consistency_native(*images, camera, library=build),
        normal_consistency_torch(*images, camera),
    ):
        assert value.item() == 0.0
        for gradient in torch.autograd.grad(value, images[1:]):
            assert not gradient.any()


def test_value_is_the_same_without_gradients(build: NativeLibrary) -> None:
    camera = random_camera(50, 33, seed=0)
    images = make_images(camera)
    value = normal_consistency_native(*images, camera, library=build)
    with torch.no_grad():
        alone = normal_consistency_native(*images, camera, library=build)
    assert alone.item() == pytest.approx(value.item(), abs=1e-7)
    assert value.requires_grad and not alone.requires_grad


def test_alpha_gets_no_gradient() -> None:
    camera = random_camera(24, 20, seed=0)
    alpha, depth, normals = make_images(camera)
    alpha.requires_grad_()
    for loss in (normal_consistency, normal_consistency_torch):
        (gradient,) = torch.autograd.grad(
            loss(alpha, depth, normals, camera), [alpha], allow_unused=True
        )
        assert gradient is None


def test_gradient_pulls_depth_towards_the_normals() -> None:
    """Descent on a flat depth image recovers the tilt that the normals state."""
    camera = random_camera(16, 16, seed=0)
    normal_camera = torch.nn.functional.normalize(torch.tensor([0.5, 0.0, -1.0]), dim=0)
    alpha = torch.full((16, 16, 1), 0.99)
    normals = alpha * (camera.T_world_camera[:3, :3] @ normal_camera)
    depth = (alpha * 2.0).requires_grad_()
    optimiser = torch.optim.Adam([depth], lr=0.03)
    for _ in range(40):
        optimiser.zero_grad()
        normal_consistency(alpha, depth, normals, camera).backward()
        optimiser.step()
    got = normals_from_depth(depth.detach() / alpha, camera)[1:-1, 1:-1]
    assert ((got * normals[1:-1, 1:-1]).sum(-1) > 0.98).all()


def test_images_of_another_size_than_the_camera_are_refused() -> None:
    images = make_images(random_camera(24, 20, seed=0))
    for camera in (random_camera(20, 24, seed=0), random_camera(23, 20, seed=0)):
        with pytest.raises(ValueError, match=r"camera's size, 2\d x 2\d.*\(20, 24\)"):
            normal_consistency(*images, camera)
        with pytest.raises(ValueError, match="camera's size"):
            normal_consistency_torch(*images, camera)
