"""What does a scene stand on: a plane of Gaussians that catches its shadow."""

import math
from dataclasses import dataclass

import torch

from splatir.scene.gaussians import GaussianModel
from splatir.scene.surface_samples import SurfaceSamples

# The ground lies where this part of the opaque Gaussians is below it.
_BELOW = 0.01
_OPAQUE = 0.5
# Gaussians of the ground. They are evenly dense under the scene, and sparser in proportion to the
# distance beyond it.
_NUM_GAUSSIANS = 30_000
# Radius of the ground in radii of the scene, and where it starts to fade.
_REACH, _FADE_FROM = 4.0, 2.5
# Of the plane where it does not fade.
_OPACITY = 0.98
_GOLDEN_ANGLE = math.pi * (3.0 - math.sqrt(5.0))


@dataclass(frozen=True)
class GroundSettings:
    """Where the ground is, and what it is like.

    Attributes:
        height: Of the plane along world +Z; None for just under the scene.
        albedo: Linear grey, 0 to 1; it is matt.
    """

    height: float | None = None
    albedo: float = 0.5


def ground_height(model: GaussianModel) -> float:
    """Height that a hundredth of the opaque Gaussians lies below; world +Z.

    Args:
        model: At least one Gaussian.
    """
    heights = model.means.detach()[:, 2]
    opaque = model.opacities.detach() > _OPAQUE
    heights = heights[opaque] if bool(opaque.any()) else heights
    return float(heights.sort().values[int(_BELOW * (len(heights) - 1))])


def ground_under(
    model: GaussianModel, settings: GroundSettings = GroundSettings()
) -> SurfaceSamples:
    """A round plane across world +Z that fades out at its rim.

    Args:
        model: Scene that stands on it, at least one Gaussian.
        settings: Height and albedo.
    """
    height = ground_height(model) if settings.height is None else settings.height
    means = model.means.detach()
    centre = means[:, :2].median(0).values
    distances = (means[:, :2] - centre).norm(dim=-1).sort().values
    top = means[:, 2].sort().values[-1 - len(means) // 50]
    # What is high throws long shadows.
    radius = max(float(distances[-1 - len(means) // 50]), 0.5 * (float(top) - height), 1e-6)
    # Area under the scene, in squares of the spacing there, then 2 pi dr / r of them beyond it.
    inside = _NUM_GAUSSIANS / (1.0 + 2.0 * math.log(_REACH))
    index = torch.arange(_NUM_GAUSSIANS).to(means) + 0.5
    share = index / inside
    distance = radius * torch.where(share < 1.0, share.sqrt(), (0.5 * (share - 1.0)).exp())
    angle = _GOLDEN_ANGLE * index
    places = centre + distance[:, None] * torch.stack([angle.cos(), angle.sin()], dim=-1)
    spacing = radius * math.sqrt(math.pi / inside) * (distance / radius).clamp_min(1.0)
    faded = (distance / radius - _FADE_FROM) / (_REACH - _FADE_FROM)
    faded = faded.clamp(0.0, 1.0)
    opacities = _OPACITY * (1.0 - faded.square() * (3.0 - 2.0 * faded))
    one = torch.ones_like(distance)
    up = means.new_tensor([0.0, 0.0, 1.0])
    return SurfaceSamples(
        torch.cat([places, height * one[:, None]], dim=-1),
        up.expand(len(one), 3),
        spacing,
        opacities,
        (settings.albedo * one)[:, None].expand(-1, 3),
        one,
        0.0 * one,
    )
