"""Everything that changes while training: enough to continue exactly from a checkpoint.

Randomness is drawn from generators seeded by (seed, step, purpose), so there is no random state.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from splatir.optim.densification import GradientStatistics
from splatir.optim.parameters import LearningRates, make_optimizer
from splatir.scene.corrections import NUM_CORRECTIONS
from splatir.scene.gaussians import (
    GEOMETRY_KEYS,
    MATERIAL_KEYS,
    PARAMETER_SPACES,
    SHEEN,
    GaussianModel,
    Gaussians,
    Primitive,
)
from splatir.storage.checkpoint import CheckpointError
from splatir.transport.lit import Bounced

# Purposes of random draws, so that no two share a generator.
VIEW_ORDER, BACKGROUND, REFINEMENT, NOISE, PAINTS = range(5)


class _Beside(NamedTuple):
    """What is learned beside a model; `TrainState` says what each is."""

    background: nn.Parameter | None
    exposures: nn.Parameter | None
    corrections: nn.Parameter | None
    environment: nn.Parameter | None
    surroundings: GaussianModel | None = None


@dataclass
class TrainState:
    """State between two steps.

    Attributes:
        model: The Gaussians.
        background: Learned background colour (sRGB), or None.
        exposures: Log gains of each training photo [views,3], linear light, mean 0, or None.
        corrections: Of each training camera [views,7], see `scene.corrections`, or None. Optimised
            in the radiance stage, a constant after it.
        environment: Log radiance of the light [height,width,3], or None before the materials
            stage. Not optimised (no gradient) where the light is known.
        surroundings: Radiance of what stands around the object that `model` is, a constant; None
            while the model is everything that photos show.
        optimizer: Adam over what the present stage moves.
        statistics: Screen gradients since the last refinement.
        step: Steps done.
        seconds: Time spent in them.
        traced: The Gaussians as they were when transport was last traced, constants, or None.
        bounced: Light between Gaussians as the next step of the materials stage takes it; None to
            find it anew.
    """

    model: GaussianModel
    background: nn.Parameter | None
    exposures: nn.Parameter | None
    corrections: nn.Parameter | None
    environment: nn.Parameter | None
    surroundings: GaussianModel | None
    optimizer: torch.optim.Optimizer
    statistics: GradientStatistics
    step: int = 0
    seconds: float = 0.0
    traced: Gaussians | None = None
    bounced: Bounced | None = None

    @property
    def learns_exposures(self) -> bool:
        """Whether gains of photos are sought; else those there are were taken out of the photos."""
        return self.exposures is not None and self.exposures.requires_grad

    @classmethod
    def start(
        cls,
        model: GaussianModel,
        learn_background: bool,
        rates: LearningRates,
        extent: float,
        log_gains: Float[Tensor, "views 3"] | None = None,
        num_corrections: int = 0,
    ) -> "TrainState":
        """State before the first step.

        Args:
            model: Initial Gaussians, on the training device.
            learn_background: Also optimise a background colour, from mid-grey.
            rates: Learning rates.
            extent: Radius of the scene, scene units.
            log_gains: Of the photos whose exposure is also optimised, at the start; None for none.
            num_corrections: Cameras that are also optimised, from 0; 0 for none.
        """
        device = model.means.device
        background = (
            nn.Parameter(torch.full((3,), 0.5, device=device)) if learn_background else None
        )
        exposures = None if log_gains is None else nn.Parameter(log_gains.to(device).clone())
        corrections = None
        if num_corrections:
            corrections = nn.Parameter(torch.zeros(num_corrections, NUM_CORRECTIONS, device=device))
        return cls._of(model, _Beside(background, exposures, corrections, None), rates, extent)

    @classmethod
    def _of(
        cls,
        model: GaussianModel,
        beside: "_Beside",
        rates: LearningRates,
        extent: float,
    ) -> "TrainState":
        """The state of a model and of what is learned beside it."""
        parameters = _trained_parameters(model, beside)
        for key, value in model.params.items():
            value.requires_grad_(key in parameters)
        if beside.corrections is not None:
            beside.corrections.requires_grad_("cameras" in parameters)
        if beside.exposures is not None:
            beside.exposures.requires_grad_("exposures" in parameters)
        if beside.background is not None:
            beside.background.requires_grad_("background" in parameters)
        return cls(
            model,
            *beside,
            make_optimizer(parameters, rates, extent),
            GradientStatistics.zeros(model.num_gaussians, model.means.device),
        )

    @property
    def log_radiance(self) -> Float[Tensor, "height width 3"]:
        """Natural logarithm of the light, as a constant that shares its memory."""
        assert self.environment is not None
        return self.environment.detach()

    @property
    def radiance(self) -> Float[Tensor, "height width 3"]:
        """The learned light, linear."""
        assert self.environment is not None
        return self.environment.exp()

    def separate(
        self,
        model: GaussianModel,
        surroundings: GaussianModel,
        rates: LearningRates,
        extent: float,
    ) -> "TrainState":
        """The state at the start of the object's own radiance stage.

        Args:
            model: First Gaussians of the object.
            surroundings: What else the photos show.
            rates: Learning rates.
            extent: Radius of the scene, scene units.
        """
        surroundings.requires_grad_(False)
        beside = _Beside(self.background, self.exposures, self.corrections, None, surroundings)
        state = TrainState._of(model, beside, rates, extent)
        state.step, state.seconds = self.step, self.seconds
        return state

    def add_materials(
        self,
        materials: dict[str, Tensor],
        environment: Tensor,
        learn_light: bool,
        rates: LearningRates,
    ) -> "TrainState":
        """The state at the start of the materials stage.

        Args:
            materials: Activated values by key.
            environment: Log radiance of the light.
            learn_light: Whether it is optimised.
            rates: Learning rates.
        """
        params = {key: value.detach() for key, value in self.model.params.items()}
        for key in MATERIAL_KEYS:
            params[key] = PARAMETER_SPACES[key].invert(materials[key])
        model = GaussianModel(params, self.model.primitive)
        light = nn.Parameter(environment.detach().clone(), requires_grad=learn_light)
        beside = _Beside(
            self.background, self.exposures, self.corrections, light, self.surroundings
        )
        state = TrainState._of(model, beside, rates, 1.0)
        state.step, state.seconds = self.step, self.seconds
        return state

    def add_sheen(self, sheen: Float[Tensor, " n"], rates: LearningRates) -> None:
        """Give the model a sheen, which is optimised from there on.

        Args:
            sheen: Its logits.
            rates: Learning rates.
        """
        parameter = nn.Parameter(sheen)
        self.model.params[SHEEN] = parameter
        self.optimizer.add_param_group({"params": [parameter], "name": SHEEN, "lr": rates.sheen})

    def to_plain(self) -> dict[str, Any]:
        """Plain tensors and numbers, for a checkpoint."""
        return {
            **_plain(self.model),
            "background": None if self.background is None else self.background.detach(),
            "exposures": None if self.exposures is None else self.exposures.detach(),
            "corrections": None if self.corrections is None else self.corrections.detach(),
            "environment": None if self.environment is None else self.environment.detach(),
            "surroundings": None if self.surroundings is None else _plain(self.surroundings),
            "learns_light": self.environment is not None and self.environment.requires_grad,
            "optimizer": self.optimizer.state_dict(),
            "gradient_total": self.statistics.total,
            "gradient_count": self.statistics.count,
            "step": self.step,
            "seconds": self.seconds,
            "traced": None
            if self.traced is None
            else {key: getattr(self.traced, key) for key in GEOMETRY_KEYS},
            "bounced": None
            if self.bounced is None
            else torch.stack([self.bounced.irradiance, self.bounced.radiance]),
        }

    @classmethod
    def from_plain(
        cls, plain: dict[str, Any], rates: LearningRates, extent: float, device: torch.device
    ) -> "TrainState":
        """The state that `to_plain` described, on a device.

        Raises:
            CheckpointError: The optimiser's part does not fit the rest.
        """
        model = model_from_plain(plain, device)
        background, exposures, corrections, environment = (
            None if plain.get(key) is None else nn.Parameter(plain[key].to(device))
            for key in ("background", "exposures", "corrections", "environment")
        )
        surroundings = surroundings_from_plain(plain, device)
        if surroundings is not None:
            surroundings.requires_grad_(False)
        beside = _Beside(background, exposures, corrections, environment, surroundings)
        if beside.environment is not None:
            beside.environment.requires_grad_(plain["learns_light"])
        state = cls._of(model, beside, rates, extent)
        try:
            state.optimizer.load_state_dict(plain["optimizer"])
        except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"its optimiser state is broken: {error!r}.") from error
        state.statistics = GradientStatistics(
            plain["gradient_total"].to(device), plain["gradient_count"].to(device)
        )
        state.step, state.seconds = plain["step"], plain["seconds"]
        if plain["traced"] is not None:
            traced = {key: value.to(device) for key, value in plain["traced"].items()}
            state.traced = Gaussians(**traced, primitive=model.primitive)
        if plain["bounced"] is not None:
            state.bounced = Bounced(*plain["bounced"].to(device).unbind(0))
        return state


def _trained_parameters(model: GaussianModel, beside: _Beside) -> dict[str, nn.Parameter]:
    """What the stage that a model is in moves, by key."""
    if not model.has_materials:
        parameters = dict(model.params.items())
        if beside.surroundings is not None:
            return parameters
        others = {
            "background": beside.background,
            "exposures": beside.exposures,
            "cameras": beside.corrections,
        }
        return {**parameters, **{key: p for key, p in others.items() if p is not None}}
    parameters = {key: value for key, value in model.params.items() if key != SHEEN}
    if beside.environment is not None and beside.environment.requires_grad:
        parameters["environment"] = beside.environment
    # Cloth is found on the way, after all others have their group.
    if SHEEN in model.params:
        parameters[SHEEN] = model.params[SHEEN]
    return parameters


# What `TrainState.to_plain` gives, by key.
_TYPES: dict[str, type | tuple[type, ...]] = {
    "params": dict,
    "primitive": str,
    "background": (Tensor, type(None)),
    "exposures": (Tensor, type(None)),
    "corrections": (Tensor, type(None)),
    "environment": (Tensor, type(None)),
    "surroundings": (dict, type(None)),
    "learns_light": bool,
    "optimizer": dict,
    "gradient_total": Tensor,
    "gradient_count": Tensor,
    "step": int,
    "seconds": float,
    "traced": (dict, type(None)),
    "bounced": (Tensor, type(None)),
}


def check_contents(contents: dict[str, Any], path: Path) -> None:
    """Check that a checkpoint holds a training.

    Args:
        contents: As read.
        path: Where from, for the message.

    Raises:
        CheckpointError: Something is missing or of another kind.
    """
    state, frame = contents.get("state"), contents.get("S_world_input")
    problem = None
    if not isinstance(state, dict):
        problem = "it has no 'state'"
    elif not isinstance(frame, Tensor) or frame.shape != (4, 4):
        problem = "it has no 4x4 'S_world_input'"
    else:
        wrong = [key for key, kind in _TYPES.items() if not isinstance(state.get(key), kind)]
        nullable = ("background", "environment", "bounced", "surroundings", "traced")
        wrong += [key for key in nullable if key not in state]
        if wrong:
            problem = f"its state lacks {wrong}, or holds another kind of value"
        elif state["primitive"] not in get_args(Primitive):
            problem = f"its primitive is {state['primitive']!r}"
        elif not all(isinstance(value, Tensor) for value in state["params"].values()):
            problem = "its parameters are not all tensors"
        else:
            problem = _model_problem(state)
    if problem is not None:
        raise CheckpointError(
            f"{path} is a checkpoint but not of a training: {problem}. Give the folder of a run "
            "that `splatir train` made."
        )


def _model_problem(state: dict[str, Any]) -> str | None:
    """What is wrong with the shapes of a state whose keys and types are right."""
    try:
        model_from_plain(state, torch.device("cpu"))
        surroundings_from_plain(state, torch.device("cpu"))
    except (ValueError, LookupError) as error:
        return str(error)
    background = state["background"]
    if background is not None and background.shape != (3,):
        return f"its background has shape {tuple(background.shape)}, not (3,)"
    bounced = state["bounced"]
    traced, params = state["traced"], state["params"]
    if traced is not None:
        shapes = {key: getattr(traced.get(key), "shape", None) for key in GEOMETRY_KEYS}
        if shapes != {key: params[key].shape for key in GEOMETRY_KEYS}:
            return f"its traced Gaussians have the shapes {shapes}"
    if bounced is not None and bounced.shape != (2, len(state["params"]["means"]), 3):
        return f"its bounced light has shape {tuple(bounced.shape)}"
    exposures = state.get("exposures")
    if exposures is not None and (exposures.ndim != 2 or exposures.shape[1] != 3):
        return f"its exposures have shape {tuple(exposures.shape)}, not (photos, 3)"
    corrections = state.get("corrections")
    if corrections is not None and (
        corrections.ndim != 2 or corrections.shape[1] != NUM_CORRECTIONS
    ):
        return f"its corrections have shape {tuple(corrections.shape)}, not (photos, 7)"
    environment = state["environment"]
    if ("albedo" in state["params"]) != (environment is not None):
        return "it has materials without an environment, or one without materials"
    if environment is not None and (environment.ndim != 3 or environment.shape[2] != 3):
        return f"its environment has shape {tuple(environment.shape)}, not (height, width, 3)"
    return None


def model_from_plain(plain: dict[str, Any], device: torch.device) -> GaussianModel:
    """Only the Gaussians of a checkpoint."""
    params: dict[str, Tensor] = {key: value.to(device) for key, value in plain["params"].items()}
    return GaussianModel(params, plain["primitive"])


def surroundings_from_plain(plain: dict[str, Any], device: torch.device) -> GaussianModel | None:
    """Only what stands around the object of a checkpoint, if that is apart."""
    surroundings = plain["surroundings"]
    return None if surroundings is None else model_from_plain(surroundings, device)


def _plain(model: GaussianModel) -> dict[str, Any]:
    params = {key: value.detach() for key, value in model.params.items()}
    return {"params": params, "primitive": model.primitive}


def generator_for(seed: int, step: int, purpose: int) -> torch.Generator:
    """A CPU generator that depends on nothing but its arguments."""
    # Odd multipliers keep (seed, step, purpose) apart in 64 bits.
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + purpose) % (1 << 63)
    return torch.Generator().manual_seed(mixed)
