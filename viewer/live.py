"""How does a scene that is being made reach the page, and the page's wishes its maker?"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64

from viewer.scene import ViewedScene

# Points of the curves; when there are more, neighbours are averaged.
_MAX_POINTS = 1000
# How often a maker that waits looks whether it may go on, seconds.
_PAUSE_SECONDS = 0.05

Wish = Literal["run", "pause", "step", "stop"]


@dataclass(frozen=True)
class LiveStep:
    """Where the making stands.

    Attributes:
        stage: Its name.
        step: Steps done.
        end: Step at which the stage ends.
        loss: Of the step.
        psnr: Of the step's photo, dB.
        num_gaussians: After the step.
    """

    stage: str
    step: int
    end: int
    loss: float
    psnr: float
    num_gaussians: int


class Live:
    """Between the thread that makes a scene and those that show it.

    The maker only notes numbers, unless somebody looks: then it hands over a copy of the scene
    when one is wanted, and waits when it is told to.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._curve: list[tuple[float, float, float]] = []
        self._pending: list[tuple[float, float, float]] = []
        self._per_point = 1
        self._wish: Wish = "run"
        self._wants_scene = threading.Event()
        self._scene: ViewedScene | None = None
        self.now: LiveStep | None = None

    def after_step(
        self, now: LiveStep, scene: Callable[[], ViewedScene], is_interrupted: Callable[[], bool]
    ) -> bool:
        """Note a step; called by the maker, which waits as long as it is to pause.

        Args:
            now: Where it stands.
            scene: Copies the scene as it is now.
            is_interrupted: Whether the maker has to end for another reason; ends a pause.

        Returns:
            Whether to go on.
        """
        self._note(now)
        self._hand_over(scene)
        with self._lock:
            if self._wish == "step":
                self._wish = "pause"
        while self.wish == "pause" and not is_interrupted():
            self._hand_over(scene)
            threading.Event().wait(_PAUSE_SECONDS)
        return self.wish != "stop"

    @property
    def wish(self) -> Wish:
        """What the maker is to do."""
        with self._lock:
            return self._wish

    def ask(self, wish: Wish) -> None:
        """Tell the maker what to do; a stop is final.

        Args:
            wish: "step" does one step and pauses.
        """
        with self._lock:
            if self._wish != "stop":
                self._wish = wish

    def want_scene(self) -> None:
        """Ask for the scene of the next moment."""
        self._wants_scene.set()

    def take_scene(self) -> ViewedScene | None:
        """The scene that was asked for, once it is there."""
        with self._lock:
            scene, self._scene = self._scene, None
        return scene

    def curves(self) -> tuple[Float64[np.ndarray, " n"], ...]:
        """Steps, losses and PSNRs, each the mean over as many steps."""
        with self._lock:
            points = np.array(self._curve or [(0.0, np.nan, np.nan)])
        return points[:, 0], points[:, 1], points[:, 2]

    def _note(self, now: LiveStep) -> None:
        with self._lock:
            self.now = now
            self._pending.append((float(now.step), now.loss, now.psnr))
            if len(self._pending) < self._per_point:
                return
            step, loss, psnr = np.mean(self._pending, axis=0).tolist()
            self._pending = []
            self._curve.append((step, loss, psnr))
            if len(self._curve) > _MAX_POINTS:
                halved = np.array(self._curve[: len(self._curve) // 2 * 2]).reshape(-1, 2, 3)
                self._curve = [(a, b, c) for a, b, c in halved.mean(1).tolist()]
                self._per_point *= 2

    def _hand_over(self, scene: Callable[[], ViewedScene]) -> None:
        if not self._wants_scene.is_set():
            return
        self._wants_scene.clear()
        found = scene()
        with self._lock:
            self._scene = found
