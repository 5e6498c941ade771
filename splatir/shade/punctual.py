"""What does a surface reflect of a light that comes from one direction?"""

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
    if isinstance(light, PointLight):
        towards = light.position - points.positions
        squared = towards.square().sum(-1, keepdim=True).clamp_min(_MIN_SQUARED_DISTANCE)
        directions, irradiance = safe_normalise(towards), light.intensity / squared
    else:
        directions = light.direction.expand_as(points.normals)
        irradiance = light.irradiance.expand_as(points.normals)
    diffuse, specular = evaluate(points, directions, settings)
    return Shading(diffuse * irradiance, specular * irradiance)
