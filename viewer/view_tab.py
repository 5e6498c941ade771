"""How does a browser choose what is shown of the scene, and read the surface under a click?"""

from collections.abc import Callable
from typing import Any

from viewer.client import Client
from viewer.divider import Divider
from viewer.look import BACKDROPS, DRAWN_BY, TONE_CURVES, Channel, channels_of
from viewer.renderer import Pixel

NONE = "(none)"
_STOPS_PER_KEY = 0.5


class ViewTab:
    """The controls of the tab."""

    def __init__(self, client: Client) -> None:
        """Add the controls to the container that is open.

        Args:
            client: Whose page it is.
        """
        self.client = client
        gui, look, names = client.browser.gui, client.look, self.channels
        self.channel = gui.add_dropdown("Channel", names, initial_value=look.channel)
        self.second = gui.add_dropdown("Beside it", (NONE, *names), initial_value=NONE)
        self.divider = gui.add_slider("Divider", 0.0, 1.0, 0.01, look.divider)
        self.exposure = gui.add_slider("Exposure", -6.0, 6.0, 0.1, look.exposure, hint="Stops")
        self.tone = gui.add_dropdown("Tone curve", TONE_CURVES, initial_value=look.tone)
        self.backdrop = gui.add_dropdown("Background", BACKDROPS, initial_value=look.backdrop)
        self.drawn_by = gui.add_dropdown(
            "Drawn by",
            DRAWN_BY,
            initial_value=look.drawn_by,
            hint="The browser draws splats at its own rate; highlights follow once you stand. "
            "What single splats do not have, the server draws",
        )
        gui.add_markdown("**Surface** (click into the picture)")
        self.picked = gui.add_markdown("nothing picked yet")
        self._handle = Divider(client, self._drag)
        for name in ("channel", "divider", "exposure", "tone", "backdrop", "drawn_by"):
            control = getattr(self, name)
            control.on_update(self._setter(name, control))
        self.second.on_update(lambda _: self._set_second())
        client.browser.scene.on_click()(self._pick)
        client.browser.camera.on_update(lambda _: self._handle.place())

    @property
    def channels(self) -> tuple[Channel, ...]:
        """What can be shown."""
        scene = self.client.page.scene
        return channels_of(scene.model.has_materials, scene.has_photos)

    @property
    def actions(self) -> dict[str, Callable[[], None]]:
        """What keys may do here."""

        def to_channel(name: str) -> Callable[[], None]:
            def show() -> None:
                self.channel.value = name

            return show

        shown = {f"channel {name}": to_channel(name) for name in self.channels}
        return {
            **shown,
            "split": self._toggle_split,
            "drawn_by": self._toggle_drawn_by,
            "brighter": lambda: self._expose(_STOPS_PER_KEY),
            "darker": lambda: self._expose(-_STOPS_PER_KEY),
        }

    def follow_scene(self) -> None:
        """Offer the channels that there are now."""
        names, shown = self.channels, self.client.look.channel
        if self.channel.options != names:
            self.channel.options, self.second.options = names, (NONE, *names)
            self.channel.value = shown

    def _setter(self, name: str, control: Any) -> Callable[[Any], None]:
        def set_look(_: Any) -> None:
            self.client.change_look(**{name: control.value})
            self._handle.place()
            if name in ("channel", "drawn_by"):
                self._say_who_draws()

        return set_look

    def _set_second(self) -> None:
        second = self.second.value
        self.client.change_look(second=None if second == NONE else second)
        self._handle.place()
        self._say_who_draws()

    def _say_who_draws(self) -> None:
        client, look = self.client, self.client.look
        if look.drawn_by == "browser" and not look.is_drawn_by_browser:
            what = f"'{look.channel}'" if look.second is None else "a split view"
            client.page.notify(client.browser, "The server draws this", f"Splats have not {what}.")

    def _drag(self, share: float) -> None:
        self.divider.value = round(share, 3)

    def _toggle_split(self) -> None:
        other = "albedo" if "albedo" in self.channels else "normal"
        self.second.value = other if self.second.value == NONE else NONE

    def _toggle_drawn_by(self) -> None:
        self.drawn_by.value = "server" if self.drawn_by.value == "browser" else "browser"

    def _expose(self, stops: float) -> None:
        self.exposure.value = min(6.0, max(-6.0, self.exposure.value + stops))

    def _pick(self, event: Any) -> None:
        client = self.client
        with client.page.guarded(client.browser, "Nothing read"):
            client.picked = client.pick(*event.screen_pos)
            self.picked.content = describe_pixel(client.picked)
            if client.panels is not None:
                client.panels.edited()


def describe_pixel(pixel: Pixel | None) -> str:
    """The surface at a pixel, as the page says it.

    Args:
        pixel: What was read; None for nothing.
    """
    if pixel is None:
        return "nothing there"

    def numbers(values: tuple[float, ...]) -> str:
        return ", ".join(f"{value:.3f}" for value in values)

    lines = []
    if pixel.albedo is not None:
        lines += [
            f"albedo {numbers(pixel.albedo)} (linear)",
            f"roughness {pixel.roughness:.3f}",
            f"metallic {pixel.metallic:.3f}",
        ]
    if pixel.sheen is not None:
        lines.append(f"sheen {pixel.sheen:.3f}")
    lines += [
        f"normal {numbers(pixel.normal)}",
        f"depth {pixel.depth:.4f}",
        f"position {numbers(pixel.position)}",
        f"alpha {pixel.alpha:.3f}",
    ]
    return "\n".join(f"- {line}" for line in lines)
