"""The gsplat adapter: on a stand-in with gsplat's signatures, and on a GPU where there is one."""

import gc
import weakref

import pytest
import torch

import splatir.raster.gsplat_backend as adapter
from splatir.raster.contract import RasterOptions
from splatir.raster.gsplat_backend import GsplatBackend
from splatir.raster.reference.backend import ReferenceBackend
from splatir.scene.gaussians import Primitive
from tests.fake_gsplat import FakeGsplat
from tests.gradients import assert_grads_agree
from tests.scenes import (
    ADVERSARIAL,
    all_outputs,
    images,
    outputs_and_gradients,
    random_scene,
    rasterize,
)

PRIMITIVES: tuple[Primitive, ...] = ("ellipsoid", "surfel")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeGsplat:
    stand_in = FakeGsplat()
    monkeypatch.setattr(adapter, "_load_gsplat", lambda means: stand_in)
    return stand_in


@pytest.mark.parametrize("primitive", PRIMITIVES)
@pytest.mark.parametrize("channels", [0, 1, 3, 5, 32, 40])
def test_adapter_loses_no_channel_and_no_gradient(
    fake: FakeGsplat, primitive: Primitive, channels: int
) -> None:
    scene = random_scene(60, 3, primitive, 37, 29, channels)
    options = all_outputs(primitive)
    got, got_gradients = outputs_and_gradients(GsplatBackend(), scene, options)
    want, want_gradients = outputs_and_gradients(ReferenceBackend(), scene, options)
    for name, image in images(want).items():
        torch.testing.assert_close(images(got)[name], image, atol=2e-6, rtol=1e-5, msg=name)
    if channels == 0:
        for empty in ("features", "background"):
            assert got_gradients.pop(empty).numel() == want_gradients.pop(empty).numel() == 0
    assert_grads_agree(got_gradients, want_gradients)
    assert torch.equal(got.screen.radii, want.screen.radii)


@pytest.mark.parametrize(
    ("primitive", "options"),
    [
        ("ellipsoid", RasterOptions()),
        ("ellipsoid", RasterOptions(antialiased=True, near=2.5, far=3.2, radius_clip=3.0)),
        ("ellipsoid", RasterOptions(antialiased=True, blur=1.2)),
        ("surfel", RasterOptions()),
        ("surfel", RasterOptions(median_depth=True)),
        ("surfel", RasterOptions(distortion=True)),
        ("surfel", RasterOptions(normals=True, near=2.5, far=3.2, radius_clip=3.0)),
    ],
)
def test_options_reach_gsplat_and_only_wanted_images_come_back(
    fake: FakeGsplat, primitive: Primitive, options: RasterOptions
) -> None:
    scene = random_scene(60, 4, primitive, 37, 29, has_background=False)
    got, got_gradients = outputs_and_gradients(GsplatBackend(), scene, options)
    want, want_gradients = outputs_and_gradients(ReferenceBackend(), scene, options)
    assert images(got).keys() == images(want).keys()
    for name, image in images(want).items():
        torch.testing.assert_close(images(got)[name], image, atol=2e-6, rtol=1e-5, msg=name)
    assert_grads_agree(got_gradients, want_gradients)


def test_absolute_gradients_of_many_channels_are_taken_in_one_pass(fake: FakeGsplat) -> None:
    scene = random_scene(60, 5, "ellipsoid", 37, 29, 40)
    options = RasterOptions(absgrad=True)
    got, got_gradients = outputs_and_gradients(GsplatBackend(), scene, options)
    want, want_gradients = outputs_and_gradients(ReferenceBackend(), scene, options)
    assert fake.names().count("rasterize_to_pixels") == 1
    assert_grads_agree(got_gradients, want_gradients)
    assert torch.all(got.screen.gradient >= 0)
    assert want.screen.gradient.shape == got.screen.gradient.shape


def test_collecting_absolute_gradients_leaves_no_memory_behind(fake: FakeGsplat) -> None:
    output, _ = outputs_and_gradients(
        GsplatBackend(), random_scene(5, 0), RasterOptions(absgrad=True)
    )
    probe = weakref.ref(output.screen.probe)
    fake.calls.clear()
    gc.disable()
    try:
        del output
        assert probe() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_no_gaussians_give_the_background_without_calling_gsplat(
    fake: FakeGsplat, primitive: Primitive
) -> None:
    scene = ADVERSARIAL["none"](primitive)
    output, gradients = outputs_and_gradients(GsplatBackend(), scene, all_outputs(primitive))
    assert fake.calls == []
    assert scene.background is not None
    torch.testing.assert_close(output.features, scene.background.expand_as(output.features))
    assert output.alpha.abs().max() == 0
    assert gradients["screen"].shape == (0, 2)


def test_evaluation_without_gradients_keeps_no_graph(fake: FakeGsplat) -> None:
    for primitive in PRIMITIVES:
        scene = random_scene(10, 0, primitive)
        for tensor in scene.leaves().values():
            tensor.requires_grad_()
        with torch.no_grad():
            output = rasterize(GsplatBackend(), scene)
        assert not output.features.requires_grad and not output.screen.probe.requires_grad


@pytest.mark.parametrize(
    ("primitive", "options", "message"),
    [
        ("ellipsoid", RasterOptions(median_depth=True), "no median depth for ellipsoids"),
        ("ellipsoid", RasterOptions(normals=True), "ellipsoids have no normals"),
        ("surfel", RasterOptions(absgrad=True), "no absolute gradients for surfels"),
        ("surfel", RasterOptions(antialiased=True), "surfels have no antialiased"),
    ],
)
def test_outputs_that_gsplat_lacks_are_refused(
    fake: FakeGsplat, primitive: Primitive, options: RasterOptions, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rasterize(GsplatBackend(), random_scene(3, 0, primitive), options)


def test_other_dtypes_and_too_many_channels_are_refused(fake: FakeGsplat) -> None:
    with pytest.raises(ValueError, match="takes float32"):
        rasterize(GsplatBackend(), random_scene(3, 0).to(torch.float64))
    with pytest.raises(ValueError, match="at most 129 channels"):
        scene = random_scene(3, 0, channels=130)
        rasterize(GsplatBackend(), scene, RasterOptions(absgrad=True))


def test_gaussians_on_the_cpu_are_refused_before_gsplat_is_imported() -> None:
    with pytest.raises(ValueError, match="needs Gaussians on a CUDA device, got cpu"):
        rasterize(GsplatBackend(), random_scene(3, 0))


@pytest.mark.cuda
@pytest.mark.parametrize("primitive", PRIMITIVES)
@pytest.mark.parametrize("channels", [3, 16, 40])
def test_cuda_images_and_gradients_agree_with_the_reference(
    primitive: Primitive, channels: int
) -> None:
    scene = random_scene(2000, 21, primitive, 167, 123, channels).to(device="cuda")
    options = all_outputs(primitive)
    got, got_gradients = outputs_and_gradients(GsplatBackend(), scene, options)
    exact = scene.to(torch.float64)
    want, want_gradients = outputs_and_gradients(ReferenceBackend(), exact, options)
    # Pixels where a splat lies within rounding of a cut differ by up to 1/255 of a feature.
    for name, image in images(want).items():
        error = (images(got)[name] - image).abs().amax(-1)
        scale = image.abs().max()
        assert (error > 1e-4 * scale).float().mean() < 2e-3, name
    # gsplat's transmittance is 1 - alpha in float32, and its surfel screen gradient is a race.
    screen = {"screen": got_gradients.pop("screen")}, {"screen": want_gradients.pop("screen")}
    assert_grads_agree(got_gradients, want_gradients, rel_l2=5e-3, cosine=0.9999)
    assert_grads_agree(*screen, rel_l2=5e-2, cosine=0.995)


@pytest.mark.cuda
@pytest.mark.parametrize("antialiased", [False, True])
def test_cuda_absolute_gradients_agree_with_the_reference(antialiased: bool) -> None:
    scene = random_scene(2000, 22, "ellipsoid", 167, 123, 40).to(device="cuda")
    options = RasterOptions(absgrad=True, antialiased=antialiased)
    _, got = outputs_and_gradients(GsplatBackend(), scene, options)
    _, want = outputs_and_gradients(ReferenceBackend(), scene.to(torch.float64), options)
    assert_grads_agree(got, want, rel_l2=5e-3, cosine=0.9999)


@pytest.mark.cuda
@pytest.mark.parametrize("primitive", PRIMITIVES)
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_cuda_survives_adversarial_scenes(name: str, primitive: Primitive) -> None:
    scene = ADVERSARIAL[name](primitive).to(device="cuda")
    output, gradients = outputs_and_gradients(GsplatBackend(), scene, all_outputs(primitive))
    for label, tensor in {**images(output), **gradients}.items():
        assert tensor.isfinite().all(), label
    want = rasterize(ReferenceBackend(), scene.to(torch.float64))
    is_off = (output.features - want.features).abs().amax(-1) > 1e-3
    assert is_off.float().mean() < 0.02
