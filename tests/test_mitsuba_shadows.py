"""Does an independent renderer, Mitsuba 3, see the same shadow of a box on the ground?"""

import math

import pytest
import torch
from torch import Tensor

from splatir.scene.lights import PointLight
from splatir.shade.brdf import ShadingSettings
from splatir.shade.surface import SurfacePoints
from splatir.transport.lit import LitGaussians, light_gaussians
from splatir.transport.path_integrator import PathSettings, PathTracing
from tests.solids import crate, model_of, points_of, square, transport_of

pytest.importorskip("mitsuba", reason="mitsuba is not installed (extra: dev)")

from benchmarks.mitsuba_box import ground_radiance

GROUND, BOX, SPACING, ALBEDO = 1.0, 0.25, 0.04, 0.7
LAMP = (0.9, 0.5, 1.2)


def lit_ground() -> tuple[LitGaussians, PathTracing, Tensor]:
    """Ground and box under the lamp, baked and traced; which of the ground is not near the box."""
    colour = {"albedo": (ALBEDO,) * 3}
    ground = square(GROUND, SPACING, **colour)
    model = model_of(ground, crate(BOX, SPACING, **colour))
    scene, materials = transport_of(model)
    light = PointLight(torch.tensor(LAMP), torch.ones(3))
    free = ground.positions[:, :2].abs().amax(-1) > BOX + 2.0 * SPACING
    inside = ground.positions[:, :2].abs().amax(-1) < GROUND - 2.0 * SPACING
    lambert = ShadingSettings("lambert")
    paths = PathTracing(scene, materials, light, PathSettings(64, 0), lambert)
    return light_gaussians(scene, materials, light, lambert), paths, (free & inside).nonzero()[:, 0]


def points_on(which: Tensor) -> SurfacePoints:
    ground = points_of(square(GROUND, SPACING, albedo=(ALBEDO,) * 3))
    parts = {key: value[which] for key, value in vars(ground).items() if value is not None}
    return SurfacePoints(**parts)


def alone(positions: Tensor) -> Tensor:
    """Radiance of the ground if there were no box."""
    towards = torch.tensor(LAMP) - positions
    squared = towards.square().sum(-1)
    return ALBEDO / math.pi * towards[:, 2] / squared**1.5


def is_at_edge(positions: Tensor, visible: Tensor) -> Tensor:
    """Whether light and shadow meet within 1.5 spacings."""
    near = torch.cdist(positions, positions) < 1.5 * SPACING
    differs = visible[:, None] != visible[None, :]
    return (near & differs).any(1)


def test_the_shadow_of_a_box_under_a_lamp_lies_where_mitsuba_has_it() -> None:
    lit, paths, which = lit_ground()
    positions = lit.scene.positions[which]
    theirs = ground_radiance(positions, LAMP, ALBEDO, (GROUND, BOX), 1, 4)[:, 0]
    visible = theirs / alone(positions)
    assert bool(((visible < 0.01) | ((visible - 1.0).abs() < 0.01)).all())
    visible = visible > 0.5
    assert 100 < int((~visible).sum()) < 1000
    at_edge = is_at_edge(positions, visible)
    baked = lit.punctual[0].visible[which, 0] > 0.5
    assert bool((baked == visible)[~at_edge].all())
    # About two rows to each side; polygons move the edge by half a row.
    assert float((baked != visible)[at_edge].float().mean()) < 0.3
    traced = paths.shade(points_on(which), paths.channels(positions[0])[which]).diffuse[:, 0]
    is_lit = traced > 0.5 * alone(positions)
    assert bool((is_lit == visible)[~at_edge].all())


def test_light_between_ground_and_box_is_what_mitsuba_has() -> None:
    """Polygons reach over edges, so that a box of 12 rows sends and receives a seventh too much,
    and a little into its own shadow."""
    lit, _, which = lit_ground()
    which = which[::14]
    positions = lit.scene.positions[which]
    theirs = ground_radiance(positions, LAMP, ALBEDO, (GROUND, BOX), 5, 256)[:, 0]
    direct = ground_radiance(positions, LAMP, ALBEDO, (GROUND, BOX), 1, 4)[:, 0]
    bounced = ALBEDO / math.pi * lit.bounced.irradiance[which, 0]
    in_shadow = direct < 0.01 * alone(positions)
    expected = (theirs - direct)[~in_shadow].sum().item()
    assert bounced[~in_shadow].sum().item() == pytest.approx(expected, rel=0.2)
    error = (bounced - theirs + direct)[in_shadow].abs().mean()
    assert float(error) < 0.006 * float(direct[~in_shadow].mean())
