"""Which Gaussians are metal, and which cloth? Explanations of what the photos saw, compared.

No single prior serves metals and dielectrics alike, and descent does not cross from one to the
other. So each is fitted in closed form (`metal_fits`) over a set of roughnesses. Cloth stands
beside the dielectrics: its sheen changes with the view, as a metal's reflection does, and a metal
without structure in its light would explain that better than a plain dielectric. Where the sheen
that cloth is shaded with explains the photos alone, it is cloth.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree
from torch import Tensor

from splatir.data.images import Photo
from splatir.maths.colour import linear_from_srgb
from splatir.optim.metal_fits import MetalFits, Sightings
from splatir.optim.metal_patches import grown_patches
from splatir.raster.contract import RasterBackend
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.lights import EnvironmentLight
from splatir.transport.bake import Visibility

# Roughnesses that are tried.
_ROUGHNESSES = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8)
# Views that are looked at, evenly spread.
_MAX_VIEWS = 64
# Pixels of lower coverage mix in the background.
_MIN_COVERAGE = 0.95
# A Gaussian must be seen from so many views.
_MIN_SIGHTINGS = 3
# Normals and light are never right, and a mirror shows it more than a matt surface does: the worse
# the others fit, the more metal may miss, at most by a factor. At this error (as below) it must fit
# as well as they do.
_EVEN_ERROR, _MAX_MARGIN = 0.12, 1.5
# Error (root of the mean over views of the squared distance in sRGB) below which one of the others
# explains the photos well enough.
_GOOD_FIT = 0.06
# Exposures, poses and light are wrong for all of a scene. Up to so many times the median of what
# even the best explanation misses (at most up to the error above), metal must leave less than this
# part of the others' squared error.
_TYPICAL_FITS, _CLEARLY = 2.5, 0.4
# Metals reflect at least about half of the light in some channel.
_MIN_METAL_ALBEDO = 0.4
# Whatever its neighbours are, a Gaussian is no metal whose squared error as metal exceeds that of
# the others by more than a factor and noise (of the root, as above). Within the factor it may join
# metal beside it.
_MAX_FACTOR, _NOISE = 3.0, 0.03
# Cloth is what shows its sheen: that leaves less than this of a dielectric's squared error, which
# must be worth it, and the sheen is not faint. What is cloth starts below this.
_MAX_LEFT, _MIN_MISFIT, _MIN_SHEEN, _MAX_SHEEN = 0.5, 0.04, 0.2, 0.9
# Less cloth than this part of what the photos show is chance.
_MIN_CLOTH = 0.01
# Neighbours whose errors are averaged, and those that vote: at most a hundredth of all, which lie
# on one part of the object.
_NEIGHBOURS, _MAX_VOTERS, _VOTER_SHARE = 24, 200, 0.01


@dataclass(frozen=True)
class MetalEvidence:
    """The verdict per Gaussian.

    Attributes:
        is_metal: Metal explains the photos better.
        is_known: Seen often enough to tell.
        albedo_metal: Base colour that fits if it is metal, 0 to 1.
        albedo_dielectric: Likewise if it is not.
        sheen: Of what is cloth, in (0, 1); 0 for all else.
    """

    is_metal: Bool[Tensor, " n"]
    is_known: Bool[Tensor, " n"]
    albedo_metal: Float[Tensor, "n 3"]
    albedo_dielectric: Float[Tensor, "n 3"]
    sheen: Float[Tensor, " n"]


def collect_sightings(
    model: GaussianModel,
    cameras: Sequence[Camera],
    photo_of: Callable[[int], Photo],
    rasterizer: RasterBackend,
    max_views: int = _MAX_VIEWS,
) -> Sightings:
    """Average every photo under the footprint of every Gaussian.

    Compositing is linear in the features, so its gradient with the photo as cotangent is the sum of
    the photo's pixels by compositing weight.

    Args:
        model: Geometry.
        cameras: Training views, on the model's device.
        photo_of: Photo of a view, by index.
        rasterizer: Backend.
        max_views: That are looked at, evenly spread.
    """
    gaussians = model.gaussians.detach()
    count = min(max_views, len(cameras))
    colours, weights, positions = [], [], []
    is_hdr = False
    for index in np.linspace(0, len(cameras) - 1, count).astype(int).tolist():
        photo, camera = photo_of(index), cameras[index]
        features = torch.zeros(model.num_gaussians, 4, device=gaussians.means.device)
        features.requires_grad_()
        image = rasterizer.rasterize(gaussians, camera, features, None)
        is_hdr |= photo.encoding == "linear"
        linear = photo.rgb if photo.encoding == "linear" else linear_from_srgb(photo.rgb)
        colour = linear.to(features)
        alpha = torch.ones_like(colour[..., :1]) if photo.alpha is None else photo.alpha.to(colour)
        is_solid = (alpha > _MIN_COVERAGE).to(colour)
        (sums,) = torch.autograd.grad(
            image.features, features, torch.cat([colour * is_solid, is_solid], dim=-1)
        )
        weights.append(sums[:, 3])
        colours.append(sums[:, :3] / sums[:, 3:].clamp_min(1e-6))
        positions.append(camera.position_world)
    return Sightings(
        torch.stack(colours, 1), torch.stack(weights, 1), torch.stack(positions), is_hdr
    )


@torch.no_grad()
def judge_metal(
    model: GaussianModel,
    sightings: Sightings,
    light: EnvironmentLight,
    visibility: Visibility | None = None,
) -> MetalEvidence:
    """Compare the explanations, averaged over neighbours, who then vote; metal grows into patches.

    Args:
        model: Geometry.
        sightings: Of the model as it is.
        light: Present estimate.
        visibility: What the Gaussians see of each other; None as if each were alone.
    """
    fits = MetalFits(model, sightings, light, visibility)
    found = [fits.fit(roughness) for roughness in _ROUGHNESSES]
    means = model.means.detach()
    near = _neighbours(means, _NEIGHBOURS)

    def best(errors: list[Tensor]) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
        return _averaged(torch.stack(errors, 1), fits.total, near).min(1)

    def chosen(albedos: list[Tensor], index: Int[Tensor, " n"]) -> Float[Tensor, "n 3"]:
        return torch.stack(albedos, 1)[torch.arange(len(means)), index]

    cloth, _ = best([fit.cloth for fit in found])
    metal, index_metal = best([fit.metal for fit in found])
    dielectric, index_dielectric = best([fit.dielectric for fit in found])
    # With few views, the freedom of cloth is paid for.
    other = torch.minimum(dielectric, cloth)
    albedo_metal = chosen([fit.albedo_metal for fit in found], index_metal)
    albedo_dielectric = chosen([fit.albedo_dielectric for fit in found], index_dielectric)
    reflectance = _averaged(albedo_metal.amax(-1, keepdim=True), fits.total, near)[:, 0]
    is_metal = metal < (other.sqrt() / _EVEN_ERROR).clamp_max(_MAX_MARGIN) * other
    typical = float(_median(torch.minimum(other, metal), fits.total).sqrt())
    is_unusual = other.sqrt() > min(_TYPICAL_FITS * typical, _EVEN_ERROR)
    is_metal &= is_unusual | (metal < _CLEARLY * other)
    is_metal &= (other.sqrt() > _GOOD_FIT) & (reflectance > _MIN_METAL_ALBEDO)
    velvet, index_velvet = best([fit.velvet for fit in found])
    sheens = torch.stack([fit.sheen for fit in found], 1)[torch.arange(len(means)), index_velvet]
    sheen = _averaged(sheens[:, None], fits.total, near)[:, 0]
    is_cloth = (velvet < _MAX_LEFT * dielectric) & (dielectric.sqrt() > _MIN_MISFIT)
    is_cloth &= sheen > _MIN_SHEEN
    num_voters = min(_MAX_VOTERS, max(_NEIGHBOURS, int(_VOTER_SHARE * len(means))))
    voters = _neighbours(means, num_voters)
    votes = _averaged(is_metal.to(means)[:, None], fits.total * other, voters)[:, 0]
    ayes = _averaged(is_cloth.to(means)[:, None], fits.total * dielectric, voters)[:, 0]
    cores = (votes > 0.5) & (metal < _MAX_FACTOR * other + _NOISE**2)
    candidates = (metal < _MAX_FACTOR * other) & (reflectance > _MIN_METAL_ALBEDO)
    is_metal = grown_patches(cores, candidates, fits.total, near)
    is_cloth = (ayes > 0.5) & ~is_metal
    is_cloth &= (fits.total * is_cloth).sum() > _MIN_CLOTH * fits.total.sum()
    return MetalEvidence(
        is_metal,
        fits.sightings >= _MIN_SIGHTINGS,
        albedo_metal.clamp(max=1.0),
        albedo_dielectric.clamp(max=1.0),
        torch.where(is_cloth, sheen.clamp(_MIN_SHEEN, _MAX_SHEEN), 0.0),
    )


def _neighbours(means: Float[Tensor, "n 3"], count: int) -> Int[Tensor, "n k"]:
    points = means.cpu().numpy()
    _, index = KDTree(points).query(
        points, min(count, len(points)), workers=torch.get_num_threads()
    )
    return torch.from_numpy(np.asarray(index).reshape(len(points), -1)).to(means.device)


def _median(values: Float[Tensor, " n"], weights: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """The value that half of the weight lies below."""
    order = values.argsort()
    below = weights[order].cumsum(0)
    middle = torch.searchsorted(below, 0.5 * below[-1:]).clamp_max(len(values) - 1)
    return values[order[middle[0]]]


def _averaged(
    values: Float[Tensor, "n channels"], weights: Float[Tensor, " n"], near: Int[Tensor, "n k"]
) -> Float[Tensor, "n channels"]:
    """Weighted mean of each Gaussian's neighbours."""
    total = weights[near].sum(1)
    mixed = torch.stack([(v[near] * weights[near]).sum(1) for v in values.unbind(-1)], -1)
    return mixed / total.clamp_min(1e-8)[:, None]
