"""Moves that descent does not make: from dielectric to metal, and of albedo against light."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.optim.metal_evidence import MetalEvidence
from splatir.scene.gaussians import NO_SHEEN, PARAMETER_SPACES, SHEEN, GaussianModel
from splatir.shade.cloth import mean_sheen_albedo

# Metallic that a verdict sets; descent goes on from there.
_METAL, _DIELECTRIC = 0.9, 0.05
# Albedos that are set stay where the logit has a gradient.
_ALBEDO_RANGE = (0.01, 0.985)
# Share of Gaussians that may be brighter than the convention says, and of those that count: fainter
# ones are hardly seen.
_BRIGHT_SHARE, _MIN_OPACITY = 0.1, 0.3
# Part (exponent) of a missing factor that one correction makes up.
CORRECTION = 0.3


@torch.no_grad()
def apply_verdict(model: GaussianModel, evidence: MetalEvidence, roughness: float) -> list[str]:
    """Move Gaussians that were judged otherwise than they are to the other side.

    Args:
        model: Changed in place.
        evidence: Verdict per Gaussian.
        roughness: Of new metals: what they had as dielectrics says little.

    Returns:
        Keys whose values have jumped, so that their optimiser state is void.
    """
    was_metal = model.material("metallic") > 0.5
    is_new = evidence.is_known & evidence.is_metal & ~was_metal
    is_gone = evidence.is_known & ~evidence.is_metal & was_metal
    for moved, albedo, metallic in (
        (is_new, evidence.albedo_metal, _METAL),
        (is_gone, evidence.albedo_dielectric, _DIELECTRIC),
    ):
        _set(model, "albedo", moved, albedo[moved].clamp(*_ALBEDO_RANGE))
        _set(model, "metallic", moved, torch.tensor(metallic))
    _set(model, "roughness", is_new, torch.tensor(roughness))
    return ["albedo", "metallic", "roughness"] if bool((is_new | is_gone).any()) else []


@torch.no_grad()
def sheen_after(model: GaussianModel, evidence: MetalEvidence) -> Float[Tensor, " n"] | None:
    """Logits of the sheen when cloth has been judged; None if there is none, now or before.

    What has become cloth starts from the sheen that fits, what is cloth no longer has none. Albedo
    changes with it, so that the mean over views stays.

    Args:
        model: Its albedo is changed in place.
        evidence: Verdict per Gaussian.
    """
    if SHEEN in model.params:
        raw = model.params[SHEEN].detach().clone()
    else:
        raw = torch.full_like(model.opacities, NO_SHEEN)
    had = raw > NO_SHEEN
    is_new = evidence.is_known & (evidence.sheen > 0.0) & ~had
    is_gone = evidence.is_known & (evidence.sheen == 0.0) & had
    if not bool((had | is_new).any()):
        return None
    before = torch.where(had, raw.sigmoid(), 0.0)
    raw[is_new] = PARAMETER_SPACES[SHEEN].invert(evidence.sheen[is_new])
    raw[is_gone] = NO_SHEEN
    after = torch.where(raw > NO_SHEEN, raw.sigmoid(), 0.0)
    factor = mean_sheen_albedo(before) / mean_sheen_albedo(after)
    moved = is_new | is_gone
    scaled = model.material("albedo")[moved] * factor[moved, None]
    _set(model, "albedo", moved, scaled.clamp(*_ALBEDO_RANGE))
    return raw


@torch.no_grad()
def correct_scale(
    model: GaussianModel,
    log_radiance: Tensor,
    brightest: float,
    certainty: Float[Tensor, "h w"] | None = None,
) -> None:
    """Move brightness between albedo and light towards the stated convention.

    Photos of matt surfaces show only the product of the two. The convention: in a tenth of the
    Gaussians, the largest channel of the albedo is above `brightest`.

    Args:
        model: Changed in place.
        log_radiance: Of the learned light, changed in place.
        brightest: In (0, 1).
        certainty: Of what was seen of the light, in [0, 1]; that part stays. None for nothing.
    """
    albedo = model.material("albedo")
    largest = albedo.amax(-1)[model.opacities > _MIN_OPACITY]
    if not len(largest):
        return
    kth = max(1, math.ceil((1.0 - _BRIGHT_SHARE) * len(largest)))
    factor = brightest / largest.kthvalue(kth).values
    exchange_brightness(model, log_radiance, (factor**CORRECTION).expand(3), certainty)


@torch.no_grad()
def exchange_brightness(
    model: GaussianModel,
    log_radiance: Tensor,
    factor: Tensor,
    certainty: Float[Tensor, "h w"] | None = None,
) -> None:
    """Multiply albedo by a factor and the light by its inverse: matt surfaces look the same.

    Args:
        model: Changed in place.
        log_radiance: Of the learned light, changed in place.
        factor: Of each colour channel, above 0.
        certainty: As in `correct_scale`.
    """
    albedo = model.material("albedo")
    low = torch.finfo(albedo.dtype).eps
    scaled = (albedo * factor).clamp(low, _ALBEDO_RANGE[1])
    model.params["albedo"].copy_(PARAMETER_SPACES["albedo"].invert(scaled))
    free = 1.0 if certainty is None else 1.0 - certainty[..., None]
    log_radiance -= free * factor.log()


def _set(model: GaussianModel, key: str, rows: Tensor, values: Tensor) -> None:
    raw = PARAMETER_SPACES[key].invert(values.to(model.params[key]))
    model.params[key].data[rows] = raw
