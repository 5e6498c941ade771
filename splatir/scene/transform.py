"""How the Gaussians of a scene change when its frame does."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.frames import similarity_scale, transform_points
from splatir.maths.rotations import quat_from_rotation, quat_multiply
from splatir.maths.spherical_harmonics import rotate_sh
from splatir.scene.gaussians import GaussianModel


def transform_model(model: GaussianModel, S_b_a: Float[Tensor, "4 4"]) -> GaussianModel:
    """The same scene in another frame: centres, axes, sizes and view-dependent colour.

    Parameters other than gsplat's six (materials) do not depend on the frame and are kept. Runs in
    float64 inside; the result has the model's dtype and device and no gradient history.

    Args:
        model: Gaussians in frame a.
        S_b_a: Similarity from a to b, no reflection.

    Raises:
        ValueError: `S_b_a` has another last row, is not finite, or its block is no rotation times
            a positive scale.
    """
    S = S_b_a.detach().to(model.means.device, torch.float64)
    _check_similarity(S)
    scale = similarity_scale(S)
    R_b_a = S[:3, :3] / scale
    params = {key: value.detach().clone() for key, value in model.params.items()}
    moved = {
        "means": transform_points(S, params["means"].double()),
        "quats": _rotate_quats(R_b_a, params["quats"].double()),
        "scales": params["scales"].double() + math.log(scale),
    }
    rotated = rotate_sh(model.sh.detach().double(), R_b_a)
    moved["sh0"], moved["shN"] = rotated[:, :1], rotated[:, 1:]
    for key, value in moved.items():
        params[key] = value.to(params[key].dtype)
    return GaussianModel(params, model.primitive)


def _rotate_quats(R_b_a: Float[Tensor, "3 3"], quats: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
    return quat_multiply(quat_from_rotation(R_b_a).expand_as(quats), quats)


def _check_similarity(S: Float[Tensor, "4 4"]) -> None:
    block = S[:3, :3]
    determinant = float(torch.linalg.det(block))
    is_finite = bool(S.isfinite().all())
    is_affine = S[3].tolist() == [0.0, 0.0, 0.0, 1.0]
    if is_finite and is_affine and determinant > 0.0:
        unit = block / similarity_scale(S)
        # float32 similarities that were multiplied a few times are orthonormal to about 1e-6.
        if torch.allclose(unit @ unit.mT, torch.eye(3).to(S), atol=1e-4):
            return
    raise ValueError(
        "expected a similarity (rotation times positive scale, translation, last row 0 0 0 1), "
        f"got {S.tolist()}."
    )
