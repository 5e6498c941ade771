"""How much light does a surface send on, both lobes together?"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.scene.gaussians import GaussianModel
from splatir.shade.brdf import f0
from splatir.shade.lobe_energy import split_sum_terms

# Midpoints of the mean over view angles: within 0.001 of the integral.
_NUM_COSINES = 8


@dataclass(frozen=True)
class SurfaceMaterials:
    """Materials of Gaussians, activated.

    Attributes:
        albedo: Linear, 0 to 1.
        roughness: Perceptual, 0 to 1.
        metallic: 0 to 1.
    """

    albedo: Float[Tensor, "n 3"]
    roughness: Float[Tensor, "n 1"]
    metallic: Float[Tensor, "n 1"]

    @classmethod
    def of(cls, model: GaussianModel) -> "SurfaceMaterials":
        """Those of a model.

        Raises:
            ValueError: The model has no materials.
        """
        return cls(
            model.material("albedo"),
            model.material("roughness")[:, None],
            model.material("metallic")[:, None],
        )

    def detach(self) -> "SurfaceMaterials":
        """The same as constants."""
        return SurfaceMaterials(
            self.albedo.detach(), self.roughness.detach(), self.metallic.detach()
        )

    @property
    def reflectance(self) -> Float[Tensor, "n 3"]:
        """F0, of the specular lobe."""
        return f0(self.albedo, self.metallic)

    def total_albedo(self) -> Float[Tensor, "n 3"]:
        """Share of uniform light that the diffuse and the specular lobe together reflect.

        For what other surfaces receive, a surface that is matt in both lobes is enough; a hit that
        reflects by its diffuse lobe alone is black on metal.
        """
        a, b = _mean_split_sum(self.roughness)
        return (1.0 - self.metallic) * self.albedo + self.reflectance * a + b


def _mean_split_sum(
    roughness: Float[Tensor, "n 1"],
) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "n 1"]]:
    """Means of the split-sum terms over the hemisphere of views, weighted by cosine."""
    # Uniform in cos^2 is cosine-weighted.
    steps = (torch.arange(_NUM_COSINES).to(roughness) + 0.5) / _NUM_COSINES
    cosines = steps.sqrt().expand(len(roughness), -1)[..., None]
    a, b = split_sum_terms(cosines, roughness[:, None].expand_as(cosines))
    return a.mean(1), b.mean(1)
