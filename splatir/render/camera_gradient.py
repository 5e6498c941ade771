"""How does a picture change with its camera, where rasterisers take the camera as a constant?

Moving a camera shows what moving all Gaussians the other way would show, so the gradients that
they receive anyway add up to the camera's: two small matrix products, whatever the backend.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from splatir.scene.camera import Camera
from splatir.scene.gaussians import Gaussians


@dataclass(frozen=True)
class CameraCorrection:
    """What a camera was corrected by, to be given a gradient.

    Attributes:
        values: As in `scene.corrections`; the rendered camera has it already.
        extent: Radius of the scene, scene units.
    """

    values: Float[Tensor, " 7"]
    extent: float


def tied_to_camera(
    gaussians: Gaussians, camera: Camera, correction: CameraCorrection
) -> tuple[Gaussians, Float[Tensor, "n 3"]]:
    """The same Gaussians, whose gradients also reach the correction of the camera.

    To first order in the correction. That of the focal length is exact for ellipsoids on the
    picture; surfels seen aslant would have to shear for it.

    Args:
        gaussians: Geometry to rasterise.
        camera: After correction.
        correction: Receives the gradient.

    Returns:
        The Gaussians to rasterise, and the centres to which view directions point: they turn with
        the camera's place but not with its axes.
    """
    means, quats, scales, seen = _CameraTie.apply(
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        correction.values,
        camera.T_camera_world,
        correction.extent,
    )
    tied = Gaussians(means, quats, scales, gaussians.opacities, gaussians.primitive)
    return tied, seen


class _CameraTie(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        correction: Tensor,
        T_camera_world: Tensor,
        extent: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        del correction
        ctx.save_for_backward(means, quats, scales, T_camera_world)
        ctx.extent = extent
        ctx.set_materialize_grads(False)
        same = (means, quats, scales, means)
        return tuple(tensor.view_as(tensor) for tensor in same)  # pyright: ignore[reportReturnType]

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        v_means: Tensor | None,
        v_quats: Tensor | None,
        v_scales: Tensor | None,
        v_seen: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        means, quats, scales, T = ctx.saved_tensors
        R = T[:3, :3].to(means)
        position = -R.mT @ T[:3, 3].to(means)
        turn, shift, growth = means.new_zeros(3), means.new_zeros(3), means.new_zeros(1)
        if v_means is not None:
            # sum of (m - c) g^T: its antisymmetric part turns, its x and y in the camera magnify.
            moment = means.mT @ v_means - torch.outer(position, v_means.sum(0))
            turn = turn - _axis(moment)
            shift = shift - v_means.sum(0)
            growth = growth + (R[:2] @ moment @ R[:2].mT).trace()
        if v_quats is not None:
            moment = quats.mT @ v_quats
            turn = turn - 0.5 * (moment[0, 1:] - moment[1:, 0] + _axis(moment[1:, 1:]))
        if v_scales is not None:
            growth = growth + (scales * v_scales).sum()
        if v_seen is not None:
            shift = shift - v_seen.sum(0)
            v_means = v_seen if v_means is None else v_means + v_seen
        correction = torch.cat([turn, ctx.extent * shift, growth])
        return v_means, v_quats, v_scales, correction, None, None


def _axis(moment: Tensor) -> Tensor:
    """Sum of a x b from the sum of a b^T."""
    return torch.stack(
        [
            moment[1, 2] - moment[2, 1],
            moment[2, 0] - moment[0, 2],
            moment[0, 1] - moment[1, 0],
        ]
    )
