"""How does the light of a sky reach each Gaussian, in so few numbers that files can hold them?"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.spherical_harmonics import (
    degree_of,
    evaluate_basis,
    num_coefficients,
    rotate_sh,
)

VISIBLE_DEGREE, BOUNCED_DEGREE = 3, 2
# Irradiance in parts of its mean below which a ratio means nothing.
_DARK = 1e-4


@dataclass(frozen=True)
class LightTransfer:
    """Irradiance that a light of spherical harmonics has on Gaussians; linear in the light.

    Attributes:
        visible: Past the others, for coefficients up to degree 3: the projections of visibility
            times cosine. The same for all colours.
        bounced: From the others, for coefficients up to degree 2, per colour; holds for the
            materials that it was found with.
    """

    visible: Float[Tensor, "n 16"]
    bounced: Float[Tensor, "n 9 3"]

    def rotated(self, R_a_b: Float[Tensor, "3 3"]) -> "LightTransfer":
        """The same for lights of another frame.

        Args:
            R_a_b: Rotation from the present frame b to the new one.
        """
        visible = rotate_sh(self.visible[..., None], R_a_b)[..., 0]
        return LightTransfer(visible, rotate_sh(self.bounced, R_a_b))

    def shadow_ratio(
        self, normals: Float[Tensor, "n 3"], light: Float[Tensor, "k 3"]
    ) -> Float[Tensor, "n 3"]:
        """Irradiance past the others over that of Gaussians alone, 0 to 1.

        Args:
            normals: Unit, outwards.
            light: Coefficients of the radiance, at least to degree 3.
        """
        used = num_coefficients(VISIBLE_DEGREE)
        alone = cosine_transfer(normals, VISIBLE_DEGREE) @ light[:used]
        reached = self.visible @ light[:used]
        dark = (_DARK * light[0].abs().mean()).clamp_min(1e-20)
        return ((reached.clamp_min(0.0) + dark) / (alone.clamp_min(0.0) + dark)).clamp_max(1.0)

    def bounced_irradiance(self, light: Float[Tensor, "k 3"]) -> Float[Tensor, "n 3"]:
        """Irradiance from other Gaussians.

        Args:
            light: Coefficients of the radiance, at least to degree 2.
        """
        used = num_coefficients(BOUNCED_DEGREE)
        return (self.bounced * light[:used]).sum(1).clamp_min(0.0)


def cosine_transfer(normals: Float[Tensor, "n 3"], degree: int) -> Float[Tensor, "n k"]:
    """`LightTransfer.visible` of surfaces that see the whole sky.

    Ramamoorthi and Hanrahan 2001: A_l Y_l(n) with A = pi, 2 pi / 3, pi / 4, 0, -pi / 24.

    Args:
        normals: Unit.
        degree: 0 to 4.
    """
    bands = torch.tensor([math.pi, 2.0 * math.pi / 3.0, math.pi / 4.0, 0.0, -math.pi / 24.0])
    sizes = 2 * torch.arange(degree + 1) + 1
    factors = bands[: degree + 1].repeat_interleave(sizes).to(normals)
    basis = evaluate_basis(normals, degree)
    assert degree_of(basis.shape[-1]) == degree
    return factors * basis
