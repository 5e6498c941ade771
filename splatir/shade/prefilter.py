"""The light convolved with the lobes of the BRDF, as maps that shading looks up.

Both convolutions are linear in the texels and exact for a map that is constant within each: a lobe
depends only on the angle to its axis, so that on a latitude-longitude grid it is circulant in
longitude, and a product of real spectra does it. Gradients reach the map.
"""

import functools
import math
from dataclasses import dataclass

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
# Rows around a lobe's own whose texels are divided in large maps; beyond, lobes are smooth.
_NEAR_ROWS = 8
# Roughness of a GGX lobe, or None for the cosine.
Lobe = float | None


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
    maps = _convolved_by_size(radiance, {None: _MAX_COSINE_HEIGHT, **_heights()})
    levels = [_resized(maps[roughness], height, width) for roughness in ROUGHNESS_LEVELS[1:]]
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
    pooled = {height: _pooled(radiance, height) for height in set(heights.values())}
    groups: dict[torch.Size, list[Lobe]] = {}
    for lobe, height in heights.items():
        groups.setdefault(pooled[height].shape, []).append(lobe)
    maps = {}
    for shape, lobes in groups.items():
        source = pooled[heights[lobes[0]]]
        # Large kernels are neither kept nor held all at once.
        size = len(lobes) if shape[0] <= _MAX_CACHED_HEIGHT else 1
        for start in range(0, len(lobes), size):
            part = tuple(lobes[start : start + size])
            maps.update(zip(part, _convolve(source, part), strict=True))
    return maps


def _convolve(
    radiance: Float[Tensor, "height width 3"], lobes: tuple[Lobe, ...]
) -> Float[Tensor, "lobes height width 3"]:
    """Means of a map under normalised lobes around each of its texel centres."""
    height, width = radiance.shape[:2]
    make = _cached_spectra if height <= _MAX_CACHED_HEIGHT else _spectra
    kernels = make(height, width, lobes, radiance.dtype, radiance.device)
    spectrum = torch.view_as_real(torch.fft.rfft(radiance.movedim(1, 2)))
    columns = spectrum.permute(2, 0, 1, 3).reshape(-1, height, 6)
    mixed = torch.bmm(kernels, columns).view(-1, len(lobes), height, 3, 2)
    mixed = torch.view_as_complex(mixed.permute(1, 2, 3, 0, 4).contiguous())
    return torch.fft.irfft(mixed, n=width).movedim(2, 3)


def _spectra(
    height: int, width: int, lobes: tuple[Lobe, ...], dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "frequencies rows height"]:
    """`_lobe_spectrum` of several lobes, one below the other."""
    spectra = [_lobe_spectrum(height, width, lobe) for lobe in lobes]
    return torch.cat(spectra, dim=1).to(device, dtype)


_cached_spectra = functools.lru_cache(maxsize=16)(_spectra)


def _lobe_spectrum(
    height: int, width: int, lobe: Lobe
) -> Float[Tensor, "frequencies height height"]:
    """Spectrum over longitude of the weights of texels of row j for the centre of row i.

    Weights are integrals over texels by the midpoint rule on a subdivision that resolves the lobe,
    and sum to 1 for each i. Even in longitude, so the spectrum is real.
    """
    finest = 2 * height if lobe is None else _height_for(lobe)
    parts = max(1, -(-finest // height)) | 1
    near = height
    if height > _MAX_CACHED_HEIGHT:
        parts, near = min(parts, _MAX_PARTS), _NEAR_ROWS
    spectrum = torch.empty(width // 2 + 1, height, height)
    for i in range(height):
        first, last = max(0, i - near), min(height, i + near + 1)
        rows = [
            _lobe_row(height, width, lobe, i, 1, (0, first)),
            _lobe_row(height, width, lobe, i, parts, (first, last)),
            _lobe_row(height, width, lobe, i, 1, (last, height)),
        ]
        weights = torch.cat(rows)
        full = torch.cat([weights, weights[:, 1 : (width + 1) // 2].flip(-1)], dim=-1)
        spectrum[:, i] = torch.fft.rfft(full / full.sum()).real.T
    return spectrum


def _lobe_row(
    height: int, width: int, lobe: Lobe, i: int, parts: int, rows: tuple[int, int]
) -> Float[Tensor, "rows half_width"]:
    """Weights of texels at longitudes 0 to pi for the centre of row i, not normalised."""
    count, half = rows[1] - rows[0], width // 2 + 1
    theta_out = math.pi * (i + 0.5) / height
    subrows = torch.arange(rows[0] * parts, rows[1] * parts) + 0.5
    theta = (math.pi / (height * parts) * subrows)[:, None]
    columns = torch.arange(half * parts) - (parts - 1) // 2
    phi = 2.0 * math.pi / (width * parts) * columns
    cosine = math.cos(theta_out) * theta.cos() + math.sin(theta_out) * theta.sin() * phi.cos()
    value = cosine.clamp_min(0.0)
    if lobe is not None:
        alpha2 = max(lobe, 1e-3) ** 4
        # cos^2(t/2) = (1 + cos t) / 2.
        value = value / ((1.0 + cosine) * 0.5 * (alpha2 - 1.0) + 1.0).square()
    return (value * theta.sin()).view(count, parts, half, parts).sum((1, 3)) / parts**2


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
