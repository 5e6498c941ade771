"""Do detached features leave the geometry alone, in every backend, and change nothing else?"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import splatir.raster.gsplat_backend as adapter
from splatir.native.library import available
from splatir.raster.contract import RasterBackend, RasterOptions, RasterOutput
from splatir.raster.gsplat_backend import GsplatBackend
from splatir.raster.reference.backend import ReferenceBackend
from splatir.raster.selection import rasterizer
from splatir.scene.gaussians import Primitive
from tests.fake_gsplat import FakeGsplat
from tests.gradients import assert_grads_agree
from tests.scenes import (
    GEOMETRY,
    RasterScene,
    all_outputs,
    images,
    outputs_and_gradients,
    random_scene,
    rasterize,
)

PRIMITIVES: tuple[Primitive, ...] = ("ellipsoid", "surfel")
needs_native = pytest.mark.skipif(not available(), reason="the native library is not built")


@pytest.fixture(params=["reference", pytest.param("cpu", marks=needs_native), "gsplat"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> RasterBackend:
    """Each backend; gsplat's kernels are played by the reference."""
    if request.param == "gsplat":
        stand_in = FakeGsplat()
        monkeypatch.setattr(adapter, "_load_gsplat", lambda means: stand_in)
        return GsplatBackend()
    return rasterizer(request.param, torch.device("cpu"))


def _options(backend: RasterBackend, primitive: Primitive, detached: int) -> RasterOptions:
    has_absgrad = backend.name != "gsplat" or primitive == "ellipsoid"
    return replace(all_outputs(primitive), absgrad=has_absgrad, detached_features=detached)


def _leaves(scene: RasterScene) -> dict[str, Tensor]:
    return {key: value.clone().requires_grad_() for key, value in scene.leaves().items()}


def _loss(found: dict[str, Tensor]) -> Tensor:
    """A fixed random linear function of images."""
    generator = torch.Generator().manual_seed(5)
    cotangents = {name: torch.randn(found[name].shape, generator=generator) for name in found}
    return torch.stack([(image * cotangents[name]).sum() for name, image in found.items()]).sum()


def _gradients(leaves: dict[str, Tensor], output: RasterOutput) -> dict[str, Tensor]:
    found = {key: leaf.grad for key, leaf in leaves.items()}
    return {
        key: torch.zeros_like(leaves[key]) if grad is None else grad for key, grad in found.items()
    } | {"screen": output.screen.gradient}


def _two_calls(
    backend: RasterBackend, scene: RasterScene, options: RasterOptions
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The same images and gradients by definition: a second call with constant geometry."""
    leaves = _leaves(scene)
    whole = scene.with_leaves(leaves)
    attached = whole.features.shape[1] - options.detached_features

    def channels(scene: RasterScene, part: slice) -> RasterScene:
        background = None if scene.background is None else scene.background[part]
        return replace(scene, features=scene.features[:, part], background=background)

    constant = {key: leaves[key].detach() if key in GEOMETRY else leaves[key] for key in leaves}
    first = rasterize(
        backend, channels(whole, slice(attached)), replace(options, detached_features=0)
    )
    second = rasterize(backend, channels(scene.with_leaves(constant), slice(attached, None)))
    found = images(first)
    found["features"] = torch.cat([found["features"], second.features], -1)
    _loss(found).backward()
    return found, _gradients(leaves, first)


@pytest.mark.parametrize("primitive", PRIMITIVES)
@pytest.mark.parametrize(("channels", "detached"), [(5, 2), (4, 4), (20, 17)])
def test_equals_a_second_call_whose_geometry_is_constant(
    backend: RasterBackend, primitive: Primitive, channels: int, detached: int
) -> None:
    scene = random_scene(40, 31, primitive, 29, 21, channels)
    options = _options(backend, primitive, detached)
    leaves = _leaves(scene)
    output = rasterize(backend, scene.with_leaves(leaves), options)
    _loss(images(output)).backward()
    want, want_gradients = _two_calls(backend, scene, options)
    for name, image in want.items():
        torch.testing.assert_close(images(output)[name], image, atol=2e-6, rtol=1e-5, msg=name)
    assert_grads_agree(_gradients(leaves, output), want_gradients, rel_l2=1e-5)


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_images_do_not_depend_on_what_is_detached(
    backend: RasterBackend, primitive: Primitive
) -> None:
    scene = random_scene(40, 32, primitive, 29, 21, 7)
    want = images(rasterize(backend, scene, all_outputs(primitive)))
    for detached in (3, 7):
        options = replace(all_outputs(primitive), detached_features=detached)
        got = images(rasterize(backend, scene, options))
        assert got.keys() == want.keys()
        for name, image in want.items():
            torch.testing.assert_close(got[name], image, atol=2e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize("primitive", PRIMITIVES)
@pytest.mark.parametrize("has_background", [True, False])
def test_a_loss_of_detached_channels_moves_no_splat(
    backend: RasterBackend, primitive: Primitive, has_background: bool
) -> None:
    scene = random_scene(40, 33, primitive, 29, 21, 6, has_background=has_background)
    leaves = _leaves(scene)
    output = rasterize(backend, scene.with_leaves(leaves), _options(backend, primitive, detached=4))
    (output.features[..., 2:] ** 2).sum().backward()
    gradients = _gradients(leaves, output)
    for key in (*GEOMETRY, "screen"):
        assert not gradients[key].any(), key
    for key in leaves.keys() - set(GEOMETRY):
        assert gradients[key][..., 2:].any(), key
        assert not gradients[key][..., :2].any(), key


@needs_native
@pytest.mark.parametrize("primitive", PRIMITIVES)
@pytest.mark.parametrize(("channels", "detached"), [(3, 3), (9, 2), (16, 12), (40, 19)])
def test_native_gradients_are_those_of_the_reference(
    primitive: Primitive, channels: int, detached: int
) -> None:
    native = rasterizer("cpu", torch.device("cpu"))
    scene = random_scene(60, 34, primitive, 37, 29, channels)
    options = replace(all_outputs(primitive), detached_features=detached, absgrad=True)
    _, got = outputs_and_gradients(native, scene, options)
    _, want = outputs_and_gradients(ReferenceBackend(), scene.to(torch.float64), options)
    assert_grads_agree(got, want)


@needs_native
@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_bits_do_not_depend_on_the_number_of_threads(primitive: Primitive) -> None:
    native = rasterizer("cpu", torch.device("cpu"))
    scene = random_scene(600, 35, primitive, 121, 75, 9)
    options = replace(all_outputs(primitive), detached_features=5)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(outputs_and_gradients(native, scene, options)[1])
    finally:
        torch.set_num_threads(before)
    for name, gradient in results[0].items():
        assert all(torch.equal(other[name], gradient) for other in results[1:]), name


def test_gsplat_composites_detached_channels_without_absolute_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in = FakeGsplat()
    monkeypatch.setattr(adapter, "_load_gsplat", lambda means: stand_in)
    scene = random_scene(60, 36, "ellipsoid", 37, 29, 140)
    # Absolute gradients take at most 129 channels; detached ones do not count.
    options = RasterOptions(absgrad=True, detached_features=40)
    scene = scene.with_leaves(_leaves(scene))
    rasterize(GsplatBackend(), scene, options)
    calls = [given for name, given in stand_in.calls if name == "rasterize_to_pixels"]
    assert [given["colors"].shape[-1] for given in calls] == [100, 32, 8]
    assert [given["absgrad"] for given in calls] == [True, False, False]
    assert [given["means2d"].requires_grad for given in calls] == [True, False, False]


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_no_gaussians_leave_the_background(backend: RasterBackend, primitive: Primitive) -> None:
    scene = random_scene(0, 37, primitive, 9, 7, 3)
    leaves = _leaves(scene)
    output = rasterize(backend, scene.with_leaves(leaves), RasterOptions(detached_features=2))
    output.features.sum().backward()
    torch.testing.assert_close(leaves["background"].grad, torch.full((3,), 63.0))


@pytest.mark.parametrize("detached", [-1, 4])
def test_more_detached_channels_than_there_are_is_refused(
    backend: RasterBackend, detached: int
) -> None:
    with pytest.raises(ValueError, match=f"0 to 3, the number of channels, got {detached}"):
        rasterize(backend, random_scene(3, 0), RasterOptions(detached_features=detached))


@pytest.mark.cuda
@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_cuda_gradients_agree_with_the_reference(primitive: Primitive) -> None:
    scene = random_scene(2000, 38, primitive, 167, 123, 21).to(device="cuda")
    options = replace(all_outputs(primitive), detached_features=11)
    _, got = outputs_and_gradients(GsplatBackend(), scene, options)
    _, want = outputs_and_gradients(ReferenceBackend(), scene.to(torch.float64), options)
    screen = {"screen": got.pop("screen")}, {"screen": want.pop("screen")}
    # Tolerances as for attached channels: gsplat's transmittance is 1 - alpha in float32, and its
    # surfel screen gradient is a race.
    assert_grads_agree(got, want, rel_l2=5e-3, cosine=0.9999)
    assert_grads_agree(*screen, rel_l2=5e-2, cosine=0.995)
