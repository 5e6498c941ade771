"""Which changes of material does a user ask for, and what does the model look like with them?"""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from splatir.maths.frames import invert_similarity, transform_points
from splatir.scene.gaussians import PARAMETER_SPACES, SHEEN, GaussianModel, with_sheen

_COMPONENTS = {"albedo": 3, "roughness": 1, "metallic": 1, SHEEN: 1}
# Materials are logits: 0 and 1 themselves would be infinite.
_MARGIN = 1e-6


@dataclass(frozen=True)
class MaterialEdit:
    """A change of the materials of all Gaussians or of those in a box.

    Attributes:
        values: New materials by key: albedo (linear, three values), roughness, metallic, sheen, in
            [0, 1].
        tint: Multiplies albedo (linear, at least 0; results are clipped at 1), after `values`.
        box: Only Gaussians with centres in this box change: xmin, ymin, zmin, xmax, ymax, zmax in
            the input frame. None for all.
    """

    values: tuple[tuple[str, tuple[float, ...]], ...] = ()
    tint: tuple[float, ...] | None = None
    box: tuple[float, ...] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing would change."""
        return not self.values and self.tint is None


def parse_edit(settings: Sequence[str], tint: str | None, box: str | None) -> MaterialEdit:
    """Read a change as the command line gives it.

    Args:
        settings: Words such as "roughness=0.2" or "albedo=0.8,0.1,0.1".
        tint: "r,g,b", or None.
        box: "xmin,ymin,zmin,xmax,ymax,zmax", or None.

    Raises:
        ValueError: An unknown key (with the closest known one), a wrong count of numbers, a value
            out of range, an empty box, or a box with nothing to change in it.
    """
    values = dict(_parse_setting(word) for word in settings)
    colour = None if tint is None else parse_numbers("--tint", tint, 3)
    if colour is not None and min(colour) < 0.0:
        raise ValueError(f"--tint must not be negative, got {tint}.")
    corners = None if box is None else parse_numbers("--box", box, 6)
    if corners is not None and any(corners[i] >= corners[i + 3] for i in range(3)):
        raise ValueError(
            f"--box needs xmin,ymin,zmin,xmax,ymax,zmax with each min below its max, got {box}."
        )
    edit = MaterialEdit(tuple(values.items()), colour, corners)
    if corners is not None and edit.is_empty:
        raise ValueError("--box says where --set and --tint change materials; give one of them.")
    return edit


def parse_numbers(name: str, text: str, count: int) -> tuple[float, ...]:
    """Finite numbers separated by commas.

    Args:
        name: What they are, for the message.
        text: Such as "0.8,0.1,0.1".
        count: How many are expected.

    Raises:
        ValueError: Another count, or something that is no finite number.
    """
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        expected = "one number" if count == 1 else f"{count} numbers separated by commas"
        raise ValueError(f"{name} takes {expected}, got '{text}'.")
    return numbers


def edited_model(
    model: GaussianModel, edit: MaterialEdit, S_world_input: Float[Tensor, "4 4"]
) -> GaussianModel:
    """A copy of the model with other materials; the model itself is left alone.

    Args:
        model: Gaussians with materials, world frame.
        edit: What changes.
        S_world_input: Similarity from the frame of the edit's box to the world.

    Raises:
        ValueError: The model has no materials, or no Gaussian is in the box.
    """
    model = with_sheen(model) if any(key == SHEEN for key, _ in edit.values) else model
    activated = {key: value.detach() for key, value in model.materials.items()}
    is_chosen = _chosen(model, edit, S_world_input)
    if not bool(is_chosen.any()):
        raise ValueError(
            f"--box {_join(edit.box or ())} holds no Gaussian. In the input's frame they span "
            f"{_span(model, S_world_input)}."
        )
    params = {key: value.detach().clone() for key, value in model.params.items()}
    changed = dict(activated)
    for key, value in edit.values:
        new = activated[key].new_tensor(value if _COMPONENTS[key] > 1 else value[0])
        changed[key] = new.expand_as(activated[key])
    if edit.tint is not None:
        changed["albedo"] = changed["albedo"] * changed["albedo"].new_tensor(edit.tint)
    for key in activated:
        if changed[key] is not activated[key]:
            raw = PARAMETER_SPACES[key].invert(changed[key].clamp(_MARGIN, 1.0 - _MARGIN))
            params[key][is_chosen] = raw[is_chosen].to(params[key])
    return GaussianModel(params, model.primitive)


def _parse_setting(word: str) -> tuple[str, tuple[float, ...]]:
    key, equals, text = word.partition("=")
    if not equals:
        raise ValueError(f"--set takes KEY=VALUE such as roughness=0.2, got '{word}'.")
    if key not in _COMPONENTS:
        close = difflib.get_close_matches(key, _COMPONENTS, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else f" Known: {', '.join(_COMPONENTS)}."
        raise ValueError(f"--set knows no material '{key}'.{hint}")
    value = parse_numbers(f"--set {key}", text, _COMPONENTS[key])
    if min(value) < 0.0 or max(value) > 1.0:
        raise ValueError(f"--set {key} must lie in 0 to 1, got {text}.")
    return key, value


def _chosen(
    model: GaussianModel, edit: MaterialEdit, S_world_input: Float[Tensor, "4 4"]
) -> Bool[Tensor, " n"]:
    if edit.box is None:
        return torch.ones(model.num_gaussians, dtype=torch.bool, device=model.means.device)
    means = _input_means(model, S_world_input)
    low, high = means.new_tensor(edit.box[:3]), means.new_tensor(edit.box[3:])
    return ((means >= low) & (means <= high)).all(dim=-1)


def _input_means(model: GaussianModel, S_world_input: Tensor) -> Float[Tensor, "n 3"]:
    means = model.means.detach().double()
    return transform_points(invert_similarity(S_world_input.double()).to(means), means)


def _span(model: GaussianModel, S_world_input: Float[Tensor, "4 4"]) -> str:
    low, high = _input_means(model, S_world_input).aminmax(dim=0)
    return _join([*low.tolist(), *high.tolist()])


def _join(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:.4g}" for number in numbers)
