"""How does a triangle mesh become points of a surface?"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from splatir.maths.colour import linear_from_srgb
from splatir.maths.safe import safe_normalise
from splatir.maths.sampling import low_discrepancy_points
from splatir.scene.surface_samples import SurfaceSamples

# A mesh does not say how it reflects beyond its colour.
_ROUGHNESS, _METALLIC, _OPACITY = 0.6, 0.0, 0.98


@dataclass(frozen=True)
class TriangleMesh:
    """Triangles with a colour per vertex.

    Attributes:
        vertices: Positions in the mesh's own frame.
        faces: Triangles, by vertex.
        colours_srgb: Of the vertices, 0 to 1.
    """

    vertices: Float[Tensor, "v 3"]
    faces: Int[Tensor, "f 3"]
    colours_srgb: Float[Tensor, "v 3"]


def sample_mesh(mesh: TriangleMesh, count: int) -> SurfaceSamples:
    """Points spread over a mesh by area, as a rough dielectric of the vertices' colours.

    Normals are those of the triangles; if the mesh encloses a negative volume, the other ones.

    Args:
        mesh: At least one triangle with an area.
        count: Number of points.

    Raises:
        ValueError: The mesh has no area.
    """
    corners = mesh.vertices.double()[mesh.faces]
    across = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = 0.5 * across.norm(dim=-1)
    total = float(areas.sum())
    if not total > 0.0:
        raise ValueError(f"the mesh has {len(areas)} triangles and no area; nothing to sample.")
    if float((corners[:, 0] * across).sum()) < 0.0:
        across = -across
    u = low_discrepancy_points(count, 3, seed=0)
    which = torch.searchsorted(areas.cumsum(0) / total, u[:, 0].contiguous())
    which = which.clamp_max(len(areas) - 1)
    # Uniform on a triangle (Turk 1990).
    root = u[:, 1].sqrt()
    shares = torch.stack([1.0 - root, root * (1.0 - u[:, 2]), root * u[:, 2]], dim=-1)[..., None]
    colours = linear_from_srgb(mesh.colours_srgb.double())[mesh.faces]
    one = torch.ones(count)
    return SurfaceSamples(
        (corners[which] * shares).sum(1).float(),
        safe_normalise(across[which]).float(),
        math.sqrt(total / count) * one,
        _OPACITY * one,
        (colours[which] * shares).sum(1).float(),
        _ROUGHNESS * one,
        _METALLIC * one,
    )
