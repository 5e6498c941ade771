"""What does Mitsuba 3 see on a sphere under an environment map?

An independent renderer with our conventions: `reflected_radiance` traces the very camera rays of
`sphere_points` with Mitsuba's path integrator. Its BSDFs add up to ours exactly: "diffuse" is our
Lambert lobe, "principled" with metallic 1 is GGX, separable Smith and Schlick from any F0, and
"principled" with metallic 0 and no specular is our Disney lobe. The scalar variant is used: the
others need an LLVM library, and abort the process where theirs is too old.
"""

from dataclasses import dataclass

import mitsuba as mi
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.safe import safe_normalise
from splatir.shade.surface import SurfacePoints

mi.set_variant("scalar_rgb")

# Our axes in those of Mitsuba's maps, whose up is +Y: X is its z, Y its x, Z its y.
_MAP_AXES = [[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
# Distance of the camera from the centre of the unit sphere.
_DISTANCE = 4.0


@dataclass(frozen=True)
class Material:
    """One material all over the sphere.

    Attributes:
        albedo: Base colour.
        roughness: Perceptual.
        metallic: 0 to 1.
    """

    albedo: tuple[float, float, float]
    roughness: float
    metallic: float


def sphere_points(size: int, material: Material) -> SurfacePoints:
    """The unit sphere as seen from +X, +Y and a little above, one point per pixel that hits it.

    Args:
        size: Pixels along a side; the sphere fills the picture.
        material: Of all points.
    """
    origin = _origin().double()
    forward = -safe_normalise(origin)
    right = safe_normalise(torch.linalg.cross(forward, torch.tensor([0.0, 0, 1]).double()))
    up = torch.linalg.cross(right, forward)
    tangent = (_DISTANCE**2 - 1.0) ** -0.5
    steps = ((torch.arange(size, dtype=torch.float64) + 0.5) / size * 2.0 - 1.0) * tangent
    y, x = torch.meshgrid(-steps, steps, indexing="ij")
    rays = safe_normalise(forward + x[..., None] * right + y[..., None] * up).reshape(-1, 3)
    along = -(rays @ origin)
    inside = along.square() - origin.square().sum() + 1.0
    # Not the last hundredth of the rim, where float32 disagrees on what is hit.
    hit = inside > 1e-3
    normals = origin + rays[hit] * (along[hit] - inside[hit].sqrt())[:, None]
    return SurfacePoints(
        normals.float(),
        safe_normalise(normals).float(),
        -rays[hit].float(),
        torch.tensor(material.albedo).expand(len(normals), 3),
        torch.full((len(normals), 1), material.roughness),
        torch.full((len(normals), 1), material.metallic),
    )


def diffuse_bsdf(material: Material, disney: bool = False) -> dict[str, object]:
    """Mitsuba's description of our diffuse lobe.

    Args:
        material: Metals reflect less.
        disney: With retro-reflection.
    """
    colour = [(1.0 - material.metallic) * channel for channel in material.albedo]
    reflectance = {"type": "rgb", "value": colour}
    if not disney:
        return {"type": "diffuse", "reflectance": reflectance}
    return {
        "type": "principled",
        "base_color": reflectance,
        "roughness": material.roughness,
        "specular": 0.0,
    }


def specular_bsdf(material: Material) -> dict[str, object]:
    """Mitsuba's description of our specular lobe: a metal whose base colour is our F0.

    Args:
        material: Of the sphere.
    """
    m = material.metallic
    colour = [0.04 * (1.0 - m) + m * channel for channel in material.albedo]
    return {
        "type": "principled",
        "base_color": {"type": "rgb", "value": colour},
        "metallic": 1.0,
        "roughness": material.roughness,
    }


def reflected_radiance(
    points: SurfacePoints,
    radiance: Float[Tensor, "height width 3"],
    bsdf: dict[str, object],
    num_samples: int,
    seed: int = 0,
) -> Float[Tensor, "p 3"]:
    """Direct light that the points reflect, by Mitsuba's path integrator.

    Args:
        points: From `sphere_points`; their materials are not used.
        radiance: Environment map in our convention.
        bsdf: Mitsuba's description.
        num_samples: Paths per point.
        seed: Of Mitsuba's sampler.
    """
    origins = _origin().expand_as(points.views)
    scene = mi.load_dict(
        {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": 2, "hide_emitters": True},
            "light": environment_emitter(radiance),
            "ball": {"type": "sphere", "material": bsdf},
            "sensor": batch_of_rays(origins, -points.views, num_samples),
        }
    )
    picture = mi.render(scene, spp=num_samples, seed=mi.UInt32(seed))
    return torch.from_numpy(np.array(picture)[0].copy())


def batch_of_rays(
    origins: Float[Tensor, "p 3"], directions: Float[Tensor, "p 3"], num_samples: int
) -> dict[str, object]:
    """Mitsuba's description of a picture of one row, each pixel of which looks along one ray.

    Args:
        origins: Of the rays.
        directions: Unit.
        num_samples: Paths per ray.
    """
    rays = {
        f"ray{i}": {
            "type": "radiancemeter",
            "origin": origin.tolist(),
            "direction": direction.tolist(),
            "film": _film(1),
        }
        for i, (origin, direction) in enumerate(zip(origins, directions, strict=True))
    }
    sampler = {"type": "independent", "sample_count": num_samples}
    return {"type": "batch", "film": _film(len(origins)), "sampler": sampler, **rays}


def emitted_radiance(
    radiance: Float[Tensor, "height width 3"], directions: Float[Tensor, "p 3"]
) -> Float[Tensor, "p 3"]:
    """What Mitsuba's environment emitter sends from world directions.

    Args:
        radiance: Environment map in our convention.
        directions: Unit.
    """
    emitter = mi.load_dict(environment_emitter(radiance))
    interaction = mi.SurfaceInteraction3f()
    values = []
    for direction in directions:
        interaction.wi = mi.Vector3f((-direction).tolist())
        values.append(torch.from_numpy(np.array(emitter.eval(interaction)).copy()))
    return torch.stack(values)


def _origin() -> Tensor:
    return _DISTANCE * safe_normalise(torch.tensor([1.0, 0.6, 0.4]))


def _film(width: int) -> dict[str, object]:
    return {
        "type": "hdrfilm",
        "width": width,
        "height": 1,
        "pixel_format": "rgb",
        "component_format": "float32",
        "filter": {"type": "box"},
    }


def environment_emitter(radiance: Float[Tensor, "height width 3"]) -> dict[str, object]:
    """An emitter that interpolates as we do.

    Mitsuba's first and last rows lie at the poles, ours half a row away from them. Rows at every
    half of ours, odd ones our own and even ones means of neighbours, give the same function.

    Args:
        radiance: Environment map in our convention.
    """
    half = radiance.shape[1] // 2
    first, last = (radiance[i : i + 1].roll(half, dims=1) for i in (0, len(radiance) - 1))
    continued = torch.cat([first, radiance, last])
    rows = torch.empty(2 * len(radiance) + 1, *radiance.shape[1:])
    rows[0::2], rows[1::2] = 0.5 * (continued[:-1] + continued[1:]), radiance
    return {
        "type": "envmap",
        "bitmap": mi.Bitmap(rows.numpy().astype(np.float32)),
        "to_world": mi.ScalarTransform4f(_MAP_AXES),
    }
