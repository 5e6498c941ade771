"""What do rays hit? Each Gaussian is a flat polygon of the size of its opaque core."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from splatir.maths.rotations import rotation_from_quat
from splatir.scene.gaussians import Gaussians
from splatir.scene.normals import normal_axes, normal_axis_indices

_CORNERS = 8


@dataclass(frozen=True)
class OccluderSettings:
    """How Gaussians become opaque polygons.

    Attributes:
        threshold: A polygon reaches to where the Gaussian's alpha falls to this; Gaussians whose
            peak is lower let rays through.
        max_extent: But no further than this many standard deviations.
        offset: Rays start this far above a Gaussian, in its sizes.
        back_reach: Backs of polygons nearer than this, in the same unit, let rays through: they
            belong to the surface that the ray leaves.
    """

    threshold: float = 0.05
    max_extent: float = 1.5
    offset: float = 0.25
    back_reach: float = 3.0


@dataclass(frozen=True)
class Occluder:
    """Opaque polygons that stand for Gaussians.

    Attributes:
        vertices: World frame, scene units.
        faces: Triangles, by vertex.
        owners: The Gaussian of each face.
        centres: Of all Gaussians, also those without a polygon.
        normals: Unit, outwards.
        sizes: Geometric mean of the two in-plane standard deviations, scene units.
    """

    vertices: Float[Tensor, "v 3"]
    faces: Int[Tensor, "f 3"]
    owners: Int[Tensor, " f"]
    centres: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]
    sizes: Float[Tensor, " n"]


@torch.no_grad()
def occluder_of(gaussians: Gaussians, settings: OccluderSettings = OccluderSettings()) -> Occluder:
    """Octagons inscribed into the ellipses where alpha has fallen to a threshold; constants.

    Args:
        gaussians: Geometry whose normal axes look outwards.
        settings: Sizes.
    """
    normals = normal_axes(gaussians)
    order = normal_axis_indices(gaussians)[:, None] + torch.arange(
        1, 3, device=gaussians.means.device
    )
    in_plane = order % 3
    rotations = rotation_from_quat(gaussians.quats)
    axes = torch.take_along_dim(rotations, in_plane[:, None, :], -1)
    scales = torch.take_along_dim(gaussians.scales, in_plane, -1)
    # alpha = opacity exp(-t^2 / 2) at t standard deviations.
    ratio = (gaussians.opacities / settings.threshold).clamp_min(1.0)
    extent = (2.0 * ratio.log()).sqrt().clamp_max(settings.max_extent)
    kept = (extent > 0.0).nonzero()[:, 0]
    angles = 2.0 * math.pi / _CORNERS * torch.arange(_CORNERS).to(gaussians.means)
    circle = torch.stack([angles.cos(), angles.sin()])
    ring = (axes * (scales * extent[:, None])[:, None, :])[kept] @ circle
    vertices = (gaussians.means[kept, :, None] + ring).mT.reshape(-1, 3)
    fan = torch.tensor([[0, i, i + 1] for i in range(1, _CORNERS - 1)], device=kept.device)
    first = _CORNERS * torch.arange(len(kept), device=kept.device)
    return Occluder(
        vertices,
        (first[:, None, None] + fan).reshape(-1, 3),
        kept.repeat_interleave(len(fan)),
        gaussians.means.detach().clone(),
        normals,
        scales.sqrt().prod(-1),
    )
