"""What does a surface reflect, by the rendering equation: the reference that shading is tested by.

With the exact BRDF; the error is noise alone, which falls almost as fast as the number of samples
grows. Alone it knows no shadows; with surroundings, each ray says what it sees.
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from splatir.maths.sampling import low_discrepancy_points, rotate_points
from splatir.scene.lights import (
    DirectionalLight,
    EnvironmentLight,
    Light,
    PointLight,
    SphericalHarmonicLight,
    check_light,
    environment_from_sh,
    environment_radiance,
    flatten_light,
)
from splatir.shade.brdf import ShadingSettings, evaluate, pdf, sample
from splatir.shade.environment_sampling import EnvironmentSampler
from splatir.shade.punctual import shade_punctual
from splatir.shade.surface import Shading, SurfacePoints
from splatir.shade.surroundings import Surroundings

# Directions handled at once: about 100 MB of intermediate values.
_CHUNK = 1 << 18


class MonteCarlo:
    """Shading by multiple importance sampling, a `Shader`.

    A quarter of the samples follows the cosine, a quarter the visible normals and half the
    environment, each counted by the density of all together (balance heuristic, Veach 1997).
    Point and directional lights are exact, each environment of a sum gets all samples.

    Differentiable in the points and in the light: directions and densities are constants, so the
    gradient is that of the integrand, whose expectation is the gradient of the integral.
    """

    def __init__(
        self,
        light: Light,
        num_samples: int = 256,
        seed: int = 0,
        settings: ShadingSettings = ShadingSettings(),
    ) -> None:
        """Prepare a light.

        Args:
            light: Any kind.
            num_samples: Directions per point and environment, at least 4; powers of two are best.
            seed: Chooses the directions; the same seed gives the same picture, in any chunks.
            settings: Variants of the BRDF.

        Raises:
            ValueError: A light with wrong shapes or values, or fewer than 4 samples.
        """
        if num_samples < 4:
            raise ValueError(f"Monte Carlo shading needs at least 4 samples, got {num_samples}.")
        check_light(light)
        self._settings = settings
        self._num_samples = num_samples
        self._punctual: list[PointLight | DirectionalLight] = []
        self._environments: list[tuple[EnvironmentLight, EnvironmentSampler]] = []
        for simple in flatten_light(light):
            if isinstance(simple, PointLight | DirectionalLight):
                self._punctual.append(simple)
                continue
            if isinstance(simple, SphericalHarmonicLight):
                simple = environment_from_sh(simple)
            self._environments.append((simple, EnvironmentSampler(simple.radiance)))
        num_lobe = num_samples // 4
        self._lobe_points = low_discrepancy_points(num_lobe, 2, seed)
        self._light_points = low_discrepancy_points(num_samples - 2 * num_lobe, 2, seed + 1)

    def shade(self, points: SurfacePoints) -> Shading:
        """Reflected radiance of points with nothing around them; memory does not grow with them.

        Args:
            points: Surface.
        """
        return self._shade(points, None)

    def shade_among(self, points: SurfacePoints, surroundings: Surroundings) -> Shading:
        """Reflected radiance of points that see each other and other surfaces.

        What surfaces send is collected with the samples of the first environment: without one, give
        a dark one.

        Args:
            points: Surface.
            surroundings: Of these points.
        """
        return self._shade(points, surroundings)

    def _shade(self, points: SurfacePoints, surroundings: Surroundings | None) -> Shading:
        diffuse = torch.zeros_like(points.albedo)
        specular = torch.zeros_like(points.albedo)
        for light in self._punctual:
            shading = shade_punctual(points, light, self._settings)
            visible = 1.0 if surroundings is None else surroundings.sees(light)
            diffuse = diffuse + visible * shading.diffuse
            specular = specular + visible * shading.specular
        for environment in self._environments:
            shading = self._shade_environment(points, environment, surroundings)
            diffuse, specular = diffuse + shading.diffuse, specular + shading.specular
        return Shading(diffuse, specular)

    def _shade_environment(
        self,
        points: SurfacePoints,
        environment: tuple[EnvironmentLight, EnvironmentSampler],
        surroundings: Surroundings | None,
    ) -> Shading:
        """All points, a chunk at a time; the backward pass shades each chunk again."""
        count = len(points.normals)
        step = max(1, _CHUNK // self._num_samples)
        parts: list[tuple[Tensor, Tensor]] = []
        for start in range(0, count, step):
            chunk = _slice(points, start, start + step)
            arguments = (chunk, start, environment, surroundings)
            if torch.is_grad_enabled() and count > step:
                part = checkpoint(self._estimate, *arguments, use_reentrant=False)
            else:
                part = self._estimate(*arguments)
            parts.append(part)  # pyright: ignore[reportArgumentType]
        if not parts:
            return Shading(points.albedo * 0.0, points.albedo * 0.0)
        diffuse, specular = (torch.cat(lobe) for lobe in zip(*parts, strict=True))
        return Shading(diffuse, specular)

    def _estimate(
        self,
        points: SurfacePoints,
        start: int,
        environment: tuple[EnvironmentLight, EnvironmentSampler],
        surroundings: Surroundings | None,
    ) -> tuple[Tensor, Tensor]:
        """Estimated lobes of a chunk that begins with the point numbered `start`."""
        light, sampler = environment
        directions, density = self._directions(points, start, sampler)
        diffuse, specular = evaluate(points, directions, self._settings)
        arriving = environment_radiance(light.radiance, directions).to(density)
        if surroundings is not None:
            seen = surroundings.look(slice(start, start + len(points.normals)), directions)
            arriving = arriving * seen.is_sky[..., None]
            if environment is self._environments[0]:
                arriving = arriving + seen.radiance
        arriving = arriving / (self._num_samples * density[..., None])
        return (diffuse * arriving).sum(0), (specular * arriving).sum(0)

    @torch.no_grad()
    def _directions(
        self, points: SurfacePoints, start: int, sampler: EnvironmentSampler
    ) -> tuple[Tensor, Tensor]:
        """Directions [samples, p, 3] of all techniques and the density [samples, p] of the pool."""
        like = points.normals
        indices = torch.arange(start, start + len(like), device=like.device, dtype=torch.float64)
        lobe = rotate_points(self._lobe_points.to(like), indices)
        lobe = torch.cat([lobe, lobe.roll(1, 0)])
        technique = torch.arange(len(lobe), device=like.device) >= len(self._lobe_points)
        technique = technique.to(like)[:, None, None].expand(*lobe.shape[:2], 1)
        from_lobes = sample(points, torch.cat([lobe, technique], dim=-1))
        from_light = sampler.sample(rotate_points(self._light_points.to(like), indices))
        directions = torch.cat([from_lobes, from_light])
        lobe_share = len(from_lobes) / len(directions)
        density = lobe_share * pdf(points, directions)
        density = density + (1.0 - lobe_share) * sampler.pdf(directions)
        # Directions that no technique favours carry no light either.
        return directions, density.clamp_min(1e-12)


def _slice(points: SurfacePoints, start: int, end: int) -> SurfacePoints:
    return SurfacePoints(
        points.positions[start:end],
        points.normals[start:end],
        points.views[start:end],
        points.albedo[start:end],
        points.roughness[start:end],
        points.metallic[start:end],
        None if points.sheen is None else points.sheen[start:end],
    )
