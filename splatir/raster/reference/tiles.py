"""Which splats does each 16x16 tile of the image have to look at, and in which order?"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

# gsplat's tile edge in pixels. It is part of the semantics: surfels are cut at tile borders.
TILE = 16


@dataclass(frozen=True)
class TileLists:
    """For every tile, row by row, the splats whose rectangle touches it.

    Attributes:
        splats: Splat indices of all tiles, one tile after the other, each front to back.
        counts: Number of entries of each tile.
        columns: Tiles per row of the image.
    """

    splats: Int[Tensor, " entries"]
    counts: tuple[int, ...]
    columns: int


def tile_lists(
    means2d: Float[Tensor, "n 2"],
    radii: Int[Tensor, "n 2"],
    depths: Float[Tensor, " n"],
    width: int,
    height: int,
) -> TileLists:
    """Sort visible splats by float32 depth (ties by index) and list them per tile.

    Args:
        means2d: Rectangle centres, pixels.
        radii: Half extents, pixels; (0, 0) for culled splats.
        depths: Camera z, scene units.
        width: Image width, pixels.
        height: Image height, pixels.
    """
    columns, rows = -(-width // TILE), -(-height // TILE)
    visible = torch.nonzero((radii > 0).all(-1))[:, 0]
    visible = visible[depths.detach()[visible].float().sort(stable=True).indices]
    centres, extents = means2d.detach()[visible] / TILE, radii[visible] / TILE
    limit = centres.new_tensor([columns, rows])
    first = torch.minimum((centres - extents).floor().clamp_min(0), limit).long()
    last = torch.minimum((centres + extents).ceil().clamp_min(0), limit).long()
    spans = last - first
    tiles_of_splat = spans.prod(-1)

    entry_splat = torch.repeat_interleave(
        torch.arange(len(visible), device=first.device), tiles_of_splat
    )
    starts = tiles_of_splat.cumsum(0) - tiles_of_splat
    within = torch.arange(len(entry_splat), device=first.device) - starts[entry_splat]
    across = spans[entry_splat, 0]
    tile = (
        (first[entry_splat, 1] + within // across) * columns
        + first[entry_splat, 0]
        + within % across
    )
    by_tile = tile.sort(stable=True).indices
    counts = torch.bincount(tile, minlength=columns * rows)
    return TileLists(visible[entry_splat[by_tile]], tuple(counts.tolist()), columns)


def tile_pixels(
    tile: int, columns: int, width: int, height: int, device: torch.device
) -> Int[Tensor, " pixels"]:
    """Row-major image indices of the pixels of one tile that lie on the image."""
    x0, y0 = tile % columns * TILE, tile // columns * TILE
    x = torch.arange(x0, min(x0 + TILE, width), device=device)
    y = torch.arange(y0, min(y0 + TILE, height), device=device)
    return (y[:, None] * width + x).flatten()
