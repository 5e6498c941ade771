"""Native ellipsoids against the float64 reference, and what only the native kernels promise."""

import functools
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from splatir.native.build import instruction_sets
from splatir.native.library import NativeLibrary, available, library, load
from splatir.raster.contract import RasterOptions, RasterOutput
from splatir.raster.cpu import CpuBackend
from splatir.raster.reference.backend import ReferenceBackend
from tests.gradients import assert_grads_agree
from tests.scenes import (
    ADVERSARIAL,
    RasterScene,
    axis_camera,
    images,
    outputs_and_gradients,
    random_scene,
    rasterize,
)

pytestmark = pytest.mark.skipif(not available(), reason="the native library is not built")

ALL_IMAGES = RasterOptions(depth=True, median_depth=True)
# Pixels where a splat lies within rounding of a cut may differ by up to that splat's share.
MAX_CUT_PIXELS = 2e-3


def _needles(scene: RasterScene) -> RasterScene:
    scales = scene.gaussians.scales * torch.tensor([20.0, 1e-3, 1e-3])
    return replace(scene, gaussians=replace(scene.gaussians, scales=scales))


# Name: scene and options. The channel counts take every path through the channel passes.
RANDOM: dict[str, tuple[Callable[[], RasterScene], RasterOptions]] = {
    "no channels": (lambda: random_scene(300, 1, channels=0), RasterOptions(median_depth=True)),
    "1 channel": (lambda: random_scene(300, 2, channels=1), RasterOptions()),
    "radiance and depth": (lambda: random_scene(300, 3, channels=3), ALL_IMAGES),
    "no background": (lambda: random_scene(300, 4, has_background=False), ALL_IMAGES),
    "5 channels": (lambda: random_scene(300, 5, channels=5), RasterOptions(absgrad=True)),
    "8 channels": (lambda: random_scene(300, 6, channels=8), RasterOptions(antialiased=True)),
    "12 channels": (lambda: random_scene(300, 7, channels=12), ALL_IMAGES),
    "16 channels": (lambda: random_scene(300, 8, channels=16), RasterOptions()),
    "16 and depth": (
        lambda: random_scene(300, 9, channels=16),
        RasterOptions(depth=True, antialiased=True, absgrad=True),
    ),
    "24 channels": (lambda: random_scene(300, 10, channels=24), RasterOptions()),
    "33 and median": (lambda: random_scene(300, 11, channels=33), RasterOptions(median_depth=True)),
    # Longer than the image: the entries of the conic in float32 would give wrong lengths. On much
    # larger images the rounding of screen positions alone changes sharp edges by 1e-5.
    "long needles": (lambda: _needles(random_scene(60, 17, width=120, height=90)), ALL_IMAGES),
    "many": (lambda: random_scene(1500, 12, width=110, height=80), ALL_IMAGES),
}


@pytest.fixture(params=list(instruction_sets()))
def backend(request: pytest.FixtureRequest) -> CpuBackend:
    """The backend with each build that this processor runs."""
    if not library().supports_this_processor(request.param):
        pytest.skip(f"this processor does not run {request.param}")
    return CpuBackend(load(request.param))


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets torch's thread count for the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@functools.cache
def reference(name: str) -> tuple[RasterScene, RasterOptions, RasterOutput, dict[str, Tensor]]:
    """A scene and its float64 images and gradients."""
    if name in RANDOM:
        make, options = RANDOM[name]
        scene = make()
    else:
        scene, options = ADVERSARIAL[name]("ellipsoid"), ALL_IMAGES
    wanted = outputs_and_gradients(ReferenceBackend(), scene.to(torch.float64), options)
    return scene, options, *wanted


def assert_images_agree(actual: RasterOutput, wanted: RasterOutput) -> None:
    assert images(actual).keys() == images(wanted).keys()
    for name, want in images(wanted).items():
        # Depth is in scene units of about 3, everything else in 0 .. 1.
        scale = max(1.0, float(want.detach().abs().max())) if want.numel() else 1.0
        error = (images(actual)[name].double() - want).detach().abs() / scale
        assert error.isfinite().all(), f"{name} has NaN or Inf"
        cut = int((error > 1e-5).any(-1).sum())
        assert cut <= MAX_CUT_PIXELS * want.shape[0] * want.shape[1], f"{name}: {cut} pixels differ"


def assert_gradients_agree(actual: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    shown = {name for name, want in wanted.items() if want.norm() > 0}
    for name in wanted.keys() - shown:
        assert not actual[name].any(), f"{name} has a gradient, the reference has none"
    assert_grads_agree({k: actual[k] for k in shown}, {k: wanted[k] for k in shown})


@pytest.mark.parametrize("name", [*RANDOM, *ADVERSARIAL])
def test_images_and_gradients_are_those_of_the_reference(name: str, backend: CpuBackend) -> None:
    scene, options, want_output, want_gradients = reference(name)
    output, gradients = outputs_and_gradients(backend, scene, options)
    assert_images_agree(output, want_output)
    assert_gradients_agree(gradients, want_gradients)


@pytest.mark.parametrize("options", [ALL_IMAGES, RasterOptions(absgrad=True)])
def test_same_bits_for_any_number_of_threads(
    options: RasterOptions, backend: CpuBackend, threads: Callable[[int], None]
) -> None:
    scene = random_scene(2000, 13, channels=7, width=121, height=75)
    threads(1)
    want_output, want_gradients = outputs_and_gradients(backend, scene, options)
    for count in (2, 3):
        threads(count)
        output, gradients = outputs_and_gradients(backend, scene, options)
        for name, image in images(want_output).items():
            assert torch.equal(images(output)[name], image), f"{name}, {count} threads"
        for name, gradient in want_gradients.items():
            assert torch.equal(gradients[name], gradient), f"{name}, {count} threads"


def test_concurrent_calls_do_not_disturb_each_other(threads: Callable[[int], None]) -> None:
    threads(2)
    scenes = [random_scene(800, seed, channels=5) for seed in range(4)]
    wanted = [outputs_and_gradients(CpuBackend(), scene, ALL_IMAGES)[1] for scene in scenes]
    results: dict[int, list[dict[str, Tensor]]] = {i: [] for i in range(len(scenes))}

    def work(index: int) -> None:
        for _ in range(5):
            results[index].append(outputs_and_gradients(CpuBackend(), scenes[index], ALL_IMAGES)[1])

    workers = [threading.Thread(target=work, args=(i,)) for i in results]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for index, repeats in results.items():
        for gradients in repeats:
            assert all(torch.equal(gradients[k], wanted[index][k]) for k in gradients)


def _one_splat_per_depth(depths: list[float], opacities: list[float]) -> RasterScene:
    """Wide splats on the optical axis of a one-pixel image, features one-hot."""
    n = len(depths)
    scene = random_scene(n, 0, channels=n, has_background=False)
    means = torch.zeros(n, 3)
    means[:, 2] = torch.tensor(depths)
    gaussians = replace(
        scene.gaussians,
        means=means,
        scales=torch.full((n, 3), 0.1),
        opacities=torch.tensor(opacities),
    )
    return RasterScene(gaussians, axis_camera(1, 1, focal=50.0), torch.eye(n), None)


def test_median_depth_and_its_gradient_belong_to_the_splat_that_crosses_one_half(
    backend: CpuBackend,
) -> None:
    # Transmittance before each splat: 1, 0.7, 0.42, 0.21. The second is the last above one half.
    scene = _one_splat_per_depth([2.0, 3.0, 4.0, 5.0], [0.3, 0.4, 0.5, 0.6])
    means = scene.gaussians.means.clone().requires_grad_()
    scene = replace(scene, gaussians=replace(scene.gaussians, means=means))
    output = rasterize(backend, scene, RasterOptions(median_depth=True))
    assert output.median_depth is not None
    assert float(output.median_depth.detach()) == 3.0
    output.median_depth.sum().backward()
    assert means.grad is not None
    assert means.grad[:, 2].tolist() == [0.0, 1.0, 0.0, 0.0]


def test_an_empty_pixel_has_median_depth_zero_and_shows_the_background(backend: CpuBackend) -> None:
    scene = random_scene(0, 0, width=5, height=3)
    output = rasterize(backend, scene, ALL_IMAGES)
    assert output.median_depth is not None and scene.background is not None
    assert not output.median_depth.any() and not output.alpha.any()
    assert torch.equal(output.features, scene.background.expand(3, 5, -1))


def test_channels_do_not_depend_on_how_many_are_composited_together(backend: CpuBackend) -> None:
    scene = random_scene(400, 14, channels=37)
    together = rasterize(backend, scene).features
    for first in range(0, 37, 4):
        part = replace(scene, features=scene.features[:, first : first + 4])
        assert scene.background is not None
        part = replace(part, background=scene.background[first : first + 4])
        torch.testing.assert_close(
            rasterize(backend, part).features, together[..., first : first + 4], rtol=0, atol=1e-6
        )


def test_absolute_gradients_bound_the_gradients(backend: CpuBackend) -> None:
    scene = random_scene(300, 15)
    _, plain = outputs_and_gradients(backend, scene, RasterOptions())
    _, absolute = outputs_and_gradients(backend, scene, RasterOptions(absgrad=True))
    assert torch.all(absolute["screen"] >= plain["screen"].abs() - 1e-5)
    assert absolute["screen"].sum() > 1.5 * plain["screen"].abs().sum()


def test_backward_can_run_twice_on_one_graph(backend: CpuBackend) -> None:
    scene = random_scene(300, 16)
    leaves = {key: value.clone().requires_grad_() for key, value in scene.leaves().items()}
    output = rasterize(backend, scene.with_leaves(leaves), ALL_IMAGES)
    loss = sum((image.square().sum() for image in images(output).values()), torch.zeros(()))
    first = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True)
    second = torch.autograd.grad(loss, list(leaves.values()))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_a_graph_with_another_forward_in_between_keeps_its_own_lists(backend: CpuBackend) -> None:
    scene, other = random_scene(300, 17), random_scene(500, 18, width=40, height=90)
    _, want = outputs_and_gradients(backend, scene, RasterOptions(), seed=1)
    leaves = {key: value.clone().requires_grad_() for key, value in scene.leaves().items()}
    output = rasterize(backend, scene.with_leaves(leaves))
    outputs_and_gradients(backend, other, RasterOptions())
    generator = torch.Generator().manual_seed(1)
    for name in ("features", "alpha"):
        image = getattr(output, name)
        (image * torch.randn(image.shape, generator=generator)).sum().backward(retain_graph=True)
    for key, leaf in leaves.items():
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad, want[key], rtol=1e-4, atol=1e-5)


def test_an_unused_graph_gives_its_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[int] = []
    call = NativeLibrary.call

    def counting(self: NativeLibrary, name: str, *args: Any) -> int:
        if name == "splatir_ellipsoids_release":
            released.append(args[0])
        return call(self, name, *args)

    monkeypatch.setattr(NativeLibrary, "call", counting)
    scene = random_scene(50, 19)
    leaves = {key: value.clone().requires_grad_() for key, value in scene.leaves().items()}
    output = rasterize(CpuBackend(), scene.with_leaves(leaves), RasterOptions(absgrad=True))
    probe = weakref.ref(output.screen.probe)
    assert released == []
    del output
    gc.collect()
    assert len(released) == 1
    assert probe() is None, "the graph keeps itself alive"
    with torch.no_grad():
        output = rasterize(CpuBackend(), scene)
    assert len(released) == 2 and output.features.grad_fn is None


def test_unused_outputs_get_no_gradient(backend: CpuBackend) -> None:
    scene = random_scene(100, 20)
    features = scene.features.clone().requires_grad_()
    output = rasterize(backend, replace(scene, features=features), ALL_IMAGES)
    output.alpha.sum().backward()
    assert features.grad is not None and not features.grad.any()


def test_strided_and_half_transposed_inputs_are_taken_as_they_mean(backend: CpuBackend) -> None:
    scene = random_scene(100, 21, channels=4)
    strided = replace(scene, features=scene.features.T.contiguous().T)
    assert not strided.features.is_contiguous()
    _, want = outputs_and_gradients(backend, scene, RasterOptions())
    _, got = outputs_and_gradients(backend, strided, RasterOptions())
    assert all(torch.equal(got[key], want[key]) for key in want)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize("name", ["means", "scales", "quats", "opacities"])
def test_broken_splats_do_not_spread(name: str, value: float, backend: CpuBackend) -> None:
    scene = random_scene(40, 22)
    broken = getattr(scene.gaussians, name).clone()
    broken[7] = value
    without = replace(
        scene,
        gaussians=replace(
            scene.gaussians,
            opacities=torch.where(torch.arange(40) == 7, 0.0, scene.gaussians.opacities),
        ),
    )
    output = rasterize(
        backend, replace(scene, gaussians=replace(scene.gaussians, **{name: broken}))
    )
    assert output.features.isfinite().all()
    if value != value:
        assert torch.equal(output.features, rasterize(backend, without).features)


def test_wrong_inputs_are_refused_with_what_to_do() -> None:
    scene = random_scene(5, 23)
    with pytest.raises(ValueError, match=r"float32.*reference"):
        rasterize(CpuBackend(), scene.to(torch.float64))
    with pytest.raises(ValueError, match="on the CPU"):
        rasterize(CpuBackend(), scene.to(device="meta"))
    with pytest.raises(ValueError, match="sides of 1 to"):
        rasterize(CpuBackend(), replace(scene, camera=replace(scene.camera, width=0)))
    with pytest.raises(ValueError, match="normals"):
        rasterize(CpuBackend(), scene, RasterOptions(normals=True))
    with pytest.raises(ValueError, match="features must have shape"):
        rasterize(CpuBackend(), replace(scene, features=torch.zeros(4, 3)))


def test_more_pairs_of_splat_and_tile_than_can_be_counted_is_a_memory_error() -> None:
    side, n = 4096, 2**32 // (4096 // 16) ** 2 + 1
    scene = random_scene(1, 24, channels=0, has_background=False)
    camera = axis_camera(side, side)
    gaussians = replace(
        scene.gaussians,
        means=torch.tensor([[0.0, 0.0, 2.0]]).repeat(n, 1),
        scales=torch.full((n, 3), 50.0),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(n, 1),
        opacities=torch.full((n,), 0.5),
    )
    with pytest.raises(MemoryError, match="lower their scales"), torch.no_grad():
        rasterize(CpuBackend(), RasterScene(gaussians, camera, torch.zeros(n, 0), None))
