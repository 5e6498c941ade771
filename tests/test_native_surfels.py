"""The native surfel kernels against the reference in float64, on the same projected surfels."""

import functools
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from splatir.native.build import instruction_sets
from splatir.native.library import NativeLibrary, available, load
from splatir.native.library import library as best_library
from splatir.raster.contract import RasterOptions, RasterOutput
from splatir.raster.cpu import CpuBackend
from splatir.raster.native_projection import ProjectedSurfels
from splatir.raster.native_surfels import composite_surfels
from splatir.raster.reference.backend import ReferenceBackend
from splatir.raster.reference.compositing import composite_surfels as composite_reference
from splatir.raster.reference.surfel_projection import ProjectedSurfels as ReferenceSurfels
from splatir.raster.reference.surfel_projection import project_surfels
from tests.gradients import assert_grads_agree
from tests.scenes import (
    ADVERSARIAL,
    RasterScene,
    all_outputs,
    images,
    random_scene,
    rasterize,
)

EVERYTHING = RasterOptions(
    depth=True, median_depth=True, normals=True, distortion=True, absgrad=True
)
# float32 against float64 in alpha times a feature below 1; depths are of the order of 3.
TOLERANCE = 1e-5


pytestmark = pytest.mark.skipif(not available(), reason="the native library is not built")


def load_or_skip(isa: str) -> NativeLibrary:
    """The kernels for an instruction set."""
    if not load("baseline").supports_this_processor(isa):
        pytest.skip(f"this processor does not run {isa}")
    return load(isa)


@pytest.fixture(scope="module")
def library() -> NativeLibrary:
    """The fastest kernels that this processor runs."""
    return best_library()


Inputs = dict[str, Tensor]


def projected_inputs(scene: RasterScene, options: RasterOptions) -> tuple[Inputs, Tensor]:
    """Differentiable inputs of compositing in float32, and radii."""
    scene64 = scene.to(torch.float64)
    with torch.no_grad():
        projected = project_surfels(scene64.gaussians, scene64.camera, options)
    inputs = {
        "means2d": projected.means2d,
        "depths": projected.depths,
        "ray_transforms": projected.ray_transforms,
        "normals": projected.normals,
        "opacities": scene64.gaussians.opacities,
        "features": scene64.features,
    }
    if scene64.background is not None:
        inputs["background"] = scene64.background
    return {name: value.float() for name, value in inputs.items()}, projected.radii


def leaves(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    return {
        name: value.detach().to(dtype, copy=True).requires_grad_() for name, value in inputs.items()
    }


def native(
    inputs: Inputs,
    radii: Tensor,
    size: tuple[int, int],
    options: RasterOptions,
    library: NativeLibrary,
) -> RasterOutput:
    projected = ProjectedSurfels(
        inputs["means2d"], inputs["depths"], inputs["ray_transforms"], inputs["normals"], radii
    )
    background = inputs.get("background")
    return composite_surfels(
        projected, inputs["opacities"], inputs["features"], background, size, options, library
    )


def reference(
    inputs: Inputs, radii: Tensor, size: tuple[int, int], options: RasterOptions
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Images, the probe, and the leaf that collects the probe's absolute gradient over depth."""
    probe = torch.zeros_like(inputs["means2d"], requires_grad=True)
    absolute = torch.zeros_like(probe, requires_grad=True)
    depths = inputs["depths"]
    shift = torch.nn.functional.pad((probe * depths.detach()[:, None])[..., None], (2, 0, 0, 1))
    projected = ReferenceSurfels(
        inputs["means2d"], depths, inputs["ray_transforms"] + shift, inputs["normals"], radii
    )
    values = torch.cat([inputs["features"], depths[:, None], inputs["normals"]], -1)
    composite = composite_reference(
        projected, inputs["opacities"], values, size, options, absolute if options.absgrad else None
    )
    channels = inputs["features"].shape[1]
    transmittance = composite.transmittance[..., None]
    features = composite.values[..., :channels]
    if "background" in inputs:
        features = features + transmittance * inputs["background"]
    found = {"features": features, "alpha": 1 - transmittance}
    if options.depth or options.distortion:
        found["depth"] = composite.values[..., channels : channels + 1]
    if options.median_depth:
        found["median_depth"] = composite.median_depth[..., None]
    if options.normals:
        found["normals"] = composite.values[..., channels + 1 :]
    if options.distortion:
        found["distortion"] = composite.distortion[..., None]
    return found, probe, absolute


def cut_pixels(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> Tensor:
    """Pixels where any image differs: there a surfel lies within rounding of a cut."""
    differs = [
        ((actual[name].double() - want).abs() > TOLERANCE * max(1.0, want.abs().amax().item()))
        for name, want in expected.items()
        if want.numel() > 0
    ]
    return torch.stack([d.any(-1, keepdim=True) for d in differs]).any(0)


def linear_loss(found: dict[str, Tensor], names: list[str], counts: Tensor) -> Tensor:
    """A fixed random linear function of the images, over the pixels that count."""
    generator = torch.Generator().manual_seed(3)
    cotangents = {
        name: torch.randn(found[name].shape, generator=generator) * counts for name in names
    }
    return torch.stack(
        [(found[name] * cotangents[name].to(found[name])).sum() for name in names]
    ).sum()


@dataclass(frozen=True)
class Expectation:
    """What the reference makes of a scene in float64."""

    inputs: Inputs
    radii: Tensor
    size: tuple[int, int]
    leaves: Inputs
    images: dict[str, Tensor]
    probe: Tensor
    absolute: Tensor

    @functools.cached_property
    def whole_gradients(self) -> dict[str, Tensor | None]:
        """Of `linear_loss` of all images where no pixel is cut."""
        return self.gradients(list(self.images), torch.ones(*self.size[::-1], 1, dtype=torch.bool))

    def gradients(self, names: list[str], counts: Tensor) -> dict[str, Tensor | None]:
        """Of `linear_loss`."""
        targets = self.leaves | {"probe": self.probe, "absgrad": self.absolute}
        loss = linear_loss(self.images, names, counts)
        found = torch.autograd.grad(
            loss, list(targets.values()), retain_graph=True, allow_unused=True
        )
        gradients: dict[str, Tensor | None] = dict(zip(targets, found, strict=True))
        if gradients["absgrad"] is not None:
            gradients["absgrad"] = gradients["absgrad"] * self.inputs["depths"][:, None]
        return gradients


def expectation(scene: RasterScene, options: RasterOptions) -> Expectation:
    """Run the reference."""
    inputs, radii = projected_inputs(scene, options)
    size = (scene.camera.width, scene.camera.height)
    variables = leaves(inputs, torch.float64)
    return Expectation(inputs, radii, size, variables, *reference(variables, radii, size, options))


@functools.cache
def adversarial(name: str) -> Expectation:
    """The reference is slow, and instruction sets share it."""
    return expectation(ADVERSARIAL[name]("surfel"), EVERYTHING)


def compare(
    expected: Expectation,
    options: RasterOptions,
    library: NativeLibrary,
    max_cut_pixels: int = 0,
    only: list[str] | None = None,
) -> None:
    """Images pixel by pixel, gradients as vectors."""
    variables = leaves(expected.inputs, torch.float32)
    output = native(variables, expected.radii, expected.size, options, library)
    actual = images(output)
    assert actual.keys() == expected.images.keys()
    cut = cut_pixels(actual, expected.images)
    assert int(cut.sum()) <= max_cut_pixels
    names = only or list(actual)
    linear_loss(actual, names, ~cut).backward()
    found = {name: leaf.grad for name, leaf in variables.items()}
    found["probe"] = output.screen.probe.grad
    found["absgrad"] = output.screen.gradient if options.absgrad else None
    is_whole = only is None and not cut.any()
    check_gradients(
        found, expected.whole_gradients if is_whole else expected.gradients(names, ~cut)
    )


def check_gradients(found: dict[str, Tensor | None], wanted: dict[str, Tensor | None]) -> None:
    actual, expected = {}, {}
    for name, want in wanted.items():
        got = found[name]
        if want is None or want.norm() == 0:
            assert got is None or not got.any(), f"{name}: gradient of nothing"
        else:
            assert got is not None, f"{name}: no gradient"
            actual[name], expected[name] = got, want
    assert_grads_agree(actual, expected)


@functools.cache
def random_expectation() -> Expectation:
    """Shared like the adversarial ones."""
    return expectation(random_scene(200, 1, "surfel"), EVERYTHING)


@pytest.mark.parametrize("isa", instruction_sets())
def test_images_and_gradients_equal_the_reference_on_every_instruction_set(isa: str) -> None:
    compare(random_expectation(), EVERYTHING, load_or_skip(isa))


@pytest.mark.parametrize("isa", instruction_sets())
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial_scenes_equal_the_reference(name: str, isa: str) -> None:
    # One pixel of the needles lies on the 1/255 cut.
    compare(adversarial(name), EVERYTHING, load_or_skip(isa), max_cut_pixels=2)


@pytest.mark.parametrize("channels", [0, 5, 12, 40])
def test_any_number_of_channels_equals_the_reference(channels: int, library: NativeLibrary) -> None:
    scene = random_scene(80, channels, "surfel", 40, 23, channels, has_background=channels > 0)
    for options in (EVERYTHING, RasterOptions()):
        compare(expectation(scene, options), options, library)


@pytest.mark.parametrize(
    "image", ["features", "alpha", "depth", "median_depth", "normals", "distortion"]
)
def test_gradients_of_each_image_alone_equal_the_reference(
    image: str, library: NativeLibrary
) -> None:
    compare(random_expectation(), EVERYTHING, library, only=[image])


def test_outputs_that_nobody_asked_for_are_none(library: NativeLibrary) -> None:
    inputs, radii = projected_inputs(random_scene(20, 2, "surfel"), RasterOptions())
    output = native(inputs, radii, (83, 61), RasterOptions(), library)
    assert set(images(output)) == {"features", "alpha"}
    output = native(inputs, radii, (83, 61), RasterOptions(distortion=True), library)
    assert set(images(output)) == {"features", "alpha", "depth", "distortion"}


def test_bits_do_not_depend_on_the_number_of_threads(library: NativeLibrary) -> None:
    scene = random_scene(400, 8, "surfel", 150, 130, 19)
    inputs, radii = projected_inputs(scene, EVERYTHING)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            variables = leaves(inputs, torch.float32)
            output = native(variables, radii, (150, 130), EVERYTHING, library)
            found = images(output)
            # Products with fixed cotangents in double: the loss itself must not depend on threads.
            torch.autograd.backward(
                list(found.values()), [torch.ones_like(image) for image in found.values()]
            )
            gradients = {name: leaf.grad for name, leaf in variables.items()}
            results.append(found | gradients | {"absgrad": output.screen.gradient})
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for name, value in results[0].items():
            assert torch.equal(value, other[name]), name


def test_backward_twice_gives_the_same_gradient(library: NativeLibrary) -> None:
    """The state of forward outlives one backward pass, and calls in between do not touch it."""
    inputs, radii = projected_inputs(random_scene(60, 9, "surfel"), EVERYTHING)
    variables = leaves(inputs, torch.float32)
    output = native(variables, radii, (83, 61), EVERYTHING, library)
    native(inputs, radii, (83, 61), EVERYTHING, library)
    rays = variables["ray_transforms"]
    (first,) = torch.autograd.grad(output.features.sum(), rays, retain_graph=True)
    (second,) = torch.autograd.grad(output.features.sum(), rays)
    assert torch.equal(first, second)


def test_the_tile_rectangle_cuts_contributions(library: NativeLibrary) -> None:
    """As in gsplat, a surfel shows only in the 16-pixel tiles that its rectangle overlaps."""
    means2d = torch.tensor([[24.0, 24.0]])
    # Standard deviation 40 pixels, but radii of 7: everything outside tile (1, 1) is cut.
    rays = torch.tensor([[[40.0, 0.0, 24.0], [0.0, 40.0, 24.0], [0.0, 0.0, 1.0]]])
    projected = ProjectedSurfels(
        means2d,
        torch.ones(1),
        rays,
        torch.tensor([[0.0, 0.0, -1.0]]),
        torch.full((1, 2), 7, dtype=torch.int32),
    )
    output = composite_surfels(
        projected, torch.ones(1), torch.ones(1, 1), None, (48, 48), RasterOptions(), library
    )
    expected = torch.zeros(48, 48, dtype=torch.bool)
    expected[16:32, 16:32] = True
    assert torch.equal(output.alpha[..., 0] > 0, expected)


def test_the_low_pass_shows_a_surfel_that_is_seen_edge_on(library: NativeLibrary) -> None:
    """Its plane meets no pixel ray near it, the disc of half a square pixel remains: eq. 11."""
    rays = torch.tensor([[[1e-4, 0.0, 8.5], [0.0, 1e-4, 8.5], [0.0, 0.0, 1.0]]])
    projected = ProjectedSurfels(
        torch.tensor([[8.5, 8.5]]),
        torch.ones(1),
        rays,
        torch.tensor([[0.0, 0.0, -1.0]]),
        torch.ones(1, 2, dtype=torch.int32),
    )
    output = composite_surfels(
        projected, torch.full((1,), 0.5), torch.ones(1, 1), None, (16, 16), RasterOptions(), library
    )
    assert output.alpha[8, 9, 0].item() == pytest.approx(0.5 * torch.tensor(-1.0).exp().item())


@pytest.mark.parametrize("seed", range(2))
def test_culling_of_blocks_loses_no_contribution(seed: int, library: NativeLibrary) -> None:
    """Grazing, thin and large surfels: what the block test drops would show as wrong alpha."""
    scene = random_scene(100, 40 + seed, "surfel", 48, 48)
    generator = torch.Generator().manual_seed(seed)
    stretch = torch.exp(1.5 * torch.randn(100, 3, generator=generator))
    gaussians = scene.gaussians
    scene = scene.with_leaves(scene.leaves() | {"scales": gaussians.scales * stretch})
    compare(expectation(scene, EVERYTHING), EVERYTHING, library, max_cut_pixels=8)


@pytest.mark.parametrize("name", [*ADVERSARIAL, "random 20"])
def test_the_whole_backend_equals_the_reference_backend(name: str, library: NativeLibrary) -> None:
    """From Gaussians to images and back; some of these are lost if ray transforms are float32."""
    if name.startswith("random"):
        scene = random_scene(250, int(name.split()[1]), "surfel")
    else:
        scene = ADVERSARIAL[name]("surfel")
    options = all_outputs("surfel")
    float32, float64 = scene.leaves(), scene.to(torch.float64).leaves()
    for tensor in (*float32.values(), *float64.values()):
        tensor.requires_grad_()
    actual = images(rasterize(CpuBackend(library), scene, options))
    reference64 = scene.to(torch.float64).with_leaves(float64)
    expected = images(rasterize(ReferenceBackend(), reference64, options))
    cut = cut_pixels(actual, expected)
    # The rays of the middle row are parallel to every surfel of "edge-on": w is 0 in float32, where
    # a surfel is skipped, but the rounding of 0 in float64.
    assert int(cut.sum()) <= (12 if name == "edge-on" else 2)
    linear_loss(actual, list(actual), ~cut).backward()
    linear_loss(expected, list(expected), ~cut).backward()
    check_gradients(
        {name: leaf.grad for name, leaf in float32.items()},
        {name: leaf.grad for name, leaf in float64.items()},
    )
