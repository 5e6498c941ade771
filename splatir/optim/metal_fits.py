"""How well does each kind of surface explain what the photos saw of each Gaussian?

Four explanations are fitted in closed form under a light, for one roughness at a time. With L_v
the light that the specular lobe gathers for view v, A_v, B_v the split-sum terms, and D_v what the
Disney lobe reflects of the light over what Lambert's does:

* dielectric: seen_v = D_v albedo E / pi + (0.04 A_v + B_v) L_v
* cloth:      seen_v = D_v (a + b (1 - n.v)) + (0.04 A_v + B_v) L_v
* velvet:     seen_v = D_v a (1 - s (n.v)^2) + (0.04 A_v + B_v) L_v, which is how cloth is shaded
* metal:      seen_v = albedo A_v L_v + B_v L_v

The diffuse term of a dielectric hardly depends on the view, that of cloth as its sheen does, and a
metal has none. Brightness is left free (an albedo above 1 is allowed), so that only the change over
views decides, not the unknown scale of the light. Where transport is known, E and L_v lack what
other Gaussians hide and have what those send instead: what the photos saw of them.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from splatir.maths.colour import srgb_from_hdr, srgb_from_linear
from splatir.maths.safe import safe_normalise
from splatir.scene.gaussians import GaussianModel
from splatir.scene.lights import EnvironmentLight
from splatir.scene.normals import facing_normals
from splatir.shade.brdf import DIELECTRIC_F0
from splatir.shade.disney_light import DisneyLight
from splatir.shade.lobe_energy import split_sum_terms
from splatir.shade.prefilter import PrefilteredLight, prefilter
from splatir.transport.bake import Visibility
from splatir.transport.lit import CellLight
from splatir.transport.sums import bounced_irradiance, irradiance, specular_sums

# More grazing views mix in neighbours; fainter sightings are chance.
_MIN_COSINE, _MIN_WEIGHT = 0.15, 1e-3
# Albedos that the fits may take, as the scale of the light is unknown.
_MAX_ALBEDO = 4.0
# Nothing is divided by less of the Disney lobe, where no light is.
_MIN_LOBE = 0.1
# Light past occluders may exceed that without them, where lobes meet few directions, by this.
_MAX_RATIO = 4.0


@dataclass(frozen=True)
class Sightings:
    """What the photos saw of each Gaussian.

    Attributes:
        colours: Mean photo colour under its footprint, linear.
        weights: Pixels that it filled, by compositing weight.
        positions: Of the cameras, world frame.
        is_hdr: Colours above white are known, not clipped.
    """

    colours: Float[Tensor, "n views 3"]
    weights: Float[Tensor, "n views"]
    positions: Float[Tensor, "views 3"]
    is_hdr: bool = False


@dataclass(frozen=True)
class Fit:
    """The explanations with one roughness.

    Attributes:
        dielectric: Mean squared error in display values, summed over colours.
        cloth: Likewise.
        velvet: Likewise.
        metal: Likewise.
        sheen: That fits best as velvet, 0 to 1.
        albedo_dielectric: That fits best, 0 to 4.
        albedo_metal: Likewise.
    """

    dielectric: Float[Tensor, " n"]
    cloth: Float[Tensor, " n"]
    velvet: Float[Tensor, " n"]
    metal: Float[Tensor, " n"]
    sheen: Float[Tensor, " n"]
    albedo_dielectric: Float[Tensor, "n 3"]
    albedo_metal: Float[Tensor, "n 3"]


class MetalFits:
    """Pairs of a Gaussian and a view that saw it, and least squares over the views of each."""

    def __init__(
        self,
        model: GaussianModel,
        sightings: Sightings,
        light: EnvironmentLight,
        visibility: Visibility | None = None,
    ) -> None:
        """Choose the pairs.

        Args:
            model: Geometry.
            sightings: Of the model as it is.
            light: Present estimate.
            visibility: What Gaussians see of each other; None as if each were alone.
        """
        means = model.means.detach()
        views = safe_normalise(sightings.positions[None] - means[:, None])
        normals = facing_normals(model.gaussians.detach(), sightings.positions.mean(0))
        # The side that more of the photos saw.
        seen = ((views * normals[:, None]).sum(-1) * sightings.weights).sum(1, keepdim=True)
        self._normals = torch.where(seen < 0.0, -normals, normals)
        cosines = (views * self._normals[:, None]).sum(-1)
        chosen = (cosines > _MIN_COSINE) & (sightings.weights > _MIN_WEIGHT)
        self._index, view = chosen.nonzero(as_tuple=True)
        self._views = views[self._index, view]
        self._weights = sightings.weights[chosen][:, None]
        self._colours = sightings.colours[chosen]
        self._n_dot_v = cosines[chosen][:, None]
        self._is_hdr = sightings.is_hdr
        self._shown = self._display(self._colours)
        self._light = _LightOnGaussians(light, visibility)
        self._retro = DisneyLight.of(light)
        #: Pixels that each Gaussian filled, and in how many views.
        self.total = self._sum(self._weights)[:, 0]
        self.sightings = self._sum(torch.ones_like(self._weights))[:, 0]
        self._light.receive(self._normals, self._mean(self._colours), self.total)

    def fit(self, roughness: float) -> Fit:
        """Errors and albedos of the best surfaces of each kind.

        Args:
            roughness: Perceptual.
        """
        level = torch.full_like(self._n_dot_v, roughness)
        white, rest = split_sum_terms(self._n_dot_v, level)
        normals = self._normals[self._index]
        mirror = 2.0 * self._n_dot_v * normals - self._views
        gathered = self._light.gathered(self._index, self._views, mirror, roughness)
        lobe = self._retro.ratio(normals, self._views, level).clamp_min(_MIN_LOBE)
        matt = (self._colours - (DIELECTRIC_F0 * white + rest) * gathered) / lobe
        mean = self._mean(matt)
        received = self._light.irradiance / math.pi
        albedo = (mean / received.clamp_min(1e-4)).clamp(0.0, _MAX_ALBEDO)
        dielectric = self._error(lobe * (matt - (albedo * received)[self._index]), 1)
        cloth = self._error(lobe * (matt - self._sheen(matt, mean)), 2)
        sheen, shown = self._velvet(matt, mean)
        velvet = self._error(lobe * (matt - shown), 2)
        tinted, untinted = white * gathered, rest * gathered
        product = self._sum(self._weights * tinted * (self._colours - untinted))
        square = self._sum(self._weights * tinted.square())
        albedo_metal = (product / square.clamp_min(1e-8)).clamp(0.0, _MAX_ALBEDO)
        reflected = albedo_metal[self._index] * tinted + untinted
        metal = self._error(self._colours - reflected, 1)
        return Fit(dielectric, cloth, velvet, metal, sheen, albedo, albedo_metal)

    def _sheen(
        self, matt: Float[Tensor, "pairs 3"], mean: Float[Tensor, "n 3"]
    ) -> Float[Tensor, "pairs 3"]:
        """The line in n.v that is nearest to what is left without highlights."""
        off_mean = self._n_dot_v - self._mean(self._n_dot_v)[self._index]
        covariance = self._mean(off_mean * (matt - mean[self._index]))
        slope = covariance / self._mean(off_mean.square()).clamp_min(1e-6)
        return mean[self._index] + slope[self._index] * off_mean

    def _velvet(
        self, matt: Float[Tensor, "pairs 3"], mean: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "pairs 3"]]:
        """One sheen for all colours, and what is left without highlights as it shows that."""
        squared = self._n_dot_v.square()
        mean_squared = self._mean(squared)
        off_mean = squared - mean_squared[self._index]
        covariance = self._mean(off_mean * (matt - mean[self._index])).sum(-1)
        slope = covariance / self._mean(off_mean.square())[:, 0].clamp_min(1e-6)
        grazing = mean.sum(-1) - slope * mean_squared[:, 0]
        sheen = (-slope / grazing.clamp_min(1e-6)).clamp(0.0, 1.0)
        lobe = 1.0 - sheen[self._index, None] * squared
        albedo = self._mean(lobe * matt) / self._mean(lobe.square()).clamp_min(1e-6)
        return sheen, albedo[self._index] * lobe

    def _error(self, missed: Float[Tensor, "pairs 3"], num_parameters: int) -> Float[Tensor, " n"]:
        """Of colours explained but for what is missed, in display values.

        With so many parameters of a colour fitted, the error is larger than what is left of it.
        """
        shown = self._display(self._colours - missed)
        left = self._mean((shown - self._shown).square().sum(-1, keepdim=True))[:, 0]
        return left * self.sightings / (self.sightings - num_parameters).clamp_min(0.5)

    def _display(self, colours: Float[Tensor, "pairs 3"]) -> Float[Tensor, "pairs 3"]:
        if self._is_hdr:
            return srgb_from_hdr(colours.clamp_min(0.0))
        return srgb_from_linear(colours.clamp(0.0, 1.0))

    def _mean(self, values: Float[Tensor, "pairs channels"]) -> Float[Tensor, "n channels"]:
        return self._sum(self._weights * values) / self.total.clamp_min(1e-6)[:, None]

    def _sum(self, values: Float[Tensor, "pairs channels"]) -> Float[Tensor, "n channels"]:
        total = values.new_zeros(len(self._normals), values.shape[1])
        return total.index_add_(0, self._index, values)


class _LightOnGaussians:
    """A light past the Gaussians, and what these send instead."""

    def __init__(self, light: EnvironmentLight, visibility: Visibility | None) -> None:
        self._light: PrefilteredLight = prefilter(light)
        self._visibility = visibility
        self._cells = None if visibility is None else CellLight.of((light,), visibility.cells)
        self._sums: tuple[float, Tensor, Tensor] | None = None

    def receive(
        self,
        normals: Float[Tensor, "n 3"],
        seen: Float[Tensor, "n 3"],
        weights: Float[Tensor, " n"],
    ) -> None:
        """Find the irradiance of each Gaussian.

        Args:
            normals: Unit.
            seen: What the photos show of each in the mean.
            weights: By how many pixels; Gaussians that none show send what all do in the mean.
        """
        self.irradiance = self._light.irradiance_at(normals)
        if self._visibility is None or self._cells is None:
            return
        mean = (seen * weights[:, None]).sum(0) / weights.sum().clamp_min(1e-6)
        self._sent = torch.where((weights > _MIN_WEIGHT)[:, None], seen, mean).contiguous()
        visible, unoccluded = irradiance(self._visibility, self._cells.arriving)
        ratio = (visible + self._cells.dark) / (unoccluded + self._cells.dark)
        bounced = bounced_irradiance(self._visibility, self._sent)
        self.irradiance = self.irradiance * ratio + bounced

    def gathered(
        self,
        who: Int[Tensor, " pairs"],
        views: Float[Tensor, "pairs 3"],
        mirror: Float[Tensor, "pairs 3"],
        roughness: float,
    ) -> Float[Tensor, "pairs 3"]:
        """Mean radiance under the specular lobe."""
        level = torch.full_like(mirror[:, :1], roughness)
        unoccluded = self._light.specular_at(mirror, level)
        if self._visibility is None:
            return unoccluded
        ratio, bounced = self._occluded(who, views, roughness)
        return unoccluded * ratio + bounced

    def _occluded(
        self, who: Int[Tensor, " pairs"], views: Float[Tensor, "pairs 3"], roughness: float
    ) -> tuple[Float[Tensor, "pairs 3"], Float[Tensor, "pairs 3"]]:
        """Share of the light that gets past occluders, and what these send instead.

        Lobes narrower than the cells take what the narrowest that they resolve does.
        """
        assert self._visibility is not None and self._cells is not None
        alpha = max(roughness**2, CellLight.narrowest(len(self._cells.arriving)))
        if self._sums is None or self._sums[0] != alpha:
            width = torch.full_like(views[:, 0], alpha)
            light, sent = self._cells.arriving, self._sent
            sums = specular_sums(self._visibility, who, views, width, light, sent)
            sky, whole = sums.sky[..., 0], sums.unoccluded[..., 0]
            dark = self._cells.dark
            ratio = ((sky + dark) / (whole + dark)).clamp_max(_MAX_RATIO)
            self._sums = alpha, ratio, sums.bounced[..., 0] / sums.white[..., 0].clamp_min(1e-6)
        return self._sums[1], self._sums[2]
