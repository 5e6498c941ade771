"""Footprints of the reference: against gsplat's torch code and by hand, and what is culled."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci
from gsplat.cuda._torch_impl_2dgs import _fully_fused_projection_2dgs
from torch import Tensor

from splatir.raster.contract import RasterOptions
from splatir.raster.reference.projection import project_ellipsoids
from splatir.raster.reference.surfel_projection import project_surfels
from splatir.raster.reference.tiles import tile_lists, tile_pixels
from splatir.scene.gaussians import Gaussians, Primitive
from tests.gradients import assert_grads_agree
from tests.scenes import axis_camera, random_camera, random_gaussians

OPTIONS = RasterOptions()
WIDTH, HEIGHT = 83, 61


def _inputs(seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Leaves in float64 whose extent reaches beyond the guard band, and the opacities."""
    gaussians = random_gaussians(500, seed, extent=2.5)
    leaves = {
        key: getattr(gaussians, key).double().requires_grad_()
        for key in ("means", "quats", "scales")
    }
    return leaves, gaussians.opacities.double()


def _gaussians(leaves: dict[str, Tensor], opacities: Tensor, primitive: Primitive) -> Gaussians:
    return Gaussians(leaves["means"], leaves["quats"], leaves["scales"], opacities, primitive)


def _gradients(leaves: dict[str, Tensor], outputs: list[Tensor], seen: Tensor) -> dict[str, Tensor]:
    """Gradients of a random linear function of the visible rows."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros((), dtype=torch.float64)
    for output in outputs:
        cotangent = torch.randn(output.shape, generator=generator, dtype=output.dtype)
        total = total + (output * cotangent)[seen].sum()
    grads = torch.autograd.grad(total, list(leaves.values()))
    return dict(zip(leaves, grads, strict=True))


@pytest.mark.parametrize("seed", [0, 1])
def test_ellipsoid_footprints_and_their_gradients_equal_gsplats(seed: int) -> None:
    leaves, opacities = _inputs(seed)
    camera = random_camera(WIDTH, HEIGHT, seed).to(dtype=torch.float64)
    ours = project_ellipsoids(_gaussians(leaves, opacities, "ellipsoid"), camera, OPTIONS)
    covariances, _ = _quat_scale_to_covar_preci(leaves["quats"], leaves["scales"], True, False)
    assert covariances is not None
    radii, means2d, depths, conics, compensations = _fully_fused_projection(
        leaves["means"], covariances, camera.T_camera_world[None], camera.K[None], WIDTH, HEIGHT,
        calc_compensations=True,
    )  # fmt: skip
    assert compensations is not None
    seen = (ours.radii > 0).all(-1)
    # Theirs does not know opacity, so its rectangles are larger and it culls less.
    assert 100 < int(seen.sum()) < 500
    assert torch.all(radii[0][seen] >= ours.radii[seen])
    theirs = [means2d[0], depths[0], conics[0], compensations[0]]
    mine = [ours.means2d, ours.depths, ours.conics, ours.compensations]
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a[seen], b[seen], rtol=1e-9, atol=1e-9)
    assert_grads_agree(
        _gradients(leaves, mine, seen), _gradients(leaves, theirs, seen), rel_l2=1e-9
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_surfel_footprints_and_their_gradients_equal_gsplats(seed: int) -> None:
    leaves, opacities = _inputs(seed)
    camera = random_camera(WIDTH, HEIGHT, seed).to(dtype=torch.float64)
    ours = project_surfels(_gaussians(leaves, opacities, "surfel"), camera, OPTIONS)
    # Its annotation names four tensors, it returns five.
    radii, means2d, depths, transforms, normals = _fully_fused_projection_2dgs(  # pyright: ignore[reportAssignmentType]
        leaves["means"], leaves["quats"], leaves["scales"],
        camera.T_camera_world[None], camera.K[None], WIDTH, HEIGHT,
    )  # fmt: skip
    seen = (ours.radii > 0).all(-1)
    assert 100 < int(seen.sum()) < 500
    assert torch.equal(radii[0], ours.radii)
    # Theirs scales the normal by the third scale, which the kernels ignore.
    normals = normals[0] / leaves["scales"][:, 2:]
    theirs = [means2d[0], depths[0], transforms[0], normals]
    mine = [ours.means2d, ours.depths, ours.ray_transforms, ours.normals]
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a[seen], b[seen], rtol=1e-9, atol=1e-9)
    assert_grads_agree(
        _gradients(leaves, mine, seen), _gradients(leaves, theirs, seen), rel_l2=1e-9
    )


def _on_axis(z: float, scale: float = 0.1, opacity: float = 0.5, n: int = 1) -> Gaussians:
    return Gaussians(
        means=torch.tensor([[0.0, 0.0, z]]).repeat(n, 1),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(n, 1),
        scales=torch.full((n, 3), scale),
        opacities=torch.full((n,), opacity),
    )


def test_ellipsoid_on_the_axis_has_the_footprint_worked_out_by_hand() -> None:
    camera = axis_camera(40, 30, focal=50.0)
    projected = project_ellipsoids(_on_axis(2.0, 0.1, 0.5), camera, OPTIONS)
    variance = (50 * 0.1 / 2) ** 2 + 0.3
    torch.testing.assert_close(projected.means2d, torch.tensor([[20.0, 15.0]]))
    torch.testing.assert_close(projected.conics, torch.tensor([[1 / variance, 0.0, 1 / variance]]))
    assert projected.depths.item() == 2.0
    assert projected.compensations.item() == pytest.approx(1 - 0.3 / variance)
    radius = math.ceil(math.sqrt(2 * math.log(255 * 0.5) * variance))
    assert projected.radii.tolist() == [[radius, radius]]


def test_surfel_facing_the_camera_has_the_footprint_worked_out_by_hand() -> None:
    camera = axis_camera(40, 30, focal=50.0)
    gaussians = replace(_on_axis(2.0), primitive="surfel")
    projected = project_surfels(gaussians, camera, OPTIONS)
    want = torch.tensor([[[5.0, 0.0, 40.0], [0.0, 5.0, 30.0], [0.0, 0.0, 2.0]]])
    torch.testing.assert_close(projected.ray_transforms, want)
    torch.testing.assert_close(projected.means2d, torch.tensor([[20.0, 15.0]]))
    torch.testing.assert_close(projected.normals, torch.tensor([[0.0, 0.0, -1.0]]))
    assert projected.radii.tolist() == [[math.ceil(3.33 * 2.5)] * 2]


def test_antialiased_opacity_shrinks_the_rectangle_and_can_cull() -> None:
    camera = axis_camera(40, 30, focal=50.0)
    antialiased = RasterOptions(antialiased=True)
    faint = _on_axis(2.0, scale=0.001, opacity=0.5)
    assert project_ellipsoids(faint, camera, OPTIONS).radii[0, 0] > 0
    assert project_ellipsoids(faint, camera, antialiased).radii[0, 0] == 0
    solid = _on_axis(2.0, scale=0.004, opacity=0.5)
    assert (
        project_ellipsoids(solid, camera, antialiased).radii[0, 0]
        < project_ellipsoids(solid, camera, OPTIONS).radii[0, 0]
    )


@pytest.mark.parametrize(
    ("gaussians", "options", "ellipsoid_stays", "surfel_stays"),
    [
        (_on_axis(0.5), RasterOptions(near=0.5, far=2.0), True, False),
        (_on_axis(2.0), RasterOptions(near=0.5, far=2.0), True, False),
        (_on_axis(0.49), RasterOptions(near=0.5), False, False),
        (_on_axis(2.01), RasterOptions(far=2.0), False, False),
        (_on_axis(-1.0), OPTIONS, False, False),
        (_on_axis(0.0), OPTIONS, False, False),
        (_on_axis(2.0, opacity=0.0039), OPTIONS, False, True),
        (_on_axis(2.0, scale=1e-6), RasterOptions(radius_clip=2.0), False, False),
        (_on_axis(2.0, scale=1e-6), RasterOptions(radius_clip=0.5), True, True),
        (replace(_on_axis(2.0), means=torch.tensor([[3.0, 0.0, 2.0]])), OPTIONS, False, False),
    ],
)
def test_culling_keeps_exactly_what_gsplat_keeps(
    gaussians: Gaussians, options: RasterOptions, ellipsoid_stays: bool, surfel_stays: bool
) -> None:
    camera = axis_camera(40, 30, focal=50.0)
    ellipsoid = project_ellipsoids(gaussians, camera, options)
    assert bool((ellipsoid.radii > 0).all()) == ellipsoid_stays
    surfel = project_surfels(replace(gaussians, primitive="surfel"), camera, options)
    assert bool((surfel.radii > 0).all()) == surfel_stays


def test_every_alpha_above_the_cut_lies_inside_the_rectangle() -> None:
    """Ellipsoids must not depend on tiles: any conservative culling gives the same image."""
    camera = random_camera(WIDTH, HEIGHT, 5)
    gaussians = random_gaussians(300, 5)
    projected = project_ellipsoids(gaussians, camera, OPTIONS)
    seen = torch.nonzero((projected.radii > 0).all(-1))[:, 0]
    xx, xy, yy = projected.conics[seen].double().unbind(-1)
    covariances = torch.stack([yy, xx], -1) / (xx * yy - xy * xy)[:, None]
    reach = (2 * (255 * gaussians.opacities[seen].double()).log()[:, None] * covariances).sqrt()
    assert torch.all(projected.radii[seen] >= reach - 1e-4)


def test_tiles_list_splats_by_depth_and_cover_each_pixel_once() -> None:
    means2d = torch.tensor([[8.0, 8.0], [16.0, 8.0], [40.0, 20.0], [100.0, 100.0], [8.0, 8.0]])
    radii = torch.tensor([[2, 2], [1, 1], [40, 40], [0, 0], [3, 3]])
    depths = torch.tensor([3.0, 1.0, 2.0, 0.5, 3.0])
    lists = tile_lists(means2d, radii, depths, 37, 20)
    starts = torch.tensor((0, *lists.counts)).cumsum(0).tolist()
    per_tile = [lists.splats[a:b].tolist() for a, b in itertools.pairwise(starts)]
    assert lists.columns == 3
    assert per_tile == [[1, 2, 0, 4], [1, 2], [2], [2], [2], [2]]
    pixels = torch.cat([tile_pixels(t, 3, 37, 20, torch.device("cpu")) for t in range(6)])
    assert torch.equal(pixels.sort().values, torch.arange(37 * 20))
