"""Transport's sums over directions: torch against plain loops, native against torch."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from splatir.native.library import NativeLibrary, available
from splatir.shade.brdf import evaluate
from splatir.shade.surface import SurfacePoints
from splatir.transport import sums
from splatir.transport.bake import BELOW, Visibility
from splatir.transport.directions import DirectionCells, spherical_cells
from splatir.transport.native_sums import (
    bounced_irradiance_native,
    can_sum_natively,
    irradiance_native,
    specular_sums_native,
)
from splatir.transport.sums import (
    SpecularSums,
    bounced_irradiance,
    bounced_irradiance_torch,
    irradiance,
    irradiance_torch,
    specular_sums,
    specular_torch,
)
from splatir.transport.tracing import FREE
from tests.gradients import assert_grads_agree
from tests.spheres import unit

# Whole vectors of sixteen directions, a part of one, and one more than whole.
NUM_DIRECTIONS = (48, 7, 33)
PARTS = ("sky", "unoccluded", "bounced", "white")


def random_visibility(count: int, num_directions: int, seed: int = 0) -> Visibility:
    """Half of what is above the horizon is hidden by random Gaussians; float64 but float32's."""
    generator = torch.Generator().manual_seed(seed)
    normals = unit(torch.randn(count, 3, generator=generator)).double()
    cells = spherical_cells(num_directions, torch.empty(0))
    cells = DirectionCells(cells.directions.double(), cells.solid_angles.double())
    shape = (count, num_directions)
    hits = torch.randint(0, max(count, 1), shape, generator=generator, dtype=torch.int32)
    hits[torch.rand(shape, generator=generator) < 0.5] = FREE
    hits[normals @ cells.directions.mT <= 0.0] = BELOW
    return Visibility(cells, hits, normals)


def as_float(visibility: Visibility) -> Visibility:
    cells = visibility.cells
    return Visibility(
        DirectionCells(cells.directions.float(), cells.solid_angles.float()),
        visibility.hits,
        visibility.normals.float(),
    )


def uniform(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator).double()


class Receivers:
    """Some Gaussians of a visibility, seen at up to 85 degrees; float64 but float32's."""

    def __init__(self, visibility: Visibility, count: int) -> None:
        generator = torch.Generator().manual_seed(2)
        self.who = torch.randint(0, len(visibility.normals), (count,), generator=generator)
        normals = visibility.normals[self.who]
        aside = torch.randn(count, 3, generator=generator).double()
        aside = unit(aside - (aside * normals).sum(-1, keepdim=True) * normals)
        cosine = (0.09 + 0.9 * torch.rand(count, 1, generator=generator)).double()
        views = unit(cosine * normals + (1.0 - cosine.square()).sqrt() * aside)
        self.views = views.float().double()
        self.alpha = (0.11 + 0.89 * torch.rand(count, generator=generator)).double()

    def as_float(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.who, self.views.float(), self.alpha.float()


def test_irradiance_is_the_loop_over_directions() -> None:
    visibility, light = random_visibility(5, 21), uniform(21, 3)
    visible, unoccluded = irradiance_torch(visibility, light)
    for i, normal in enumerate(visibility.normals):
        want = torch.zeros(2, 3, dtype=torch.float64)
        for d, direction in enumerate(visibility.cells.directions):
            arriving = max(float(normal @ direction), 0.0) * light[d]
            want[1] += arriving
            if visibility.hits[i, d] == FREE:
                want[0] += arriving
        torch.testing.assert_close(torch.stack([visible[i], unoccluded[i]]), want)


def test_bounced_irradiance_is_the_loop_over_what_is_seen() -> None:
    visibility, radiosity = random_visibility(5, 21), uniform(5, 3)
    got = bounced_irradiance_torch(visibility, radiosity)
    cells = visibility.cells
    for i, normal in enumerate(visibility.normals):
        want = torch.zeros(3, dtype=torch.float64)
        for d, hit in enumerate(visibility.hits[i].tolist()):
            if hit >= 0:
                cosine = float(normal @ cells.directions[d])
                want += cosine * cells.solid_angles[d] * radiosity[hit]
        torch.testing.assert_close(got[i], want)


@pytest.mark.parametrize("reflectance", [0.0, 0.04, 0.9])
def test_specular_sums_reflect_by_the_brdf(reflectance: float) -> None:
    """With F0 put in, each sum is that of the BRDF which everything else is shaded with."""
    visibility, light, radiosity = random_visibility(6, 40), uniform(40, 3), uniform(6, 3, seed=3)
    cells, chosen = visibility.cells, Receivers(visibility, 9)
    got = specular_torch(visibility, chosen.who, chosen.views, chosen.alpha, light, radiosity)
    want = {name: torch.zeros(9, 3, dtype=torch.float64) for name in PARTS}
    for p, i in enumerate(chosen.who.tolist()):
        # A metal's F0 is its albedo; at 0 the lobe is Schlick's remainder alone.
        material = torch.tensor([[reflectance] * 3, [1.0] * 3], dtype=torch.float64)
        points = SurfacePoints(
            torch.zeros(1, 3, dtype=torch.float64),
            visibility.normals[i : i + 1],
            chosen.views[p : p + 1],
            material[:1],
            chosen.alpha[p].sqrt().reshape(1, 1),
            material[1:, :1],
        )
        for d, hit in enumerate(visibility.hits[i].tolist()):
            if hit == BELOW:
                continue
            lobe = evaluate(points, cells.directions[d : d + 1])[1][0]
            want["unoccluded"][p] += lobe * light[d]
            want["white"][p] += lobe * cells.solid_angles[d]
            if hit == FREE:
                want["sky"][p] += lobe * light[d]
            else:
                want["bounced"][p] += lobe * cells.solid_angles[d] * radiosity[hit]
    for name in PARTS:
        constant, grazing = getattr(got, name).unbind(-1)
        reflected = reflectance * (constant - grazing) + grazing
        torch.testing.assert_close(reflected.expand(-1, 3), want[name])


def test_sums_over_many_directions_are_the_integrals_of_the_hemisphere() -> None:
    """Radiance 1 from everywhere is irradiance pi, and matt lobes reflect what they should."""
    visibility = random_visibility(4, 4096)
    visible, unoccluded = irradiance_torch(
        replace(visibility, hits=visibility.hits.clamp_max(FREE)),
        visibility.cells.solid_angles[:, None].expand(-1, 3),
    )
    torch.testing.assert_close(
        unoccluded, torch.full_like(unoccluded, math.pi), rtol=2e-3, atol=0.0
    )
    assert torch.equal(visible, unoccluded)


@pytest.mark.parametrize("num_directions", NUM_DIRECTIONS)
def test_native_irradiance_is_the_reference(num_directions: int, build: NativeLibrary) -> None:
    visibility, light = random_visibility(50, num_directions), uniform(num_directions, 3)
    want = irradiance_torch(visibility, light)
    got = irradiance_native(as_float(visibility), light.float(), build)
    for value, reference in zip(got, want, strict=True):
        torch.testing.assert_close(value.double(), reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_directions", NUM_DIRECTIONS)
def test_native_bounced_irradiance_is_the_reference(
    num_directions: int, build: NativeLibrary
) -> None:
    visibility, radiosity = random_visibility(50, num_directions), uniform(50, 3)
    want = bounced_irradiance_torch(visibility, radiosity)
    got = bounced_irradiance_native(as_float(visibility), radiosity.float(), build)
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_directions", NUM_DIRECTIONS)
def test_native_specular_sums_are_the_reference(num_directions: int, build: NativeLibrary) -> None:
    visibility = random_visibility(50, num_directions)
    light, radiosity = uniform(num_directions, 3), uniform(50, 3, seed=3)
    chosen = Receivers(visibility, 70)
    want = specular_torch(visibility, chosen.who, chosen.views, chosen.alpha, light, radiosity)
    got = specular_sums_native(
        as_float(visibility), *chosen.as_float(), light.float(), radiosity.float(), build
    )
    for name, value in zip(PARTS, got, strict=True):
        # Near the peak of a narrow lobe float32 keeps four digits of sin^2.
        torch.testing.assert_close(value.double(), getattr(want, name), rtol=2e-4, atol=2e-6)


def test_lobes_seen_from_below_or_along_the_surface_are_finite(build: NativeLibrary) -> None:
    """Views below the horizon mask as grazing ones; opposite directions have no half vector."""
    visibility = random_visibility(3, 32)
    directions = visibility.cells.directions
    normal = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).expand(3, 3)
    hits = torch.full_like(visibility.hits, FREE)
    visibility = replace(visibility, normals=normal, hits=hits)
    views = torch.stack([-directions[0], unit(normal[0] * 1e-6 + torch.eye(3)[0]), -directions[15]])
    who, alpha = torch.arange(3), torch.full((3,), 0.11, dtype=torch.float64)
    light, radiosity = uniform(32, 3), uniform(3, 3)
    want = specular_torch(visibility, who, views, alpha, light, radiosity)
    got = specular_sums_native(
        as_float(visibility),
        who,
        views.float(),
        alpha.float(),
        light.float(),
        radiosity.float(),
        build,
    )
    for name, value in zip(PARTS, got, strict=True):
        assert value.isfinite().all()
        torch.testing.assert_close(value.double(), getattr(want, name), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("count", [1, 50])
def test_native_gradients_are_those_of_the_reference(count: int, build: NativeLibrary) -> None:
    visibility = random_visibility(count, 33, seed=4)
    weights = uniform(3, count, 3, seed=5)

    def gradients(seen: Visibility, native: bool) -> dict[str, Tensor]:
        dtype = seen.normals.dtype
        light = uniform(33, 3).to(dtype).requires_grad_()
        radiosity = uniform(count, 3).to(dtype).requires_grad_()
        if native:
            visible, unoccluded = irradiance_native(seen, light, build)
            bounced = bounced_irradiance_native(seen, radiosity, build)
        else:
            visible, unoccluded = irradiance_torch(seen, light)
            bounced = bounced_irradiance_torch(seen, radiosity)
        images = torch.stack([visible, unoccluded, bounced])
        (images * weights.to(dtype)).sum().backward()
        assert light.grad is not None and radiosity.grad is not None
        return {"light": light.grad, "radiosity": radiosity.grad}

    assert_grads_agree(gradients(as_float(visibility), True), gradients(visibility, False), 1e-5)


def test_reference_gradients_pass_gradcheck() -> None:
    visibility = random_visibility(4, 9)
    light, radiosity = uniform(9, 3).requires_grad_(), uniform(4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: irradiance_torch(visibility, x), light)
    assert torch.autograd.gradcheck(lambda x: bounced_irradiance_torch(visibility, x), radiosity)


def test_results_and_gradients_are_the_same_bits_for_any_number_of_threads() -> None:
    if not available():
        pytest.skip("the native library is not built")
    visibility = as_float(random_visibility(300, 40))
    chosen = Receivers(visibility, 333)

    def everything() -> list[Tensor]:
        light = uniform(40, 3).float().requires_grad_()
        radiosity = uniform(300, 3).float().requires_grad_()
        visible, unoccluded = irradiance_native(visibility, light)
        bounced = bounced_irradiance_native(visibility, radiosity)
        specular = specular_sums_native(visibility, *chosen.as_float(), light, radiosity)
        (visible.square() + unoccluded + bounced.square()).sum().backward()
        assert light.grad is not None and radiosity.grad is not None
        return [visible, unoccluded, bounced, *specular, light.grad, radiosity.grad]

    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(everything())
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_gaussians_and_no_receivers_give_empty_sums(dtype: torch.dtype) -> None:
    """float32 goes the native way where it is built, float64 that of torch."""
    none = random_visibility(0, 20)
    none = as_float(none) if dtype == torch.float32 else none
    light = torch.ones(20, 3, dtype=dtype, requires_grad=True)
    visible, unoccluded = irradiance(none, light)
    assert visible.shape == unoccluded.shape == (0, 3)
    visible.sum().backward()
    assert light.grad is not None and torch.equal(light.grad, torch.zeros_like(light))
    empty = torch.empty(0, 3, dtype=dtype)
    assert bounced_irradiance(none, empty).shape == (0, 3)
    nobody = torch.empty(0, dtype=torch.long)
    found = specular_sums(none, nobody, empty, empty[:, 0], light, empty)
    assert found.sky.shape == (0, 3, 2) and found.white.shape == (0, 1, 2)


def test_sums_are_linear_in_light_and_radiosity() -> None:
    visibility = random_visibility(20, 33)
    seen, chosen = as_float(visibility), Receivers(visibility, 20)
    lights, sent = uniform(2, 33, 3).float(), uniform(2, 20, 3).float()

    def everything(light: Tensor, radiosity: Tensor) -> Tensor:
        found = specular_sums(seen, *chosen.as_float(), light, radiosity)
        reflected = torch.cat([found.sky, found.unoccluded, found.bounced], dim=1).sum(-1)
        return torch.cat(
            [*irradiance(seen, light), bounced_irradiance(seen, radiosity), reflected], dim=1
        )

    both = everything(2.0 * lights[0] + lights[1], 2.0 * sent[0] + sent[1])
    parts = 2.0 * everything(lights[0], sent[0]) + everything(lights[1], sent[1])
    torch.testing.assert_close(both, parts, rtol=1e-5, atol=1e-5)


def test_chunks_of_the_reference_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    visibility, light, radiosity = random_visibility(10, 12), uniform(12, 3), uniform(10, 3)
    chosen = Receivers(visibility, 7)

    def everything() -> list[Tensor]:
        found: SpecularSums = specular_torch(
            visibility, chosen.who, chosen.views, chosen.alpha, light, radiosity
        )
        return [
            *irradiance_torch(visibility, light),
            bounced_irradiance_torch(visibility, radiosity),
            *(getattr(found, name) for name in PARTS),
        ]

    whole = everything()
    monkeypatch.setattr(sums, "_CHUNK", 30)
    for part, expected in zip(everything(), whole, strict=True):
        torch.testing.assert_close(part, expected)


def test_specular_sums_are_constants() -> None:
    visibility = random_visibility(5, 20)
    chosen = Receivers(visibility, 5)
    for seen, dtype in ((visibility, torch.float64), (as_float(visibility), torch.float32)):
        light = uniform(20, 3).to(dtype).requires_grad_()
        views, alpha = chosen.views.to(dtype), chosen.alpha.to(dtype)
        found = specular_sums(seen, chosen.who, views, alpha, light, uniform(5, 3).to(dtype))
        assert not any(getattr(found, name).requires_grad for name in PARTS)


def test_what_kernels_cannot_take_goes_the_way_of_torch() -> None:
    visibility = random_visibility(5, 20)
    seen = as_float(visibility)
    light = torch.ones(20, 3)
    assert not can_sum_natively(visibility, light.double())
    assert not can_sum_natively(seen, light.double())
    learning = replace(seen, normals=seen.normals.clone().requires_grad_())
    assert not can_sum_natively(learning, light)
    assert not can_sum_natively(replace(seen, hits=seen.hits.long()), light)
    assert irradiance(learning, light)[0].requires_grad


def test_lengths_that_would_be_read_beyond_are_refused() -> None:
    if not available():
        pytest.skip("the native library is not built")
    seen = as_float(random_visibility(5, 20))
    views, alpha = torch.ones(1, 3), torch.ones(1)
    with pytest.raises(ValueError, match=r"light must have shape \[20, 3\]"):
        irradiance_native(seen, torch.ones(19, 3))
    with pytest.raises(ValueError, match=r"radiosity must have shape \[5, 3\]"):
        bounced_irradiance_native(seen, torch.ones(4, 3))
    with pytest.raises(IndexError, match=r"0\.\.4"):
        specular_sums_native(
            seen, torch.tensor([5]), views, alpha, torch.ones(20, 3), torch.ones(5, 3)
        )
