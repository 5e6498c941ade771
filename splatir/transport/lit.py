"""What reaches each Gaussian under one light: shadows as ratios, and light from other Gaussians.

Shading stays with a method that knows of no occluders. Transport multiplies it, per lobe, by the
part of the light that gets past the occluders, and adds what the occluders themselves send. Both
vary slowly over a surface, so that they are found per Gaussian and composited like materials.
"""

import math
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
    SphericalHarmonicLight,
    environment_from_sh,
    flatten_light,
)
from splatir.scene.normals import PAST_HORIZON
from splatir.shade.brdf import ShadingSettings, alpha_from_roughness
from splatir.shade.punctual import punctual_irradiance, shade_punctual
from splatir.shade.split_sum import SplitSum, diffuse_albedo, specular_albedo
from splatir.shade.surface import Shading, SurfacePoints
from splatir.transport.directions import DirectionCells
from splatir.transport.materials import SurfaceMaterials
from splatir.transport.scene import SceneTransport
from splatir.transport.sums import bounced_irradiance, irradiance, specular_sums

# Reflections: first of the light past occluders, then of the light in full.
NUM_BOUNCES = 4
# Light that reaches a surface may exceed what split-sum says that it reflects by this factor.
_MAX_RATIO = 4.0
# Irradiance or radiance below which a ratio means nothing, relative to the mean of the light.
_DARK = 1e-5
_MIN_COSINE = 1e-3
# Channels of one view before those of the punctual lights.
_NUM_CHANNELS = 12


@dataclass(frozen=True)
class Bounced:
    """Light that goes from Gaussian to Gaussian.

    Attributes:
        irradiance: That reaches each from the others.
        radiance: That each sends to all sides, linear.
    """

    irradiance: Float[Tensor, "n 3"]
    radiance: Float[Tensor, "n 3"]


@dataclass(frozen=True)
class ShadowedLight:
    """A point or directional light and the Gaussians that see it.

    Attributes:
        light: As given.
        visible: 1 where a Gaussian sees it, else 0.
    """

    light: PointLight | DirectionalLight
    visible: Float[Tensor, "n 1"]


@dataclass(frozen=True)
class CellLight:
    """Environments as transport and shading take them.

    Attributes:
        shader: Shading without occluders.
        cells: Directions.
        arriving: Integral of the radiance over each cell.
    """

    shader: SplitSum
    cells: DirectionCells
    arriving: Float[Tensor, "d 3"]

    @classmethod
    def of(
        cls,
        environments: tuple[EnvironmentLight, ...],
        cells: DirectionCells,
        shading: ShadingSettings = ShadingSettings(),
    ) -> "CellLight":
        """Prefilter environments and deal them out to cells.

        Args:
            environments: World frame; differentiable.
            cells: Directions.
            shading: Variants of the BRDF.
        """
        arriving = torch.zeros_like(cells.directions)
        for environment in environments:
            arriving = arriving + cells.light_from(environment)
        return cls(SplitSum(LightSum(environments), shading), cells, arriving)

    @staticmethod
    def narrowest(num_directions: int) -> float:
        """GGX width of the narrowest lobe that cells resolve, half of one.

        Args:
            num_directions: Over the whole sphere.
        """
        return 0.5 * math.sqrt(4.0 * math.pi / num_directions)

    @property
    def dark(self) -> Float[Tensor, ""]:
        """Irradiance that counts as none under this light."""
        return (_DARK * self.arriving.detach().mean() * len(self.arriving)).clamp_min(1e-20)


@dataclass(frozen=True)
class LitGaussians:
    """Gaussians under a light: what views of them need besides materials.

    Attributes:
        scene: What they see of each other.
        materials: Of the Gaussians, constants.
        light: The environments.
        diffuse_ratio: Irradiance past the occluders over that without them.
        bounced: Light from other Gaussians.
        punctual: Point and directional lights.
    """

    scene: SceneTransport
    materials: SurfaceMaterials
    light: CellLight
    diffuse_ratio: Float[Tensor, "n 3"]
    bounced: Bounced
    punctual: tuple[ShadowedLight, ...] = ()

    def channels(self, camera_position: Float[Tensor, " 3"]) -> Float[Tensor, "n c"]:
        """What one view composites: four times three channels, then one per punctual light.

        The ratio of the diffuse lobe, bounced irradiance, the ratio of the specular lobe, and the
        mean bounced radiance that reaches that lobe: what a pixel reflects of it is decided by the
        pixel's own material and normal. Gaussians just behind the horizon are seen as from there;
        those that turn away further reflect as if they were alone.

        Args:
            camera_position: World frame.
        """
        positions, normals = self.scene.positions, self.scene.visibility.normals
        views = safe_normalise(camera_position.to(positions) - positions)
        cosines = (views * normals).sum(-1, keepdim=True)
        who = (cosines[:, 0] > -PAST_HORIZON).nonzero()[:, 0]
        views = safe_normalise(views + (_MIN_COSINE - cosines).clamp_min(0.0) * normals)
        ratio, arriving = self._specular(who, views[who])
        specular_ratio = torch.ones_like(positions).index_copy_(0, who, ratio)
        specular = torch.zeros_like(positions).index_copy_(0, who, arriving)
        return self._joined(slice(None), specular_ratio, specular)

    def channels_of(
        self, who: Int[Tensor, " p"], views: Float[Tensor, "p 3"]
    ) -> Float[Tensor, "p c"]:
        """The same for some Gaussians, each seen from a direction of its own.

        Args:
            who: The Gaussians, by index; any number of times each.
            views: Unit directions towards the viewer.
        """
        return self._joined(who, *self._specular(who, views))

    def _joined(
        self,
        who: Int[Tensor, " p"] | slice,
        specular_ratio: Float[Tensor, "p 3"],
        arriving: Float[Tensor, "p 3"],
    ) -> Float[Tensor, "p c"]:
        diffuse = [self.diffuse_ratio[who], self.bounced.irradiance[who]]
        visible = [shadowed.visible[who] for shadowed in self.punctual]
        return torch.cat([*diffuse, specular_ratio, arriving, *visible], dim=-1)

    def shade(self, points: SurfacePoints, channels: Float[Tensor, "p c"]) -> Shading:
        """Reflected radiance of points with shadows and light from other Gaussians.

        Differentiable in the points, in the channels, and in the light through shading.

        Args:
            points: Surface.
            channels: Composited at the points.
        """
        shader = self.light.shader
        shading = shader.shade(points)
        diffuse_ratio, irradiance, specular_ratio, arriving = channels[:, :_NUM_CHANNELS].split(
            3, dim=-1
        )
        matt = diffuse_albedo(points, shader.settings) / math.pi
        diffuse = shading.diffuse * diffuse_ratio + matt * irradiance
        specular = shading.specular * specular_ratio + specular_albedo(points) * arriving
        for i, shadowed in enumerate(self.punctual):
            visible = channels[:, _NUM_CHANNELS + i, None]
            part = shade_punctual(points, shadowed.light, shader.settings)
            diffuse, specular = diffuse + visible * part.diffuse, specular + visible * part.specular
        return Shading(diffuse, specular)

    @torch.no_grad()
    def _specular(
        self, who: Int[Tensor, " p"], views: Float[Tensor, "p 3"]
    ) -> tuple[Float[Tensor, "p 3"], Float[Tensor, "p 3"]]:
        """Ratio of the specular lobe of some Gaussians, and mean bounced radiance in that lobe.

        Lobes wider than a cell are summed over the cells with their true BRDF, which also mends
        what split-sum gets wrong. Narrower ones are widened to half a cell, and only the share of
        light that is visible is taken from the sum.
        """
        normals = self.scene.visibility.normals[who]
        points = SurfacePoints(
            self.scene.positions[who],
            normals,
            views,
            self.materials.albedo[who],
            self.materials.roughness[who],
            self.materials.metallic[who],
        )
        alpha = alpha_from_roughness(points.roughness)
        narrowest = CellLight.narrowest(len(self.light.cells.directions))
        sums = specular_sums(
            self.scene.visibility,
            who,
            views,
            alpha.clamp_min(narrowest)[:, 0],
            self.light.arriving.detach(),
            self.bounced.radiance,
        )
        reflectance = self.materials.reflectance[who]

        def reflected(parts: Tensor) -> Tensor:
            return reflectance * (parts[..., 0] - parts[..., 1]) + parts[..., 1]

        is_wide = ((alpha - narrowest) / narrowest).clamp(0.0, 1.0)
        unshadowed = self.light.shader.specular(points)
        whole = torch.lerp(reflected(sums.unoccluded), unshadowed, is_wide)
        dark = self.light.dark / math.pi * reflectance.clamp_min(0.01)
        ratio = (reflected(sums.sky) + dark) / (whole + dark)
        arriving = reflected(sums.bounced) / reflected(sums.white).clamp_min(1e-6)
        return ratio.clamp_max(_MAX_RATIO), arriving


def light_gaussians(
    scene: SceneTransport,
    materials: SurfaceMaterials,
    light: Light,
    shading: ShadingSettings = ShadingSettings(),
) -> LitGaussians:
    """Light Gaussians with any light.

    The brightest cells of an environment are aimed at their own light, and traced again.

    Args:
        scene: What Gaussians see of each other.
        materials: Of the Gaussians.
        light: World frame.
        shading: Variants of the BRDF.
    """
    materials = materials.detach()
    environments, punctual = _sorted(light)
    scene = scene.aimed_at(environments)
    cell_light = CellLight.of(environments, scene.visibility.cells, shading)
    shadowed = tuple(ShadowedLight(each, scene.sees(each)) for each in punctual)
    ratio = diffuse_ratio(scene, cell_light)
    bounced = bounce(scene, materials, cell_light, ratio, shadowed)
    return LitGaussians(scene, materials, cell_light, ratio, bounced, shadowed)


def diffuse_ratio(scene: SceneTransport, light: CellLight) -> Float[Tensor, "n 3"]:
    """Irradiance past the occluders over that without them; differentiable in the light.

    Args:
        scene: What Gaussians see of each other.
        light: Environments.
    """
    visible, unoccluded = irradiance(scene.visibility, light.arriving)
    return (visible + light.dark) / (unoccluded + light.dark)


@torch.no_grad()
def bounce(
    scene: SceneTransport,
    materials: SurfaceMaterials,
    light: CellLight,
    ratio: Float[Tensor, "n 3"],
    punctual: tuple[ShadowedLight, ...] = (),
) -> Bounced:
    """Light that goes from Gaussian to Gaussian, by Jacobi steps of the radiosity equation.

    Args:
        scene: What Gaussians see of each other.
        materials: Of the Gaussians.
        light: Environments.
        ratio: As `diffuse_ratio` gives it.
        punctual: Point and directional lights.
    """
    normals = scene.visibility.normals
    direct = light.shader.irradiance(normals) * ratio
    for shadowed in punctual:
        arriving = punctual_irradiance(scene.positions, normals, shadowed.light)
        direct = direct + shadowed.visible * arriving
    sent_per_irradiance = materials.total_albedo(light.shader.settings) / math.pi
    indirect = torch.zeros_like(direct)
    for _ in range(NUM_BOUNCES):
        sent = sent_per_irradiance * (direct + indirect)
        indirect = bounced_irradiance(scene.visibility, sent)
    return Bounced(indirect, sent_per_irradiance * (direct + indirect))


def _sorted(
    light: Light,
) -> tuple[tuple[EnvironmentLight, ...], tuple[PointLight | DirectionalLight, ...]]:
    """Environments, also those of spherical harmonics, and the other lights."""
    environments, punctual = [], []
    for simple in flatten_light(light):
        if isinstance(simple, PointLight | DirectionalLight):
            punctual.append(simple)
        elif isinstance(simple, SphericalHarmonicLight):
            environments.append(environment_from_sh(simple))
        else:
            environments.append(simple)
    return tuple(environments), tuple(punctual)
