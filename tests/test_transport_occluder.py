"""The polygons that stand for Gaussians: their place, size and side."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from splatir.maths.rotations import rotation_from_quat
from splatir.scene.gaussians import Gaussians, Primitive
from splatir.scene.normals import normal_axes
from splatir.transport.occluder import OccluderSettings, occluder_of
from tests.polygons import soup


def random_gaussians(primitive: Primitive, count: int = 30) -> Gaussians:
    generator = torch.Generator().manual_seed(3)
    scales = 0.02 + 0.2 * torch.rand(count, 3, generator=generator)
    means, quats = (torch.randn(count, k, generator=generator) for k in (3, 4))
    return Gaussians(means, quats, scales, 0.45 + 0.5 * torch.rand(count), primitive)


def polygons(gaussians: Gaussians, settings: OccluderSettings) -> Tensor:
    """Corners by polygon, relative to the centre, in the Gaussian's own axes."""
    occluder = occluder_of(gaussians, settings)
    corners = occluder.vertices.unflatten(0, (-1, 8))
    owners = occluder.owners.unflatten(0, (-1, 6))[:, 0]
    rotations = rotation_from_quat(gaussians.quats)[owners]
    return (corners - gaussians.means[owners, None]) @ rotations


@pytest.mark.parametrize("primitive", ["ellipsoid", "surfel"])
def test_corners_lie_where_alpha_has_fallen_to_the_threshold(primitive: Primitive) -> None:
    gaussians = random_gaussians(primitive)
    settings = OccluderSettings(threshold=0.4, max_extent=9.0)
    local = polygons(gaussians, settings)
    sigmas = (local / gaussians.scales[:, None]).square().sum(-1)
    alpha = gaussians.opacities[:, None] * (-0.5 * sigmas).exp()
    torch.testing.assert_close(alpha, torch.full_like(alpha, 0.4), rtol=1e-4, atol=0.0)
    flat = 2 if primitive == "surfel" else gaussians.scales.argmin(-1)
    heights = local[torch.arange(30), :, flat]
    torch.testing.assert_close(heights, torch.zeros_like(heights), rtol=0.0, atol=1e-5)


def test_extent_is_limited_to_its_maximum() -> None:
    gaussians = replace(random_gaussians("surfel"), opacities=torch.full((30,), 0.999))
    local = polygons(gaussians, OccluderSettings(threshold=0.01, max_extent=1.5))
    sigmas = (local / gaussians.scales[:, None]).norm(dim=-1)
    torch.testing.assert_close(sigmas, torch.full_like(sigmas, 1.5), rtol=1e-4, atol=0.0)


def test_polygons_cover_the_octagon_of_the_ellipse() -> None:
    gaussians = random_gaussians("ellipsoid")
    occluder = occluder_of(gaussians)
    a, b, c = occluder.vertices[occluder.faces].unbind(1)
    areas = torch.linalg.cross(b - a, c - a).norm(dim=-1) / 2.0
    total = torch.zeros(30).index_add(0, occluder.owners, areas)
    extent = (
        (2.0 * (gaussians.opacities / OccluderSettings().threshold).log())
        .sqrt()
        .clamp_max(OccluderSettings().max_extent)
    )
    ellipse = math.pi * (extent * occluder.sizes).square()
    octagon = 8.0 / (2.0 * math.pi) * math.sin(2.0 * math.pi / 8.0)
    torch.testing.assert_close(total, octagon * ellipse, rtol=1e-4, atol=0.0)


def test_sizes_are_the_mean_deviations_within_the_plane() -> None:
    surfels = random_gaussians("surfel")
    want = surfels.scales[:, :2].prod(-1).sqrt()
    torch.testing.assert_close(occluder_of(surfels).sizes, want)
    ellipsoids = random_gaussians("ellipsoid")
    want = ellipsoids.scales.sort(-1).values[:, 1:].prod(-1).sqrt()
    torch.testing.assert_close(occluder_of(ellipsoids).sizes, want)


@pytest.mark.parametrize("primitive", ["ellipsoid", "surfel"])
def test_polygons_face_the_normal_axis(primitive: Primitive) -> None:
    gaussians = random_gaussians(primitive)
    occluder = occluder_of(gaussians)
    assert torch.equal(occluder.normals, normal_axes(gaussians))
    a, b, c = occluder.vertices[occluder.faces].unbind(1)
    normals = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
    along = (normals * occluder.normals[occluder.owners]).sum(-1)
    torch.testing.assert_close(along, torch.ones_like(along), rtol=0.0, atol=1e-3)


def test_gaussians_at_or_below_the_threshold_have_no_polygon_but_a_place() -> None:
    gaussians = soup(4)
    least = OccluderSettings().threshold
    gaussians.opacities[:] = torch.tensor([0.9 * least, least, 1.1 * least, 0.9])
    occluder = occluder_of(gaussians)
    assert set(occluder.owners.tolist()) == {2, 3}
    assert len(occluder.vertices) == 16 and len(occluder.faces) == 12
    assert len(occluder.centres) == len(occluder.normals) == len(occluder.sizes) == 4


@pytest.mark.parametrize("count", [0, 1])
def test_small_models_have_occluders(count: int) -> None:
    occluder = occluder_of(soup(count))
    assert len(occluder.faces) == 6 * count
    assert occluder.vertices.isfinite().all()


def test_extreme_gaussians_have_finite_polygons() -> None:
    gaussians = soup(4)
    gaussians.opacities[:] = torch.tensor([0.0, 1.0, 0.4, 1e-30])
    gaussians.scales[:] = torch.tensor([0.0, 1e-20, 1e20, 1.0])[:, None]
    occluder = occluder_of(gaussians)
    assert occluder.vertices.isfinite().all() and occluder.sizes.isfinite().all()


def test_occluders_stay_when_the_gaussians_learn_on() -> None:
    gaussians = soup(3)
    gaussians.means.requires_grad_()
    occluder = occluder_of(gaussians)
    before = {name: tensor.clone() for name, tensor in vars(occluder).items()}
    with torch.no_grad():
        for name in ("means", "quats", "scales", "opacities"):
            getattr(gaussians, name).mul_(1.1)
    for name, tensor in vars(occluder).items():
        assert not tensor.requires_grad and torch.equal(tensor, before[name])
