"""How is the noise of sampled light taken out of a picture without blurring its surfaces?"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from splatir.render.deferred import RenderOutput
from splatir.render.gbuffer import GBuffer
from splatir.render.geometry import camera_rays
from splatir.shade.brdf import f0

# Neighbours reach this many pixels to each side; standard deviation of their weights.
_RADIUS, _PIXELS = 4, 2.0
# Differences that halve a weight or worse: 1 - cosine of normals, pixels off the tangent plane,
# albedo, roughness.
_NORMALS, _OFF_PLANE, _ALBEDO, _ROUGHNESS = 0.02, 1.0, 0.1, 0.1
# Reflectance below which light is not worked out from radiance, and what is added to the specular.
_DARK, _GRAZING = 0.02, 0.05


@torch.no_grad()
def denoised(image: RenderOutput) -> Float[Tensor, "height width 3"]:
    """Radiance of a picture after a joint bilateral filter of its light (Petschnigg et al. 2004).

    Each lobe is divided by its reflectance, averaged over neighbours on the same surface (similar
    normal, tangent plane, albedo and roughness), and multiplied again, so that texture stays. The
    smoother a surface, the fewer neighbours its specular lobe takes. Noise-free edges of shadows
    become softer by about two pixels.

    Args:
        image: Shaded view.

    Returns:
        Linear, straight.
    """
    gbuffer = image.gbuffer
    matt = (gbuffer.albedo * (1.0 - gbuffer.metallic)).clamp_min(_DARK)
    shiny = f0(gbuffer.albedo, gbuffer.metallic) + _GRAZING
    light = torch.cat([image.diffuse / matt, image.specular / shiny], dim=-1)
    guide = _guide(gbuffer)
    sums, totals = torch.zeros_like(light), torch.zeros_like(light)
    padded_guide, padded_light = _padded(guide), _padded(light)
    height, width = light.shape[:2]
    for down in range(2 * _RADIUS + 1):
        for right in range(2 * _RADIUS + 1):
            rows, columns = slice(down, down + height), slice(right, right + width)
            squared = float((down - _RADIUS) ** 2 + (right - _RADIUS) ** 2)
            weight = _weight(guide, padded_guide[rows, columns], squared)
            sums += weight * padded_light[rows, columns]
            totals += weight
    diffuse, specular = (sums / totals.clamp_min(1e-12)).split(3, dim=-1)
    return torch.where(gbuffer.covered[..., None], diffuse * matt + specular * shiny, image.rgb)


def _guide(gbuffer: GBuffer) -> Float[Tensor, "height width 12"]:
    """Position in pixels of its own depth, normal, albedo, roughness, pixel size, coverage."""
    rays = camera_rays(gbuffer.camera).to(gbuffer.depth)
    focal = gbuffer.camera.K[:2, :2].diagonal().mean().to(gbuffer.depth)
    return torch.cat(
        [
            rays * gbuffer.depth,
            gbuffer.normals @ gbuffer.camera.T_camera_world[:3, :3].to(gbuffer.normals).mT,
            gbuffer.albedo,
            gbuffer.roughness,
            gbuffer.depth / focal,
            gbuffer.covered[..., None].to(gbuffer.depth),
        ],
        dim=-1,
    )


def _weight(
    here: Float[Tensor, "height width 12"],
    there: Float[Tensor, "height width 12"],
    squared_pixels: float,
) -> Float[Tensor, "height width 6"]:
    """Weight of a neighbour: three times that of the diffuse lobe, then of the specular one."""
    position, normal, albedo, roughness, pixel, _ = here.split([3, 3, 3, 1, 1, 1], dim=-1)
    position_there, normal_there, albedo_there, roughness_there, _, is_there = there.split(
        [3, 3, 3, 1, 1, 1], dim=-1
    )
    off_plane = ((position_there - position) * normal).sum(-1, keepdim=True)
    off_plane = off_plane / pixel.clamp_min(1e-12)
    exponent = (
        (1.0 - (normal * normal_there).sum(-1, keepdim=True)) / _NORMALS
        + 0.5 * (off_plane / _OFF_PLANE).square()
        + 0.5 * ((albedo - albedo_there) / _ALBEDO).square().sum(-1, keepdim=True)
        + 0.5 * ((roughness - roughness_there) / _ROUGHNESS).square()
    )
    wide = 0.5 * squared_pixels / _PIXELS**2
    narrow = wide / roughness.square().clamp_min(1e-4)
    parts = [is_there * (-exponent - spread).exp() for spread in (wide, narrow)]
    return torch.cat([part.expand(*part.shape[:2], 3) for part in parts], dim=-1)


def _padded(values: Float[Tensor, "height width c"]) -> Float[Tensor, "tall broad c"]:
    return functional.pad(values, (0, 0, _RADIUS, _RADIUS, _RADIUS, _RADIUS))
