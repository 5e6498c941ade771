"""Do the kernels of normals and planes give what torch gives, on every instruction set?"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from splatir.native.build import instruction_sets
from splatir.native.library import NativeLibrary, available, load
from splatir.scene.gaussians import Gaussians, Primitive
from splatir.scene.normals import facing_normals_native, facing_normals_torch
from splatir.scene.planes import inverse_depth_planes_native, inverse_depth_planes_torch
from tests.gradients import assert_grads_agree
from tests.scenes import random_camera

pytestmark = pytest.mark.skipif(not available(), reason="the native library is not built")
_COUNT = 300
_POSITION = torch.tensor([0.3, -0.2, 0.1])


@pytest.fixture(params=list(instruction_sets()))
def kernels(request: pytest.FixtureRequest) -> NativeLibrary:
    if not load("baseline").supports_this_processor(request.param):
        pytest.skip(f"this processor does not have {request.param}")
    return load(request.param)


def _gaussians(primitive: Primitive) -> Gaussians:
    generator = torch.Generator().manual_seed(4)
    quats = 3.0 * torch.randn(_COUNT, 4, generator=generator)
    scales = torch.rand(_COUNT, 3, generator=generator) + 0.01
    # Spheres: the first of equal axes counts.
    scales[:3] = 0.5
    means = torch.randn(_COUNT, 3, generator=generator)
    return Gaussians(means, quats.requires_grad_(), scales, torch.ones(_COUNT), primitive)


def _value_and_gradient(compute: Callable[[], Tensor], leaf: Tensor) -> tuple[Tensor, Tensor]:
    value = compute()
    weights = torch.randn(value.shape, generator=torch.Generator().manual_seed(7))
    (gradient,) = torch.autograd.grad((value * weights.to(value)).sum(), leaf)
    return value.detach(), gradient


@pytest.mark.parametrize("past_horizon", [0.0, 0.2])
@pytest.mark.parametrize("primitive", ["ellipsoid", "surfel"])
def test_facing_normals(kernels: NativeLibrary, primitive: Primitive, past_horizon: float) -> None:
    gaussians = _gaussians(primitive)

    def native() -> Tensor:
        return facing_normals_native(gaussians, _POSITION, kernels, past_horizon)

    def in_torch() -> Tensor:
        return facing_normals_torch(gaussians, _POSITION, past_horizon)

    got, got_gradient = _value_and_gradient(native, gaussians.quats)
    want, want_gradient = _value_and_gradient(in_torch, gaussians.quats)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=0.0)
    cosines = (torch.nn.functional.normalize(_POSITION - gaussians.means, dim=-1) * got).sum(-1)
    assert cosines.min() >= -past_horizon
    assert bool((cosines < 0.0).any()) == (past_horizon > 0.0)
    assert_grads_agree({"quats": got_gradient}, {"quats": want_gradient})


def test_planes_steep_and_flat(kernels: NativeLibrary) -> None:
    generator = torch.Generator().manual_seed(5)
    T = random_camera(24, 16, seed=2).T_camera_world
    in_camera = torch.randn(_COUNT, 3, generator=generator) + torch.tensor([0.0, 0.0, 4.0])
    means = ((in_camera - T[:3, 3]) @ T[:3, :3]).requires_grad_()
    normals = torch.nn.functional.normalize(
        torch.randn(_COUNT, 3, generator=generator) + 0.5, dim=-1
    )

    def native() -> Tensor:
        return inverse_depth_planes_native(means, normals, T, kernels)

    exact = means.detach().double().requires_grad_()

    def in_torch() -> Tensor:
        return inverse_depth_planes_torch(exact, normals.double(), T.double())

    got, got_gradient = _value_and_gradient(native, means)
    want, want_gradient = _value_and_gradient(in_torch, exact)
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-4)
    assert_grads_agree({"means": got_gradient}, {"means": want_gradient})


def test_a_plane_along_the_line_of_sight_and_none_at_all(kernels: NativeLibrary) -> None:
    T = torch.eye(4)
    means = torch.tensor([[0.0, 0.0, 2.0]], requires_grad=True)
    planes = inverse_depth_planes_native(means, torch.tensor([[1.0, 0.0, 0.0]]), T, kernels)
    (gradient,) = torch.autograd.grad(planes.sum(), means)
    assert planes.detach()[0, 2] == pytest.approx(0.5)
    assert gradient.isfinite().all()
    assert inverse_depth_planes_native(means[:0], means[:0], T, kernels).shape == (0, 3)
