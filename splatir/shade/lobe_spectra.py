"""Which share of a lobe around a row of a map falls on each texel, as a spectrum over longitude?

A lobe depends only on the angle to its axis, so that on a latitude-longitude grid its weights are
circulant in longitude and even: real spectra hold them. Lobes on small maps are sampled; the sharp
ones, which alone need large maps, have spectra in closed form.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

# Perceptual roughness of a GGX lobe, or None for the cosine.
Lobe = float | None

# Rows around a sharp lobe's own whose texels are divided, and into how many parts; beyond, the lobe
# is smooth and its frequencies above the map's have died out.
_NEAR_ROWS, _PARTS = 8, 5
_ALIASES = (0, -1, 1)
# Logarithm of coefficients that add nothing; exponentials of lower ones are slow.
_LOWEST = -60.0
# Rows at once, which stay in the cache.
_BLOCK = 8


def sampled_spectrum(
    height: int, width: int, lobe: Lobe, finest: int
) -> Float[Tensor, "frequencies height height"]:
    """Spectrum of the weights of texels of row j for the centre of row i, from samples.

    Weights are integrals over texels by the midpoint rule on a subdivision, and sum to 1 for
    each i. The lobe of roughness r is D(cos(t/2)) cos t over the angle t to its axis.

    Args:
        height: Rows of the map.
        width: Columns.
        lobe: Which.
        finest: Rows that would sample the lobe well.
    """
    parts = max(1, -(-finest // height)) | 1
    spectrum = torch.empty(width // 2 + 1, height, height)
    for i in range(height):
        weights = _sampled_row(height, width, lobe, i, parts)
        full = torch.cat([weights, weights[:, 1 : (width + 1) // 2].flip(-1)], dim=-1)
        spectrum[:, i] = torch.fft.rfft(full / full.sum()).real.T
    return spectrum


def _sampled_row(
    height: int, width: int, lobe: Lobe, i: int, parts: int
) -> Float[Tensor, "rows half_width"]:
    """Weights of texels at longitudes 0 to pi for the centre of row i, not normalised."""
    half = width // 2 + 1
    theta_out = math.pi * (i + 0.5) / height
    theta = (math.pi / (height * parts) * (torch.arange(height * parts) + 0.5))[:, None]
    columns = torch.arange(half * parts) - (parts - 1) // 2
    phi = 2.0 * math.pi / (width * parts) * columns
    cosine = math.cos(theta_out) * theta.cos() + math.sin(theta_out) * theta.sin() * phi.cos()
    value = cosine.clamp_min(0.0)
    if lobe is not None:
        alpha2 = max(lobe, 1e-3) ** 4
        # cos^2(t/2) = (1 + cos t) / 2.
        value = value / ((1.0 + cosine) * 0.5 * (alpha2 - 1.0) + 1.0).square()
    return (value * theta.sin()).view(height, parts, half, parts).sum((1, 3)) / parts**2


def sharp_spectrum(
    height: int, width: int, roughness: float
) -> Float[Tensor, "frequencies upper height"]:
    """Spectrum of a sharp GGX lobe for the upper half of the rows, in closed form.

    The lobe is D(cos(t/2)) cos^4(t/2): at the angles t where sharp lobes have their weight that is
    D cos t, and it needs no cut at the horizon. The two differ in 0.6 alpha^2 of the weight, 0.1 %
    at roughness 0.2. With u = alpha^2 + (1 - alpha^2) sin^2(t/2) = p - q cos(longitude) it is
    1 - 2/u + 1/u^2 up to a factor, and with s = sqrt(p^2 - q^2), r = q / (p + s) the Fourier
    coefficients are r^m / s of 1/u and r^m (p + m s) / s^3 of 1/u^2. Integrals over texels, whose
    longitudes multiply coefficients by a sinc and fold those above the map's frequencies.

    Args:
        height: Rows of the map.
        width: Columns.
        roughness: At most about 0.2.

    Returns:
        For rows i from the top, the middle one included; row height - 1 - i has the same weights
        with j from the bottom. They sum to 1 for each i.
    """
    upper = (height + 1) // 2
    rows = torch.arange(upper)
    centres = math.pi / height * (torch.arange(height, dtype=torch.float64) + 0.5)
    spectrum = torch.empty(width // 2 + 1, upper, height)
    for part in rows.split(_BLOCK):
        far = _coefficients(centres[part, None], centres, roughness, width, _ALIASES[:1])
        spectrum[:, part[0] : part[-1] + 1] = far
    inner = (torch.arange(_PARTS, dtype=torch.float64) + 0.5) / _PARTS - 0.5
    for offset in range(-_NEAR_ROWS, _NEAR_ROWS + 1):
        kept = rows[(rows + offset >= 0) & (rows + offset < height)]
        parts = centres[kept + offset, None] + math.pi / height * inner
        near = _coefficients(centres[kept, None], parts, roughness, width, _ALIASES)
        spectrum[:, kept, kept + offset] = near.mean(-1)
    return spectrum.div_(spectrum[0].sum(-1)[:, None])


def _coefficients(
    axes: Float[Tensor, "i 1"],
    theta: Float[Tensor, "*i j"],
    roughness: float,
    width: int,
    aliases: tuple[int, ...],
) -> Float[Tensor, "frequencies i j"]:
    """Spectrum over the texels of rings at the angles theta from the pole, up to one factor."""
    alpha2 = roughness**4
    half_chord = (0.5 * (axes - theta)).sin().square()
    q = 0.5 * (1.0 - alpha2) * axes.sin() * theta.sin()
    # p - q is u at the nearest point of the ring; the product keeps its digits.
    nearest = alpha2 + (1.0 - alpha2) * half_chord
    s = (nearest * (nearest + 2.0 * q)).sqrt()
    p = nearest + q
    ring = theta.sin().expand_as(q)
    # Cast after the differences of nearly equal numbers.
    log_r = (q.clamp_min(1e-30).log() - (p + s).log()).float()
    constant = (ring * (p / s**3 - 2.0 / s)).float()
    slope = (ring / s**2).float()
    total = torch.zeros(())
    for alias in aliases:
        m = torch.arange(width // 2 + 1, dtype=torch.float32) + alias * width
        share = torch.sinc(m / width)[:, None, None]
        m = m.abs()[:, None, None]
        total = total + (m * log_r).clamp_min_(_LOWEST).exp_().mul_(constant + m * slope).mul_(
            share
        )
    total[0] += ring.float()
    return total
