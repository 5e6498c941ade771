"""Is the native backward pass of features alone the full one without its geometry?"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from splatir.native.build import instruction_sets
from splatir.native.library import NativeLibrary, available, library, load
from splatir.raster.contract import RasterOptions
from splatir.raster.cpu import CpuBackend
from splatir.raster.reference.backend import ReferenceBackend
from splatir.scene.gaussians import Primitive
from tests.gradients import assert_grads_agree
from tests.scenes import ADVERSARIAL, RasterScene, all_outputs, images, random_scene, rasterize

pytestmark = pytest.mark.skipif(not available(), reason="the native library is not built")

PRIMITIVES: tuple[Primitive, ...] = ("ellipsoid", "surfel")


@pytest.fixture(params=list(instruction_sets()))
def backend(request: pytest.FixtureRequest) -> CpuBackend:
    """The backend with each build that this processor runs."""
    if not library().supports_this_processor(request.param):
        pytest.skip(f"this processor does not run {request.param}")
    return CpuBackend(load(request.param))


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the kernels that run, but those that release memory."""
    called: list[str] = []
    call = NativeLibrary.call

    def counting(self: NativeLibrary, name: str, *args: Any) -> int:
        if not name.endswith("_release"):
            called.append(name)
        return call(self, name, *args)

    monkeypatch.setattr(NativeLibrary, "call", counting)
    yield called


def _gradients(
    backend: CpuBackend | ReferenceBackend,
    scene: RasterScene,
    names: tuple[str, ...],
    options: RasterOptions,
) -> dict[str, Tensor]:
    """Of a fixed random linear function of all images, where only `names` learn."""
    tensors = {
        key: value.clone().requires_grad_(key in names) for key, value in scene.leaves().items()
    }
    generator = torch.Generator().manual_seed(9)
    loss = torch.zeros((), dtype=scene.features.dtype)
    for image in images(rasterize(backend, scene.with_leaves(tensors), options)).values():
        loss = loss + (image * torch.randn(image.shape, generator=generator)).sum()
    loss.backward()
    found = {key: value.grad for key, value in tensors.items()}
    assert {key for key, grad in found.items() if grad is not None} == set(names)
    return {key: grad for key, grad in found.items() if grad is not None}


@pytest.mark.parametrize("primitive", PRIMITIVES)
@pytest.mark.parametrize("channels", [1, 5, 16, 43])
def test_gradients_are_those_of_the_reference(
    primitive: Primitive, channels: int, backend: CpuBackend
) -> None:
    scene = random_scene(150, 3, primitive, 45, 38, channels)
    options = replace(all_outputs(primitive), absgrad=True, detached_features=channels // 2)
    names = ("features", "background")
    got = _gradients(backend, scene, names, options)
    want = _gradients(ReferenceBackend(), scene.to(torch.float64), names, options)
    assert_grads_agree(got, want)


@pytest.mark.parametrize("primitive", PRIMITIVES)
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_gradients_of_adversarial_scenes_do_not_depend_on_what_else_learns(
    name: str, primitive: Primitive
) -> None:
    scene = ADVERSARIAL[name](primitive)
    options = all_outputs(primitive)
    alone = _gradients(CpuBackend(), scene, ("features",), options)
    together = _gradients(CpuBackend(), scene, ("features", "means"), options)
    torch.testing.assert_close(alone["features"], together["features"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_same_bits_for_any_number_of_threads(primitive: Primitive) -> None:
    scene = random_scene(1500, 4, primitive, 121, 75, 7)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(_gradients(CpuBackend(), scene, ("features",), RasterOptions()))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(other["features"], results[0]["features"]) for other in results[1:])


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_frozen_geometry_runs_no_kernel_that_differentiates_it(
    primitive: Primitive, kernels: list[str]
) -> None:
    scene = random_scene(30, 5, primitive)
    _gradients(CpuBackend(), scene, ("features", "background"), RasterOptions(absgrad=True))
    backward = [name for name in kernels if "backward" in name]
    assert backward == [f"splatir_{primitive}s_backward_features"]


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_opacities_alone_run_no_backward_of_the_projection(
    primitive: Primitive, kernels: list[str]
) -> None:
    scene = random_scene(30, 6, primitive)
    got = _gradients(CpuBackend(), scene, ("opacities",), RasterOptions())
    assert [name for name in kernels if "backward" in name] == [f"splatir_{primitive}s_backward"]
    want = _gradients(CpuBackend(), scene, ("opacities", "means"), RasterOptions())
    assert torch.equal(got["opacities"], want["opacities"])


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_a_loss_that_does_not_see_the_features_gives_them_zero(primitive: Primitive) -> None:
    scene = random_scene(30, 7, primitive)
    features = scene.features.clone().requires_grad_()
    output = rasterize(CpuBackend(), replace(scene, features=features))
    output.alpha.sum().backward()
    assert features.grad is not None and not features.grad.any()


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_a_background_that_learns_alone_gets_the_transmittance(
    primitive: Primitive, kernels: list[str]
) -> None:
    scene = random_scene(200, 8, primitive)
    assert scene.background is not None
    background = scene.background.clone().requires_grad_()
    output = rasterize(CpuBackend(), replace(scene, background=background))
    output.features.sum().backward()
    assert background.grad is not None
    torch.testing.assert_close(background.grad, (1 - output.alpha).sum().expand(3))
    assert not any("backward" in name for name in kernels)


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_backward_of_features_can_run_twice(primitive: Primitive) -> None:
    scene = random_scene(100, 9, primitive)
    features = scene.features.clone().requires_grad_()
    loss = rasterize(CpuBackend(), replace(scene, features=features)).features.square().sum()
    (first,) = torch.autograd.grad(loss, features, retain_graph=True)
    (second,) = torch.autograd.grad(loss, features)
    assert torch.equal(first, second)
