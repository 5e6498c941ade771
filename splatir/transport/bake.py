"""What does each Gaussian see in each direction: the sky, or which other Gaussian?"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from splatir.transport.directions import DirectionCells, spherical_cells
from splatir.transport.occluder import Occluder, OccluderSettings
from splatir.transport.tracing import FREE, RayTracer

# Below the horizon of the Gaussian; above FREE and all indices it is what no ray reports.
BELOW = -2
# Rays set up at once.
_CHUNK = 1 << 21


@dataclass(frozen=True)
class Visibility:
    """What Gaussians see over the whole sphere: four bytes per Gaussian and direction.

    Attributes:
        cells: The directions.
        hits: Index of the Gaussian seen, its own where that turns its back (`trace_from`), `FREE`
            for the sky, `BELOW` under the horizon.
        normals: Unit, outwards: the horizons' poles.
    """

    cells: DirectionCells
    hits: Int[Tensor, "n d"]
    normals: Float[Tensor, "n 3"]


@torch.no_grad()
def bake_visibility(
    occluder: Occluder,
    tracer: RayTracer,
    num_directions: int = 256,
    settings: OccluderSettings = OccluderSettings(),
) -> Visibility:
    """Trace each Gaussian's upper hemisphere.

    Args:
        occluder: Polygons of the Gaussians.
        tracer: Of this occluder.
        num_directions: Over the whole sphere.
        settings: Where rays start.
    """
    cells = spherical_cells(num_directions, occluder.centres)
    count = len(occluder.centres)
    hits = torch.full(
        (count, num_directions), BELOW, dtype=torch.int32, device=occluder.centres.device
    )
    for start in range(0, count, max(1, _CHUNK // num_directions)):
        part = slice(start, start + max(1, _CHUNK // num_directions))
        above = occluder.normals[part] @ cells.directions.mT > 0.0
        who, which = above.nonzero().unbind(-1)
        found = trace_from(occluder, tracer, who + start, cells.directions[which], settings)
        hits[part].masked_scatter_(above, found)
    return Visibility(cells, hits, occluder.normals)


def trace_from(
    occluder: Occluder,
    tracer: RayTracer,
    who: Int[Tensor, " r"],
    directions: Float[Tensor, "r 3"],
    settings: OccluderSettings,
    reach: Float[Tensor, " r"] | None = None,
) -> Int[Tensor, " r"]:
    """What Gaussians see in directions of their upper hemispheres.

    Backs that rays meet bound what no camera saw, such as the inside of a shoe: what is there is
    taken to be like the Gaussian that looks, and that is reported as seeing itself.

    Args:
        occluder: Polygons of the Gaussians.
        tracer: Of this occluder.
        who: Where rays start, by Gaussian.
        directions: Unit.
        settings: Height of the start.
        reach: Hits beyond this distance do not count.
    """
    sizes = occluder.sizes[who]
    origins = occluder.centres[who] + settings.offset * sizes[:, None] * occluder.normals[who]
    hits = tracer.first_hits(origins, directions, settings.back_reach * sizes, reach)
    met = (hits != FREE).nonzero()[:, 0]
    towards = (occluder.normals[hits[met].long()] * directions[met]).sum(-1)
    backs = met[towards > 0.0]
    return hits.index_copy_(0, backs, who[backs].to(hits))
