"""Everything that changes while training: enough to continue exactly from a checkpoint.

Randomness is drawn from generators seeded by (seed, step, purpose), so there is no random state.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from splatir.optim.densification import GradientStatistics
from splatir.optim.parameters import LearningRates, make_optimizer
from splatir.scene.gaussians import GaussianModel


@dataclass
class TrainState:
    """State between two steps.

    Attributes:
        model: The Gaussians.
        background: Learned background colour (sRGB), or None.
        optimizer: Adam over both.
        statistics: Screen gradients since the last refinement.
        step: Steps done.
        seconds: Time spent in them.
    """

    model: GaussianModel
    background: nn.Parameter | None
    optimizer: torch.optim.Optimizer
    statistics: GradientStatistics
    step: int = 0
    seconds: float = 0.0

    @classmethod
    def start(
        cls, model: GaussianModel, learn_background: bool, rates: LearningRates, extent: float
    ) -> "TrainState":
        """State before the first step.

        Args:
            model: Initial Gaussians, on the training device.
            learn_background: Also optimise a background colour, from mid-grey.
            rates: Learning rates.
            extent: Radius of the scene, scene units.
        """
        device = model.means.device
        background = (
            nn.Parameter(torch.full((3,), 0.5, device=device)) if learn_background else None
        )
        return cls(
            model,
            background,
            make_optimizer(model, background, rates, extent),
            GradientStatistics.zeros(model.num_gaussians, device),
        )

    def to_plain(self) -> dict[str, Any]:
        """Plain tensors and numbers, for a checkpoint."""
        return {
            "params": {key: value.detach() for key, value in self.model.params.items()},
            "primitive": self.model.primitive,
            "background": None if self.background is None else self.background.detach(),
            "optimizer": self.optimizer.state_dict(),
            "gradient_total": self.statistics.total,
            "gradient_count": self.statistics.count,
            "step": self.step,
            "seconds": self.seconds,
        }

    @classmethod
    def from_plain(
        cls, plain: dict[str, Any], rates: LearningRates, extent: float, device: torch.device
    ) -> "TrainState":
        """The state that `to_plain` described, on a device."""
        model = model_from_plain(plain, device)
        state = cls.start(model, plain["background"] is not None, rates, extent)
        if state.background is not None:
            state.background.data.copy_(plain["background"])
        state.optimizer.load_state_dict(plain["optimizer"])
        state.statistics = GradientStatistics(
            plain["gradient_total"].to(device), plain["gradient_count"].to(device)
        )
        state.step, state.seconds = plain["step"], plain["seconds"]
        return state


def model_from_plain(plain: dict[str, Any], device: torch.device) -> GaussianModel:
    """Only the Gaussians of a checkpoint."""
    params: dict[str, Tensor] = {key: value.to(device) for key, value in plain["params"].items()}
    return GaussianModel(params, plain["primitive"])


def generator_for(seed: int, step: int, purpose: int) -> torch.Generator:
    """A CPU generator that depends on nothing but its arguments."""
    # Odd multipliers keep (seed, step, purpose) apart in 64 bits.
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + purpose) % (1 << 63)
    return torch.Generator().manual_seed(mixed)
