"""How parameters move: one optimiser group per key, its learning rate, and row surgery.

Densification adds, removes and rewrites Gaussians; `gather_rows` is the one place where parameters
and their optimiser state change length together.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from splatir.scene.gaussians import NO_SHEEN, SHEEN, GaussianModel
from splatir.settings import Settings, check_range

# Logits below belong to what has no sheen.
_HAS_SHEEN = -10.0


@dataclass(frozen=True)
class LearningRates(Settings):
    """Adam step sizes by parameter.

    Attributes:
        means: Of the centres at the start, in scene extents per step.
        means_final: The same at the last step; log-linear in between (Kerbl et al. 2023).
        quats: Of raw quaternions.
        scales: Of log scales.
        opacities: Of opacity logits.
        sh0: Of the degree-0 coefficient.
        shN: Of all higher ones.
        background: Of a learned background colour.
        exposures: Of each photo's log gains, linear.
        cameras: Of the corrections of each photo's camera, at the start of the stage.
        cameras_final: The same at its last step; log-linear in between.
        albedo: Of albedo logits.
        roughness: Of roughness logits.
        metallic: Of metallic logits.
        sheen: Of sheen logits.
        environment: Of the log radiance of the environment; well above albedo's, or albedo takes up
            the shadows before light explains them.
    """

    means: float = 1.6e-4
    means_final: float = 1.6e-6
    quats: float = 2e-3
    scales: float = 5e-3
    opacities: float = 5e-2
    sh0: float = 5e-3
    shN: float = 2.5e-4
    background: float = 1e-2
    exposures: float = 5e-3
    cameras: float = 2e-4
    cameras_final: float = 1e-5
    albedo: float = 5e-2
    roughness: float = 0.1
    metallic: float = 0.1
    sheen: float = 0.1
    environment: float = 0.125

    def __post_init__(self) -> None:
        """Refuse rates that are no step sizes.

        Raises:
            SettingsError: A value out of range.
        """
        ends = "means means_final cameras cameras_final"
        check_range(self, ends, 0, open_ends=True, group="rates")
        names = "quats scales opacities sh0 shN background exposures"
        check_range(self, names, 0, group="rates")
        check_range(self, "albedo roughness metallic sheen environment", 0, group="rates")

    def of_means(self, progress: float, extent: float) -> float:
        """Step size of the centres in scene units.

        Args:
            progress: Part of the training that is done, in [0, 1].
            extent: Radius of the scene, scene units.
        """
        return extent * _between(self.means, self.means_final, progress)

    def initial(self, key: str, extent: float) -> float:
        """Step size of a parameter at the start, scene units where it is a place.

        Args:
            key: Of the parameter.
            extent: Radius of the scene, scene units.
        """
        return self.of_means(0.0, extent) if key == "means" else float(getattr(self, key))

    def of_cameras(self, progress: float) -> float:
        """Step size of the corrections of cameras.

        Args:
            progress: Part of the stage that is done, in [0, 1].
        """
        return _between(self.cameras, self.cameras_final, progress)


def _between(start: float, end: float, progress: float) -> float:
    return start * (end / start) ** min(max(progress, 0.0), 1.0)


def make_optimizer(
    parameters: Mapping[str, nn.Parameter], rates: LearningRates, extent: float
) -> torch.optim.Optimizer:
    """Adam, one named group per parameter.

    Args:
        parameters: By key, as in `LearningRates`.
        rates: Step sizes.
        extent: Radius of the scene, scene units.
    """
    groups = [
        {"params": [parameter], "name": key, "lr": rates.initial(key, extent)}
        for key, parameter in parameters.items()
    ]
    # eps as in Kerbl et al. 2023: gradients of single splats are far below Adam's default 1e-8.
    return torch.optim.Adam(groups, eps=1e-15, fused=True)


def group(optimizer: torch.optim.Optimizer, name: str) -> dict:
    """The parameter group of that name."""
    return next(g for g in optimizer.param_groups if g["name"] == name)


def forget_moments(optimizer: torch.optim.Optimizer, keys: Iterable[str]) -> None:
    """Drop what the optimiser knows of parameters whose values have jumped.

    Args:
        optimizer: Its groups named like the parameters.
        keys: Of the parameters.
    """
    for key in keys:
        for parameter in group(optimizer, key)["params"]:
            optimizer.state.pop(parameter, None)


@torch.no_grad()
def gather_rows(
    model: GaussianModel,
    optimizer: torch.optim.Optimizer,
    source: Int[Tensor, " m"],
    is_fresh: Bool[Tensor, " m"],
    changed: dict[str, Tensor] | None = None,
) -> None:
    """Replace all Gaussians: new row i is a copy of old row `source[i]`.

    Removing, duplicating, splitting and relocating are all of this form.

    Args:
        model: Changed in place.
        optimizer: Its groups named like the model's keys follow; Adam moments of fresh rows are 0.
        source: Old row of each new one.
        is_fresh: New rows whose moments must not be inherited.
        changed: Raw values that replace the copied ones, by key, all M rows.
    """
    changed = changed or {}
    for key, old in list(model.params.items()):
        values = changed[key] if key in changed else old[source]
        new = nn.Parameter(values.detach().contiguous())
        model.params[key] = new
        parameter_group = group(optimizer, key)
        state = optimizer.state.pop(old, {})
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == old.shape:
                moved = value[source]
                moved[is_fresh] = 0.0
                state[name] = moved
        if state:
            optimizer.state[new] = state
        parameter_group["params"] = [new]


@torch.no_grad()
def keep_flat(model: GaussianModel, thickness: float) -> None:
    """Set the third scale of every Gaussian: it stays a disc whose axis is the surface's normal.

    Args:
        model: Changed in place.
        thickness: Third standard deviation, scene units.
    """
    model.params["scales"][:, 2] = math.log(thickness)


@torch.no_grad()
def keep_plain(model: GaussianModel) -> None:
    """Leave what is no cloth without sheen, wherever the optimiser moved it.

    Args:
        model: Changed in place.
    """
    if SHEEN in model.params:
        raw = model.params[SHEEN]
        raw[raw < _HAS_SHEEN] = NO_SHEEN
