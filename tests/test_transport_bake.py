"""What Gaussians see of each other, and whether light is neither lost nor made between them."""

import math

import pytest
import torch
from torch import Tensor

from splatir.scene.gaussians import Gaussians
from splatir.transport import bake
from splatir.transport.bake import BELOW, Visibility, bake_visibility, trace_from
from splatir.transport.occluder import OccluderSettings, occluder_of
from splatir.transport.sums import bounced_irradiance, irradiance
from splatir.transport.torch_tracer import TorchTracer, tracer_for
from splatir.transport.tracing import FREE
from tests.polygons import box, discs, scaled, soup, sphere


def baked(
    gaussians: Gaussians,
    num_directions: int = 256,
    settings: OccluderSettings = OccluderSettings(),
) -> Visibility:
    occluder = occluder_of(gaussians, settings)
    return bake_visibility(occluder, tracer_for(occluder), num_directions, settings)


def share(visibility: Visibility, value: int) -> float:
    """Of the directions above the horizon."""
    above = visibility.hits != BELOW
    return float((visibility.hits[above] == value).float().mean())


def white(visibility: Visibility) -> Tensor:
    return visibility.cells.solid_angles[:, None].expand(-1, 3)


def test_directions_below_the_horizon_are_marked_and_no_others() -> None:
    visibility = baked(soup(50), 64)
    above = visibility.normals @ visibility.cells.directions.mT > 0.0
    assert torch.equal(visibility.hits != BELOW, above)
    assert visibility.hits.dtype == torch.int32
    assert visibility.hits.max() < 50 and visibility.hits.min() == BELOW


def test_a_plane_sees_the_whole_sky() -> None:
    steps = torch.arange(20) / 20.0
    x, y = (grid.flatten() for grid in torch.meshgrid(steps, steps, indexing="ij"))
    normals = torch.tensor([[0.0, 0.0, 1.0]]).expand(400, 3)
    visibility = baked(discs(torch.stack([x, y, torch.zeros(400)], -1), normals, 0.04))
    assert share(visibility, FREE) == 1.0


def test_a_rough_plane_hides_little_from_itself() -> None:
    """Normals 10 degrees off and centres a quarter of the spacing: fitted surfaces are so."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.arange(30) / 30.0
    x, y = (grid.flatten() for grid in torch.meshgrid(steps, steps, indexing="ij"))
    centres = torch.stack([x, y, torch.zeros(900)], -1)
    centres = centres + 0.25 / 30.0 * torch.randn(900, 3, generator=generator)
    normals = torch.tensor([0.0, 0.0, 1.0]) + 0.12 * torch.randn(900, 3, generator=generator)
    normals = torch.nn.functional.normalize(normals, dim=-1)
    visibility = baked(discs(centres, normals, 0.8 / 30.0))
    visible, unoccluded = irradiance(visibility, white(visibility))
    assert (visible.sum() / unoccluded.sum()) > 0.93


def test_a_convex_sphere_in_a_white_furnace_receives_pi() -> None:
    visibility = baked(sphere(2000))
    assert share(visibility, FREE) > 0.998
    visible, unoccluded = irradiance(visibility, white(visibility))
    assert visible.mean().item() == pytest.approx(math.pi, rel=0.01)
    assert visible.min() > 0.98 * math.pi and visible.max() < 1.02 * math.pi
    assert unoccluded.min() > 0.98 * math.pi and unoccluded.max() < 1.02 * math.pi


@pytest.mark.parametrize("gaussians", [box(16), sphere(1500, inwards=True)], ids=["box", "sphere"])
def test_closed_shapes_see_no_sky_and_all_their_walls(gaussians: Gaussians) -> None:
    """Energy: what goes to the sky is lost, what comes from the walls is all there is."""
    visibility = baked(gaussians)
    visible, unoccluded = irradiance(visibility, white(visibility))
    assert visible.sum() < 0.005 * unoccluded.sum()
    everywhere = torch.ones(len(visibility.normals), 3)
    received = bounced_irradiance(visibility, everywhere)
    assert received.mean().item() == pytest.approx(math.pi, rel=0.01)
    torch.testing.assert_close(received + visible, unoccluded)


@pytest.mark.parametrize("albedo", [0.2, 0.8])
def test_light_in_a_closed_box_is_the_geometric_series(albedo: float) -> None:
    """Walls that emit 1 and reflect `albedo` end at 1 / (1 - albedo), step by step."""
    visibility = baked(box(12))
    radiance = torch.ones(len(visibility.normals), 3)
    for bounce in range(1, 40):
        radiance = 1.0 + albedo / math.pi * bounced_irradiance(visibility, radiance)
        want = (1.0 - albedo ** (bounce + 1)) / (1.0 - albedo)
        assert radiance.mean().item() == pytest.approx(want, rel=0.02)


def test_walls_of_a_cube_receive_their_form_factors() -> None:
    """Opposite squares: 0.199825; squares at a right angle: 0.200044 (Siegel and Howell)."""
    cells = 16
    # Started high above their walls, rays would see them nearer than they are.
    visibility = baked(box(cells), 512, OccluderSettings(offset=0.02))
    for wall in range(6):
        sends = torch.zeros(6, cells * cells, 3)
        sends[wall] = 1.0
        received = bounced_irradiance(visibility, sends.flatten(0, 1)).unflatten(0, (6, -1))
        factors = received.mean((1, 2)) / math.pi
        for other in range(6):
            want = 0.0 if other == wall else 0.199825 if other == wall ^ 1 else 0.200044
            assert factors[other].item() == pytest.approx(want, abs=0.008)


def test_transport_is_reciprocal_between_parts_of_a_scene() -> None:
    """Area times what one wall receives from another is the same the other way round."""
    sides = (1.0, 0.6, 1.6)
    visibility = baked(box(20, sides), 512)
    areas = [sides[1] * sides[2], sides[0] * sides[2], sides[0] * sides[1]]
    flux = torch.zeros(6, 6)
    for wall in range(6):
        sends = torch.zeros(6, 400, 3)
        sends[wall] = 1.0
        received = bounced_irradiance(visibility, sends.flatten(0, 1)).unflatten(0, (6, -1))
        flux[wall] = received.mean((1, 2)) * torch.tensor(areas).repeat_interleave(2)
    assert (flux - flux.mT).norm() < 0.03 * flux.norm()


def test_concave_shapes_receive_what_the_sky_and_they_send() -> None:
    """A white hemisphere's inside under white light is a furnace: radiance 1 throughout."""
    ball = sphere(3000, inwards=True)
    half = ball.means[:, 2] < 0.0
    fields = {name: getattr(ball, name)[half] for name in ("means", "quats", "scales", "opacities")}
    visibility = baked(Gaussians(**fields, primitive="surfel"))
    visible, unoccluded = irradiance(visibility, white(visibility))
    assert 0.4 < (visible.sum() / unoccluded.sum()) < 0.6
    radiance = torch.ones(len(visible), 3)
    for _ in range(3):
        radiance = (visible + bounced_irradiance(visibility, radiance)) / math.pi
    assert radiance.mean().item() == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("factor", [2.0**-10, 2.0**10])
def test_the_unit_of_length_changes_nothing(factor: float) -> None:
    want, got = baked(soup(200), 64), baked(scaled(soup(200), factor), 64)
    assert torch.equal(got.hits, want.hits)


def test_gaussians_are_baked_in_parts_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = baked(soup(100), 32)
    monkeypatch.setattr(bake, "_CHUNK", 32 * 7)
    assert torch.equal(baked(soup(100), 32).hits, whole.hits)


@pytest.mark.parametrize("count", [0, 1, 6])
def test_few_or_transparent_gaussians_see_the_sky(count: int) -> None:
    gaussians = soup(count)
    gaussians.opacities[1:] = 0.1
    visibility = baked(gaussians, 16)
    assert visibility.hits.shape == (count, 16)
    visible, unoccluded = irradiance(visibility, white(visibility))
    assert visible.isfinite().all() and unoccluded.isfinite().all()
    assert (visibility.hits <= 0).all()


def test_embree_and_torch_bake_the_same() -> None:
    pytest.importorskip("embreex")
    occluder = occluder_of(soup(150))
    by_torch = bake_visibility(occluder, TorchTracer(occluder), 64)
    by_embree = bake_visibility(occluder, tracer_for(occluder), 64)
    assert (by_torch.hits != by_embree.hits).sum() <= 3


def test_rays_start_above_their_gaussian_and_end_at_their_reach() -> None:
    up = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    occluder = occluder_of(discs(torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), up, 0.1))
    tracer, who = tracer_for(occluder), torch.tensor([0, 0])
    settings = OccluderSettings(offset=0.5)
    # From 0.05 the other lies at 0.95.
    found = trace_from(
        occluder, tracer, who, up[:1].expand(2, 3), settings, torch.tensor([0.94, 0.96])
    )
    assert found.tolist() == [FREE, 1]
    assert trace_from(occluder, tracer, who, up[:1].expand(2, 3), settings).tolist() == [1, 1]


def test_a_back_stands_for_a_surface_like_the_one_that_sees_it() -> None:
    # The upper disc looks away: what the lower one sees of it no camera saw.
    up = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    occluder = occluder_of(discs(torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), up, 0.1))
    tracer, settings = tracer_for(occluder), OccluderSettings(back_reach=3.0)
    found = trace_from(occluder, tracer, torch.tensor([0, 1]), up, settings)
    assert found.tolist() == [0, FREE]


def test_under_a_lid_seen_from_behind_the_floor_receives_what_it_sends() -> None:
    # Whatever colour and light the lid's other side has.
    spots = torch.cartesian_prod(torch.linspace(-1, 1, 12), torch.linspace(-1, 1, 12))
    floor = torch.cat([spots, torch.zeros(144, 1)], -1)
    lid = torch.cat([spots, torch.full((144, 1), 1.0)], -1)
    up = torch.tensor([0.0, 0.0, 1.0]).expand(288, 3)
    occluder = occluder_of(discs(torch.cat([floor, lid]), up, 0.1))
    visibility = bake_visibility(occluder, tracer_for(occluder), 64)
    sent = torch.rand(288, 3, generator=torch.Generator().manual_seed(0))
    cells = visibility.cells
    hidden = (visibility.hits[:144] >= 0) * cells.directions[:, 2] * cells.solid_angles
    under_lid = hidden.sum(-1, keepdim=True)
    # From the middle of the floor more than half of the hemisphere's pi is lid.
    assert under_lid.max() > 0.5 * math.pi
    below = bounced_irradiance(visibility, sent)[:144]
    torch.testing.assert_close(below, under_lid * sent[:144])
