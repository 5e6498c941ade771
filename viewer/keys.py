"""Which keys does the page know, and what does its help say?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from viewer.look import Channel

# In the order of the digits 1 to 9 and 0.
DIGIT_CHANNELS: tuple[Channel, ...] = (
    "image",
    "radiance",
    "albedo",
    "roughness",
    "metallic",
    "normal",
    "depth",
    "irradiance",
    "shadow",
    "error",
)


@dataclass(frozen=True)
class Key:
    """A key and what it does.

    Attributes:
        key: As viser names it.
        action: Which of the actions that the controls offer.
        label: For people.
    """

    key: str
    action: str
    label: str


KEYS = (
    Key("B", "split", "second channel beside the first, on or off"),
    Key("V", "drawn_by", "drawn by the server or by the browser"),
    Key("pageup", "brighter", "half a stop brighter"),
    Key("pagedown", "darker", "half a stop darker"),
    Key("L", "shadows", "shadows and bounced light, on or off"),
    Key("F", "frustums", "cameras of the photographs, shown or not"),
    Key("N", "next_photo", "through the camera of the next photograph"),
    Key("P", "previous_photo", "through that of the one before"),
    Key("M", "compare", "beside the photograph, on or off"),
    Key("R", "region", "region of the edits, shown or not"),
    Key("Z", "undo", "take the last edit back"),
    Key("space", "pause", "pause training, or go on"),
)
_MOUSE = """
**Mouse** left drag: turn. Right drag: move sideways. Wheel: closer, farther.
Click: read the surface there. Drag the white ball in a split view: move the divider.
"""
_MORE = """
**Tabs** *View*: what is shown. *Light*: environment, lamp, sun. *Cameras*: look through a
photograph's camera and compare. *Edit*: change or hide what lies in a region. *Export*: files of
what you see. What you see and how it is lit is yours alone; edits are everybody's.

While the camera moves the picture is coarse and reflections lag; both are mended when it stands.
"""


def add_keys(
    gui: Any, actions: dict[str, Callable[[], None]], channels: tuple[Channel, ...]
) -> None:
    """Register the keys whose actions there are.

    Args:
        gui: Of one browser.
        actions: By name; "channel NAME" for each channel.
        channels: That can be shown.
    """
    for digit, channel in zip("1234567890", DIGIT_CHANNELS, strict=True):
        if channel in channels:
            _add(gui, f"Show {channel}", digit, actions[f"channel {channel}"])
    for key in KEYS:
        if key.action in actions:
            _add(gui, key.label.capitalize(), key.key, actions[key.action])


def _add(gui: Any, label: str, key: str, action: Callable[[], None]) -> None:
    command = gui.add_command(label, hotkey=key)
    command.on_trigger(lambda _: action())


def help_text(actions: dict[str, Callable[[], None]], channels: tuple[Channel, ...]) -> str:
    """What the help tab says.

    Args:
        actions: That there are.
        channels: That can be shown.
    """
    digits = ", ".join(
        f"{digit} {channel}"
        for digit, channel in zip("1234567890", DIGIT_CHANNELS, strict=True)
        if channel in channels
    )
    lines = [f"| {_name(key.key)} | {key.label} |" for key in KEYS if key.action in actions]
    table = "\n".join(["| Key | |", "|---|---|", *lines])
    moves = "**W A S D** move, **Q E** down and up, **arrows** turn."
    return f"{_MOUSE}\n**Keys** {moves}\n\nChannels: {digits}.\n\n{table}\n{_MORE}"


def _name(key: str) -> str:
    return {"pageup": "PgUp", "pagedown": "PgDn", "space": "Space"}.get(key, key)
