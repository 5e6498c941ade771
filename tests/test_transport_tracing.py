"""Rays against the polygons of Gaussians: Embree, and torch where Embree is missing."""

import sys
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from splatir.transport import torch_tracer, tracing
from splatir.transport.occluder import Occluder, OccluderSettings, occluder_of
from splatir.transport.torch_tracer import TorchTracer, tracer_for
from splatir.transport.tracing import FREE, EmbreeTracer, RayTracer
from tests.polygons import discs, hits_of, rays, scaled, soup

MakeTracer = Callable[[Occluder], RayTracer]


@pytest.fixture(params=["embree", "torch"])
def tracer(request: pytest.FixtureRequest) -> MakeTracer:
    if request.param == "torch":
        return TorchTracer
    pytest.importorskip("embreex")
    return EmbreeTracer


def stack(count: int, gap: float = 1.0) -> Occluder:
    """Unit-size discs above each other that look up, the first at height 0."""
    up = torch.tensor([[0.0, 0.0, 1.0]]).expand(count, 3)
    return occluder_of(discs(up * gap * torch.arange(count)[:, None], up, 1.0))


def test_rays_hit_the_nearest_polygon_in_their_way(tracer: MakeTracer) -> None:
    traced = tracer(stack(3))
    down, up = [0.0, 0.0, -1.0], [0.0, 0.0, 1.0]
    assert hits_of(traced, [0.1, 0.2, 5.0], down) == 2
    assert hits_of(traced, [0.1, 0.2, 1.5], down) == 1
    assert hits_of(traced, [0.1, 0.2, -0.5], down) == FREE
    assert hits_of(traced, [0.1, 0.2, -0.5], up) == 0
    assert hits_of(traced, [3.0, 0.0, 5.0], down) == FREE
    assert hits_of(traced, [3.0, 0.0, 0.5], [-1.0, 0.0, 0.0]) == FREE
    assert hits_of(traced, [5.0, 0.0, 5.0], [-4.0, 0.0, -4.0]) == 1


def test_backs_let_near_rays_through_and_fronts_do_not(tracer: MakeTracer) -> None:
    traced = tracer(stack(2))
    up, below = [0.0, 0.0, 1.0], [0.1, 0.2, -0.25]
    assert hits_of(traced, below, up, back_reach=0.2) == 0
    assert hits_of(traced, below, up, back_reach=0.3) == 1
    assert hits_of(traced, below, up, back_reach=1.2) == 1
    assert hits_of(traced, below, up, back_reach=1.3) == FREE
    assert hits_of(traced, [0.1, 0.2, 1.25], [0.0, 0.0, -1.0], back_reach=9.0) == 1


def test_rays_pass_through_many_near_backs(tracer: MakeTracer) -> None:
    """A bundle of overlapping splats is thicker than one sheet."""
    traced = tracer(stack(20, gap=0.01))
    assert hits_of(traced, [0.1, 0.2, -0.005], [0.0, 0.0, 1.0], back_reach=0.1) == 10
    assert hits_of(traced, [0.1, 0.2, -0.005], [0.0, 0.0, 1.0], back_reach=1.0) == FREE


def test_hits_beyond_reach_do_not_count(tracer: MakeTracer) -> None:
    traced = tracer(stack(2))
    origins = torch.tensor([[0.1, 0.2, 3.0]]).expand(3, 3)
    down = torch.tensor([[0.0, 0.0, -1.0]]).expand(3, 3)
    found = traced.first_hits(origins, down, torch.zeros(3), torch.tensor([1.9, 2.1, 100.0]))
    assert found.tolist() == [FREE, 1, 1]
    # A near back is let through; what lies behind it counts up to the reach.
    origins, up = torch.tensor([[0.1, 0.2, -0.5]]).expand(2, 3), -down[:2]
    found = traced.first_hits(origins, up, torch.ones(2), torch.tensor([1.4, 1.6]))
    assert found.tolist() == [FREE, 1]


def test_hits_are_int32_indices_of_gaussians_that_have_polygons(tracer: MakeTracer) -> None:
    gaussians = soup(60)
    gaussians.opacities[::2] = 0.9 * OccluderSettings().threshold
    found = tracer(occluder_of(gaussians)).first_hits(*rays(4000), torch.zeros(4000))
    assert found.dtype == torch.int32
    hit = found[found != FREE]
    assert len(hit) > 100 and (hit % 2 == 1).all() and hit.min() >= 0 and hit.max() < 60


@pytest.mark.parametrize("count", [0, 5])
def test_nothing_is_hit_where_no_gaussian_is_opaque(count: int, tracer: MakeTracer) -> None:
    gaussians = soup(count)
    gaussians.opacities[:] = OccluderSettings().threshold
    traced = tracer(occluder_of(gaussians))
    assert torch.equal(
        traced.first_hits(*rays(7), torch.ones(7)), torch.full((7,), FREE, dtype=torch.int32)
    )
    assert traced.first_hits(*rays(0), torch.ones(0)).shape == (0,)


def test_gaussians_without_extent_are_not_hit(tracer: MakeTracer) -> None:
    gaussians = soup(40)
    gaussians.scales[:20] = 0.0
    found = tracer(occluder_of(gaussians)).first_hits(*rays(3000), torch.zeros(3000))
    assert not ((found >= 0) & (found < 20)).any()
    assert (found >= 20).any()


@pytest.mark.parametrize("factor", [2.0**-10, 2.0**10])
def test_the_unit_of_length_changes_no_hit(factor: float, tracer: MakeTracer) -> None:
    """Powers of two scale float32 without rounding, so that every hit must be the same."""
    origins, towards = rays(5000)
    back_reach = torch.full((5000,), 0.3)
    want = tracer(occluder_of(soup(300))).first_hits(origins, towards, back_reach)
    got = tracer(occluder_of(scaled(soup(300), factor))).first_hits(
        origins * factor, towards, back_reach * factor
    )
    assert torch.equal(got, want)


@pytest.mark.parametrize(("factor", "shift"), [(1e-3, 0.0), (1e3, 0.0), (1.0, 300.0)])
def test_unit_and_place_of_the_scene_change_edges_at_most(
    factor: float, shift: float, tracer: MakeTracer
) -> None:
    origins, towards = rays(5000)
    back_reach = torch.full((5000,), 0.3)
    want = tracer(occluder_of(soup(300))).first_hits(origins, towards, back_reach)
    got = tracer(occluder_of(scaled(soup(300), factor, shift))).first_hits(
        origins * factor + shift, towards, back_reach * factor
    )
    assert (got != want).sum() <= 5


def test_torch_hits_what_embree_hits() -> None:
    """But for rays through an edge, where both round."""
    pytest.importorskip("embreex")
    for seed, count in ((0, 1), (1, 9), (2, 700)):
        polygons = occluder_of(soup(count, seed))
        origins, towards = rays(8000, seed)
        # Some rays along the axes, where boxes are entered at infinity.
        towards[:300] = torch.eye(3).repeat(100, 1)
        back_reach = 2.0 * torch.rand(8000, generator=torch.Generator().manual_seed(seed))
        reach = 5.0 * back_reach
        for far in (None, reach):
            embree = EmbreeTracer(polygons).first_hits(origins, towards, back_reach, far)
            plain = TorchTracer(polygons).first_hits(origins, towards, back_reach, far)
            assert (embree != plain).sum() <= 4
        assert count < 100 or (embree >= 0).sum() > 1000


def test_what_is_traced_at_once_does_not_show(
    tracer: MakeTracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    polygons = occluder_of(soup(200))
    origins, towards = rays(1500)

    def found() -> Tensor:
        return tracer(polygons).first_hits(origins, towards, torch.full((1500,), 0.3))

    whole = found()
    monkeypatch.setattr(torch_tracer, "_MAX_PAIRS", 77)
    monkeypatch.setattr(tracing, "_MAX_CHUNK", 100)
    assert torch.equal(found(), whole)


def test_threads_change_no_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("embreex")
    polygons = occluder_of(soup(300))
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(tracing, "num_threads", lambda threads=threads: threads)
        found.append(EmbreeTracer(polygons).first_hits(*rays(6000), torch.ones(6000)))
    assert torch.equal(*found)


def test_rays_of_any_dtype_are_traced(tracer: MakeTracer) -> None:
    origins, towards = rays(500)
    traced = tracer(occluder_of(soup(50)))
    want = traced.first_hits(origins, towards, torch.zeros(500))
    got = traced.first_hits(origins.double(), towards.double(), torch.zeros(500).double())
    assert torch.equal(got, want)


def test_embree_is_taken_where_it_is_installed() -> None:
    pytest.importorskip("embreex")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(tracer_for(stack(1)), EmbreeTracer)


def test_torch_takes_over_without_embree_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "embreex", None)
    monkeypatch.setitem(sys.modules, "embreex.mesh_construction", None)
    torch_tracer._warn_of_missing_embree.cache_clear()
    with pytest.warns(UserWarning, match="pip install embreex"):
        assert isinstance(tracer_for(stack(1)), TorchTracer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(tracer_for(stack(1)), TorchTracer)
    torch_tracer._warn_of_missing_embree.cache_clear()


@pytest.mark.cuda
def test_torch_traces_on_the_gpu() -> None:
    polygons = occluder_of(soup(300))
    origins, towards = rays(5000)
    back_reach = torch.full((5000,), 0.3)
    want = TorchTracer(polygons).first_hits(origins, towards, back_reach)
    moved = Occluder(**{name: tensor.cuda() for name, tensor in vars(polygons).items()})
    tracer = tracer_for(moved)
    assert isinstance(tracer, TorchTracer)
    got = tracer.first_hits(origins.cuda(), towards.cuda(), back_reach.cuda())
    assert got.is_cuda and (got.cpu() != want).sum() <= 4
