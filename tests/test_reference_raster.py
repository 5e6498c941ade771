"""The reference rasteriser's pixels: values by hand, invariants, gradients."""

import gc
import math
import weakref
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from splatir.maths.frames import invert_rigid, similarity
from splatir.maths.rotations import quat_multiply, rotation_from_quat
from splatir.raster.contract import RasterOptions, RasterOutput
from splatir.raster.reference.backend import ReferenceBackend
from splatir.raster.reference.compositing import composite_ellipsoids, composite_surfels
from splatir.raster.reference.projection import project_ellipsoids
from splatir.raster.reference.surfel_projection import project_surfels
from splatir.scene.gaussians import Gaussians, Primitive
from tests.gradients import assert_grads_agree
from tests.scenes import (
    ADVERSARIAL,
    RasterScene,
    all_outputs,
    axis_camera,
    images,
    outputs_and_gradients,
    random_scene,
    rasterize,
)

BACKEND = ReferenceBackend()
PRIMITIVES: tuple[Primitive, ...] = ("ellipsoid", "surfel")


def _stack(
    depths: list[float], opacities: list[float], primitive: Primitive, size: int = 1
) -> RasterScene:
    """Flat splats on the optical axis, which pierces the central pixel; features are one-hot."""
    n = len(depths)
    means = torch.zeros(n, 3)
    means[:, 2] = torch.tensor(depths)
    quats = torch.zeros(n, 4)
    quats[:, 0] = 1.0
    gaussians = Gaussians(means, quats, torch.full((n, 3), 0.1), torch.tensor(opacities), primitive)
    return RasterScene(
        gaussians, axis_camera(size, size, focal=50.0), torch.eye(n), torch.zeros(n)
    ).to(torch.float64)


@pytest.mark.parametrize("primitive", PRIMITIVES)
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial_scenes_give_finite_images_and_gradients(
    name: str, primitive: Primitive
) -> None:
    scene = ADVERSARIAL[name](primitive)
    options = replace(all_outputs(primitive), absgrad=True)
    output, gradients = outputs_and_gradients(BACKEND, scene, options)
    for label, tensor in {**images(output), **gradients}.items():
        assert tensor.isfinite().all(), label
    assert torch.all((output.alpha >= 0) & (output.alpha < 1))


def test_one_ellipsoid_has_the_alpha_worked_out_by_hand() -> None:
    output = rasterize(BACKEND, _stack([2.0], [0.5], "ellipsoid", size=9))
    centres = torch.arange(9, dtype=torch.float64) + 0.5 - 4.5
    squared = centres[:, None] ** 2 + centres**2
    want = 0.5 * torch.exp(-0.5 * squared / ((50 * 0.1 / 2) ** 2 + 0.3))
    want[want < 1 / 255] = 0.0
    torch.testing.assert_close(output.alpha[..., 0], want, atol=1e-8, rtol=0)


def test_one_surfel_has_the_alpha_worked_out_by_hand() -> None:
    for z, low_pass_wins in ((2.0, False), (20.0, True)):
        output = rasterize(BACKEND, _stack([z], [0.5], "surfel", size=9))
        centres = torch.arange(9, dtype=torch.float64) + 0.5 - 4.5
        squared = centres[:, None] ** 2 + centres**2
        want = 0.5 * torch.exp(-squared if low_pass_wins else -0.5 * squared * (z / 5) ** 2)
        want[want < 1 / 255] = 0.0
        torch.testing.assert_close(output.alpha[..., 0], want, atol=1e-8, rtol=0)


def test_antialiased_ellipsoid_loses_the_area_that_the_blur_added() -> None:
    scene = _stack([2.0], [0.5], "ellipsoid")
    output = rasterize(BACKEND, scene, RasterOptions(antialiased=True))
    variance = (50 * 0.1 / 2) ** 2
    assert output.alpha.item() == pytest.approx(0.5 * variance / (variance + 0.3), rel=1e-6)


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_nearer_splats_cover_farther_ones_and_the_background_shows_through(
    primitive: Primitive,
) -> None:
    scene = _stack([3.0, 2.0, 4.0], [0.5, 0.25, 0.75], primitive)
    scene = replace(scene, background=torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    output = rasterize(BACKEND, scene, RasterOptions(depth=True, median_depth=True))
    weights = [0.75 * 0.5, 0.25, 0.75 * 0.5 * 0.75]
    rest = 0.75 * 0.5 * 0.25
    want = [weight + rest * back for weight, back in zip(weights, (1.0, 2.0, 3.0), strict=True)]
    torch.testing.assert_close(output.features[0, 0], torch.tensor(want, dtype=torch.float64))
    assert output.alpha.item() == pytest.approx(1 - rest)
    assert output.depth is not None and output.median_depth is not None
    assert output.depth.item() == pytest.approx(3 * weights[0] + 2 * weights[1] + 4 * weights[2])
    assert output.expected_depth.item() == pytest.approx(output.depth.item() / (1 - rest))
    # Transmittance before the splats is 1, 0.75, 0.375: the one at depth 3 is the last above 1/2.
    assert output.median_depth.item() == 3.0


def test_distortion_is_the_sum_over_pairs_and_zero_for_one_splat() -> None:
    options = RasterOptions(distortion=True)
    output = rasterize(BACKEND, _stack([2.0, 3.5], [0.5, 0.5], "surfel"), options)
    assert output.distortion is not None and output.depth is not None
    assert output.distortion.item() == pytest.approx(2 * 0.5 * 0.25 * 1.5)
    single = rasterize(BACKEND, _stack([2.0], [0.5], "surfel"), options)
    assert single.distortion is not None and single.distortion.item() == 0.0


def test_alpha_is_capped_and_only_colours_learn_there() -> None:
    for primitive in PRIMITIVES:
        scene = _stack([2.0], [1.0], primitive)
        output, gradients = outputs_and_gradients(BACKEND, scene, RasterOptions())
        assert output.alpha.item() == pytest.approx(0.999)
        assert gradients["features"].item() != 0
        for key in ("means", "quats", "scales", "opacities", "screen"):
            assert torch.all(gradients[key] == 0), key


def test_a_pixel_is_finished_before_the_splat_that_would_darken_it_too_far() -> None:
    scene = _stack([2.0 + i for i in range(9)], [0.8] * 9, "surfel")
    output, gradients = outputs_and_gradients(BACKEND, scene, RasterOptions())
    # 0.2^5 = 3.2e-4 stays above 1e-4, 0.2^6 does not: five splats count.
    assert output.alpha.item() == pytest.approx(1 - 0.2**5, abs=1e-9)
    assert torch.equal(output.features[0, 0] > 0, torch.arange(9) < 5)
    assert torch.equal(gradients["opacities"] != 0, torch.arange(9) < 5)


def test_surfels_end_at_the_border_of_the_last_tile_their_rectangle_touches() -> None:
    """A surfel below a pixel has radius 1 but a low-pass that reaches farther: gsplat cuts it."""
    scene = _stack([2.0], [1.0], "surfel", size=32)
    tiny = replace(
        scene.gaussians,
        scales=torch.full((1, 3), 1e-5, dtype=torch.float64),
        means=torch.tensor([[(14.5 - 16) * 2 / 50, 0.0, 2.0]], dtype=torch.float64),
    )
    output = rasterize(BACKEND, replace(scene, gaussians=tiny))
    row = output.alpha[16, :, 0]
    assert row[15].item() == pytest.approx(math.exp(-(1.0 + 0.25)))
    assert math.exp(-(4.0 + 0.25)) > 1 / 255 and row[16].item() == 0


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_splats_that_differ_only_in_order_give_the_same_image(primitive: Primitive) -> None:
    scene = random_scene(150, 3, primitive).to(torch.float64)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    tensors = {
        key: value if key == "background" else value[order] for key, value in scene.leaves().items()
    }
    _assert_same_images(
        rasterize(BACKEND, scene, all_outputs(primitive)),
        rasterize(BACKEND, scene.with_leaves(tensors), all_outputs(primitive)),
    )


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_moving_world_and_camera_together_turns_only_the_normals(primitive: Primitive) -> None:
    scene = random_scene(150, 4, primitive).to(torch.float64)
    quat = torch.tensor([0.3, -0.5, 0.7, 0.2], dtype=torch.float64)
    R_new_world = rotation_from_quat(quat)
    shift = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    T_new_world = similarity(1.0, R_new_world, shift)
    moved = replace(
        scene.gaussians,
        means=scene.gaussians.means @ R_new_world.mT + shift,
        quats=quat_multiply(quat.expand(150, 4), scene.gaussians.quats),
    )
    camera = replace(
        scene.camera, T_camera_world=scene.camera.T_camera_world @ invert_rigid(T_new_world)
    )
    want = rasterize(BACKEND, scene, all_outputs(primitive))
    if want.normals is not None:
        want = replace(want, normals=want.normals @ R_new_world.mT)
    got = rasterize(BACKEND, replace(scene, gaussians=moved, camera=camera), all_outputs(primitive))
    _assert_same_images(got, want)


def _assert_same_images(got: RasterOutput, want: RasterOutput) -> None:
    for name, image in images(want).items():
        torch.testing.assert_close(images(got)[name], image, atol=1e-9, rtol=1e-9, msg=name)


def test_weights_and_transmittance_sum_to_one() -> None:
    for primitive in PRIMITIVES:
        scene = random_scene(200, 6, primitive, channels=1).to(torch.float64)
        ones = replace(
            scene,
            features=torch.ones_like(scene.features),
            background=torch.ones(1, dtype=torch.float64),
        )
        output = rasterize(BACKEND, ones)
        torch.testing.assert_close(output.features, torch.ones_like(output.features))


def test_surfel_normals_face_the_camera() -> None:
    scene = random_scene(200, 8, "surfel")
    towards_eye = scene.camera.position_world - scene.gaussians.means
    projected = project_surfels(scene.gaussians, scene.camera, RasterOptions())
    normals_world = projected.normals @ scene.camera.T_camera_world[:3, :3]
    seen = (projected.radii > 0).all(-1)
    assert torch.all((normals_world * towards_eye).sum(-1)[seen] > 0)


@pytest.mark.parametrize(
    ("primitive", "options"),
    [
        ("ellipsoid", RasterOptions(depth=True, median_depth=True)),
        ("ellipsoid", RasterOptions(antialiased=True)),
        ("surfel", RasterOptions(depth=True, median_depth=True, normals=True, distortion=True)),
    ],
)
def test_gradcheck(primitive: Primitive, options: RasterOptions) -> None:
    scene = random_scene(3, 2, primitive, 5, 4, 1, max_opacity=0.9).to(torch.float64)
    gaussians = replace(scene.gaussians, scales=scene.gaussians.scales * 4)
    scene = replace(scene, gaussians=gaussians)
    names = list(scene.leaves())
    leaves = [value.clone().requires_grad_() for value in scene.leaves().values()]

    def render(*tensors: Tensor) -> tuple[Tensor, ...]:
        output = rasterize(
            BACKEND, scene.with_leaves(dict(zip(names, tensors, strict=True))), options
        )
        return tuple(images(output).values())

    assert rasterize(BACKEND, scene).alpha.max() > 0.5
    assert torch.autograd.gradcheck(render, leaves)


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_gradients_in_float32_keep_their_precision_on_opaque_pixels(primitive: Primitive) -> None:
    scene = ADVERSARIAL["fully opaque"](primitive)
    _, got = outputs_and_gradients(BACKEND, scene, RasterOptions())
    _, want = outputs_and_gradients(BACKEND, scene.to(torch.float64), RasterOptions())
    # One surfel seen nearly edge-on makes the whole difference: its planes are almost parallel.
    assert_grads_agree(got, want, rel_l2=1e-5 if primitive == "ellipsoid" else 5e-4)


def test_ellipsoid_probe_holds_the_gradient_of_the_screen_position() -> None:
    """Moving the principal point moves every centre alike, so its gradient is the probes' sum."""
    scene = random_scene(20, 9).to(torch.float64)
    K = scene.camera.K.clone().requires_grad_()
    means = scene.gaussians.means.clone().requires_grad_()
    camera = replace(scene.camera, K=K)
    gaussians = replace(scene.gaussians, means=means)
    output = rasterize(BACKEND, replace(scene, camera=camera, gaussians=gaussians))
    output.features.square().sum().backward()
    assert K.grad is not None
    torch.testing.assert_close(output.screen.gradient.sum(0), K.grad[:2, 2])


def test_surfel_probe_is_depth_times_the_gradient_of_the_last_column() -> None:
    scene = random_scene(20, 9, "surfel").to(torch.float64)
    projected = project_surfels(scene.gaussians, scene.camera, RasterOptions())
    transforms = projected.ray_transforms.clone().requires_grad_()
    composite = composite_surfels(
        replace(projected, ray_transforms=transforms),
        scene.gaussians.opacities,
        scene.features,
        (scene.camera.width, scene.camera.height),
        RasterOptions(),
    )
    composite.values.square().sum().backward()
    assert transforms.grad is not None
    want = transforms.grad[:, :2, 2] * projected.depths[:, None]
    scene = replace(scene, background=None)
    means = scene.gaussians.means.clone().requires_grad_()
    output = rasterize(BACKEND, replace(scene, gaussians=replace(scene.gaussians, means=means)))
    output.features.square().sum().backward()
    assert want.abs().max() > 0
    torch.testing.assert_close(output.screen.gradient, want)


def _watched_ellipsoids(scene: RasterScene, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    projected = project_ellipsoids(scene.gaussians, scene.camera, RasterOptions())
    means2d = projected.means2d.clone().requires_grad_()
    composite = composite_ellipsoids(
        replace(projected, means2d=means2d),
        scene.gaussians.opacities,
        scene.features,
        size,
        RasterOptions(),
    )
    return composite.values, means2d, torch.ones_like(means2d)


def _watched_surfels(scene: RasterScene, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    projected = project_surfels(scene.gaussians, scene.camera, RasterOptions())
    columns = projected.ray_transforms[:, :2, 2].clone().requires_grad_()
    rows = torch.cat([projected.ray_transforms[:, :2, :2], columns[..., None]], -1)
    transforms = torch.cat([rows, projected.ray_transforms[:, 2:]], 1)
    composite = composite_surfels(
        replace(projected, ray_transforms=transforms),
        scene.gaussians.opacities,
        scene.features,
        size,
        RasterOptions(),
    )
    return composite.values, columns, projected.depths[:, None].expand(-1, 2)


@pytest.mark.parametrize(
    ("primitive", "watched"),
    [("ellipsoid", _watched_ellipsoids), ("surfel", _watched_surfels)],
)
def test_absolute_gradient_sums_over_pixels_after_taking_absolute_values(
    primitive: Primitive,
    watched: Callable[[RasterScene, tuple[int, int]], tuple[Tensor, Tensor, Tensor]],
) -> None:
    scene = random_scene(10, 12, primitive, 19, 3).to(torch.float64)
    scene = replace(scene, background=None)
    image, positions, factors = watched(scene, (19, 3))
    want = torch.zeros(10, 2, dtype=torch.float64)
    for pixel in image.square().sum(-1).flatten():
        (gradient,) = torch.autograd.grad(pixel, positions, retain_graph=True)
        want += (gradient * factors).abs()
    means = scene.gaussians.means.clone().requires_grad_()
    output = rasterize(
        BACKEND,
        replace(scene, gaussians=replace(scene.gaussians, means=means)),
        RasterOptions(absgrad=True),
    )
    output.features.square().sum().backward()
    assert output.screen.probe.grad is not None
    assert torch.all(want >= output.screen.probe.grad.abs() - 1e-12)
    torch.testing.assert_close(output.screen.gradient, want)


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_large_tiles_are_evaluated_in_parts_without_a_seam(
    primitive: Primitive, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = random_scene(100, 13, primitive, 37, 29).to(torch.float64)
    options = replace(all_outputs(primitive), absgrad=True)
    want, want_gradients = outputs_and_gradients(BACKEND, scene, options)
    monkeypatch.setattr("splatir.raster.reference.compositing._MAX_PAIRS", 500)
    got, got_gradients = outputs_and_gradients(BACKEND, scene, options)
    _assert_same_images(got, want)
    assert_grads_agree(got_gradients, want_gradients, rel_l2=1e-9)


def test_no_channels_still_give_alpha_and_depth() -> None:
    scene = random_scene(30, 14, channels=0)
    output = rasterize(BACKEND, scene, RasterOptions(depth=True))
    full = rasterize(BACKEND, random_scene(30, 14), RasterOptions(depth=True))
    assert output.features.shape == (61, 83, 0)
    assert torch.equal(output.alpha, full.alpha)
    assert output.depth is not None and full.depth is not None
    torch.testing.assert_close(output.depth, full.depth)


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_collecting_absolute_gradients_leaves_no_memory_behind(primitive: Primitive) -> None:
    """A hook that owns what the graph owns would keep every training step alive."""
    options = RasterOptions(absgrad=True)
    output, _ = outputs_and_gradients(BACKEND, random_scene(5, 0, primitive), options)
    probe = weakref.ref(output.screen.probe)
    gc.disable()
    try:
        del output
        assert probe() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_gradients_are_summed_in_the_same_order_every_time(primitive: Primitive) -> None:
    """Rows picked as `rows[index]` get their gradients by atomics once there are many of them."""
    scene = random_scene(8, 0, primitive)
    means = scene.gaussians.means.clone().requires_grad_()
    gaussians = replace(scene.gaussians, means=means)
    output = rasterize(BACKEND, replace(scene, gaussians=gaussians), all_outputs(primitive))
    seen, waiting = set(), [image.grad_fn for image in images(output).values()]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
    names = {node.name() for node in seen}
    assert "IndexSelectBackward0" in names
    assert "IndexBackward0" not in names


def test_screen_gradients_are_asked_for_too_early() -> None:
    scene = random_scene(3, 0)
    with pytest.raises(RuntimeError, match="only after"):
        _ = rasterize(BACKEND, scene).screen.gradient


def test_inputs_that_do_not_fit_are_refused() -> None:
    scene = random_scene(3, 0)
    wrong: list[tuple[RasterScene, RasterOptions, str]] = [
        (replace(scene, features=torch.ones(3, 3).double()), RasterOptions(), "features must be"),
        (replace(scene, background=torch.ones(3).double()), RasterOptions(), "background must be"),
        (scene, RasterOptions(normals=True), "ellipsoids have no normals"),
        (scene, RasterOptions(distortion=True), "ellipsoids have no distortion"),
        (random_scene(3, 0, "surfel"), RasterOptions(antialiased=True), "have no antialiased"),
    ]
    for case, options, message in wrong:
        with pytest.raises(ValueError, match=message):
            rasterize(BACKEND, case, options)
