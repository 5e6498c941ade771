"""What does a surface reflect of a light that comes from one direction?"""

from jaxtyping import Float
from torch import Tensor

from splatir.maths.safe import safe_normalise
from splatir.scene.lights import DirectionalLight, PointLight
from splatir.shade.brdf import ShadingSettings, evaluate
from splatir.shade.surface import Shading, SurfacePoints

# Square of the distance below which a point light counts as this far, scene units.
_MIN_SQUARED_DISTANCE = 1e-8


def shade_punctual(
    points: SurfacePoints,
    light: PointLight | DirectionalLight,
    settings: ShadingSettings = ShadingSettings(),
) -> Shading:
    """Reflected radiance under a point or directional light, exact, without shadows.

    Args:
        points: Surface; differentiable in all of it.
        light: Differentiable in its tensors.
        settings: Variants of the BRDF.
    """
    directions, irradiance = _arriving(points.positions, light)
    diffuse, specular = evaluate(points, directions, settings)
    return Shading(diffuse * irradiance, specular * irradiance)


def punctual_irradiance(
    positions: Float[Tensor, "p 3"],
    normals: Float[Tensor, "p 3"],
    light: PointLight | DirectionalLight,
) -> Float[Tensor, "p 3"]:
    """Irradiance of surfaces under a point or directional light, without shadows.

    Args:
        positions: Scene units.
        normals: Unit.
        light: World frame.
    """
    directions, irradiance = _arriving(positions, light)
    return (directions * normals).sum(-1, keepdim=True).clamp_min(0.0) * irradiance


def _arriving(
    positions: Float[Tensor, "p 3"], light: PointLight | DirectionalLight
) -> tuple[Float[Tensor, "p 3"], Float[Tensor, "p 3"]]:
    """Unit directions towards a light, and irradiance of surfaces that face it."""
    if isinstance(light, PointLight):
        towards = light.position - positions
        squared = towards.square().sum(-1, keepdim=True).clamp_min(_MIN_SQUARED_DISTANCE)
        return safe_normalise(towards), light.intensity / squared
    return light.direction.expand_as(positions), light.irradiance.expand_as(positions)
