"""How are directions drawn, and with which density?

Every sampler has its density beside it. Directions of the hemisphere samplers are in a local frame
whose z axis is the normal; `local_frame` takes them to the world. Nothing here is differentiated
when it serves as a sampling technique: estimators divide by densities as constants.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.safe import safe_normalise

# Steps of the two-dimensional Kronecker sequence with the plastic number (Roberts 2018).
_R2_STEPS = (0.7548776662466927, 0.5698402909980532)


def low_discrepancy_points(count: int, dimension: int, seed: int) -> Float[Tensor, "n d"]:
    """Scrambled Sobol points in [0, 1), the same for the same seed; CPU, float64.

    Args:
        count: Number of points; powers of two are the best spread.
        dimension: Number of coordinates.
        seed: Chooses the scrambling.
    """
    engine = torch.quasirandom.SobolEngine(dimension, scramble=True, seed=seed)
    return engine.draw(count, dtype=torch.float64)


def rotate_points(
    points: Float[Tensor, "n 2"], indices: Float[Tensor, " p"]
) -> Float[Tensor, "n p 2"]:
    """Shift a point set of the unit square around its borders, by another amount per index.

    Cranley-Patterson rotation by the R2 sequence: neighbours get shifts far apart, so that the
    errors of neighbouring pixels differ in sign and do not show as bands.

    Args:
        points: In [0, 1).
        indices: Whole numbers.
    """
    steps = torch.tensor(_R2_STEPS, dtype=torch.float64, device=indices.device)
    shifts = (indices.double()[:, None] * steps).frac().to(points)
    return (points[:, None] + shifts).frac()


def local_frame(normals: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation from a frame whose z axis is the normal to the normal's own frame.

    Duff et al. 2017, "Building an orthonormal basis, revisited". Columns: tangent, bitangent,
    normal.

    Args:
        normals: Unit.
    """
    x, y, z = normals.unbind(-1)
    sign = torch.where(z < 0.0, -torch.ones_like(z), torch.ones_like(z))
    a = -1.0 / (sign + z)
    b = x * y * a
    tangent = torch.stack([1.0 + sign * x * x * a, sign * b, -sign * x], dim=-1)
    bitangent = torch.stack([b, sign + y * y * a, -y], dim=-1)
    return torch.stack([tangent, bitangent, normals], dim=-1)


def sample_cosine(uniforms: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 3"]:
    """Directions of the upper hemisphere with density cos / pi; local frame.

    Args:
        uniforms: In [0, 1).
    """
    radius, phi = uniforms[..., 0].sqrt(), 2.0 * math.pi * uniforms[..., 1]
    z = (1.0 - uniforms[..., 0]).sqrt()
    return torch.stack([radius * phi.cos(), radius * phi.sin(), z], dim=-1)


def cosine_pdf(n_dot_l: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Density of `sample_cosine` per steradian; 0 below the horizon."""
    return n_dot_l.clamp_min(0.0) / math.pi


def sample_vndf(
    views: Float[Tensor, "*batch 3"],
    alpha: Float[Tensor, "*batch 1"],
    uniforms: Float[Tensor, "*batch 2"],
) -> Float[Tensor, "*batch 3"]:
    """Half vectors with the density of GGX normals that the viewer sees; local frame.

    Heitz 2018, "Sampling the GGX distribution of visible normals", listing 1.

    Args:
        views: Unit, z >= 0.
        alpha: GGX width.
        uniforms: In [0, 1).
    """
    stretched = safe_normalise(torch.cat([alpha * views[..., :2], views[..., 2:]], dim=-1))
    x, y, z = stretched.unbind(-1)
    # The horizontal axis of the disc that faces the stretched view; any, seen from straight above.
    sine = (x.square() + y.square()).sqrt()
    is_vertical = sine < 1e-7
    safe_sine = sine.masked_fill(is_vertical, 1.0)
    first_x = (-y / safe_sine).masked_fill(is_vertical, 1.0)
    first_y = (x / safe_sine).masked_fill(is_vertical, 0.0)
    radius, phi = uniforms[..., 0].sqrt(), 2.0 * math.pi * uniforms[..., 1]
    along_first = radius * phi.cos()
    # The half of the disc beyond the horizon is squeezed by the tilt of the view.
    share = 0.5 * (1.0 + z)
    chord = (1.0 - along_first.square()).clamp_min(0.0).sqrt()
    along_second = (1.0 - share) * chord + share * radius * phi.sin()
    height = (1.0 - along_first.square() - along_second.square()).clamp_min(0.0).sqrt()
    # second axis = view x first axis
    half_x = along_first * first_x - along_second * z * first_y + height * x
    half_y = along_first * first_y + along_second * z * first_x + height * y
    half_z = along_second * (x * first_y - y * first_x) + height * z
    width = alpha[..., 0]
    half = torch.stack([width * half_x, width * half_y, half_z.clamp_min(1e-9)], dim=-1)
    return half / half.square().sum(-1, keepdim=True).sqrt()
