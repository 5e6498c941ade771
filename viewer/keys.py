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
    Key("B", "split", "second channel on or off"),
    Key("V", "drawn_by", "server or browser draws"),
    Key("pageup", "brighter", "half a stop brighter"),
    Key("pagedown", "darker", "half a stop darker"),
    Key("L", "shadows", "shadows on or off"),
    Key("F", "frustums", "cameras shown or not"),
    Key("N", "next_photo", "next photograph's camera"),
    Key("P", "previous_photo", "previous photograph's camera"),
    Key("M", "compare", "beside the photograph or not"),
    Key("R", "selection", "selection of edits shown or not"),
    Key("Z", "undo", "undo the last edit"),
    Key("space", "pause", "pause training or go on"),
)
_MOUSE = """
**Mouse** Drag: turn. Right drag: move sideways. Wheel: closer, farther. Click: read the surface.
White ball of a split view: drag the divider.
"""
_MORE = """
What you see and its light are yours alone; edits are everybody's. While the camera moves, the
picture is coarse and reflections lag.
"""


class Keys:
    """The keys of one browser, and what its help says of them."""

    def __init__(self, gui: Any) -> None:
        """Know no keys yet.

        Args:
            gui: Of the browser.
        """
        self._gui = gui
        self._known: set[str] = set()

    def add(self, actions: dict[str, Callable[[], None]], channels: tuple[Channel, ...]) -> None:
        """Register the keys whose actions there are, but for those that are known.

        Args:
            actions: By name; "channel NAME" for each channel.
            channels: That can be shown.
        """
        shown = [Key(digit, f"channel {name}", f"show {name}") for digit, name in _digits(channels)]
        for key in (*shown, *KEYS):
            if key.action in actions and key.key not in self._known:
                self._known.add(key.key)
                command = self._gui.add_command(key.label.capitalize(), hotkey=key.key)
                command.on_trigger(_trigger(actions[key.action]))


def _trigger(action: Callable[[], None]) -> Callable[[Any], None]:
    return lambda _: action()


def _digits(channels: tuple[Channel, ...]) -> list[tuple[str, Channel]]:
    pairs = zip("1234567890", DIGIT_CHANNELS, strict=True)
    return [(digit, channel) for digit, channel in pairs if channel in channels]


def help_text(actions: dict[str, Callable[[], None]], channels: tuple[Channel, ...]) -> str:
    """What the help tab says.

    Args:
        actions: That there are.
        channels: That can be shown.
    """
    digits = ", ".join(f"**{digit}** {channel}" for digit, channel in _digits(channels))
    lines = [f"| **{_name(key.key)}** | {key.label} |" for key in KEYS if key.action in actions]
    table = "\n".join(["| Key | |", "|---|---|", *lines])
    moves = "**W A S D** move, **Q E** down and up, **arrows** turn."
    return f"{_MOUSE}\n**Keys** {moves} Channels: {digits}.\n\n{table}\n{_MORE}"


def _name(key: str) -> str:
    return {"pageup": "PgUp", "pagedown": "PgDn", "space": "Space"}.get(key, key)
