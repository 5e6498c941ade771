"""How does a known surface become Gaussians: points on it with normals and materials?"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.colour import srgb_from_linear
from splatir.maths.rotations import quat_from_normal
from splatir.maths.spherical_harmonics import SH_DC, num_coefficients
from splatir.scene.gaussians import (
    PARAMETER_SPACES,
    SURFEL_LOG_THICKNESS,
    GaussianModel,
    Primitive,
)

# Standard deviation of a Gaussian in spacings of the points: their sum is even, and opaque.
_WIDTH = 0.75
# Parameters are logits, in which 0 and 1 are infinite.
_MARGIN = 1e-4


@dataclass(frozen=True)
class SurfaceSamples:
    """Points of a surface.

    Attributes:
        positions: World frame.
        normals: Unit, outwards.
        spacings: Square root of the area that each point stands for, scene units.
        opacities: Peak alpha, 0 to 1.
        albedo: Linear, 0 to 1.
        roughness: Perceptual, 0 to 1.
        metallic: 0 to 1.
    """

    positions: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]
    spacings: Float[Tensor, " n"]
    opacities: Float[Tensor, " n"]
    albedo: Float[Tensor, "n 3"]
    roughness: Float[Tensor, " n"]
    metallic: Float[Tensor, " n"]


def model_from_samples(
    samples: SurfaceSamples, primitive: Primitive, sh_degree: int
) -> GaussianModel:
    """Flat, round Gaussians with materials that cover a surface without gaps.

    Their radiance is that of a matt surface in white light.

    Args:
        samples: Points, evenly spread.
        primitive: Shape; ellipsoids are as thin as surfels are written.
        sh_degree: Of the radiance, 0 to 4; above degree 0 all is zero.
    """
    activated = {
        "opacities": samples.opacities,
        "albedo": samples.albedo,
        "roughness": samples.roughness,
        "metallic": samples.metallic,
    }
    params = {
        key: PARAMETER_SPACES[key].invert(value.clamp(_MARGIN, 1.0 - _MARGIN))
        for key, value in activated.items()
    }
    log_width = (_WIDTH * samples.spacings).log()
    thickness = torch.full_like(log_width, SURFEL_LOG_THICKNESS)
    params["scales"] = torch.stack([log_width, log_width, thickness], dim=-1)
    params["means"] = samples.positions
    params["quats"] = quat_from_normal(samples.normals)
    params["sh0"] = ((srgb_from_linear(samples.albedo) - 0.5) / SH_DC)[:, None]
    params["shN"] = samples.albedo.new_zeros(
        len(samples.positions), num_coefficients(sh_degree) - 1, 3
    )
    return GaussianModel(params, primitive)
