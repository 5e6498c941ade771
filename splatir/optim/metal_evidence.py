"""Which Gaussians are metal? Two explanations of what the photos saw of each, compared.

No single prior serves metals and dielectrics alike, and descent does not cross from one to the
other. So both are fitted in closed form under the present light, over a set of roughnesses:

* dielectric: seen_v = albedo E(n) / pi + (0.04 A_v + B_v) PF_v
* metal:      seen_v = albedo A_v PF_v + B_v PF_v

The diffuse term does not depend on the view v, a metal's only term does. Brightness is left free in
both (an albedo above 1 is allowed), so that only the change over views decides, not the unknown
scale of the light.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree
from torch import Tensor

from splatir.data.images import Photo
from splatir.maths.colour import linear_from_srgb, srgb_from_linear
from splatir.maths.safe import safe_normalise
from splatir.raster.contract import RasterBackend
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.normals import facing_normals
from splatir.shade.brdf import DIELECTRIC_F0
from splatir.shade.lobe_energy import split_sum_terms
from splatir.shade.prefilter import PrefilteredLight

# Roughnesses that are tried.
_ROUGHNESSES = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8)
# Views that are looked at, evenly spread.
_MAX_VIEWS = 64
# Pixels of lower coverage mix in the background; more grazing views mix in neighbours.
_MIN_COVERAGE, _MIN_COSINE = 0.95, 0.15
# A Gaussian must be seen from so many views.
_MIN_SIGHTINGS = 3
# Albedos that the fits may take, as the scale of the light is unknown.
_MAX_ALBEDO = 4.0
# Metal must fit nearly as well as dielectric: normals and light are never right, and a mirror
# shows it more than a matt surface does.
_MARGIN = 1.3
# Error (root of the mean over views of the squared distance in sRGB) below which a dielectric
# explains the photos well enough.
_GOOD_FIT = 0.06
# Metals reflect at least about half of the light in some channel.
_MIN_METAL_ALBEDO = 0.4
# Neighbours whose errors are averaged, and those that vote: at most a hundredth of all, which lie
# on one part of the object.
_NEIGHBOURS, _MAX_VOTERS, _VOTER_SHARE = 24, 200, 0.01


@dataclass(frozen=True)
class Sightings:
    """What the photos saw of each Gaussian.

    Attributes:
        colours: Mean photo colour under its footprint, linear.
        weights: Pixels that it filled, by compositing weight.
        positions: Of the cameras, world frame.
    """

    colours: Float[Tensor, "n views 3"]
    weights: Float[Tensor, "n views"]
    positions: Float[Tensor, "views 3"]


@dataclass(frozen=True)
class MetalEvidence:
    """The verdict per Gaussian.

    Attributes:
        is_metal: Metal explains the photos better.
        is_known: Seen often enough to tell.
        albedo_metal: Base colour that fits if it is metal, 0 to 1.
        albedo_dielectric: Likewise if it is not.
    """

    is_metal: Bool[Tensor, " n"]
    is_known: Bool[Tensor, " n"]
    albedo_metal: Float[Tensor, "n 3"]
    albedo_dielectric: Float[Tensor, "n 3"]


def collect_sightings(
    model: GaussianModel,
    cameras: Sequence[Camera],
    photo_of: Callable[[int], Photo],
    rasterizer: RasterBackend,
) -> Sightings:
    """Average every photo under the footprint of every Gaussian.

    Compositing is linear in the features, so its gradient with the photo as cotangent is the sum of
    the photo's pixels by compositing weight.

    Args:
        model: Geometry.
        cameras: Training views, on the model's device.
        photo_of: Photo of a view, by index.
        rasterizer: Backend.
    """
    gaussians = model.gaussians.detach()
    count = min(_MAX_VIEWS, len(cameras))
    colours, weights, positions = [], [], []
    for index in np.linspace(0, len(cameras) - 1, count).astype(int).tolist():
        photo, camera = photo_of(index), cameras[index]
        features = torch.zeros(model.num_gaussians, 4, device=gaussians.means.device)
        features.requires_grad_()
        image = rasterizer.rasterize(gaussians, camera, features, None)
        colour = linear_from_srgb(photo.rgb_srgb).to(features)
        alpha = torch.ones_like(colour[..., :1]) if photo.alpha is None else photo.alpha.to(colour)
        is_solid = (alpha > _MIN_COVERAGE).to(colour)
        (sums,) = torch.autograd.grad(
            image.features, features, torch.cat([colour * is_solid, is_solid], dim=-1)
        )
        weights.append(sums[:, 3])
        colours.append(sums[:, :3] / sums[:, 3:].clamp_min(1e-6))
        positions.append(camera.position_world)
    return Sightings(torch.stack(colours, 1), torch.stack(weights, 1), torch.stack(positions))


@torch.no_grad()
def judge_metal(
    model: GaussianModel, sightings: Sightings, light: PrefilteredLight
) -> MetalEvidence:
    """Compare the two explanations, averaged over neighbours; neighbours then vote.

    Args:
        model: Geometry.
        sightings: Of the model as it is.
        light: Present estimate.
    """
    fits = _Fits(model, sightings)
    dielectric, metal = [], []
    for roughness in _ROUGHNESSES:
        for found, fit in ((dielectric, fits.dielectric), (metal, fits.metal)):
            found.append(fit(light, roughness))
    means = model.means.detach()
    near = _neighbours(means, _NEIGHBOURS)
    errors = [
        _averaged(torch.stack([error for _, error in fit], 1), fits.total, near)
        for fit in (dielectric, metal)
    ]
    (best_d, index_d), (best_m, index_m) = (error.min(1) for error in errors)
    albedo_d, albedo_m = (
        torch.stack([albedo for albedo, _ in fit], 1)[torch.arange(len(means)), index]
        for fit, index in ((dielectric, index_d), (metal, index_m))
    )
    reflectance = _averaged(albedo_m.amax(-1, keepdim=True), fits.total, near)[:, 0]
    is_metal = (
        (best_m < _MARGIN * best_d)
        & (best_d.sqrt() > _GOOD_FIT)
        & (reflectance > _MIN_METAL_ALBEDO)
    )
    num_voters = min(_MAX_VOTERS, max(_NEIGHBOURS, int(_VOTER_SHARE * len(means))))
    voters = _neighbours(means, num_voters)
    votes = _averaged(is_metal.to(means)[:, None], fits.total * best_d, voters)[:, 0]
    is_known = fits.sightings >= _MIN_SIGHTINGS
    return MetalEvidence(votes > 0.5, is_known, albedo_m.clamp(max=1.0), albedo_d.clamp(max=1.0))


class _Fits:
    """Pairs of a Gaussian and a view that saw it, and least squares over the views of each."""

    def __init__(self, model: GaussianModel, sightings: Sightings) -> None:
        means = model.means.detach()
        views = safe_normalise(sightings.positions[None] - means[:, None])
        normals = facing_normals(model.gaussians.detach(), sightings.positions.mean(0))
        # The side that more of the photos saw.
        seen = ((views * normals[:, None]).sum(-1) * sightings.weights).sum(1, keepdim=True)
        self.normals = torch.where(seen < 0.0, -normals, normals)
        cosines = (views * self.normals[:, None]).sum(-1)
        chosen = (cosines > _MIN_COSINE) & (sightings.weights > 1e-3)
        self.index, view = chosen.nonzero(as_tuple=True)
        self.weights = sightings.weights[chosen][:, None]
        self.colours = sightings.colours[chosen]
        self.n_dot_v = cosines[chosen][:, None]
        normal = self.normals[self.index]
        self.mirror = 2.0 * self.n_dot_v * normal - views[self.index, view]
        self.total = self._sum(self.weights)[:, 0]
        self.sightings = self._sum(torch.ones_like(self.weights))[:, 0]
        self.shown = srgb_from_linear(self.colours.clamp(0.0, 1.0))

    def dielectric(self, light: PrefilteredLight, roughness: float) -> tuple[Tensor, Tensor]:
        """Albedo and mean squared error (sRGB) of the best dielectric."""
        response, reflected = self._lobe(light, roughness)
        white, rest = response
        specular = (DIELECTRIC_F0 * white + rest) * reflected
        mean = self._sum(self.weights * (self.colours - specular)) / self._floor(self.total)
        irradiance = light.irradiance_at(self.normals) / math.pi
        albedo = (mean / irradiance.clamp_min(1e-4)).clamp(0.0, _MAX_ALBEDO)
        return albedo, self._error((albedo * irradiance)[self.index] + specular)

    def metal(self, light: PrefilteredLight, roughness: float) -> tuple[Tensor, Tensor]:
        """Albedo and mean squared error (sRGB) of the best metal."""
        (white, rest), reflected = self._lobe(light, roughness)
        tinted, untinted = white * reflected, rest * reflected
        product = self._sum(self.weights * tinted * (self.colours - untinted))
        square = self._sum(self.weights * tinted.square())
        albedo = (product / square.clamp_min(1e-8)).clamp(0.0, _MAX_ALBEDO)
        return albedo, self._error(albedo[self.index] * tinted + untinted)

    def _lobe(
        self, light: PrefilteredLight, roughness: float
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        level = torch.full_like(self.n_dot_v, roughness)
        return split_sum_terms(self.n_dot_v, level), light.specular_at(self.mirror, level)

    def _error(self, colours: Float[Tensor, "pairs 3"]) -> Float[Tensor, " n"]:
        shown = srgb_from_linear(colours.clamp(0.0, 1.0))
        squared = (shown - self.shown).square().sum(-1, keepdim=True)
        return (self._sum(self.weights * squared) / self._floor(self.total))[:, 0]

    def _sum(self, values: Float[Tensor, "pairs channels"]) -> Float[Tensor, "n channels"]:
        total = values.new_zeros(len(self.normals), values.shape[1])
        return total.index_add_(0, self.index, values)

    @staticmethod
    def _floor(total: Float[Tensor, " n"]) -> Float[Tensor, "n 1"]:
        return total.clamp_min(1e-6)[:, None]


def _neighbours(means: Float[Tensor, "n 3"], count: int) -> Int[Tensor, "n k"]:
    points = means.cpu().numpy()
    _, index = KDTree(points).query(points, min(count, len(points)))
    return torch.from_numpy(np.asarray(index).reshape(len(points), -1)).to(means.device)


def _averaged(
    values: Float[Tensor, "n channels"], weights: Float[Tensor, " n"], near: Int[Tensor, "n k"]
) -> Float[Tensor, "n channels"]:
    """Weighted mean of each Gaussian's neighbours."""
    total = weights[near].sum(1)
    mixed = torch.stack([(v[near] * weights[near]).sum(1) for v in values.unbind(-1)], -1)
    return mixed / total.clamp_min(1e-8)[:, None]
