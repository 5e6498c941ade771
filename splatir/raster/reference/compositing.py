"""What does each pixel see, given the footprints? Dense alpha compositing, tile by tile."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from splatir.raster.contract import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE, RasterOptions
from splatir.raster.reference.projection import ProjectedEllipsoids
from splatir.raster.reference.surfel_projection import ProjectedSurfels
from splatir.raster.reference.tiles import TileLists, tile_lists, tile_pixels

# Squared standard deviation of a surfel's screen-space low-pass is 1/2 pixel^2 (2DGS, eq. 11).
_LOW_PASS = 2.0
# Splat-pixel pairs evaluated at once: about 100 MB of float32 intermediates.
_MAX_PAIRS = 1 << 20


@dataclass(frozen=True)
class Composite:
    """Images of one view.

    Attributes:
        values: sum w_i values_i, no background.
        transmittance: prod (1 - alpha_i), exactly; alpha is one minus this.
        median_depth: Depth of the last splat met above transmittance 1/2; 0 where none, or
            not asked.
        distortion: 2 sum_i w_i (z_i W_i - Z_i) over earlier sums W of w, Z of w z; 0 if not
            asked.
    """

    values: Float[Tensor, "height width k"]
    transmittance: Float[Tensor, "height width"]
    median_depth: Float[Tensor, "height width"]
    distortion: Float[Tensor, "height width"]


class _WithAbsoluteGradient(torch.autograd.Function):
    """Identity on per-pixel tensors that also sums |gradient| over pixels into a second input."""

    @staticmethod
    def forward(ctx: Any, per_pixel: Tensor, sink: Tensor) -> Tensor:
        return per_pixel.view_as(per_pixel)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = grad_outputs
        return gradient, gradient.abs().sum(1)


def composite_ellipsoids(
    projected: ProjectedEllipsoids,
    opacities: Float[Tensor, " n"],
    values: Float[Tensor, "n k"],
    size: tuple[int, int],
    options: RasterOptions,
    absolute: Float[Tensor, "n 2"] | None = None,
) -> Composite:
    """Composite projected ellipsoids front to back.

    Args:
        projected: Footprints.
        opacities: Peak alpha, already compensated if antialiased.
        values: Channels to composite; in the last `options.detached_features`, weights are
            constants.
        size: Image width and height.
        options: Detached channels; whether median depth and distortion are wanted.
        absolute: If given, a leaf whose gradient becomes the sum over pixels of the absolute
            gradient with respect to `means2d`.
    """
    lists = tile_lists(projected.means2d, projected.radii, projected.depths, *size)
    columns = [projected.means2d, projected.conics, opacities[:, None]]

    def alphas(rows: Tensor, sink: Tensor | None, pixels: Tensor) -> Tensor:
        means2d, conics, opacities = rows.split([2, 3, 1], -1)
        offsets = means2d[:, None] - pixels
        if sink is not None:
            offsets = _WithAbsoluteGradient.apply(offsets, sink)
        dx, dy = offsets.unbind(-1)
        xx, xy, yy = conics[:, None].unbind(-1)
        sigmas = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
        return _alphas(sigmas, opacities, _contributes(sigmas, opacities))

    return _composite(alphas, columns, projected.depths, values, lists, size, options, absolute)


def composite_surfels(
    projected: ProjectedSurfels,
    opacities: Float[Tensor, " n"],
    values: Float[Tensor, "n k"],
    size: tuple[int, int],
    options: RasterOptions,
    absolute: Float[Tensor, "n 2"] | None = None,
) -> Composite:
    """Composite projected surfels front to back.

    Args:
        projected: Footprints.
        opacities: Peak alpha.
        values: Channels to composite; in the last `options.detached_features`, weights are
            constants.
        size: Image width and height.
        options: Detached channels; whether median depth and distortion are wanted.
        absolute: If given, a leaf whose gradient becomes the sum over pixels of the absolute
            gradient with respect to the last column of the x and y rows of `ray_transforms`.
    """
    lists = tile_lists(projected.means2d, projected.radii, projected.depths, *size)
    columns = [projected.means2d, projected.ray_transforms.flatten(1), opacities[:, None]]

    def alphas(rows: Tensor, sink: Tensor | None, pixels: Tensor) -> Tensor:
        means2d, transforms, opacities = rows.split([2, 9, 1], -1)
        row_x, row_y, row_z = transforms[:, None].split(3, -1)
        # Planes through the eye and the pixel's column and row, in the surfel's coordinates.
        plane_x = pixels[:, :1] * row_z - row_x
        plane_y = pixels[:, 1:] * row_z - row_y
        if sink is not None:
            plane_x, plane_y = _with_last_columns_absolute(plane_x, plane_y, sink)
        hits = torch.linalg.cross(plane_x, plane_y)
        offsets = means2d[:, None] - pixels
        blurred = _LOW_PASS * (offsets * offsets).sum(-1)
        with torch.no_grad():
            exact = (hits[..., :2] / hits[..., 2:]).square().sum(-1)
            is_exact = exact <= blurred
            sigmas = 0.5 * torch.where(is_exact, exact, blurred)
            contributes = _contributes(sigmas, opacities) & (hits[..., 2] != 0)
            is_exact &= contributes
        # Divide only where the quotient is used: elsewhere it may overflow, and 0 * inf is NaN.
        divisors = torch.where(is_exact, hits[..., 2], 1.0)
        exact = (hits[..., :2] / divisors[..., None]).square().sum(-1)
        return _alphas(0.5 * torch.where(is_exact, exact, blurred), opacities, contributes)

    return _composite(alphas, columns, projected.depths, values, lists, size, options, absolute)


def _with_last_columns_absolute(
    plane_x: Tensor, plane_y: Tensor, sink: Tensor
) -> tuple[Tensor, Tensor]:
    """Watch the components of the planes that the last column of the ray transform enters."""
    last = torch.stack([plane_x[..., 2], plane_y[..., 2]], -1)
    last = _WithAbsoluteGradient.apply(last, sink)
    plane_x = torch.cat([plane_x[..., :2], last[..., :1]], -1)
    return plane_x, torch.cat([plane_y[..., :2], last[..., 1:]], -1)


def _contributes(
    sigmas: Float[Tensor, "n p"], opacities: Float[Tensor, "n 1"]
) -> Bool[Tensor, "n p"]:
    """Whether alpha reaches 1/255; a negative sigma is a rounding accident and does not count."""
    with torch.no_grad():
        return (sigmas >= 0) & ((opacities * torch.exp(-sigmas)) >= MIN_ALPHA)


def _alphas(
    sigmas: Float[Tensor, "n p"],
    opacities: Float[Tensor, "n 1"],
    contributes: Bool[Tensor, "n p"],
) -> Float[Tensor, "n p"]:
    """min(0.999, o exp(-sigma)), no gradient where capped; 0 where it does not contribute."""
    raw = opacities * torch.exp(-torch.where(contributes, sigmas, 0.0))
    return torch.where(contributes, raw.clamp_max(MAX_ALPHA), 0.0)


def _blend(
    alphas: Float[Tensor, "n p"],
    values: Float[Tensor, "n k"],
    depths: Float[Tensor, " n"],
    options: RasterOptions,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Composite the splats of one tile: values, transmittance, median depth, distortion."""
    with torch.no_grad():
        is_live = torch.cumprod(1 - alphas, 0) > MIN_TRANSMITTANCE
    alphas = torch.where(is_live, alphas, 0.0)
    after = torch.cumprod(1 - alphas, 0)
    before = torch.cat([torch.ones_like(after[:1]), after[:-1]])
    weights = alphas * before
    median = distortion = torch.zeros_like(after[-1])
    if options.median_depth:
        is_candidate = (alphas > 0) & (before > 0.5)
        ranks = torch.arange(1, len(alphas) + 1, device=alphas.device)[:, None] * is_candidate
        last = ranks.max(0).values
        median = torch.where(last > 0, depths.index_select(0, (last - 1).clamp_min(0)), 0.0)
    if options.distortion:
        weighted = weights * depths[:, None]
        earlier = weighted.cumsum(0) - weighted
        distortion = 2 * (weighted * (1 - before) - weights * earlier).sum(0)
    attached = values.shape[1] - options.detached_features
    blended = [weights.mT @ values[:, :attached], weights.detach().mT @ values[:, attached:]]
    return torch.cat(blended, -1), after[-1], median, distortion


def _composite(
    alphas: Callable[[Tensor, Tensor | None, Tensor], Tensor],
    columns: list[Tensor],
    depths: Float[Tensor, " n"],
    values: Float[Tensor, "n k"],
    lists: TileLists,
    size: tuple[int, int],
    options: RasterOptions,
    absolute: Float[Tensor, "n 2"] | None,
) -> Composite:
    """Evaluate and blend tile by tile; backward recomputes a tile, so memory stays small."""
    width, height = size
    rows = torch.cat([*columns, depths[:, None], values], -1)
    geometry = sum(column.shape[1] for column in columns)
    # Not rows[...]: its gradient is summed by atomics, in another order each time.
    per_tile = rows.index_select(0, lists.splats).split(lists.counts)
    sinks = None if absolute is None else absolute.index_select(0, lists.splats).split(lists.counts)

    def shade(rows: Tensor, sink: Tensor | None, pixels: Tensor) -> tuple[Tensor, ...]:
        footprint, depths, values = rows.split([geometry, 1, rows.shape[1] - geometry - 1], -1)
        return _blend(alphas(footprint, sink, pixels), values, depths[:, 0], options)

    # A part without pixels ties the images to splats that none shows: gradients are zero, not None.
    nothing = rows[:0]
    pixel_lists = [torch.zeros(0, dtype=torch.long, device=rows.device)]
    parts: list[tuple[Tensor, ...]] = [
        (nothing[:, geometry + 1 :], nothing[:, 0], nothing[:, 0], nothing[:, 0])
    ]
    for tile, entries in enumerate(per_tile):
        if len(entries) == 0:
            continue
        in_tile = tile_pixels(tile, lists.columns, width, height, rows.device)
        for pixels in in_tile.split(max(1, _MAX_PAIRS // len(entries))):
            centres = torch.stack([pixels % width, pixels // width], -1).to(rows.dtype) + 0.5
            sink = None if sinks is None else sinks[tile]
            pixel_lists.append(pixels)
            parts.append(
                checkpoint(
                    shade, entries, sink, centres, use_reentrant=False, preserve_rng_state=False
                )
            )
    return _assemble(pixel_lists, parts, values, size)


def _assemble(
    pixel_lists: list[Tensor],
    parts: list[tuple[Tensor, ...]],
    values: Float[Tensor, "n k"],
    size: tuple[int, int],
) -> Composite:
    """Put the pixels of all tiles into images; pixels that no splat touches are empty."""
    width, height = size
    num_pixels = width * height
    images = [
        values.new_zeros(num_pixels, values.shape[1]),
        values.new_ones(num_pixels),
        values.new_zeros(num_pixels),
        values.new_zeros(num_pixels),
    ]
    pixels = torch.cat(pixel_lists)
    filled = [
        image.index_copy(0, pixels, torch.cat(part)).unflatten(0, (height, width))
        for image, part in zip(images, zip(*parts, strict=True), strict=True)
    ]
    return Composite(*filled)
