"""Rigid and similarity transforms. `T_a_b` maps points of frame b to frame a: x_a = T_a_b @ x_b.

`S_a_b` is a similarity (rotation, translation and one positive scale); never pass one to
`invert_rigid`.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def invert_rigid(T_a_b: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Invert rigid transforms without a matrix solve.

    Args:
        T_a_b: Rigid transforms; the rotation block must be orthonormal.

    Returns:
        T_b_a: The inverses.
    """
    R_b_a = T_a_b[..., :3, :3].mT
    T_b_a = torch.zeros_like(T_a_b)
    T_b_a[..., :3, :3] = R_b_a
    T_b_a[..., :3, 3:] = -R_b_a @ T_a_b[..., :3, 3:]
    T_b_a[..., 3, 3] = 1.0
    return T_b_a


def similarity(
    scale: float, R_a_b: Float[Tensor, "3 3"], t_a: Float[Tensor, " 3"]
) -> Float[Tensor, "4 4"]:
    """Build S_a_b with x_a = scale * R_a_b @ x_b + t_a.

    Args:
        scale: Positive scale from units of b to units of a.
        R_a_b: Rotation.
        t_a: Translation, in units of a.
    """
    S_a_b = torch.eye(4, dtype=R_a_b.dtype, device=R_a_b.device)
    S_a_b[:3, :3] = scale * R_a_b
    S_a_b[:3, 3] = t_a
    return S_a_b


def similarity_scale(S_a_b: Float[Tensor, "4 4"]) -> float:
    """Scale factor of a similarity: lengths in a = scale * lengths in b."""
    return float(torch.linalg.det(S_a_b[:3, :3].double()).abs() ** (1.0 / 3.0))


def invert_similarity(S_a_b: Float[Tensor, "4 4"]) -> Float[Tensor, "4 4"]:
    """Invert a similarity in closed form."""
    scale = similarity_scale(S_a_b)
    R_b_a = S_a_b[:3, :3].mT / scale
    return similarity(1.0 / scale, R_b_a, -(R_b_a @ S_a_b[:3, 3]) / scale)


def transform_points(
    T_a_b: Float[Tensor, "4 4"], points_b: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 3"]:
    """Map points of frame b to frame a; `T_a_b` may be rigid or a similarity."""
    return points_b @ T_a_b[:3, :3].mT + T_a_b[:3, 3]
