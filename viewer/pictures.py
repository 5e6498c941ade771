"""How does a channel of a view become a picture, and two channels one?"""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from splatir.evaluate.pictures import (
    albedo_picture,
    depth_picture,
    error_picture,
    normal_picture,
    value_picture,
)
from splatir.maths.colour import srgb_from_linear
from splatir.render.geometry import camera_rays
from splatir.render.relighting import environment_background
from splatir.render.tone import composite_srgb, display_srgb
from splatir.scene.camera import Camera
from splatir.scene.lights import EnvironmentLight
from viewer.look import Channel, Look
from viewer.view import View

Picture = UInt8[np.ndarray, "height width 3"]
# Irradiance that is shown as white before exposure: a white matt surface under it has radiance 1.
_WHITE_IRRADIANCE = np.pi
_THUMBNAIL_WIDTH = 256
_FRUSTUM_WIDTH = 96
_DIVIDER_COLOUR = (255, 255, 255)


def look_picture(
    view: View,
    look: Look,
    environment: EnvironmentLight | None = None,
    photo: UInt8[Tensor, "height width 3"] | None = None,
) -> Picture:
    """A view as the user wants to see it, split where two channels were asked for.

    Args:
        view: Buffers.
        look: Channels, exposure, tone, backdrop.
        environment: What is behind the scene where the look says so.
        photo: The photograph as this camera sees it, sRGB, or None if it has none.
    """
    left = channel_picture(view, look.channel, look, environment, photo)
    if look.second is None:
        return left
    right = channel_picture(view, look.second, look, environment, photo)
    width = left.shape[1]
    at = round(min(1.0, max(0.0, look.divider)) * width)
    joined = np.concatenate([left[:, :at], right[:, at:]], axis=1)
    if 0 < at < width:
        joined[:, at - 1 : at + 1] = _DIVIDER_COLOUR
    return joined


def channel_picture(
    view: View,
    channel: Channel,
    look: Look,
    environment: EnvironmentLight | None = None,
    photo: UInt8[Tensor, "height width 3"] | None = None,
) -> Picture:
    """One channel of a view in colours.

    Args:
        view: Buffers.
        channel: Which.
        look: Exposure, tone and backdrop.
        environment: As for `look_picture`.
        photo: As for `look_picture`.

    Raises:
        ValueError: "photo" or "error" where the camera is not that of a photograph.
    """
    if channel in ("photo", "error"):
        if photo is None:
            raise ValueError(
                f"'{channel}' compares with a photograph: click one of the cameras first."
            )
        if channel == "photo":
            return photo.cpu().numpy()
        shown = _light_picture(view, "image", look, environment)
        return error_picture(torch.from_numpy(shown) / 255.0, photo.cpu() / 255.0)
    surface = view.surface
    alpha = surface.alpha
    if channel == "albedo":
        return albedo_picture(view.gbuffer.albedo, alpha)
    if channel in ("roughness", "metallic"):
        return value_picture(getattr(view.gbuffer, channel)[..., 0], alpha[..., 0])
    if channel == "normal":
        return normal_picture(surface.normals, alpha[..., 0])
    if channel == "depth":
        return depth_picture(surface.depth[..., 0], alpha[..., 0])
    if channel == "alpha":
        return _bytes(alpha.expand(-1, -1, 3))
    return _light_picture(view, channel, look, environment)


def _light_picture(
    view: View, channel: Channel, look: Look, environment: EnvironmentLight | None
) -> Picture:
    """A channel that is light, exposed and toned, over the backdrop."""
    gain = 2.0**look.exposure
    if channel == "radiance":
        linear, alpha = view.radiance.rgb * gain, view.radiance.alpha
    else:
        alpha = view.gbuffer.alpha
        linear = {
            "image": lambda: view.shaded.rgb * gain,
            "diffuse": lambda: view.shaded.diffuse * gain,
            "specular": lambda: view.shaded.specular * gain,
            "irradiance": lambda: view.irradiance * (gain / _WHITE_IRRADIANCE),
            "shadow": lambda: view.shadow,
        }[channel]()
    if channel == "shadow":
        # A share, not light: neither exposed nor toned.
        display = linear.clamp(0.0, 1.0)
        return _bytes(composite_srgb(display, alpha, display.new_ones(3)))
    behind = linear.new_full((3,), 0.0 if look.backdrop == "black" else 1.0)
    if look.backdrop == "environment" and environment is not None:
        seen = environment_background(environment, view.camera)
        behind = display_srgb(seen * gain, look.tone)
    return _bytes(composite_srgb(display_srgb(linear, look.tone), alpha, behind))


def photo_thumbnail(photo: UInt8[Tensor, "height width 3"]) -> Picture:
    """A photograph as small as its frustum is drawn.

    Args:
        photo: sRGB.
    """
    height, width = photo.shape[:2]
    rows = max(1, round(height * _FRUSTUM_WIDTH / width))
    small = functional.interpolate(
        photo.permute(2, 0, 1)[None].float(), size=(rows, _FRUSTUM_WIDTH), mode="area"
    )[0].permute(1, 2, 0)
    return small.round().to(torch.uint8).cpu().numpy()


def backdrop_picture(environment: EnvironmentLight, camera: Camera, look: Look) -> Picture:
    """The environment with nothing before it.

    Args:
        environment: World frame.
        camera: View.
        look: Exposure and tone.
    """
    seen = environment_background(environment, camera)
    return _bytes(display_srgb(seen * 2.0**look.exposure, look.tone))


def seen_photo(
    photo: UInt8[Tensor, "tall broad 3"], taken_by: Camera, camera: Camera
) -> UInt8[Tensor, "height width 3"]:
    """A photograph as another camera at the same place with the same turn sees it.

    Args:
        photo: sRGB, of the size of `taken_by`.
        taken_by: The photograph's camera.
        camera: The other; its lens and size may differ.

    Returns:
        White where the photograph does not reach.
    """
    rays = camera_rays(camera.to("cpu"))
    pixels = rays[..., :2] * taken_by.K[:2, :2].diagonal().cpu() + taken_by.K[:2, 2].cpu()
    size = torch.tensor([taken_by.width, taken_by.height], dtype=torch.float32)
    grid = (2.0 * pixels / size - 1.0)[None]
    values = photo.permute(2, 0, 1)[None].float()
    sampled = functional.grid_sample(
        values, grid, mode="bilinear", padding_mode="border", align_corners=False
    )[0].permute(1, 2, 0)
    is_inside = ((grid[0].abs() <= 1.0).all(-1))[..., None]
    return torch.where(is_inside, sampled, 255.0).round().to(torch.uint8)


def environment_thumbnail(environment: EnvironmentLight, exposure: float) -> Picture:
    """A map as the controls show it, as bright as the scene is.

    Args:
        environment: World frame.
        exposure: Stops.
    """
    shown = _bytes(srgb_from_linear((environment.radiance * 2.0**exposure).clamp(0.0, 1.0)))
    # Recovered maps have few texels, and the controls show pixels as they are.
    times = max(1, _THUMBNAIL_WIDTH // shown.shape[1])
    return shown.repeat(times, axis=0).repeat(times, axis=1)


def _bytes(image_srgb: Float[Tensor, "height width 3"]) -> Picture:
    return (image_srgb.clamp(0.0, 1.0) * 255.0 + 0.5).to(torch.uint8).cpu().numpy()
