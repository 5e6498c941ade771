"""How do two models become one?"""

import torch
from torch import Tensor

from splatir.maths.rotations import quat_from_rotation, rotation_from_quat
from splatir.maths.spherical_harmonics import num_coefficients
from splatir.scene.gaussians import (
    SHEEN,
    SURFEL_LOG_THICKNESS,
    GaussianModel,
    Primitive,
    with_sheen,
)
from splatir.scene.normals import normal_axes


def joined_models(first: GaussianModel, second: GaussianModel) -> GaussianModel:
    """Both models' Gaussians, the first's before the second's, in the first's shape.

    Surfels become thin ellipsoids; ellipsoids lose their shortest axis, which is their normal.
    Coefficients of SH degrees that one of the two lacks are zero.

    Args:
        first: Decides the shape, dtype and device.
        second: In the same frame.

    Raises:
        ValueError: Only one of the two has materials.
    """
    if first.has_materials != second.has_materials:
        raise ValueError("only one of the two models has materials; both must, or none.")
    if SHEEN in first.params or SHEEN in second.params:
        first, second = with_sheen(first), with_sheen(second)
    degree = max(first.sh_degree, second.sh_degree)
    a = _with_degree(first, degree)
    b = _with_degree(_reshaped(second, first.primitive), degree)
    return GaussianModel(
        {key: torch.cat([a[key], b[key].to(a[key])]) for key in a}, first.primitive
    )


def _with_degree(model: GaussianModel, degree: int) -> dict[str, Tensor]:
    """Parameters, the coefficients of higher SH degrees filled up with zeros."""
    params = {key: value.detach() for key, value in model.params.items()}
    missing = num_coefficients(degree) - num_coefficients(model.sh_degree)
    zeros = params["shN"].new_zeros(model.num_gaussians, missing, 3)
    params["shN"] = torch.cat([params["shN"], zeros], dim=1)
    return params


def _reshaped(model: GaussianModel, primitive: Primitive) -> GaussianModel:
    """The same Gaussians in the other shape, normals included."""
    if model.primitive == primitive:
        return model
    params = {key: value.detach().clone() for key, value in model.params.items()}
    if primitive == "surfel":
        normals, order = normal_axes(model.gaussians).detach(), params["scales"].argsort(-1)
        axes = rotation_from_quat(params["quats"])
        longest = torch.take_along_dim(axes, order[:, None, 2:], -1)[..., 0]
        sides = torch.linalg.cross(normals, longest)
        params["quats"] = quat_from_rotation(torch.stack([longest, sides, normals], dim=-1))
        params["scales"] = params["scales"].gather(1, order.flip(-1))
    params["scales"][:, 2] = SURFEL_LOG_THICKNESS
    return GaussianModel(params, primitive)
