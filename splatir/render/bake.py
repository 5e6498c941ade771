"""How does a scene under a new light become a plain radiance splat that any viewer shows?"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from splatir.maths.colour import srgb_from_linear
from splatir.maths.rotations import quat_from_normal, rotation_from_quat
from splatir.maths.spherical_harmonics import (
    evaluate_basis,
    num_coefficients,
    spread_directions,
)
from splatir.render.deferred import Lighting
from splatir.scene.gaussians import SHEEN, GaussianModel
from splatir.scene.normals import normal_axes
from splatir.shade.surface import Shading, SurfacePoints
from splatir.transport.lighting import GaussianLighting

# Directions from which each Gaussian is looked at, over the hemisphere of its normal.
_NUM_VIEWS = 96
# Directions that carry coefficients from the Gaussian's own frame to the world.
_NUM_SPREAD = 64
_GAUSSIANS_PER_CHUNK = 4096
# Weight of grazing views, which show little of a surface, against frontal ones.
_MIN_VIEW_WEIGHT = 0.05
# Weights of the mirrored views on the unseen side and of the bands' own energy: they keep the fit
# from ringing where nothing says what it should be.
_MIRROR_WEIGHT = 0.02
_BAND_WEIGHT = 1e-4


@torch.no_grad()
def bake_radiance(model: GaussianModel, lighting: Lighting, degree: int = 3) -> GaussianModel:
    """Replace the radiance of a model by how its surfaces look under a light.

    Every Gaussian is shaded at its centre as seen from directions over the hemisphere of its
    normal; spherical harmonics are fitted to the sRGB display values, clipped at white, by weighted
    least squares in the normal's own frame, whose unseen half mirrors the seen one. Highlights
    sharper than the degree resolves are smoothed; shadows are those of the lighting.

    Args:
        model: Gaussians with materials; normal axes point outwards, see `orient_outwards`.
        lighting: Shader, or these Gaussians under a light.
        degree: Of the harmonics, 0 to 4; viewers read up to 3.

    Returns:
        The same Gaussians with the new radiance and without materials.

    Raises:
        ValueError: The model has no materials, or the degree is not supported.
    """
    materials = model.materials
    # The first half of the lattice is the hemisphere of +z.
    views = spread_directions(2 * _NUM_VIEWS)[:_NUM_VIEWS].to(model.means)
    fit = _fit_matrix(views, degree)
    spread = spread_directions(_NUM_SPREAD).to(views)
    to_world = torch.linalg.pinv(evaluate_basis(spread, degree))
    normals = normal_axes(model.gaussians)
    coefficients = model.means.new_empty(model.num_gaussians, num_coefficients(degree), 3)
    for chunk in torch.arange(model.num_gaussians).split(_GAUSSIANS_PER_CHUNK):
        R_world_local = rotation_from_quat(quat_from_normal(normals[chunk]))
        points = _points(model.means, normals, materials, chunk, views @ R_world_local.mT)
        shading = _shaded(points, chunk.repeat_interleave(_NUM_VIEWS), lighting)
        colours = srgb_from_linear(shading.radiance.clamp(0.0, 1.0)) - 0.5
        local = fit @ colours.unflatten(0, (len(chunk), _NUM_VIEWS))
        # Radiance along d in the world is that along R^T d in the Gaussian's frame.
        along_spread = evaluate_basis(spread @ R_world_local, degree) @ local
        coefficients[chunk] = to_world @ along_spread
    params = {k: v.detach() for k, v in model.params.items() if k not in model.material_keys}
    params["sh0"], params["shN"] = coefficients[:, :1], coefficients[:, 1:]
    return GaussianModel(params, model.primitive)


def _shaded(points: SurfacePoints, who: Int[Tensor, " p"], lighting: Lighting) -> Shading:
    """Points of known Gaussians under either kind of lighting."""
    if isinstance(lighting, GaussianLighting):
        return lighting.shade(
            points, lighting.channels_of(who.to(points.views.device), points.views)
        )
    return lighting.shade(points)


def _points(
    means: Float[Tensor, "n 3"],
    normals: Float[Tensor, "n 3"],
    materials: dict[str, Tensor],
    chunk: Tensor,
    views: Float[Tensor, "m views 3"],
) -> SurfacePoints:
    """Every Gaussian of a chunk from every view, Gaussian by Gaussian."""
    count = views.shape[1]

    def repeated(values: Tensor) -> Tensor:
        return values[chunk].repeat_interleave(count, dim=0)

    return SurfacePoints(
        repeated(means),
        repeated(normals),
        views.flatten(0, 1),
        repeated(materials["albedo"]),
        repeated(materials["roughness"][:, None]),
        repeated(materials["metallic"][:, None]),
        repeated(materials[SHEEN][:, None]) if SHEEN in materials else None,
    )


def _fit_matrix(views: Float[Tensor, "views 3"], degree: int) -> Float[Tensor, "k views"]:
    """Maps display colours seen from `views`, local frame, to coefficients of that frame.

    Viewers evaluate harmonics along the direction from the camera to the centre, hence -views.
    """
    mirrored = views * views.new_tensor([1.0, 1.0, -1.0])
    seen, unseen = (evaluate_basis(-v.double(), degree) for v in (views, mirrored))
    weights = views[:, 2].double().clamp_min(_MIN_VIEW_WEIGHT)[:, None]
    bands = torch.arange(degree + 1, device=views.device)
    band = bands.repeat_interleave(2 * bands + 1).double()
    energy = torch.diag(_BAND_WEIGHT * len(views) * (band * (band + 1.0)))
    normal_matrix = seen.mT @ (weights * seen) + _MIRROR_WEIGHT * unseen.mT @ unseen + energy
    right = (weights * seen + _MIRROR_WEIGHT * unseen).mT
    return torch.linalg.solve(normal_matrix, right).to(views)
