"""Where exactly does an object end in each photo, given roughly where it is in space?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.spatial import KDTree
from torch import Tensor
from torch.nn import functional

from splatir.maths.two_regions import two_regions, without_dust
from splatir.render.geometry import pixels_of
from splatir.render.occupancy import Occupancy, common_occupancy, may_show
from splatir.render.plate import Plate, bare_plane
from splatir.scene.camera import Camera
from splatir.scene.region import Plane, Region

# Masks of what stands on nothing are kept where they agree in space so well (intersection over
# union): there is nothing that it could be mistaken for.
_AGREED = 0.9
# Pixels that an outline crosses are no farther from it than this.
_EDGE = 1.0
# Deeper within what they have in common than this part of the object's size no mask has a hole.
_NO_HOLE = 0.05
# Passes of colours, outlines and what the views agree about.
_PASSES = 4
# Longer side of the pictures that are looked at: finer ones would only take longer.
_MAX_SIZE = 640
# A bare plane reaches so many radii, and is left to its surroundings within this many of the
# object's foot before masks tell more.
_PLATE_REACH, _FOOT_MARGIN = 3.0, 0.2
# One standard deviation: chroma (shares of red and blue), log brightness (shading changes it
# within a surface) and place in the picture.
_CHROMA, _BRIGHTNESS, _SHADOW, _PLACE = 0.012, 0.3, 0.6, 0.3
# Chroma of dark pixels is noise: this much grey is added, sRGB.
_GREY = 0.15
# Neighbours of a pixel among known ones, and known ones that are looked at.
_NEIGHBOURS, _SEEDS = 4, 3000
# What is unlike all known object pixels is as unlike as this (squared deviations).
_UNLIKE = 8.0
# Bounds of what colours say, what the shape in space says, and of an outline's length.
_COLOURS, _COLOUR_LIMIT, _SHAPE, _SMOOTHNESS = 1.5, 3.0, 1.0, 2.0
# The shape says all it can at this part of the object's size from its outline.
_SHAPE_REACH = 0.1
_DEEP = 2.0
# Known pixels lie this part of it inside and outside.
_SURE_INSIDE, _SURE_OUTSIDE, _FIRST_OUTSIDE = 0.15, 0.05, 0.25
# What has the table's chroma to so many squared deviations and is farther from the shape than this
# part of the object's size is a shadow, however dark.
_SHADE, _SHADE_FROM = 4.0, 0.03
# Sparse points higher above the table than this many radii are none of its own.
_ABOVE = 0.15
# Sparse points farther from their neighbours than this many medians are astray.
_ASTRAY = 4.0


@dataclass(frozen=True)
class Outlines:
    """Where an object is in photos and in space.

    Attributes:
        masks: Of each photo, as large as it, in [0, 1].
        shape: What they have in common.
    """

    masks: list[Float[Tensor, "height width"]]
    shape: Occupancy


@dataclass(frozen=True)
class _View:
    """A photo at the size that is looked at, and what is known of it beforehand."""

    camera: Camera
    picture: Float[Tensor, "h w 3"]
    features: Float[Tensor, "h w 3"]
    is_possible: Bool[Tensor, "h w"]
    is_point: Bool[Tensor, "h w"]


def outlined_masks(
    cameras: Sequence[Camera],
    photos_srgb: Sequence[Float[Tensor, "height width 3"]],
    masks: Sequence[Float[Tensor, "height width"]],
    region: Region,
    search: Region,
    points: Float[Tensor, "n 3"] | None,
) -> Outlines:
    """Masks that follow the edges of photos, and the shape that they have in common.

    Rough masks of an object in free space are kept if they agree, but for what is grey or holes
    well inside: parts of its background's colour are left to the background. Where it stands on
    something, Gaussians of both touch, and photos tell more. Each pass finds the shape that most
    masks agree about, and then the minimal cut of each photo between pixels that look like the
    object and like what is around it, held near that shape. What is around it is known where a
    pixel cannot show the region, and on a table from photos in which the object does not hide it.

    Args:
        cameras: Views, world frame.
        photos_srgb: Of each.
        masks: Rough ones in [0, 1].
        region: That the object was found in.
        search: What holds all of it.
        points: Sparse points of the capture, world frame, or None.
    """
    table = region.support
    inner = _object_points(points, region, table)
    views = [_view(*both, search, inner) for both in zip(cameras, photos_srgb, strict=True)]
    small = [_resized(m, v.camera) for m, v in zip(masks, views, strict=True)]
    shape = common_occupancy([view.camera for view in views], small, search)
    if region.support is None and _agreement(views, small, shape) > _AGREED:
        pairs = zip(masks, cameras, views, strict=True)
        return Outlines([_opaque(m, _seen(shape, view, c)) for m, c, view in pairs], shape)
    for step in range(_PASSES):
        hidden = None if step == 0 else [mask > 0.1 for mask in small]
        plate = _plate(views, hidden, table, region, inner)
        small = [
            _outlined(view, shape.silhouette(view.camera), plate, index, step > 0)
            for index, view in enumerate(views)
        ]
        shape = common_occupancy([view.camera for view in views], small, search)
    if not any(bool((mask > 0.5).any()) for mask in small):
        return Outlines(list(masks), shape)
    full = [_resized(m, camera) for m, camera in zip(small, cameras, strict=True)]
    return Outlines(full, shape)


def _agreement(
    views: Sequence[_View], masks: Sequence[Float[Tensor, "h w"]], shape: Occupancy
) -> float:
    """Mean intersection over union of masks and the silhouettes of what they have in common."""
    ratios = []
    for view, mask in zip(views, masks, strict=True):
        seen, marked = shape.silhouette(view.camera) > 0.5, mask > 0.5
        ratios.append(float((seen & marked).sum()) / max(float((seen | marked).sum()), 1.0))
    return sum(ratios) / len(ratios)


def _seen(shape: Occupancy, view: _View, camera: Camera) -> Bool[Tensor, "height width"]:
    return _resized(shape.silhouette(view.camera), camera) > 0.5


def _opaque(
    mask: Float[Tensor, "height width"], seen: Bool[Tensor, "height width"]
) -> Float[Tensor, "height width"]:
    """A rough mask that is grey about its outline only, and has no hole where others have none."""
    inside = mask > 0.5
    is_deep = _depth_within(seen) > _NO_HOLE * float(seen.sum()) ** 0.5
    is_enclosed = torch.from_numpy(ndimage.binary_fill_holes(inside.numpy()))
    depth = _depth_within(inside | (is_deep & is_enclosed))
    return torch.where(depth > _EDGE, 1.0, torch.where(depth < -_EDGE, 0.0, mask))


def _view(
    camera: Camera, photo: Float[Tensor, "h w 3"], search: Region, points: Float[Tensor, "n 3"]
) -> _View:
    scale = min(1.0, _MAX_SIZE / max(camera.width, camera.height))
    camera = camera.to("cpu").resized(round(scale * camera.width), round(scale * camera.height))
    size = (camera.height, camera.width)
    picture = functional.interpolate(
        photo.cpu().clamp_min(0.0).permute(2, 0, 1)[None], size, mode="area"
    )
    picture = picture[0].permute(1, 2, 0).contiguous()
    pixels, inside = pixels_of(camera, points)
    column, row = pixels[inside].long().unbind(-1)
    is_point = torch.zeros(size, dtype=torch.bool)
    is_point[row, column] = True
    return _View(camera, picture, _features(picture), may_show(camera, search), is_point)


def _features(picture: Float[Tensor, "h w 3"]) -> Float[Tensor, "h w 3"]:
    """Red and blue as shares of the whole, and the logarithm of brightness."""
    total = picture.sum(-1, keepdim=True)
    chroma = picture[..., [0, 2]] / (total + _GREY)
    return torch.cat([chroma, (total / 3.0 + 0.2 * _GREY).log()], -1)


def _resized(mask: Float[Tensor, "h w"], camera: Camera) -> Float[Tensor, "height width"]:
    size = (camera.height, camera.width)
    if mask.shape == size:
        return mask
    return functional.interpolate(mask[None, None], size, mode="bilinear", antialias=True)[0, 0]


def _object_points(
    points: Float[Tensor, "n 3"] | None, region: Region, table: Plane | None
) -> Float[Tensor, "m 3"]:
    """Sparse points well above the table: triangulated from photos, they are where they say."""
    inner = torch.zeros(0, 3) if points is None else points[region.contains(points)]
    if table is not None:
        inner = inner[table.heights(inner) > _ABOVE * region.radius]
    if len(inner) <= _NEIGHBOURS:
        return torch.zeros(0, 3)
    distance, _ = KDTree(inner.numpy()).query(inner.numpy(), k=_NEIGHBOURS + 1)
    farthest = torch.from_numpy(distance[:, -1]).float()
    return inner[farthest < _ASTRAY * farthest.median()]


def _plate(
    views: Sequence[_View],
    hidden: Sequence[Bool[Tensor, "h w"]] | None,
    table: Plane | None,
    region: Region,
    points: Float[Tensor, "n 3"],
) -> Plate | None:
    """The bare table, where there is one."""
    if table is None:
        return None
    centre, radius = region.centre, 0.0
    if hidden is None and len(points):
        centre = 0.5 * (points.amin(0) + points.amax(0))
        flat = points - points @ table.normal[:, None] * table.normal
        flat_centre = centre - centre @ table.normal * table.normal
        radius = float((flat - flat_centre).norm(dim=-1).quantile(0.98))
        radius += _FOOT_MARGIN * region.radius
    elif hidden is None:
        radius = region.radius
    return bare_plane(
        [view.camera for view in views],
        [view.features for view in views],
        hidden,
        table,
        (centre, radius),
        _PLATE_REACH * region.radius,
    )


def _outlined(
    view: _View, shape: Float[Tensor, "h w"], plate: Plate | None, index: int, trusts_shape: bool
) -> Float[Tensor, "h w"]:
    """The object's pixels in a photo."""
    inside = shape > 0.5
    depth = _depth_within(inside)
    size = max(float(inside.sum()) ** 0.5, 10.0)
    likes_table = torch.full(depth.shape, torch.inf)
    is_shade = torch.zeros(depth.shape, dtype=torch.bool)
    if plate is not None:
        bare, is_table = plate.seen(view.camera, index)
        error = (view.features - bare) / torch.tensor([_CHROMA, _CHROMA, _SHADOW])
        likes_table = torch.where(is_table, error.square().sum(-1), likes_table)
        is_shade = is_table & (error[..., :2].square().sum(-1) < _SHADE) & trusts_shape
    sure_outside = _SURE_OUTSIDE if trusts_shape else _FIRST_OUTSIDE
    is_object, is_around = view.is_point, ~view.is_possible | (depth < -sure_outside * size)
    if trusts_shape:
        is_object = is_object | (depth > _SURE_INSIDE * size)
    asked = view.is_possible
    is_telling = is_object & (likes_table > _UNLIKE)
    unlike_object = _unlikeness(view, is_telling, asked)
    unlike_rest = torch.minimum(_unlikeness(view, is_around, asked), likes_table[asked])
    colours = _COLOURS * ((1.0 + unlike_object) / (1.0 + unlike_rest)).log()
    colours = colours.clamp(-_COLOUR_LIMIT, _COLOUR_LIMIT)
    cost = torch.full(depth.shape, 10.0)
    cost[asked] = colours - _SHAPE * (depth[asked] / (_SHAPE_REACH * size)).clamp(
        -1.0, _DEEP if trusts_shape else 1.0
    )
    near = functional.max_pool2d(view.is_point[None].float(), 3, 1, 1)[0]
    cost[(near > 0.0) & (depth > 0.0)] = -10.0
    cost[is_shade & (depth < -_SHADE_FROM * size)] = 10.0
    return without_dust(two_regions(cost, view.picture, _SMOOTHNESS))


def _depth_within(inside: Bool[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Distance from the outline in pixels, negative outside."""
    distances = []
    for part in (inside, ~inside):
        distance = np.empty(part.shape)
        ndimage.distance_transform_edt(part.numpy(), distances=distance)
        distances.append(torch.from_numpy(distance).float())
    return distances[0] - distances[1]


def _unlikeness(
    view: _View, known: Bool[Tensor, "h w"], asked: Bool[Tensor, "h w"]
) -> Float[Tensor, " n"]:
    """Squared deviations of the asked pixels from the nearest known ones."""
    height, width = known.shape
    place = torch.cartesian_prod(torch.arange(height), torch.arange(width)).view(height, width, 2)
    scaled = view.features / torch.tensor([_CHROMA, _CHROMA, _BRIGHTNESS])
    space = torch.cat([scaled, place / (_PLACE * max(height, width))], -1)
    seeds = space[known]
    if not len(seeds):
        return torch.full((int(asked.sum()),), _UNLIKE)
    seeds = seeds[:: -(-len(seeds) // _SEEDS)]
    count = min(_NEIGHBOURS, len(seeds))
    distance, _ = KDTree(seeds.numpy()).query(space[asked].numpy(), k=count, eps=0.5)
    squares = np.square(distance).reshape(-1, count).mean(-1)
    return torch.from_numpy(squares).float()
