"""Quaternions (wxyz) and rotation matrices."""

import torch
from jaxtyping import Float
from torch import Tensor


def rotation_from_quat(quats: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices of quaternions.

    Args:
        quats: wxyz, any non-zero length; normalised here.

    Returns:
        R_a_b for a quaternion that rotates vectors of b into a.
    """
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def quat_from_rotation(R_a_b: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions (wxyz, w >= 0) of rotation matrices.

    Of the four equivalent formulas the one with the largest divisor is taken, so no rotation angle
    loses precision (Shepperd 1978). Not meant for differentiation.
    """
    m = R_a_b
    trace = m.diagonal(dim1=-2, dim2=-1)
    # Row i holds 4 q_i * (w, x, y, z); the diagonal 4 q_i^2 picks the best-conditioned row.
    ww = 1 + trace[..., 0] + trace[..., 1] + trace[..., 2]
    xx = 1 + trace[..., 0] - trace[..., 1] - trace[..., 2]
    yy = 1 - trace[..., 0] + trace[..., 1] - trace[..., 2]
    zz = 1 - trace[..., 0] - trace[..., 1] + trace[..., 2]
    wx = m[..., 2, 1] - m[..., 1, 2]
    wy = m[..., 0, 2] - m[..., 2, 0]
    wz = m[..., 1, 0] - m[..., 0, 1]
    xy = m[..., 0, 1] + m[..., 1, 0]
    xz = m[..., 0, 2] + m[..., 2, 0]
    yz = m[..., 1, 2] + m[..., 2, 1]
    rows = torch.stack(
        [ww, wx, wy, wz, wx, xx, xy, xz, wy, xy, yy, yz, wz, xz, yz, zz], dim=-1
    ).unflatten(-1, (4, 4))
    best = torch.stack([ww, xx, yy, zz], dim=-1).argmax(-1)
    quats = torch.take_along_dim(rows, best[..., None, None].expand(*best.shape, 1, 4), dim=-2)
    quats = torch.nn.functional.normalize(quats.squeeze(-2), dim=-1)
    return torch.where(quats[..., :1] < 0, -quats, quats)


def quat_multiply(
    quats_a_b: Float[Tensor, "*batch 4"], quats_b_c: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch 4"]:
    """Hamilton product: the rotation by `quats_b_c` followed by `quats_a_b`."""
    aw, ax, ay, az = quats_a_b.unbind(-1)
    bw, bx, by, bz = quats_b_c.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )


def quat_from_normal(normals: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """The shortest rotation that takes +z to each unit normal (-z gives a half turn about +x)."""
    x, y, z = normals.unbind(-1)
    quats = torch.stack([1 + z, -y, x, torch.zeros_like(z)], dim=-1)
    half_turn = torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=normals.dtype, device=normals.device)
    # Below 1e-6 the axis has fewer than three correct digits in float32.
    quats = torch.where((1 + z < 1e-6)[..., None], half_turn, quats)
    return torch.nn.functional.normalize(quats, dim=-1)
