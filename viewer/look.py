"""What does the user want to see of the scene, apart from where the camera is?"""

from dataclasses import dataclass
from typing import Literal, get_args

from splatir.render.tone import ToneCurve

Channel = Literal[
    "image",
    "radiance",
    "albedo",
    "roughness",
    "metallic",
    "normal",
    "depth",
    "alpha",
    "diffuse",
    "specular",
    "irradiance",
    "shadow",
    "photo",
    "error",
]
Backdrop = Literal["white", "black", "environment"]
# Who makes the picture: this program, or the browser from splats that it was sent.
DrawnBy = Literal["server", "browser"]

CHANNELS: tuple[Channel, ...] = get_args(Channel)
DRAWN_BY: tuple[DrawnBy, ...] = get_args(DrawnBy)
BACKDROPS: tuple[Backdrop, ...] = get_args(Backdrop)
TONE_CURVES: tuple[ToneCurve, ...] = get_args(ToneCurve)
# What a run without materials can show.
_RADIANCE_CHANNELS = ("radiance", "normal", "depth", "alpha", "photo", "error")
# Compare a view with a photograph, so they exist only where there are photographs.
_PHOTO_CHANNELS = ("photo", "error")
# What each Gaussian has by itself, so that the browser can draw it.
BROWSER_CHANNELS: tuple[Channel, ...] = (
    "image",
    "radiance",
    "albedo",
    "roughness",
    "metallic",
    "normal",
    "diffuse",
    "specular",
)
# These need the light.
LIT_CHANNELS = ("image", "diffuse", "specular", "irradiance", "shadow", "error")


@dataclass(frozen=True)
class Look:
    """How a view becomes a picture.

    Attributes:
        channel: What is shown; left of the divider if there is a second one.
        second: What is shown right of the divider, or None.
        divider: Share of the width that is left of it, 0 to 1.
        exposure: Stops that light is brighter by.
        tone: From linear to display.
        backdrop: Behind the scene.
        drawn_by: "server" sends pictures; "browser" draws splats itself where it can.
    """

    channel: Channel = "image"
    second: Channel | None = None
    divider: float = 0.5
    exposure: float = 0.0
    tone: ToneCurve = "srgb"
    backdrop: Backdrop = "white"
    drawn_by: DrawnBy = "server"

    @property
    def channels(self) -> tuple[Channel, ...]:
        """What has to be drawn."""
        return (self.channel,) if self.second is None else (self.channel, self.second)

    @property
    def is_drawn_by_browser(self) -> bool:
        """Whether splats are drawn: as wished, and of one channel that they have by themselves."""
        is_possible = self.second is None and self.channel in BROWSER_CHANNELS
        return self.drawn_by == "browser" and is_possible

    @property
    def needs_light(self) -> bool:
        """Whether any of it is shaded."""
        return any(channel in LIT_CHANNELS for channel in self.channels)


def channels_of(has_materials: bool, has_photos: bool) -> tuple[Channel, ...]:
    """What a run can show.

    Args:
        has_materials: Whether it can be shaded.
        has_photos: Whether its photographs are at hand.
    """
    return tuple(
        channel
        for channel in CHANNELS
        if (has_materials or channel in _RADIANCE_CHANNELS)
        and (has_photos or channel not in _PHOTO_CHANNELS)
    )
