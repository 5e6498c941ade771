"""What does each point reflect when every ray is traced: the reference for baked transport.

Each sample of the Monte Carlo sum sees the sky or a Gaussian. A Gaussian answers with the light
that it reflects: shaded by samples of its own for so many bounces, after the last one by the baked
radiosity, which stands for all further bounces (final gathering).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from splatir.maths.safe import safe_normalise
from splatir.scene.lights import (
    DirectionalLight,
    EnvironmentLight,
    Light,
    LightSum,
    PointLight,
    flatten_light,
)
from splatir.shade.brdf import ShadingSettings
from splatir.shade.monte_carlo import MonteCarlo
from splatir.shade.surface import Shading, SurfacePoints
from splatir.shade.surroundings import Seen
from splatir.transport.lit import light_gaussians
from splatir.transport.materials import SurfaceMaterials
from splatir.transport.scene import SceneTransport
from splatir.transport.tracing import FREE

# Samples of a Gaussian that a ray hits; their errors average over the samples of the pixel.
_BOUNCE_SAMPLES = 4
# A hit lies within this many sizes of the centre of its Gaussian; grazing rays lose digits.
_MAX_OFF_CENTRE = 6.0


@dataclass(frozen=True)
class PathSettings:
    """How long and how many paths are.

    Attributes:
        samples: Directions per pixel and environment of a sum, at least 4.
        bounces: Surfaces that a path goes on from with samples of their own, at least 0; the next
            surface sends the baked light. 0 takes the baked light of what pixels see.
    """

    samples: int = 256
    bounces: int = 1


class PathTracing:
    """Monte Carlo shading among Gaussians, a `GaussianLighting`; not differentiable."""

    def __init__(
        self,
        scene: SceneTransport,
        materials: SurfaceMaterials,
        light: Light,
        settings: PathSettings = PathSettings(),
        shading: ShadingSettings = ShadingSettings(),
    ) -> None:
        """Prepare a light and bake the radiosity that it leads to.

        Args:
            scene: What Gaussians see of each other.
            materials: Of the Gaussians.
            light: Any kind, world frame.
            settings: Samples and bounces.
            shading: Variants of the BRDF.

        Raises:
            ValueError: A light with wrong shapes or values.
        """
        if all(isinstance(part, PointLight | DirectionalLight) for part in flatten_light(light)):
            # What surfaces send is collected with the samples of an environment.
            light = LightSum((light, EnvironmentLight(torch.zeros(4, 8, 3).to(scene.positions))))
        self._first = MonteCarlo(light, settings.samples, settings=shading)
        self._further = MonteCarlo(light, _BOUNCE_SAMPLES, 1, shading)
        self._bounces = settings.bounces
        self._scene = scene
        self._materials = materials.detach()
        self._radiance = light_gaussians(scene, materials, light, shading).bounced.radiance

    def channels(self, camera_position: Float[Tensor, " 3"]) -> Float[Tensor, "n 1"]:
        """Sizes of the Gaussians: rays leave a pixel as far above it as they are large.

        Args:
            camera_position: Does not matter.
        """
        del camera_position
        return self._scene.occluder.sizes[:, None]

    def channels_of(
        self, who: Int[Tensor, " p"], views: Float[Tensor, "p 3"]
    ) -> Float[Tensor, "p 1"]:
        """The same for some Gaussians.

        Args:
            who: The Gaussians, by index.
            views: Do not matter.
        """
        del views
        return self._scene.occluder.sizes[who, None]

    @torch.no_grad()
    def shade(self, points: SurfacePoints, channels: Float[Tensor, "p 1"]) -> Shading:
        """Reflected radiance of points with shadows and light from the Gaussians.

        Args:
            points: Surface.
            channels: Sizes of the Gaussians, composited at the points.
        """
        around = _Around(self, points.positions, points.normals, channels[:, 0], self._bounces)
        return self._first.shade_among(points, around)

    def trace(
        self,
        starts: "_Around",
        who: Int[Tensor, " r"],
        directions: Float[Tensor, "r 3"],
        reach: Float[Tensor, " r"] | None = None,
    ) -> Int[Tensor, " r"]:
        """The Gaussian that each ray hits, or `FREE`.

        Args:
            starts: Points that rays start from.
            who: Which of them, by ray.
            directions: Unit, above the horizon.
            reach: Hits beyond this distance do not count.
        """
        back_reach = self._scene.settings.back_reach * starts.sizes[who]
        return self._scene.tracer.first_hits(starts.origins[who], directions, back_reach, reach)

    @property
    def offset(self) -> float:
        """Height of rays' starts above a surface, in sizes of its Gaussians."""
        return self._scene.settings.offset

    def sent(
        self,
        who: Int[Tensor, " r"],
        origins: Float[Tensor, "r 3"],
        directions: Float[Tensor, "r 3"],
        bounces: int,
    ) -> Float[Tensor, "r 3"]:
        """Radiance of Gaussians towards the origins of the rays that hit them.

        Args:
            who: The Gaussians hit.
            origins: Of the rays.
            directions: Of the rays, unit.
            bounces: Surfaces, these included, that are shaded by samples of their own.
        """
        if bounces == 0:
            return self._radiance[who]
        normals = self._scene.visibility.normals[who]
        # A sheet of Gaussians is seen from behind, too.
        normals = torch.where((normals * directions).sum(-1, keepdim=True) > 0, -normals, normals)
        points = SurfacePoints(
            self._hit_positions(who, origins, directions),
            normals,
            -directions,
            self._materials.albedo[who],
            self._materials.roughness[who],
            self._materials.metallic[who],
            None if self._materials.sheen is None else self._materials.sheen[who],
        )
        sizes = self._scene.occluder.sizes[who]
        around = _Around(self, points.positions, normals, sizes, bounces - 1)
        return self._further.shade_among(points, around).radiance

    def _hit_positions(
        self,
        who: Int[Tensor, " r"],
        origins: Float[Tensor, "r 3"],
        directions: Float[Tensor, "r 3"],
    ) -> Float[Tensor, "r 3"]:
        """Where rays meet the planes of Gaussians."""
        centres, normals = self._scene.positions[who], self._scene.visibility.normals[who]
        steepness = (normals * directions).sum(-1, keepdim=True)
        distance = (normals * (centres - origins)).sum(-1, keepdim=True)
        distance = distance / torch.where(steepness == 0.0, 1e-9, steepness)
        off_centre = origins + distance * directions - centres
        limit = _MAX_OFF_CENTRE * self._scene.occluder.sizes[who, None]
        length = off_centre.norm(dim=-1, keepdim=True).clamp_min(1e-20)
        return centres + off_centre * (limit / length).clamp_max(1.0)


@dataclass(frozen=True)
class _Around:
    """What lies around points on Gaussians: a `Surroundings`."""

    paths: PathTracing
    positions: Float[Tensor, "p 3"]
    normals: Float[Tensor, "p 3"]
    sizes: Float[Tensor, " p"]
    bounces: int

    @property
    def origins(self) -> Float[Tensor, "p 3"]:
        return self.positions + self.paths.offset * self.sizes[:, None] * self.normals

    def look(self, rows: slice, directions: Float[Tensor, "samples p 3"]) -> Seen:
        part = _Around(
            self.paths, self.positions[rows], self.normals[rows], self.sizes[rows], self.bounces
        )
        is_above = (directions * part.normals).sum(-1) > 0.0
        rays = is_above.flatten().nonzero()[:, 0]
        who = rays % len(part.normals)
        towards = directions.flatten(0, 1)[rays]
        hits = self.paths.trace(part, who, towards)
        is_sky = torch.zeros_like(is_above)
        is_sky.view(-1)[rays] = hits == FREE
        met = (hits != FREE).nonzero()[:, 0]
        sent = self.paths.sent(hits[met].long(), part.origins[who[met]], towards[met], self.bounces)
        radiance = torch.zeros_like(directions)
        radiance.view(-1, 3)[rays[met]] = sent
        return Seen(is_sky, radiance)

    def sees(self, light: PointLight | DirectionalLight) -> Float[Tensor, "p 1"]:
        origins = self.origins
        reach = None
        if isinstance(light, PointLight):
            towards = light.position.to(origins) - origins
            directions, reach = safe_normalise(towards), towards.norm(dim=-1)
        else:
            directions = light.direction.to(origins).expand_as(origins)
        above = ((directions * self.normals).sum(-1) > 0.0).nonzero()[:, 0]
        hits = self.paths.trace(
            self, above, directions[above], None if reach is None else reach[above]
        )
        visible = torch.zeros_like(self.sizes)
        visible[above] = (hits == FREE).to(visible)
        return visible[:, None]
