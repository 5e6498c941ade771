"""Which sums over directions is transport made of?

All are linear in the light or in what the Gaussians send out. Each runs in the native library for
float32 on the CPU where that is built, else in plain torch, the reference for the kernels.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from splatir.maths.safe import safe_normalise
from splatir.shade.brdf import ggx_distribution, smith_separable
from splatir.transport.bake import BELOW, Visibility
from splatir.transport.native_sums import (
    bounced_irradiance_native,
    can_sum_natively,
    irradiance_native,
    specular_sums_native,
)
from splatir.transport.tracing import FREE

# Gaussians times directions handled at once.
_CHUNK = 1 << 21


@dataclass(frozen=True)
class SpecularSums:
    """Sums of the specular lobe over directions, for reflectance 0 and its Schlick remainder.

    A lobe with normal reflectance F0 reflects F0 (constant - grazing) + grazing: both come as the
    last axis.

    Attributes:
        sky: Of the radiance that arrives past the occluders.
        unoccluded: As if nothing were in the way.
        bounced: Of the radiance that other Gaussians send.
        white: Of radiance 1 from everywhere.
    """

    sky: Float[Tensor, "p 3 2"]
    unoccluded: Float[Tensor, "p 3 2"]
    bounced: Float[Tensor, "p 3 2"]
    white: Float[Tensor, "p 1 2"]


def irradiance(
    visibility: Visibility, light: Float[Tensor, "d 3"]
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Irradiance from the sky past the occluders, and what it would be without them.

    Args:
        visibility: Of the Gaussians.
        light: Integral of the radiance over each cell; differentiable.
    """
    if can_sum_natively(visibility, light):
        return irradiance_native(visibility, light)
    return irradiance_torch(visibility, light)


def bounced_irradiance(
    visibility: Visibility, radiosity: Float[Tensor, "n 3"]
) -> Float[Tensor, "n 3"]:
    """Irradiance from the Gaussians that each Gaussian sees.

    Args:
        visibility: Of the Gaussians.
        radiosity: Radiance that each sends out to all sides; differentiable.
    """
    if can_sum_natively(visibility, radiosity):
        return bounced_irradiance_native(visibility, radiosity)
    return bounced_irradiance_torch(visibility, radiosity)


@torch.no_grad()
def specular_sums(
    visibility: Visibility,
    who: Int[Tensor, " p"],
    views: Float[Tensor, "p 3"],
    alpha: Float[Tensor, " p"],
    light: Float[Tensor, "d 3"],
    radiosity: Float[Tensor, "n 3"],
) -> SpecularSums:
    """Reflect what each of some Gaussians sees by its GGX lobe; not differentiable.

    Args:
        visibility: Of all Gaussians.
        who: The Gaussians, by index.
        views: Unit directions towards the viewer.
        alpha: GGX width of each; wide enough for the cells.
        light: Integral of the radiance over each cell.
        radiosity: Radiance that each Gaussian sends out.
    """
    arguments = (visibility, who, views, alpha, light, radiosity)
    if who.dtype == torch.int64 and can_sum_natively(visibility, *arguments[2:]):
        return SpecularSums(*specular_sums_native(*arguments))
    return specular_torch(*arguments)


def irradiance_torch(
    visibility: Visibility, light: Float[Tensor, "d 3"]
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """`irradiance` in plain torch, on any device, in any floating dtype.

    Args:
        visibility: Of the Gaussians.
        light: Integral of the radiance over each cell; differentiable.
    """
    parts = []
    for part in _chunks(visibility):
        cosines = (visibility.normals[part] @ visibility.cells.directions.mT).clamp_min(0.0)
        seen = cosines * (visibility.hits[part] == FREE)
        parts.append((seen @ light, cosines @ light))
    visible, unoccluded = (torch.cat(values) for values in zip(*parts, strict=True))
    return visible, unoccluded


def bounced_irradiance_torch(
    visibility: Visibility, radiosity: Float[Tensor, "n 3"]
) -> Float[Tensor, "n 3"]:
    """`bounced_irradiance` in plain torch, on any device, in any floating dtype.

    Args:
        visibility: Of the Gaussians.
        radiosity: Radiance that each sends out to all sides; differentiable.
    """
    cells, parts = visibility.cells, []
    for part in _chunks(visibility):
        hits = visibility.hits[part]
        cosines = (visibility.normals[part] @ cells.directions.mT).clamp_min(0.0)
        weights = cosines * cells.solid_angles * (hits >= 0)
        arriving = radiosity[hits.clamp_min(0).long()]
        parts.append((weights[..., None] * arriving).sum(1))
    return torch.cat(parts)


def specular_torch(
    visibility: Visibility,
    who: Int[Tensor, " p"],
    views: Float[Tensor, "p 3"],
    alpha: Float[Tensor, " p"],
    light: Float[Tensor, "d 3"],
    radiosity: Float[Tensor, "n 3"],
) -> SpecularSums:
    """`specular_sums` in plain torch, on any device, in any floating dtype; differentiable.

    Args:
        visibility: Of all Gaussians.
        who: The Gaussians, by index.
        views: Unit directions towards the viewer.
        alpha: GGX width of each; wide enough for the cells.
        light: Integral of the radiance over each cell.
        radiosity: Radiance that each Gaussian sends out.
    """
    cells = visibility.cells
    parts = []
    step = max(1, _CHUNK // len(cells.directions))
    for start in range(0, len(who), step):
        part = slice(start, start + step)
        hits, normals = visibility.hits[who[part]], visibility.normals[who[part]]
        lobe = _lobe(normals, views[part], alpha[part], cells.directions) * (hits != BELOW)[:, None]
        arriving = radiosity[hits.clamp_min(0).long()] * cells.solid_angles[:, None]
        parts.append(
            (
                torch.einsum("ptd,dc->pct", lobe * (hits == FREE)[:, None], light),
                torch.einsum("ptd,dc->pct", lobe, light),
                torch.einsum("ptd,pdc->pct", lobe * (hits >= 0)[:, None], arriving),
                (lobe * cells.solid_angles).sum(-1)[:, None],
            )
        )
    if not parts:
        empty = light.new_zeros(0, 3, 2)
        return SpecularSums(empty, empty, empty, empty[:, :1])
    return SpecularSums(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _lobe(
    normals: Tensor, views: Tensor, alpha: Tensor, directions: Tensor
) -> Float[Tensor, "p 2 d"]:
    """Specular BRDF times cosine for F0 = 1 (constant) and its part that grazing adds to F0 = 0."""
    half = safe_normalise(views[:, None] + directions)
    n_dot_l = (normals @ directions.mT).clamp_min(0.0)
    n_dot_v = (normals * views).sum(-1, keepdim=True).clamp_min(1e-3)
    n_dot_h = (half * normals[:, None]).sum(-1).clamp_max(1.0)
    v_dot_h = (half * views[:, None]).sum(-1).clamp(0.0, 1.0)
    alpha = alpha[:, None]
    lobe = ggx_distribution(n_dot_h, alpha) * smith_separable(n_dot_l, n_dot_v, alpha) * n_dot_l
    return torch.stack([lobe, lobe * (1.0 - v_dot_h) ** 5], dim=1)


def _chunks(visibility: Visibility) -> list[slice]:
    count, directions = visibility.hits.shape
    step = max(1, _CHUNK // directions)
    return [slice(start, start + step) for start in range(0, max(count, 1), step)]
