"""How does a browser watch a scene that is being trained, and tell the training to wait?"""

import time
from collections.abc import Callable

from viewer.client import Client
from viewer.live import Live, Wish

_CURVE_HEIGHT = 150
# The curves are sent no more often than this, seconds.
_PLOT_SECONDS = 1.0


class TrainTab:
    """The controls of the tab."""

    def __init__(self, client: Client, live: Live) -> None:
        """Add the controls to the container that is open.

        Args:
            client: Whose page it is.
            live: The training.
        """
        self.client, self.live = client, live
        gui = client.browser.gui
        self.status = gui.add_markdown("")
        self.progress = gui.add_progress_bar(0.0)
        steps, loss, psnr = live.curves()
        self.loss = gui.add_uplot(
            (steps, loss),
            ({"label": "step"}, {"label": "loss", "stroke": "#c2410c", "width": 1.5}),
            scales=_SCALES,
            legend={"show": False},
            title="Loss",
            height=_CURVE_HEIGHT,
        )
        self.psnr = gui.add_uplot(
            (steps, psnr),
            ({"label": "step"}, {"label": "PSNR", "stroke": "#1d4ed8", "width": 1.5}),
            scales=_SCALES,
            legend={"show": False},
            title="PSNR of the training photos, dB",
            height=_CURVE_HEIGHT,
        )
        self.orders = gui.add_button_group(
            "Training",
            tuple(_ORDERS),
            hint="Stop writes a checkpoint, from which splatir train --resume goes on",
        )
        self.follows = gui.add_checkbox("Follow", True, hint="Show the scene of the moment")
        self.every = gui.add_slider("Every", 1, 60, 1, 3, hint="Seconds between two of its states")
        self._plotted_at = 0.0
        self.orders.on_click(lambda _: self._ask(_ORDERS[self.orders.value]))
        self.follow()

    @property
    def actions(self) -> dict[str, Callable[[], None]]:
        """What keys may do here."""
        return {"pause": self._toggle}

    def follow(self) -> None:
        """Show where the training stands."""
        now = self.live.now
        if now is None:
            return
        wish = self.live.wish
        state = {"run": "training", "stop": "stopping"}.get(wish, "paused")
        status = (
            f"**{now.stage}**, step {now.step:,} of {now.end:,}: {state}  \n"
            f"loss {now.loss:.4f}, {now.psnr:.2f} dB, {now.num_gaussians:,} Gaussians"
        )
        if self.status.content != status:
            self.status.content = status
            self.progress.value = 100.0 * min(1.0, now.step / max(1, now.end))
        if time.monotonic() - self._plotted_at >= _PLOT_SECONDS:
            self._plotted_at = time.monotonic()
            steps, loss, psnr = self.live.curves()
            self.loss.data, self.psnr.data = (steps, loss), (steps, psnr)

    def _toggle(self) -> None:
        self._ask("pause" if self.live.wish == "run" else "run")

    def _ask(self, wish: Wish) -> None:
        self.live.ask(wish)
        self.follow()


_ORDERS: dict[str, Wish] = {"pause": "pause", "one step": "step", "go on": "run", "stop": "stop"}
# Steps are no dates, which is what the axis shows by default.
_SCALES = {"x": {"time": False}}
