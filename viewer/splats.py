"""How do Gaussians under the present light become splats that the browser draws itself?"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from splatir.evaluate.pictures import value_picture
from splatir.maths.colour import linear_from_srgb, srgb_from_linear
from splatir.maths.rotations import rotation_from_quat
from splatir.maths.safe import safe_normalise
from splatir.maths.spherical_harmonics import spread_directions
from splatir.render.deferred import Lighting
from splatir.render.tone import display_srgb
from splatir.scene.environment_map import sample_environment
from splatir.scene.gaussians import Gaussians
from splatir.scene.lights import EnvironmentLight
from splatir.scene.normals import normal_axes
from splatir.scene.radiance import radiance_colours
from splatir.shade.surface import Shading, SurfacePoints
from splatir.transport.lighting import GaussianLighting
from viewer.edits import Edited
from viewer.lights import LightChoice
from viewer.look import BROWSER_CHANNELS, Look

# Covariances travel as half floats: lengths are sent in units that bring typical ones near 1, and
# no variance beyond what a half float holds.
_MAX_VARIANCE = 3e4
# Points of an environment behind a page without a server, the rows that they can tell apart, and
# their size as a share of the mean distance of neighbours: the least that leaves no gaps.
_SKY_POINTS, _SKY_ROWS, _SKY_OVERLAP = 20_000, 100, 1.6


@dataclass(frozen=True)
class Subject:
    """What is drawn, apart from where it is seen from.

    Attributes:
        edited: State of the Gaussians.
        look: Channel, exposure, tone, backdrop.
        choice: Light.
    """

    edited: Edited
    look: Look
    choice: LightChoice


@dataclass(frozen=True)
class Splats:
    """What the browser draws.

    Attributes:
        centres: World frame, in `unit`.
        covariances: World frame, in `unit` squared.
        colours: sRGB, 0 to 1.
        opacities: 0 to 1.
        unit: Scene units.
    """

    centres: Float[np.ndarray, "n 3"]
    covariances: Float[np.ndarray, "n 3 3"]
    colours: Float[np.ndarray, "n 3"]
    opacities: Float[np.ndarray, "n 1"]
    unit: float


@dataclass(frozen=True)
class Sky:
    """What is behind the splats of a page.

    Attributes:
        points: World frame.
        colours: sRGB, 0 to 1.
        size: Of a point, scene units.
    """

    points: Float[np.ndarray, "n 3"]
    colours: Float[np.ndarray, "n 3"]
    size: float


def splats_of(gaussians: Gaussians, colours: Float[Tensor, "n 3"]) -> Splats:
    """Gaussians with one colour each.

    Args:
        gaussians: World frame.
        colours: sRGB, 0 to 1.
    """
    scales = gaussians.scales.detach().double().cpu().clone()
    if gaussians.primitive == "surfel":
        scales[:, 2] = 0.0
    unit = max(float(scales.amax(-1).median()), 1e-9)
    largest = (_MAX_VARIANCE**0.5) * unit
    axes = rotation_from_quat(gaussians.quats.detach().double().cpu())
    axes = axes * (scales.clamp_max(largest) / unit)[:, None, :]
    return Splats(
        (gaussians.means.detach().double().cpu() / unit).float().numpy(),
        (axes @ axes.mT).float().numpy(),
        colours.detach().clamp(0.0, 1.0).float().cpu().numpy(),
        gaussians.opacities.detach()[:, None].float().cpu().numpy(),
        unit,
    )


def splat_colours(
    subject: Subject, position: Float[Tensor, " 3"], lighting: Lighting | None
) -> Float[Tensor, "n 3"]:
    """One sRGB colour of each Gaussian as a camera sees its centre.

    Args:
        subject: What is drawn.
        position: Of the camera, world frame.
        lighting: Of these Gaussians; None for channels that no light falls on.

    Raises:
        ValueError: A channel that Gaussians have not each by itself.
    """
    model, look = subject.edited.model, subject.look
    channel, gain = look.channel, 2.0**look.exposure
    if channel not in BROWSER_CHANNELS:
        raise ValueError(
            f"single splats have no '{channel}': choose one of {', '.join(BROWSER_CHANNELS)}."
        )
    position = position.to(model.means)
    if channel == "radiance":
        params = {key: value.detach() for key, value in model.params.items()}
        shown = (params["sh0"], params["shN"], params["means"])
        seen = radiance_colours(*shown, position, model.sh_degree).clamp_max(1.0)
        return display_srgb(linear_from_srgb(seen) * gain, look.tone)
    if channel == "albedo":
        return srgb_from_linear(model.material("albedo").detach())
    if channel in ("roughness", "metallic"):
        values = model.material(channel).detach()
        return torch.from_numpy(value_picture(values[None])[0] / 255.0)
    views = safe_normalise(position - model.means.detach())
    normals = normal_axes(model.gaussians.detach())
    normals = torch.where((normals * views).sum(-1, keepdim=True) < 0.0, -normals, normals)
    if channel == "normal":
        return 0.5 * normals + 0.5
    assert lighting is not None
    shading = _shading(subject, normals, views, lighting)
    lit = {"diffuse": shading.diffuse, "specular": shading.specular, "image": shading.radiance}
    return display_srgb(lit[channel] * gain, look.tone)


def _shading(subject: Subject, normals: Tensor, views: Tensor, lighting: Lighting) -> Shading:
    model = subject.edited.model
    points = SurfacePoints(
        model.means.detach(),
        normals,
        views,
        model.material("albedo").detach(),
        model.material("roughness").detach()[:, None],
        model.material("metallic").detach()[:, None],
        None if model.sheen is None else model.sheen.detach()[:, None],
    )
    if isinstance(lighting, GaussianLighting):
        who = torch.arange(model.num_gaussians, device=views.device)
        return lighting.shade(points, lighting.channels_of(who, views))
    return lighting.shade(points)


def sky_of(environment: EnvironmentLight, look: Look, distance: float) -> Sky:
    """An environment as a sphere of points about the origin, for pages that have no server.

    Args:
        environment: World frame.
        look: Exposure and tone.
        distance: Radius of the sphere, scene units; far beyond the scene.
    """
    rows = min(_SKY_ROWS, environment.radiance.shape[0])
    texels = environment.radiance.detach().cpu().permute(2, 0, 1)[None]
    # Means, as single texels of a fine map would not be what the points stand for.
    reduced = functional.interpolate(texels, size=(rows, 2 * rows), mode="area")[0].permute(1, 2, 0)
    directions = spread_directions(_SKY_POINTS).float()
    seen = sample_environment(EnvironmentLight(reduced), directions)
    spacing = math.sqrt(4.0 * math.pi / _SKY_POINTS)
    return Sky(
        (distance * directions).numpy(),
        display_srgb(seen * 2.0**look.exposure, look.tone).clamp(0.0, 1.0).numpy(),
        _SKY_OVERLAP * distance * spacing,
    )


class BrowserSplats:
    """The splats that one browser draws, if it draws any."""

    def __init__(self, browser: Any) -> None:
        """Draw none yet.

        Args:
            browser: As viser gives it.
        """
        self._browser = browser
        self._handle: Any = None
        self.subject: Subject | None = None
        self.seen_from: tuple[float, float, float] | None = None

    def show(self, splats: Splats, subject: Subject, seen_from: tuple[float, float, float]) -> None:
        """Draw splats in place of what was drawn.

        Args:
            splats: New ones.
            subject: What they show.
            seen_from: Place of the camera that they are shaded for.
        """
        arrays = (splats.centres, splats.covariances, splats.colours, splats.opacities)
        if self._handle is None:
            self._handle = self._browser.scene.add_gaussian_splats(
                "/splats", *arrays, scale=splats.unit
            )
        else:
            self._handle.set_gaussians(*arrays)
            self._handle.scale = splats.unit
        self.subject, self.seen_from = subject, seen_from

    def hide(self) -> None:
        """Draw none."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = self.subject = self.seen_from = None
