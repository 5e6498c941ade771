"""The light convolved with the lobes of the BRDF, as maps that shading looks up.

Both convolutions are linear in the texels and exact for a map that is constant within each: a lobe
depends only on the angle to its axis, so that on a latitude-longitude grid it is circulant in
longitude, and a product of real spectra does it. Gradients reach the map.
"""

import functools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.scene.lights import EnvironmentLight, environment_coordinates

# Perceptual roughness of each specular map; linear in between. The first is the light itself.
ROUGHNESS_LEVELS = (0.0, 0.08, 0.13, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)
# A lobe is sampled well by texels of this part of its half-width.
_TEXELS_PER_HALF_WIDTH = 2.0
_MAX_HEIGHT = 256
_MAX_COSINE_HEIGHT = 64
_MAX_CACHED_HEIGHT = 64
# Subdivision of the texels of large maps at most; odd, which keeps texel centres.
_MAX_PARTS = 3


@dataclass(frozen=True)
class PrefilteredLight:
    """An environment light, ready for split-sum shading.

    Attributes:
        specular: Mean radiance under the GGX lobe of each of `ROUGHNESS_LEVELS` around a direction.
        irradiance: Of a surface with that normal; divided by pi it is the mean radiance.
    """

    specular: Float[Tensor, "levels height width 3"]
    irradiance: Float[Tensor, "irradiance_height irradiance_width 3"]

    def specular_at(
        self, directions: Float[Tensor, "p 3"], roughness: Float[Tensor, "p 1"]
    ) -> Float[Tensor, "p 3"]:
        """Prefiltered radiance around unit directions; trilinear."""
        return _lookup(self.specular, directions, _level_coordinate(roughness))

    def irradiance_at(self, normals: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
        """Irradiance of surfaces with these unit normals; bilinear."""
        return _lookup(self.irradiance[None], normals, torch.zeros_like(normals[:, :1]))


def prefilter(light: EnvironmentLight) -> PrefilteredLight:
    """Convolve a light with the cosine and with the GGX lobe of each roughness level.

    The lobe of roughness r around a mirror direction is D(cos(t/2)) cos t over the angle t, as in
    Karis 2013 with normal = view = mirror direction. Maps higher than 256 rows are averaged down.

    Args:
        light: Any resolution; width should be twice the height.
    """
    radiance = _pooled(light.radiance, _MAX_HEIGHT)
    height, width = radiance.shape[:2]
    levels = [radiance]
    for roughness in ROUGHNESS_LEVELS[1:]:
        small = _pooled(radiance, _height_for(roughness))
        levels.append(_resized(_convolve(small, "ggx", roughness), height, width))
    cosine = _convolve(_pooled(radiance, _MAX_COSINE_HEIGHT), "cosine", 1.0)
    return PrefilteredLight(torch.stack(levels), math.pi * cosine)


def _height_for(roughness: float) -> int:
    """Rows that sample a GGX lobe well, a power of two."""
    # D falls to one half where tan(t/2) = alpha sqrt(sqrt(2) - 1).
    half_width = 2.0 * math.atan(0.6436 * roughness**2)
    rows = math.pi / half_width * _TEXELS_PER_HALF_WIDTH
    return 1 << max(4, math.ceil(math.log2(rows)))


def _convolve(
    radiance: Float[Tensor, "height width 3"], lobe: Literal["ggx", "cosine"], roughness: float
) -> Float[Tensor, "height width 3"]:
    """Mean of a map under a normalised lobe around each of its texel centres."""
    height, width = radiance.shape[:2]
    make = _cached_spectrum if height <= _MAX_CACHED_HEIGHT else _lobe_spectrum
    kernel = make(height, width, lobe, roughness).to(radiance)
    spectrum = torch.view_as_real(torch.fft.rfft(radiance, dim=1))
    mixed = torch.einsum("fij,jfcp->ifcp", kernel, spectrum)
    return torch.fft.irfft(torch.view_as_complex(mixed.contiguous()), n=width, dim=1)


def _lobe_spectrum(
    height: int, width: int, lobe: Literal["ggx", "cosine"], roughness: float
) -> Float[Tensor, "frequencies height height"]:
    """Spectrum over longitude of the weights of texels of row j for the centre of row i.

    Weights are integrals over texels by the midpoint rule on a subdivision that resolves the lobe,
    and sum to 1 for each i. Even in longitude, so the spectrum is real.
    """
    finest = 2 * height if lobe == "cosine" else _height_for(roughness)
    parts = max(1, -(-finest // height)) | 1
    if height > _MAX_CACHED_HEIGHT:
        parts = min(parts, _MAX_PARTS)
    theta_in = math.pi * (torch.arange(height * parts) + 0.5) / (height * parts)
    theta_out = math.pi * (torch.arange(height) + 0.5) / height
    half = width // 2 + 1
    columns = torch.arange(half * parts) - (parts - 1) // 2
    phi = 2.0 * math.pi * columns / (width * parts)
    weights = torch.empty(height, height, half)
    for i in range(height):
        cosine = theta_out[i].cos() * theta_in.cos()[:, None]
        cosine = cosine + theta_out[i].sin() * theta_in.sin()[:, None] * phi.cos()
        value = cosine.clamp_min(0.0)
        if lobe == "ggx":
            alpha2 = max(roughness, 1e-3) ** 4
            # cos^2(t/2) = (1 + cos t) / 2.
            value = value / ((1.0 + cosine) * 0.5 * (alpha2 - 1.0) + 1.0).square()
        value = value * theta_in.sin()[:, None]
        weights[i] = value.view(height, parts, half, parts).sum((1, 3))
    full = torch.cat([weights, weights[..., 1 : (width + 1) // 2].flip(-1)], dim=-1)
    full /= full.sum((1, 2), keepdim=True)
    return torch.fft.rfft(full, dim=-1).real.permute(2, 0, 1).contiguous()


_cached_spectrum = functools.lru_cache(maxsize=64)(_lobe_spectrum)


def _pooled(
    radiance: Float[Tensor, "height width 3"], max_height: int
) -> Float[Tensor, "smaller_height smaller_width 3"]:
    """The map averaged down by whole factors to at most `max_height` rows, by solid angle."""
    height, width = radiance.shape[:2]
    factor = -(-height // max_height)
    while factor > 1 and (height % factor or width % factor):
        factor -= 1
    if factor == 1:
        return radiance
    edges = torch.linspace(0.0, math.pi, height + 1, dtype=torch.float64).cos()
    weights = (edges[:-1] - edges[1:]).to(radiance)[:, None, None]
    shape = (height // factor, factor, width // factor, factor, 3)
    total = (radiance * weights).reshape(shape).sum((1, 3))
    return total / (factor * weights.reshape(height // factor, factor).sum(1)[:, None, None])


def _resized(
    radiance: Float[Tensor, "height width 3"], height: int, width: int
) -> Float[Tensor, "new_height new_width 3"]:
    """The map sampled at the texel centres of another grid; bilinear."""
    if radiance.shape[:2] == (height, width):
        return radiance
    padded = _padded(radiance[None])
    rows = (torch.arange(height).to(radiance) + 0.5) / height
    columns = (torch.arange(width).to(radiance) + 0.5) / width
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    return _sample(padded, u.flatten(), v.flatten(), torch.zeros(height * width).to(u)).view(
        height, width, 3
    )


def _level_coordinate(roughness: Float[Tensor, "p 1"]) -> Float[Tensor, "p 1"]:
    """Fractional index into `ROUGHNESS_LEVELS`, differentiable."""
    levels = torch.tensor(ROUGHNESS_LEVELS).to(roughness)
    clamped = roughness.clamp(0.0, 1.0)
    lower = torch.searchsorted(levels, clamped.detach().contiguous(), right=True) - 1
    lower = lower.clamp(0, len(ROUGHNESS_LEVELS) - 2)
    return lower + (clamped - levels[lower]) / (levels[lower + 1] - levels[lower])


def _lookup(
    maps: Float[Tensor, "levels height width 3"],
    directions: Float[Tensor, "p 3"],
    level: Float[Tensor, "p 1"],
) -> Float[Tensor, "p 3"]:
    u, v = environment_coordinates(directions)
    return _sample(_padded(maps), u, v, level[:, 0])


def _padded(
    maps: Float[Tensor, "levels height width 3"],
) -> Float[Tensor, "levels padded_height padded_width 3"]:
    """One more texel on all sides: longitude wraps, rows continue on the pole's far side."""
    half = maps.shape[2] // 2
    top, bottom = (maps[:, i : i + 1].roll(half, dims=2) for i in (0, maps.shape[1] - 1))
    rows = torch.cat([top, maps, bottom], dim=1)
    return torch.cat([rows[:, :, -1:], rows, rows[:, :, :1]], dim=2)


def _sample(
    padded: Float[Tensor, "levels padded_height padded_width 3"],
    u: Float[Tensor, " p"],
    v: Float[Tensor, " p"],
    level: Float[Tensor, " p"],
) -> Float[Tensor, "p 3"]:
    levels, height, width = padded.shape[0], padded.shape[1] - 2, padded.shape[2] - 2
    # grid_sample's coordinates run from -1 at the first texel's centre to 1 at the last one's.
    x = (u * width + 0.5) * (2.0 / (width + 1)) - 1.0
    y = (v * height + 0.5) * (2.0 / (height + 1)) - 1.0
    z = level * (2.0 / max(levels - 1, 1)) - 1.0
    grid = torch.stack([x, y, z], dim=-1)[None, None, None]
    volume = padded.permute(3, 0, 1, 2)[None]
    sampled = torch.nn.functional.grid_sample(
        volume, grid, padding_mode="border", align_corners=True
    )
    return sampled[0, :, 0, 0].T
