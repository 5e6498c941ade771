"""The light convolved with the lobes of the BRDF, as maps that shading looks up.

Both convolutions are linear in the texels and exact for a map that is constant within each: on a
latitude-longitude grid they are products of spectra, `lobe_spectra`. Gradients reach the map.
"""

import functools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.scene.lights import EnvironmentLight, environment_coordinates
from splatir.shade.lobe_spectra import Lobe, sampled_spectrum, sharp_spectrum

# Perceptual roughness of each specular map; linear in between. The first is the light itself.
ROUGHNESS_LEVELS = (0.0, 0.08, 0.13, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)
# A lobe is sampled well by texels of this part of its half-width.
_TEXELS_PER_HALF_WIDTH = 2.0
_MAX_HEIGHT = 256
_MAX_COSINE_HEIGHT = 64
# Larger maps serve sharp lobes alone.
_MAX_SAMPLED_HEIGHT = 64


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
        return look_up(self.specular, directions, _level_coordinate(roughness))

    def irradiance_at(self, normals: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
        """Irradiance of surfaces with these unit normals; bilinear."""
        return look_up(self.irradiance[None], normals, torch.zeros_like(normals[:, :1]))


def prefilter(light: EnvironmentLight) -> PrefilteredLight:
    """Convolve a light with the cosine and with the GGX lobe of each roughness level.

    The lobe of roughness r around a mirror direction is D(cos(t/2)) cos t over the angle t, as in
    Karis 2013 with normal = view = mirror direction. Maps higher than 256 rows are averaged down.

    Args:
        light: Any resolution; width should be twice the height.
    """
    radiance = averaged_down(light.radiance, _MAX_HEIGHT)
    height, width = radiance.shape[:2]
    maps = _convolved_by_size(radiance, {None: _MAX_COSINE_HEIGHT, **_heights()})
    levels = [resampled(maps[roughness], height, width) for roughness in ROUGHNESS_LEVELS[1:]]
    return PrefilteredLight(torch.stack([radiance, *levels]), math.pi * maps[None])


@functools.cache
def _heights() -> dict[float, int]:
    return {roughness: _height_for(roughness) for roughness in ROUGHNESS_LEVELS[1:]}


def _height_for(roughness: float) -> int:
    """Rows that sample a GGX lobe well, a power of two."""
    # D falls to one half where tan(t/2) = alpha sqrt(sqrt(2) - 1).
    half_width = 2.0 * math.atan(0.6436 * roughness**2)
    rows = math.pi / half_width * _TEXELS_PER_HALF_WIDTH
    return 1 << max(4, math.ceil(math.log2(rows)))


def _convolved_by_size(
    radiance: Float[Tensor, "height width 3"], heights: dict[Lobe, int]
) -> dict[Lobe, Float[Tensor, "_ _ 3"]]:
    """The map under each lobe, averaged down to at most the lobe's height before."""
    pooled = {height: averaged_down(radiance, height) for height in set(heights.values())}
    groups: dict[torch.Size, list[Lobe]] = {}
    for lobe, height in heights.items():
        groups.setdefault(pooled[height].shape, []).append(lobe)
    maps = {}
    for lobes in groups.values():
        convolved = _convolve(pooled[heights[lobes[0]]], tuple(lobes))
        maps.update(zip(lobes, convolved, strict=True))
    return maps


def _convolve(
    radiance: Float[Tensor, "height width 3"], lobes: tuple[Lobe, ...]
) -> Float[Tensor, "lobes height width 3"]:
    """Means of a map under normalised lobes around each of its texel centres."""
    height, width = radiance.shape[:2]
    like = radiance.dtype, radiance.device
    spectrum = torch.view_as_real(torch.fft.rfft(radiance.movedim(1, 2)))
    columns = spectrum.permute(2, 0, 1, 3).reshape(-1, height, 6)
    if height <= _MAX_SAMPLED_HEIGHT:
        mixed = torch.bmm(_sampled_spectra(height, width, lobes, *like), columns)
    else:
        halves = []
        for lobe in lobes:
            assert lobe is not None
            upper = _sharp_spectrum(height, width, lobe, *like)
            halves.append(torch.bmm(upper, columns))
            lower = torch.bmm(upper[:, : height // 2], columns.flip(1))
            halves.append(lower.flip(1))
        mixed = torch.cat(halves, dim=1)
    mixed = torch.view_as_complex(
        mixed.view(-1, len(lobes), height, 3, 2).permute(1, 2, 3, 0, 4).contiguous()
    )
    return torch.fft.irfft(mixed, n=width).movedim(2, 3)


@functools.lru_cache(maxsize=16)
def _sampled_spectra(
    height: int, width: int, lobes: tuple[Lobe, ...], dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "frequencies rows height"]:
    """Spectra of several lobes, one below the other."""
    spectra = [
        sampled_spectrum(height, width, lobe, 2 * height if lobe is None else _height_for(lobe))
        for lobe in lobes
    ]
    return torch.cat(spectra, dim=1).to(device, dtype)


# At most 100 MB: three of 256 rows.
@functools.lru_cache(maxsize=3)
def _sharp_spectrum(
    height: int, width: int, lobe: float, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "frequencies upper height"]:
    return sharp_spectrum(height, width, lobe).to(device, dtype)


def averaged_down(
    radiance: Float[Tensor, "height width 3"], max_height: int
) -> Float[Tensor, "smaller_height smaller_width 3"]:
    """The map averaged down by whole factors to at most `max_height` rows, by solid angle.

    Args:
        radiance: Any resolution.
        max_height: Kept to where the map's size has such a factor.
    """
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


def resampled(
    radiance: Float[Tensor, "height width 3"], height: int, width: int
) -> Float[Tensor, "new_height new_width 3"]:
    """The map sampled at the texel centres of another grid; bilinear.

    Args:
        radiance: Any resolution.
        height: Rows of the other grid.
        width: Its columns.
    """
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


def look_up(
    maps: Float[Tensor, "levels height width c"],
    directions: Float[Tensor, "p 3"],
    level: Float[Tensor, "p 1"],
) -> Float[Tensor, "p c"]:
    """Maps between their texels; longitude wraps and rows go on over the poles.

    Args:
        maps: One for each level.
        directions: Unit.
        level: Fractional index of a map.
    """
    u, v = environment_coordinates(directions)
    return _sample(_padded(maps), u, v, level[:, 0])


def _padded(
    maps: Float[Tensor, "levels height width c"],
) -> Float[Tensor, "levels padded_height padded_width c"]:
    """One more texel on all sides: longitude wraps, rows continue on the pole's far side."""
    half = maps.shape[2] // 2
    top, bottom = (maps[:, i : i + 1].roll(half, dims=2) for i in (0, maps.shape[1] - 1))
    rows = torch.cat([top, maps, bottom], dim=1)
    return torch.cat([rows[:, :, -1:], rows, rows[:, :, :1]], dim=2)


def _sample(
    padded: Float[Tensor, "levels padded_height padded_width c"],
    u: Float[Tensor, " p"],
    v: Float[Tensor, " p"],
    level: Float[Tensor, " p"],
) -> Float[Tensor, "p c"]:
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
