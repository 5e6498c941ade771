"""Masks from photos: a box on a plain table, of which Gaussians know little."""

import math

import pytest
import torch
from torch import Tensor

from splatir.raster.contract import RasterOptions
from splatir.raster.selection import rasterizer
from splatir.render.geometry import ray_directions
from splatir.render.occupancy import common_occupancy, may_show, sphere_span
from splatir.render.plate import bare_plane
from splatir.render.surrounded import whole_scene
from splatir.scene.camera import Camera
from splatir.scene.region import Plane, Region
from splatir.train.outlines import outlined_masks
from splatir.train.separation import mostly_within
from tests.captures import look_at
from tests.test_separation import ball

TABLE = Plane(torch.tensor([0.0, 0.0, 1.0]), -0.1)
BALL = torch.tensor([0.0, 0.0, 0.0])
RADIUS = 0.1


def cameras(count: int = 10, distance: float = 0.8, lowest: float = 0.4) -> list[Camera]:
    """A ring that looks at the origin, every other camera from higher up."""
    K = torch.tensor([[90.0, 0.0, 48.0], [0.0, 90.0, 40.0], [0.0, 0.0, 1.0]])
    found = []
    for index in range(count):
        angle = 2.0 * math.pi * index / count
        height = lowest + 0.4 * (index % 2)
        place = torch.tensor([distance * math.cos(angle), distance * math.sin(angle), height])
        found.append(Camera(K, look_at(place, torch.zeros(3)), 96, 80))
    return found


def true_mask(camera: Camera) -> Tensor:
    near, far = sphere_span(camera, ray_directions(camera), Region.sphere(BALL, RADIUS))
    return (far > near).float()


def photo(camera: Camera) -> Tensor:
    """A blue ball on a white table that darkens away from it, with a shadow beside the ball."""
    directions = ray_directions(camera)
    distance = (TABLE.height - camera.position_world[2]) / directions[..., 2]
    hit = camera.position_world + distance[..., None] * directions
    brightness = 0.9 - 0.15 * hit[..., :2].norm(dim=-1).clamp_max(3.0)
    in_shadow = (hit[..., :2] - torch.tensor([0.1, 0.0])).norm(dim=-1) < 0.08
    brightness = torch.where(in_shadow, 0.6 * brightness, brightness)
    table = brightness[..., None].expand(*distance.shape, 3)
    table = torch.where((distance > 0.0)[..., None], table, torch.full((3,), 0.7))
    return torch.where(true_mask(camera)[..., None] > 0.5, torch.tensor([0.3, 0.35, 0.7]), table)


def overlap(a: Tensor, b: Tensor) -> float:
    a, b = a > 0.5, b > 0.5
    return float((a & b).sum() / (a | b).sum())


def region() -> Region:
    sphere = Region.sphere(torch.tensor([0.0, 0.0, 0.02]), 0.2)
    return Region(sphere.centre, sphere.half_size, None, TABLE, 0.008)


def rough(camera: Camera, index: int) -> Tensor:
    """The ball with a haze of table to one side, or with a part missing."""
    mask = true_mask(camera)
    rows, columns = mask.nonzero().unbind(-1)
    if index % 3 == 0:
        mask[rows.float().quantile(0.7).long() :] = 0.0
    else:
        half = int(columns.float().median())
        mask[int(rows.min()) : int(rows.max()) + 1, half : half + 18] = 1.0
    return mask


def test_photos_mend_rough_masks_of_an_object_on_a_table() -> None:
    views = cameras()
    photos = [photo(camera) for camera in views]
    masks = [rough(camera, index) for index, camera in enumerate(views)]
    truth = [true_mask(camera) for camera in views]
    before = [overlap(a, b) for a, b in zip(masks, truth, strict=True)]
    points = RADIUS * torch.nn.functional.normalize(
        torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    found = outlined_masks(views, photos, masks, region(), region().enlarged(1.3), points)
    after = [overlap(a, b) for a, b in zip(found.masks, truth, strict=True)]
    assert max(before) < 0.8 and min(after) > max(0.75, min(before))
    assert sum(after) / len(after) > 0.9


def test_masks_of_what_stands_on_nothing_are_kept_where_they_agree() -> None:
    views = cameras()
    masks = [true_mask(camera) for camera in views]
    alone = Region.sphere(torch.zeros(3), 0.2)
    photos = [torch.rand(80, 96, 3) for _ in views]
    found = outlined_masks(views, photos, masks, alone, alone.enlarged(1.3), None)
    assert all(torch.equal(a, b) for a, b in zip(found.masks, masks, strict=True))


def test_masks_that_agree_are_grey_at_their_outlines_only() -> None:
    """The floor of a found object whose colour was the background's had been half transparent."""
    views = cameras()
    truth = [true_mask(camera) for camera in views]
    alone = Region.sphere(torch.zeros(3), 0.2)
    masks = []
    for index, mask in enumerate(truth):
        row, column = (int(places.float().mean()) for places in mask.nonzero().unbind(-1))
        mask = mask.clone()
        mask[row - 2 : row + 3, column - 5 : column] *= 0.6
        mask[row, column + index % 3] = 0.0
        mask[:3, :3] = 0.4
        masks.append(mask)
    photos = [torch.rand(80, 96, 3) for _ in views]
    found = outlined_masks(views, photos, masks, alone, alone.enlarged(1.3), None)
    assert all(torch.equal(a, b) for a, b in zip(found.masks, truth, strict=True))


def test_holes_that_all_masks_agree_about_stay() -> None:
    """A flat ring, seen from above."""
    views = cameras(8, distance=0.2, lowest=0.5)
    masks = []
    for camera in views:
        directions = ray_directions(camera)
        distance = -camera.position_world[2] / directions[..., 2]
        place = camera.position_world + distance[..., None] * directions
        radius = place[..., :2].norm(dim=-1)
        masks.append(((radius > 0.08) & (radius < 0.16)).float())
    alone = Region.sphere(torch.zeros(3), 0.2)
    photos = [torch.rand(80, 96, 3) for _ in views]
    found = outlined_masks(views, photos, masks, alone, alone.enlarged(1.3), None)
    assert all(torch.equal(a, b) for a, b in zip(found.masks, masks, strict=True))


def test_a_bare_plane_is_what_most_photos_show_of_it() -> None:
    views = cameras()
    features = [photo(camera) for camera in views]
    features = [
        torch.cat([f[..., :2] / f.sum(-1, keepdim=True), f.mean(-1, True).log()], -1)
        for f in features
    ]
    features[3] = features[3] + torch.tensor([0.0, 0.0, 0.4])
    plate = bare_plane(views, features, None, TABLE, (torch.zeros(3), 0.12), 0.5)
    assert float(plate.log_gains[3] - plate.log_gains[0]) == pytest.approx(0.4, abs=0.02)
    seen, is_table = plate.seen(views[0], 0)
    expected = features[0]
    bare = is_table & (true_mask(views[0]) < 0.5)
    error = (seen - expected)[bare].abs()
    assert float(error[:, :2].max()) < 1e-3
    assert float(error[:, 2].quantile(0.9)) < 0.05
    # The ball itself is not part of the table: grey lies under it.
    under = is_table & (true_mask(views[0]) > 0.5)
    torch.testing.assert_close(
        seen[under][:, :2], torch.full_like(seen[under][:, :2], 1.0 / 3.0), atol=1e-3, rtol=0.0
    )


def test_a_shape_forgives_one_mask_that_lacks_a_part() -> None:
    views = cameras(20)
    masks = [true_mask(camera) for camera in views]
    masks[0] = torch.zeros_like(masks[0])
    shape = common_occupancy(views, masks, Region.sphere(torch.zeros(3), 0.2))
    points = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.09], [0.0, 0.0, 0.17], [1.0, 0.0, 0.0]])
    assert (shape.at(points) > 0.5).tolist() == [True, True, False, False]
    assert overlap(shape.silhouette(views[3]), masks[3]) > 0.8


def test_pixels_that_may_show_a_region_are_those_whose_rays_pass_it_above_its_support() -> None:
    view = cameras()[0]
    shown = may_show(view, Region.sphere(BALL, RADIUS))
    assert torch.equal(shown, true_mask(view) > 0.5)
    cut = may_show(view, Region(BALL, torch.full((3,), RADIUS), None, Plane(TABLE.normal, 0.0)))
    assert bool((cut <= shown).all()) and 0.2 < float(cut.sum() / shown.sum()) < 0.9


def test_gaussians_belong_to_where_most_of_them_is_seen() -> None:
    thing, rest = ball(0.1, (0.0, 0.0, 0.0), 0.9), ball(0.05, (0.0, 0.3, 0.0), 0.2)
    whole = whole_scene(thing, rest)
    views = cameras()
    backend = rasterizer("auto", torch.device("cpu"))
    masks = [true_mask(camera) for camera in views]
    inside = mostly_within(whole, views, masks, backend, RasterOptions())
    seen = torch.arange(whole.num_gaussians) < thing.num_gaussians
    # No camera looks from below.
    upper = seen & (whole.means[:, 2] > 0.0)
    assert float(inside[upper].float().mean()) > 0.99
    assert not bool(inside[~seen].any())
