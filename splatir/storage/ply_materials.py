"""Which properties of a splat PLY are materials, whose are they, and what do their values mean?

docs/files.md describes splatir's own; the others were read from the code that writes them.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.scene.gaussians import MATERIAL_KEYS, NO_SHEEN, PARAMETER_SPACES, SHEEN

# Written in the header of a file with splatir's materials, as a key and its value.
MATERIAL_COMMENT = ("splatir_materials", "base_color linear_rec709 roughness perceptual")
_BASE_COLOUR = ("base_color_0", "base_color_1", "base_color_2")
_ALBEDO = ("albedo_0", "albedo_1", "albedo_2")
# Distance of a raw parameter's quantity from 0 and 1: half a thousandth of what 8 bits resolve.
_MARGIN = 2e-6


@dataclass(frozen=True)
class MaterialLayout:
    """How one program stores the materials of its splats.

    Attributes:
        program: Its name.
        albedo: Properties of the linear base colour.
        has_metallic: Whether there is a property `metallic`; else all is dielectric.
        is_logit: Whether values are logits; else they are the quantities.
        albedo_range: Base colours that the sigmoids 0 and 1 stand for.
        roughness_range: Perceptual roughness (alpha = roughness^2) that they stand for.
    """

    program: str
    albedo: tuple[str, str, str]
    has_metallic: bool = True
    is_logit: bool = True
    albedo_range: tuple[float, float] = (0.0, 1.0)
    roughness_range: tuple[float, float] = (0.0, 1.0)

    @property
    def names(self) -> tuple[str, ...]:
        """All properties of it."""
        return (*self.albedo, "roughness", *(("metallic",) if self.has_metallic else ()))


SPLATIR = MaterialLayout("splatir", _BASE_COLOUR, is_logit=False)
R3DG = MaterialLayout(
    "R3DG",
    _BASE_COLOUR,
    has_metallic=False,
    albedo_range=(0.03, 0.8),
    roughness_range=(0.09, 0.99),
)
IRGS = MaterialLayout("IRGS", _BASE_COLOUR, albedo_range=(0.03, 0.8))
GS_IR = MaterialLayout("GS-IR", _ALBEDO, roughness_range=(0.04, 1.0))


def material_columns(
    params: dict[str, Tensor],
) -> dict[str, Float[Tensor, " n"]]:
    """Materials by splatir's property names, in the file's order; quantities in [0, 1].

    Args:
        params: Raw parameters of a `GaussianModel`.
    """
    albedo, roughness, metallic = (
        PARAMETER_SPACES[key].activate(params[key].double()) for key in MATERIAL_KEYS
    )
    columns = dict(zip(SPLATIR.names, [*albedo.unbind(-1), roughness, metallic], strict=True))
    if SHEEN in params:
        columns[SHEEN] = PARAMETER_SPACES[SHEEN].activate(params[SHEEN].double())
    return columns


def find_layout(names: set[str], is_splatir: bool) -> MaterialLayout | None:
    """Tell by their names whose materials a file holds; None if it has none that are known.

    Files whose comments were lost are splatir's if they have all its properties and a third scale:
    IRGS, which uses the same names for logits, writes surfels of two scales.

    Args:
        names: All properties.
        is_splatir: Whether the header says that splatir wrote it.

    Raises:
        ValueError: A file of splatir's has some of its material properties only.
    """
    found = names & (set(SPLATIR.names) | set(_ALBEDO))
    if is_splatir:
        missing = [name for name in SPLATIR.names if name not in names]
        if found and missing:
            raise ValueError(f"it has the material properties {sorted(found)} but lacks {missing}")
        return SPLATIR if found else None
    # Later 12-coloured relatives of R3DG number further: one material a corner.
    is_cornered = "base_color_3" in names
    same_names = SPLATIR if "scale_2" in names else IRGS
    for layout in (GS_IR, same_names, R3DG):
        if not is_cornered and names.issuperset(layout.names):
            return layout
    if found:
        warnings.warn(
            f"materials {sorted(found)} follow no known layout and are ignored; "
            "the splats keep their radiance only.",
            stacklevel=2,
        )
    return None


def read_materials(
    layout: MaterialLayout, names: set[str], column: Callable[[str], Float[Tensor, " n"]]
) -> dict[str, Tensor]:
    """Raw parameters albedo, roughness, metallic and, in splatir's files with cloth, sheen; finite.

    Args:
        layout: Whose values they are.
        names: All properties of the file.
        column: Values of a property.

    Raises:
        ValueError: A quantity outside 0 to 1.
    """
    albedo = _activate(layout, layout.albedo, layout.albedo_range, column)
    roughness = _activate(layout, ("roughness",), layout.roughness_range, column)[:, 0]
    metallic = torch.zeros_like(roughness)
    if layout.has_metallic and not _is_untrained(layout, column):
        metallic = _activate(layout, ("metallic",), (0.0, 1.0), column)[:, 0]
    quantities: dict[str, Tensor] = {
        "albedo": albedo,
        "roughness": roughness,
        "metallic": metallic,
    }
    if layout is SPLATIR and SHEEN in names:
        quantities[SHEEN] = _activate(layout, (SHEEN,), (0.0, 1.0), column)[:, 0]
    raw = {
        key: PARAMETER_SPACES[key].invert(value.clamp(_MARGIN, 1.0 - _MARGIN)).float()
        for key, value in quantities.items()
    }
    if SHEEN in raw:
        # What is no cloth stays so.
        raw[SHEEN][quantities[SHEEN] < _MARGIN] = NO_SHEEN
    return raw


def _activate(
    layout: MaterialLayout,
    names: tuple[str, ...],
    limits: tuple[float, float],
    column: Callable[[str], Float[Tensor, " n"]],
) -> Float[Tensor, "n properties"]:
    values = torch.stack([column(name).double() for name in names], dim=-1)
    if layout.is_logit:
        return limits[0] + (limits[1] - limits[0]) * values.sigmoid()
    for name, of_name in zip(names, values.unbind(-1), strict=True):
        outside = int(((of_name < 0.0) | (of_name > 1.0)).sum())
        if outside:
            raise ValueError(
                f"property '{name}' leaves the range 0 to 1 for {outside} of {len(values)} splats "
                f"(it spans {of_name.min():.3g} to {of_name.max():.3g}). splatir stores "
                "quantities; logits of another program need that program's property names"
            )
    return values


def _is_untrained(layout: MaterialLayout, column: Callable[[str], Float[Tensor, " n"]]) -> bool:
    """Whether GS-IR ran without its option for metals, which leaves its start value 1."""
    return layout is GS_IR and bool((column("metallic") == 1.0).all())
