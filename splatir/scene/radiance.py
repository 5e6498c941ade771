"""Which colour does each Gaussian show to a camera?"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from splatir.maths.spherical_harmonics import evaluate_sh_torch, num_coefficients


def radiance_colours(
    sh0: Float[Tensor, "n 1 3"],
    shN: Float[Tensor, "n k 3"],
    means: Float[Tensor, "n 3"],
    camera_position: Float[Tensor, " 3"],
    degree: int,
    visible: Bool[Tensor, " n"] | None = None,
) -> Float[Tensor, "n 3"]:
    """Colours max(0.5 + sum_k c_k Y_k(d), 0), with d from the camera to the centre.

    Differentiable in coefficients and means, not in the camera.

    Args:
        sh0: Coefficients of degree 0.
        shN: Coefficients of higher degrees; those above `degree` are ignored.
        means: Centres, world frame.
        camera_position: Centre of projection, world frame.
        degree: Highest degree used, 0 to 4.
        visible: Gaussians whose colour is wanted; the others get 0 and no gradient.

    Raises:
        ValueError: Fewer coefficients than the degree needs, or a degree that is not supported.
    """
    return radiance_colours_torch(sh0, shN, means, camera_position, degree, visible)


def radiance_colours_torch(
    sh0: Float[Tensor, "n 1 3"],
    shN: Float[Tensor, "n k 3"],
    means: Float[Tensor, "n 3"],
    camera_position: Float[Tensor, " 3"],
    degree: int,
    visible: Bool[Tensor, " n"] | None = None,
) -> Float[Tensor, "n 3"]:
    """`radiance_colours` in plain torch: any device and floating dtype, the reference."""
    coefficients = torch.cat([sh0, shN[:, : num_coefficients(degree) - 1]], dim=1)
    directions = means - camera_position.detach()
    colours = (0.5 + evaluate_sh_torch(coefficients, directions, degree)).clamp_min(0.0)
    return colours if visible is None else torch.where(visible[:, None], colours, 0.0)
