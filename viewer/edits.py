"""Which Gaussians has the user chosen, how were they changed, and how is that taken back?"""

import threading
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from splatir.scene.gaussians import PARAMETER_SPACES, GaussianModel, with_sheen

# Materials are logits: 0 and 1 themselves would be infinite.
_MARGIN = 1e-6
_MAX_STEPS = 64

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Selection:
    """Gaussians by the place of their centres, and by their colour.

    Attributes:
        shape: Of the region, along the world's axes; "all" is everywhere.
        centre: World frame.
        size: Lengths of a box, or twice the radii of an ellipsoid, scene units.
        albedo: Only Gaussians with an albedo like this one, linear; None for any.
        tolerance: Largest difference of any channel of albedo that counts as alike.
    """

    shape: Literal["box", "sphere", "all"] = "box"
    centre: Vector = (0.0, 0.0, 0.0)
    size: Vector = (1.0, 1.0, 1.0)
    albedo: Vector | None = None
    tolerance: float = 0.1

    def of(self, model: GaussianModel) -> Bool[Tensor, " n"]:
        """Which Gaussians of a model are chosen.

        Args:
            model: World frame; with materials if albedo matters.
        """
        means = model.means.detach()
        half = means.new_tensor(self.size).clamp_min(1e-9) / 2.0
        offset: Float[Tensor, "n 3"] = (means - means.new_tensor(self.centre)) / half
        if self.shape == "box":
            chosen = (offset.abs() <= 1.0).all(-1)
        elif self.shape == "sphere":
            chosen = offset.norm(dim=-1) <= 1.0
        else:
            chosen = torch.ones_like(means[:, 0], dtype=torch.bool)
        if self.albedo is not None:
            albedo = model.material("albedo").detach()
            off = (albedo - albedo.new_tensor(self.albedo)).abs().amax(-1)
            chosen = chosen & (off <= self.tolerance)
        return chosen


@dataclass(frozen=True)
class Change:
    """New materials; None keeps what is there.

    Attributes:
        albedo: Linear, 0 to 1.
        roughness: 0 to 1.
        metallic: 0 to 1.
        sheen: 0 to 1.
    """

    albedo: Vector | None = None
    roughness: float | None = None
    metallic: float | None = None
    sheen: float | None = None


@dataclass(frozen=True)
class Edited:
    """A state of the Gaussians.

    Attributes:
        model: As they are now.
        geometry: Which set of Gaussians it is; changes when some are hidden.
        log: One sentence for each edit that led here.
    """

    model: GaussianModel
    geometry: int = 0
    log: tuple[str, ...] = field(default=())


class History:
    """States of the Gaussians, the newest last."""

    def __init__(self, model: GaussianModel) -> None:
        # Several people may edit at once.
        self._lock = threading.Lock()
        self._states = [Edited(model)]
        self._next_geometry = 1

    @property
    def now(self) -> Edited:
        """The newest state."""
        return self._states[-1]

    def recolour(self, selection: Selection, change: Change) -> int:
        """Give the chosen Gaussians other materials.

        Args:
            selection: Which.
            change: To what.

        Returns:
            How many were changed.

        Raises:
            ValueError: None was chosen, or nothing is to change.
        """
        if change == Change():
            raise ValueError("choose albedo, roughness, metallic or sheen to be changed.")
        with self._lock:
            return self._recolour(selection, change)

    def _recolour(self, selection: Selection, change: Change) -> int:
        chosen = self._chosen(selection)
        before = self.now.model if change.sheen is None else with_sheen(self.now.model)
        params = {key: value.detach() for key, value in before.params.items()}
        for key in before.material_keys:
            value = getattr(change, key)
            if value is not None:
                raw = PARAMETER_SPACES[key].invert(
                    params[key].new_tensor(value).clamp(_MARGIN, 1.0 - _MARGIN)
                )
                params[key] = params[key].clone()
                params[key][chosen] = raw
        model = GaussianModel(params, before.primitive)
        count = int(chosen.sum())
        self._push(model, self.now.geometry, f"{count} Gaussians in {selection}: {change}")
        return count

    def hide(self, selection: Selection) -> int:
        """Remove the chosen Gaussians from view.

        Args:
            selection: Which.

        Returns:
            How many were hidden.

        Raises:
            ValueError: None was chosen, or all were.
        """
        with self._lock:
            return self._hide(selection)

    def _hide(self, selection: Selection) -> int:
        chosen = self._chosen(selection)
        if bool(chosen.all()):
            raise ValueError("this would hide everything; choose fewer.")
        before = self.now.model
        params = {key: value.detach()[~chosen] for key, value in before.params.items()}
        count = int(chosen.sum())
        self._push(
            GaussianModel(params, before.primitive),
            self._next_geometry,
            f"{count} Gaussians in {selection}: hidden",
        )
        self._next_geometry += 1
        return count

    def undo(self) -> bool:
        """Go back by one edit.

        Returns:
            Whether there was one.
        """
        with self._lock:
            if len(self._states) == 1:
                return False
            self._states.pop()
            return True

    def _chosen(self, selection: Selection) -> Bool[Tensor, " n"]:
        chosen = selection.of(self.now.model)
        if not bool(chosen.any()):
            raise ValueError("no Gaussian is selected; move or enlarge the region.")
        return chosen

    def _push(self, model: GaussianModel, geometry: int, entry: str) -> None:
        self._states.append(Edited(model, geometry, (*self.now.log, entry)))
        if len(self._states) > _MAX_STEPS:
            del self._states[1]
