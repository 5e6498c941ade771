"""How much light does a surface send on, both lobes together?"""

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.scene.gaussians import GaussianModel
from splatir.shade.brdf import ShadingSettings, f0
from splatir.shade.cloth import mean_sheen_albedo
from splatir.shade.lobe_energy import mean_disney_albedo, split_sum_terms

# Midpoints of the mean over view angles, and roughnesses between which it is interpolated: within
# 0.002 of the integral.
_NUM_COSINES, _NUM_ROUGHNESSES = 32, 65


@dataclass(frozen=True)
class SurfaceMaterials:
    """Materials of Gaussians, activated.

    Attributes:
        albedo: Linear, 0 to 1.
        roughness: Perceptual, 0 to 1.
        metallic: 0 to 1.
        sheen: Of the diffuse lobe, 0 to 1; None for 0.
    """

    albedo: Float[Tensor, "n 3"]
    roughness: Float[Tensor, "n 1"]
    metallic: Float[Tensor, "n 1"]
    sheen: Float[Tensor, "n 1"] | None = None

    @classmethod
    def of(cls, model: GaussianModel) -> "SurfaceMaterials":
        """Those of a model.

        Raises:
            ValueError: The model has no materials.
        """
        sheen = model.sheen
        return cls(
            model.material("albedo"),
            model.material("roughness")[:, None],
            model.material("metallic")[:, None],
            None if sheen is None else sheen[:, None],
        )

    def detach(self) -> "SurfaceMaterials":
        """The same as constants."""
        sheen = None if self.sheen is None else self.sheen.detach()
        return SurfaceMaterials(
            self.albedo.detach(), self.roughness.detach(), self.metallic.detach(), sheen
        )

    @property
    def reflectance(self) -> Float[Tensor, "n 3"]:
        """F0, of the specular lobe."""
        return f0(self.albedo, self.metallic)

    def total_albedo(self, settings: ShadingSettings = ShadingSettings()) -> Float[Tensor, "n 3"]:
        """Share of uniform light that the diffuse and the specular lobe together reflect.

        For what other surfaces receive, a surface that is matt in both lobes is enough; a hit that
        reflects by its diffuse lobe alone is black on metal.

        Args:
            settings: Variants of the BRDF.
        """
        a, b = _mean_split_sum(self.roughness)
        matt = (1.0 - self.metallic) * self.albedo
        if settings.diffuse == "disney":
            matt = matt * mean_disney_albedo(self.roughness)
        if self.sheen is not None:
            matt = matt * mean_sheen_albedo(self.sheen)
        return matt + self.reflectance * a + b


def _mean_split_sum(
    roughness: Float[Tensor, "n 1"],
) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "n 1"]]:
    """Means of the split-sum terms over the hemisphere of views, weighted by cosine."""
    table = _mean_table().to(roughness)
    place = roughness.clamp(0.0, 1.0) * (len(table) - 1)
    low = place.detach().floor().clamp_max(len(table) - 2).long()[:, 0]
    a, b = torch.lerp(table[low], table[low + 1], place - low[:, None]).split(1, dim=-1)
    return a, b


@functools.cache
def _mean_table() -> Float[Tensor, "roughnesses 2"]:
    """Both means by roughness, evenly from 0 to 1."""
    roughness = torch.linspace(0.0, 1.0, _NUM_ROUGHNESSES)[:, None]
    # Uniform in cos^2 is cosine-weighted.
    steps = (torch.arange(_NUM_COSINES).to(roughness) + 0.5) / _NUM_COSINES
    cosines = steps.sqrt().expand(len(roughness), -1)
    a, b = split_sum_terms(cosines[..., None], roughness[:, None].expand(-1, _NUM_COSINES, 1))
    return torch.cat([a.mean(1), b.mean(1)], dim=-1)
