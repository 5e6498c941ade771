"""Which point do cameras look at, and how much around it do they see in common?"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.scene.camera import Camera

# Below this ratio of eigenvalues the optical axes are parallel within about 6 degrees.
_MIN_AXES_SPREAD = 0.01


def focus_point(
    positions: Float[Tensor, "n 3"], forwards: Float[Tensor, "n 3"]
) -> Float[Tensor, " 3"] | None:
    """The point nearest to the optical axes, or None where it is not what the cameras look at.

    Minimises the sum of distances (not their squares, by reweighting), so that a few cameras that
    look elsewhere do not move it.

    Args:
        positions: Camera centres.
        forwards: Unit viewing directions.

    Returns:
        None if the axes are nearly parallel, or if the point is not in front of at least three
        quarters of the cameras.
    """
    across = torch.eye(3, dtype=forwards.dtype) - forwards[:, :, None] * forwards[:, None, :]
    weights = torch.ones(len(positions), dtype=positions.dtype)
    point = positions.mean(dim=0)
    for _ in range(10):
        weighted = weights[:, None, None] * across
        normal_matrix = weighted.sum(dim=0)
        eigenvalues = torch.linalg.eigvalsh(normal_matrix)
        if float(eigenvalues[0]) < _MIN_AXES_SPREAD * float(eigenvalues[2]):
            return None
        point = torch.linalg.solve(normal_matrix, (weighted @ positions[:, :, None]).sum(dim=0))
        point = point.squeeze(-1)
        misses = (across @ (point - positions)[:, :, None]).squeeze(-1).norm(dim=-1)
        weights = 1.0 / misses.clamp_min(1e-3 * float((point - positions).norm(dim=-1).median()))
        if not bool(torch.isfinite(weights).all()):
            return None
    in_front = ((point - positions) * forwards).sum(dim=-1) > 0
    return point if float(in_front.double().mean()) >= 0.75 else None


def common_sphere(cameras: Sequence[Camera]) -> tuple[Float[Tensor, " 3"], float]:
    """A sphere about the focus point that lies inside the view of half of the cameras.

    Where there is no such point (parallel axes, a panorama) the centre is ahead of the cameras by
    the radius of their positions.

    Returns:
        Centre and radius, world frame.
    """
    positions = torch.stack([camera.position_world for camera in cameras]).double()
    forwards = torch.stack([camera.forward_world for camera in cameras]).double()
    centre = focus_point(positions, forwards)
    if centre is None:
        middle = positions.mean(dim=0)
        centre = middle + forwards.mean(dim=0) * (positions - middle).norm(dim=-1).max()
    distances = (positions - centre).norm(dim=-1)
    tangents = torch.stack([0.5 * min(c.width / c.K[0, 0], c.height / c.K[1, 1]) for c in cameras])
    radii = distances * tangents / (1.0 + tangents**2).sqrt()
    return centre.float(), float(radii.median().clamp_min(1e-3))
