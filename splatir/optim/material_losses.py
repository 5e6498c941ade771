"""What the shaded picture is trained to minimise: the photo, and priors on materials and light."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from splatir.maths.colour import linear_from_srgb, srgb_from_hdr, srgb_from_linear
from splatir.maths.photometric import photometric_loss
from splatir.optim.bending import bending
from splatir.optim.edge_aware import edge_aware_variation
from splatir.optim.losses import Target
from splatir.optim.map_losses import albedo_map_loss
from splatir.optim.seen_light import SeenLight, seen_light_error
from splatir.render.deferred import RenderOutput
from splatir.render.gbuffer import GBuffer
from splatir.scene.lights import EnvironmentLight, texel_solid_angles
from splatir.settings import Settings, check_range

# Slope of the display curve above white: clipped pixels still say that they are too bright.
_CLIPPED_SLOPE = 0.02
# Below these, what is left of a photo says nothing of its paint.
_MIN_ALBEDO, _MIN_SHADING = 1e-3, 0.02
# Weight of a texel's squared tint beside the tint of all light together: a sun may well be warm,
# but what lights nothing that is seen should not be red.
_TEXEL_TINT = 0.1


@dataclass(frozen=True)
class MaterialLossWeights(Settings):
    """Weights of the terms of the materials stage; a term of weight 0 is not computed.

    Attributes:
        photometric: How pictures are compared: "ldr" in sRGB clipped at white, "hdr" on a curve
            that goes on above white in the logarithm; "auto" is "hdr" for linear photos (.exr,
            .hdr). Linear photos should have white near 1.
        ssim: Share of 1 - SSIM in the photometric loss, the rest is L1.
        lpips: LPIPS, as in the radiance stage.
        squared: Mean squared error of the picture, from `materials.settles_at` on: few large
            errors, which the photometric loss gives up on.
        albedo_smooth: Total variation of albedo where what the photo says of it has no edge.
        roughness_smooth: Likewise of roughness, metallic and sheen. Fades over the stage.
        normal_smooth: Unevenness of normals, also across edges of the photo: radiance takes edges
            of paint for ridges. Falls to 0.3 of that.
        metallic: Mean of m (1 - m): a surface is metal or it is not.
        few_paints: Entropy of the albedo over the scene: what light can explain is no paint. Fades
            over the stage, as what photos say of the paint itself comes to count.
        white_light: Tint of all light together, and a little that of its texels: whiteness decides
            between it and albedo.
        light_smooth: Squared differences of log light between neighbouring texels.
        seen_light: Squared error of log light where photos show it beyond the object.
        albedo_map: Albedo against the user's maps (--albedos), mean absolute difference.
    """

    photometric: Literal["auto", "ldr", "hdr"] = "auto"
    ssim: float = 0.2
    lpips: float = 0.0
    squared: float = 32.0
    albedo_smooth: float = 1.5
    roughness_smooth: float = 1.0
    normal_smooth: float = 0.25
    metallic: float = 0.1
    few_paints: float = 0.003
    white_light: float = 0.003
    light_smooth: float = 0.0005
    seen_light: float = 1.0
    albedo_map: float = 1.0

    def __post_init__(self) -> None:
        """Refuse weights that are no weights.

        Raises:
            SettingsError: A value out of range.
        """
        check_range(self, "ssim", 0, 1, group="material_loss")
        check_range(self, "lpips squared", 0, group="material_loss")
        smooth = "albedo_smooth roughness_smooth normal_smooth light_smooth"
        check_range(
            self,
            f"{smooth} metallic few_paints white_light albedo_map seen_light",
            0,
            group="material_loss",
        )

    def compares_as_hdr(self, is_linear: bool) -> bool:
        """Whether photos are compared above white, given whether they are linear."""
        return self.photometric == "hdr" or (self.photometric == "auto" and is_linear)


def display_colour(
    linear: Float[Tensor, "*batch 3"], is_hdr: bool = False
) -> Float[Tensor, "*batch 3"]:
    """sRGB of linear radiance, clipped at white but for a slight slope that keeps a gradient.

    Args:
        linear: Radiance.
        is_hdr: Go on above white by `srgb_from_hdr` instead.
    """
    if is_hdr:
        return srgb_from_hdr(linear)
    return srgb_from_linear(linear.clamp(0.0, 1.0)) + _CLIPPED_SLOPE * (linear - 1.0).clamp_min(0.0)


def shown_over(
    image: RenderOutput,
    background_srgb: Float[Tensor, "*size 3"],
    is_hdr: bool = False,
    is_rim: Bool[Tensor, "height width 1"] | None = None,
) -> Float[Tensor, "height width 3"]:
    """The shaded picture over a background, as its photo would show it.

    Args:
        image: Shaded view.
        background_srgb: Behind the surface, a colour or a picture.
        is_hdr: As in `display_colour`.
        is_rim: Where that is a picture of what is there: light adds up in a camera. Elsewhere
            target and image are mixed alike, as display values.
    """
    over = torch.lerp(background_srgb, display_colour(image.rgb, is_hdr), image.alpha)
    if is_rim is None:
        return over
    light = torch.lerp(linear_from_srgb(background_srgb), image.rgb, image.alpha)
    return torch.where(is_rim, display_colour(light, is_hdr), over)


def material_losses(
    image: RenderOutput,
    shown: Float[Tensor, "height width 3"],
    target: Target,
    learned_light: EnvironmentLight | None,
    weights: MaterialLossWeights,
    seen: SeenLight | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """All terms that apply, already weighted; their sum is the loss.

    Args:
        image: Shaded view.
        shown: `shown_over` the background of the target.
        target: Photo over that.
        learned_light: Light that the priors are for; None where it is known.
        weights: Weights of the terms.
        seen: What photos show of the learned light.
    """
    terms = {"photometric": photometric_loss(shown, target.rgb_srgb, weights.ssim)}
    if weights.squared:
        error = (shown - target.rgb_srgb.detach()).square().mean()
        terms["squared"] = weights.squared * error
    guide = paint_guide(image, target.rgb_srgb)
    terms.update(material_priors(image.gbuffer, guide, weights))
    maps = target.maps
    if maps is not None and maps.albedo is not None and weights.albedo_map:
        known = (maps.albedo, maps.albedo_scale_is_free)
        error = albedo_map_loss(image.gbuffer.albedo, image.alpha, *known)
        terms["albedo_map"] = weights.albedo_map * error
    if learned_light is not None:
        terms.update(light_priors(learned_light, weights))
        if seen is not None and weights.seen_light:
            terms["seen_light"] = weights.seen_light * seen_light_error(learned_light, seen)
    return terms


@torch.no_grad()
def paint_guide(
    image: RenderOutput, photo_srgb: Float[Tensor, "height width 3"]
) -> Float[Tensor, "height width 3"]:
    """The photo with what is known of highlights and shading taken out; sRGB, a constant.

    Edges of the photo that are shadows or folds do not excuse edges of the paint. What shading does
    not explain yet stays.

    Args:
        image: Shaded view.
        photo_srgb: Its photo.
    """
    gbuffer = image.gbuffer
    per_albedo = image.diffuse / gbuffer.albedo.clamp_min(_MIN_ALBEDO)
    matt = (linear_from_srgb(photo_srgb.clamp(0.0, 1.0)) - image.specular).clamp_min(0.0)
    paint = srgb_from_linear((matt / per_albedo.clamp_min(_MIN_SHADING)).clamp(0.0, 1.0))
    is_solid = (gbuffer.alpha > 0.5).to(paint)
    return torch.lerp(photo_srgb, paint, is_solid * (1.0 - gbuffer.metallic))


def material_priors(
    gbuffer: GBuffer, guide: Float[Tensor, "height width 3"], weights: MaterialLossWeights
) -> dict[str, Float[Tensor, ""]]:
    """Smooth materials and normals, either metal or not.

    Args:
        gbuffer: Of the shaded view.
        guide: Its edges may be edges of the materials.
        weights: Of the terms.
    """
    terms = {}
    # On metal the photo's edges are reflections, not paint.
    matt = 1.0 - gbuffer.metallic.detach()
    if weights.albedo_smooth:
        variation = edge_aware_variation(gbuffer.albedo, guide, gbuffer.alpha, 20.0 * matt)
        terms["albedo_smooth"] = weights.albedo_smooth * variation
    if weights.roughness_smooth:
        sheen = [] if gbuffer.sheen is None else [gbuffer.sheen]
        levels = torch.cat([gbuffer.roughness, gbuffer.metallic, *sheen], dim=-1)
        variation = edge_aware_variation(levels, guide, gbuffer.alpha, 5.0 * matt)
        terms["roughness_smooth"] = weights.roughness_smooth * variation
    if weights.normal_smooth:
        focal = float(gbuffer.camera.K[0, 0])
        unevenness = bending(gbuffer.normals, gbuffer.alpha, gbuffer.depth, focal)
        terms["normal_smooth"] = weights.normal_smooth * unevenness
    if weights.metallic:
        terms["metallic"] = weights.metallic * (gbuffer.metallic * (1.0 - gbuffer.metallic)).mean()
    return terms


def light_priors(
    light: EnvironmentLight, weights: MaterialLossWeights
) -> dict[str, Float[Tensor, ""]]:
    """Smooth light, white in the mean over the sphere: a warm sun under a blue sky costs little."""
    terms = {}
    radiance = light.radiance
    solid_angles = texel_solid_angles(*radiance.shape[:2], like=radiance)[:, None, None]
    if weights.white_light:
        total = (radiance * solid_angles).sum((0, 1))
        whole = (total / total.mean() - 1.0).abs().mean()
        grey = radiance.mean(-1, keepdim=True).clamp_min(1e-8)
        texels = (solid_angles * (radiance / grey - 1.0).square()).mean() / solid_angles.mean()
        terms["white_light"] = weights.white_light * (whole + _TEXEL_TINT * texels)
    if weights.light_smooth:
        log = radiance.clamp_min(1e-8).log()
        along = (log - log.roll(1, 1)).square().mean()
        across = (log[1:] - log[:-1]).square().mean()
        terms["light_smooth"] = weights.light_smooth * (along + across)
    return terms
