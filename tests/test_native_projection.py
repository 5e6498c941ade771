"""Native projection against gsplat's torch functions in float64, and its exact properties."""

import dataclasses
import math
from collections.abc import Iterator

import pytest
import torch
from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci
from gsplat.cuda._torch_impl_2dgs import _fully_fused_projection_2dgs
from torch import Tensor

from splatir.native.build import instruction_sets
from splatir.native.library import NativeLibrary, available, library, load
from splatir.raster.contract import BLUR, RasterOptions
from splatir.raster.native_projection import (
    ProjectedEllipsoids,
    ProjectedSurfels,
    project_ellipsoids,
    project_surfels,
)
from splatir.scene.camera import Camera
from tests.gradients import assert_grads_agree

pytestmark = pytest.mark.skipif(not available(), reason="the native library is not built")

WIDTH, HEIGHT = 121, 89
# Nearer centres lose digits in float32 (z is a difference), whoever projects them.
NEAR = 0.3


@pytest.fixture(params=list(instruction_sets()))
def build(request: pytest.FixtureRequest) -> Iterator[NativeLibrary]:
    isa = request.param
    if not library().supports_this_processor(isa):
        pytest.skip(f"this processor does not run {isa}")
    yield load(isa)


def make_camera() -> Camera:
    K = torch.tensor([[130.0, 0, 63.0], [0, 120.0, 41.0], [0, 0, 1]])
    axis = torch.tensor([0.2, -0.3, 0.1])
    T = torch.eye(4)
    skew = torch.tensor([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    T[:3, :3] = torch.linalg.matrix_exp(skew)
    T[:3, 3] = torch.tensor([0.1, -0.2, 3.0])
    return Camera(K, T, WIDTH, HEIGHT)


def make_splats(n: int, spread: float = 1.5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(n)
    return {
        "means": spread * torch.randn(n, 3, generator=generator),
        "quats": 1.7 * torch.randn(n, 4, generator=generator),
        "scales": torch.exp(torch.randn(n, 3, generator=generator) - 3),
        "opacities": torch.rand(n, generator=generator),
    }


@dataclasses.dataclass(frozen=True)
class Leaves:
    """Splats to differentiate by, and both ways to project them."""

    means: Tensor
    quats: Tensor
    scales: Tensor

    def all(self) -> list[Tensor]:
        return [self.means, self.quats, self.scales]

    def ellipsoids(
        self, opacities: Tensor, camera: Camera, options: RasterOptions, build: NativeLibrary
    ) -> ProjectedEllipsoids:
        return project_ellipsoids(
            self.means, self.quats, self.scales, opacities, camera, options, build
        )

    def surfels(
        self, camera: Camera, options: RasterOptions, build: NativeLibrary
    ) -> ProjectedSurfels:
        return project_surfels(self.means, self.quats, self.scales, camera, options, build)

    def gsplat_ellipsoids(self, camera: Camera, options: RasterOptions) -> tuple[Tensor, ...]:
        """Radii, means2d, depths, conics, compensations."""
        camera = camera.to(dtype=torch.float64)
        covariances, _ = _quat_scale_to_covar_preci(self.quats, self.scales, True, False)
        assert covariances is not None
        outputs = _fully_fused_projection(
            self.means, covariances, camera.T_camera_world[None], camera.K[None], WIDTH, HEIGHT,
            options.blur, options.near, calc_compensations=True,
        )  # fmt: skip
        return tuple(output[0] for output in outputs if output is not None)

    def gsplat_surfels(self, camera: Camera, options: RasterOptions) -> tuple[Tensor, ...]:
        """Radii, means2d, depths, ray transforms, normals in the world frame."""
        camera = camera.to(dtype=torch.float64)
        T_camera_world = camera.T_camera_world
        *others, normals = _fully_fused_projection_2dgs(
            self.means, self.quats, self.scales, T_camera_world[None], camera.K[None],
            WIDTH, HEIGHT, options.near,
        )  # fmt: skip
        return *(output[0] for output in others), normals[0] @ T_camera_world[:3, :3]


def leaves(splats: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> Leaves:
    means, quats, scales = (
        splats[key].to(dtype).clone().requires_grad_() for key in ("means", "quats", "scales")
    )
    return Leaves(means, quats, scales)


def weighted_gradients(outputs: list[Tensor], keep: Tensor, inputs: Leaves) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    loss = torch.zeros((), dtype=outputs[0].dtype)
    for output in outputs:
        weights = torch.randn(output.shape, generator=generator).to(output.dtype)
        loss = loss + (output * weights)[keep].sum()
    gradients = torch.autograd.grad(loss, inputs.all())
    return dict(zip(("means", "quats", "scales"), gradients, strict=True))


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual.detach() - expected.detach()).norm() / expected.detach().norm())


@pytest.mark.parametrize(("antialiased", "blur"), [(False, BLUR), (True, BLUR), (True, 1.2)])
def test_ellipsoids_equal_gsplat(build: NativeLibrary, antialiased: bool, blur: float) -> None:
    splats, camera = make_splats(3001), make_camera()
    inputs, inputs64 = leaves(splats), leaves(splats, torch.float64)
    options = RasterOptions(antialiased=antialiased, near=NEAR, blur=blur)
    got = inputs.ellipsoids(torch.ones(3001), camera, options, build)
    radii, means2d, depths, conics, compensations = inputs64.gsplat_ellipsoids(camera, options)
    keep, expected_keep = (got.radii > 0).all(-1), (radii > 0).all(-1)
    assert 500 < keep.sum() < 2500
    assert not (keep & ~expected_keep).any()
    if not antialiased:  # opacity 1 culls nothing, but gsplat's torch code has 3.33 sigma always
        assert torch.equal(keep, expected_keep)
        a, b, c = conics.unbind(-1)
        variances = torch.stack([c, a], -1) / (a * c - b * b)[:, None]
        expected_radii = (math.sqrt(2 * math.log(255)) * variances.sqrt()).ceil()
        # A ceil within float32 rounding of an integer may fall on the other side.
        assert (got.radii != expected_radii)[keep].any(-1).sum() <= 2
    outputs, expected = [got.means2d, got.depths, got.conics], [means2d, depths, conics]
    if antialiased:
        assert got.compensations is not None
        outputs, expected = [*outputs, got.compensations], [*expected, compensations]
    for actual, want in zip(outputs, expected, strict=True):
        assert relative(actual[keep], want[keep]) < 1e-6
        assert not actual[~keep].any()
    assert_grads_agree(
        weighted_gradients(outputs, keep, inputs),
        weighted_gradients(expected, keep, inputs64),
        rel_l2=1e-5,
    )


def test_surfels_equal_gsplat(build: NativeLibrary) -> None:
    splats, camera = make_splats(3001), make_camera()
    splats["scales"][:, 2] = 1.0  # gsplat's torch code scales the normal by the third scale
    inputs, inputs64 = leaves(splats), leaves(splats, torch.float64)
    options = RasterOptions(near=NEAR)
    got = inputs.surfels(camera, options, build)
    radii, *expected = inputs64.gsplat_surfels(camera, options)
    keep = (got.radii > 0).all(-1)
    assert torch.equal(keep, (radii > 0).all(-1))
    assert 500 < keep.sum() < 2500
    assert (got.radii != radii).any(-1).sum() <= 2
    outputs = [got.means2d, got.depths, got.ray_transforms, got.normals]
    for actual, want in zip(outputs, expected, strict=True):
        # means2d are ill-conditioned where a surfel nearly reaches the plane of the eye.
        assert relative(actual[keep], want[keep]) < 1e-5
        assert not actual[~keep].any()
    got_gradients = weighted_gradients(outputs, keep, inputs)
    want_gradients = weighted_gradients(expected, keep, inputs64)
    want_gradients["scales"][:, 2] = 0.0  # that scaled normal again
    assert_grads_agree(got_gradients, want_gradients, rel_l2=1e-5)


def test_culled_splats_are_zero_and_get_no_gradient(build: NativeLibrary) -> None:
    """Behind, on and beyond the clip planes, off screen, transparent, not finite, too small."""
    camera = dataclasses.replace(make_camera(), T_camera_world=torch.eye(4))
    z = [-2.0, 0.0, 0.005, 50.0, 2.0, 2.0, float("nan"), 2.0, 2.0]
    n = len(z)
    means = torch.zeros(n, 3)
    means[:, 2] = torch.tensor(z)
    means[4, 0] = 40.0
    opacities = torch.full((n,), 0.9)
    opacities[5] = 0.003
    scales = torch.full((n, 3), 0.5)
    scales[7] = 1e-3
    splats = {"means": means, "quats": make_splats(n)["quats"], "scales": scales}
    options = RasterOptions(near=0.01, far=20.0, radius_clip=3.0)
    inputs = leaves(splats)
    ellipsoids = inputs.ellipsoids(opacities, camera, options, build)
    assert (ellipsoids.radii > 0).all(-1).tolist() == [False] * 8 + [True]
    surfels = inputs.surfels(camera, options, build)
    assert (surfels.radii > 0).all(-1).tolist() == [False] * 5 + [True, False, False, True]
    for projected in (ellipsoids, surfels):
        outputs = [getattr(projected, field.name) for field in dataclasses.fields(projected)]
        floating = [value for value in outputs if value is not None and value.is_floating_point()]
        assert all(value.isfinite().all() for value in floating)
        loss = torch.stack([value.sum() for value in floating]).sum()
        for gradient in torch.autograd.grad(loss, inputs.all()):
            assert gradient.isfinite().all()
            assert not gradient[(projected.radii == 0).all(-1)].any()


def test_radius_knows_opacity(build: NativeLibrary) -> None:
    """A centred isotropic splat: half extent = sqrt(2 ln(255 o)) sigma, at most 3.33 sigma."""
    camera = Camera(torch.tensor([[100.0, 0, 60], [0, 100, 40], [0, 0, 1]]), torch.eye(4), 120, 80)
    opacities = torch.tensor([0.0039, 1 / 250, 0.01, 0.1, 0.5, 1.0])
    n = len(opacities)
    means = torch.tensor([[0.0, 0.0, 2.0]]).expand(n, 3)
    quats, scales = torch.tensor([[1.0, 0, 0, 0]]).expand(n, 4), torch.full((n, 3), 0.2)
    radii = project_ellipsoids(means, quats, scales, opacities, camera, library=build).radii
    sigma = (100.0 + 0.3) ** 0.5
    reach = (2 * (255 * opacities.double()).log()).clamp_min(0).sqrt().clamp_max(3.33)
    expected = (reach * sigma).ceil().int()
    assert torch.equal(radii, expected[:, None].expand(n, 2))


def test_needles_keep_a_positive_determinant(build: NativeLibrary) -> None:
    """Needles 10^4 times longer than thick, where xx yy - xy^2 cancels in float32."""
    n = 500
    splats, camera = make_splats(n, spread=0.5), make_camera()
    splats["scales"] = torch.tensor([[3.0, 3e-4, 3e-4]]).repeat(n, 1)
    inputs, inputs64 = leaves(splats), leaves(splats, torch.float64)
    options = RasterOptions(antialiased=True)
    got = inputs.ellipsoids(torch.ones(n), camera, RasterOptions(), build)
    faint = inputs.ellipsoids(torch.ones(n), camera, options, build)
    radii, _, _, conics, compensations = inputs64.gsplat_ellipsoids(camera, options)
    keep = (radii > 0).all(-1)
    assert torch.equal((got.radii > 0).all(-1), keep)
    assert relative(got.conics[keep], conics[keep]) < 1e-5
    assert faint.compensations is not None
    shown = (faint.radii > 0).all(-1)
    assert shown.sum() > 100
    assert relative(faint.compensations[shown], compensations[shown]) < 1e-3
    assert_grads_agree(
        weighted_gradients([got.conics], keep, inputs),
        weighted_gradients([conics], keep, inputs64),
        rel_l2=1e-4,
    )


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 1000])
def test_threads_do_not_change_a_bit(build: NativeLibrary, n: int) -> None:
    splats, camera = make_splats(n), make_camera()
    results = []
    threads = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        inputs = leaves(splats)
        options = RasterOptions(antialiased=True)
        ellipsoids = inputs.ellipsoids(splats["opacities"], camera, options, build)
        surfels = inputs.surfels(camera, RasterOptions(), build)
        assert ellipsoids.compensations is not None
        outputs = [ellipsoids.means2d, ellipsoids.conics, ellipsoids.compensations]
        outputs += [surfels.means2d, surfels.ray_transforms, surfels.normals]
        loss = torch.stack([output.sum() for output in outputs]).sum()
        results.append([*outputs, *torch.autograd.grad(loss, inputs.all())])
    torch.set_num_threads(threads)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


def test_other_dtypes_are_refused() -> None:
    splats = {key: value.double() for key, value in make_splats(3).items()}
    with pytest.raises(ValueError, match=r"float32 tensors on the CPU, got means of torch.float64"):
        project_surfels(splats["means"], splats["quats"], splats["scales"], make_camera())
