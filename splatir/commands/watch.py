"""How does a training show itself in the browser, and outlive whatever happens to the page?"""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from tqdm import tqdm

from splatir.commands.view import viewed_scene
from splatir.messages import error_message
from splatir.train.finished import FinishedRun
from splatir.train.observer import TrainingObserver, TrainingProgress

if TYPE_CHECKING:
    from viewer.live import Live
    from viewer.scene import PhotoView, ViewedScene

_HOST = "127.0.0.1"


@contextlib.contextmanager
def watched(is_wanted: bool, port: int) -> Iterator[TrainingObserver | None]:
    """An observer that serves the page of a training, until the context ends.

    Args:
        is_wanted: Whether to watch at all.
        port: Of the page; 0 takes a free one.
    """
    if not is_wanted:
        yield None
        return
    page = TrainingPage(port)
    try:
        yield page
    finally:
        page.close()


class TrainingPage:
    """Serves the page from the first step on; after a fault it lets the training go on alone."""

    def __init__(self, port: int) -> None:
        """Serve nothing yet: there is no scene.

        Args:
            port: Of the page; 0 takes a free one.
        """
        self._port = port
        self._stack = contextlib.ExitStack()
        self._live: Live | None = None
        self._photos: tuple[PhotoView, ...] = ()
        self._is_broken = False
        self.url: str | None = None

    def after_step(self, progress: TrainingProgress) -> bool:
        """Show the step, and do what the page asks for.

        Args:
            progress: Where the training stands.
        """
        if self._is_broken:
            return True
        try:
            return self._show(progress)
        # Whatever is wrong with the page, the training is worth more.
        except Exception as error:
            self._is_broken = True
            tqdm.write(
                f"warning: the page of this training is lost, training goes on: "
                f"{error_message(error)}",
                file=sys.stderr,
            )
            self.close()
            return True

    def close(self) -> None:
        """Serve no more."""
        with contextlib.suppress(Exception):
            self._stack.close()

    def _show(self, progress: TrainingProgress) -> bool:
        from viewer.live import LiveStep

        if self._live is None:
            self._live = self._start(progress)
        now = LiveStep(
            progress.stage,
            progress.step,
            progress.end,
            progress.loss,
            progress.psnr,
            progress.num_gaussians,
        )
        return self._live.after_step(
            now, lambda: self._scene(progress.moment()), progress.interrupted.is_set
        )

    def _start(self, progress: TrainingProgress) -> "Live":
        from viewer.live import Live
        from viewer.server import serving

        live = Live()
        first = viewed_scene(progress.moment())
        self._photos = first.photos
        scene = replace(first, save=None)
        server, _ = self._stack.enter_context(serving(scene, _HOST, self._port, live=live))
        self.url = f"http://localhost:{server.get_port()}"
        tqdm.write(f"page     {self.url}  (of this training; closes with it)")
        return live

    def _scene(self, moment: FinishedRun) -> "ViewedScene":
        """A state of the training; there is nothing to save of it."""
        return replace(viewed_scene(moment, photos=self._photos), save=None)
