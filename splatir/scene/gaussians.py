"""The Gaussians of a scene: raw parameters (`GaussianModel`) and activated geometry (`Gaussians`).

Parameter keys are gsplat's (`means, quats, scales, opacities, sh0, shN`), so that its densification
operations move every entry, materials (`albedo, roughness, metallic`) included, together with the
geometry.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Primitive = Literal["ellipsoid", "surfel"]

# Third log-scale of a surfel: never optimised, never rasterised; viewers of 3D ellipsoids need one.
SURFEL_LOG_THICKNESS = -14.0


def _identity(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class ParameterSpace:
    """How one raw parameter becomes the quantity it stands for.

    Attributes:
        space: What the raw value is, in words.
        activate: Raw value to quantity.
        invert: Quantity to raw value.
    """

    space: str
    activate: Callable[[Tensor], Tensor]
    invert: Callable[[Tensor], Tensor]


PARAMETER_SPACES: dict[str, ParameterSpace] = {
    "means": ParameterSpace("scene units", _identity, _identity),
    "quats": ParameterSpace("wxyz, any length", nn.functional.normalize, _identity),
    "scales": ParameterSpace("natural log of scene units", torch.exp, torch.log),
    "opacities": ParameterSpace("logit", torch.sigmoid, torch.logit),
    "sh0": ParameterSpace("SH coefficient, colour = 0.5 + 0.2821 sh0", _identity, _identity),
    "shN": ParameterSpace("SH coefficients of degree >= 1", _identity, _identity),
    "albedo": ParameterSpace("logit of linear base colour", torch.sigmoid, torch.logit),
    "roughness": ParameterSpace("logit of perceptual roughness", torch.sigmoid, torch.logit),
    "metallic": ParameterSpace("logit", torch.sigmoid, torch.logit),
    "sheen": ParameterSpace("logit", torch.sigmoid, torch.logit),
}
GEOMETRY_KEYS = ("means", "quats", "scales", "opacities")
RADIANCE_KEYS = ("sh0", "shN")
MATERIAL_KEYS = ("albedo", "roughness", "metallic")
# Of cloth; models without cloth may lack it. The logit of what has none is far below all others.
SHEEN = "sheen"
NO_SHEEN = -20.0


@dataclass(frozen=True)
class Gaussians:
    """Activated geometry, as rasterisers take it.

    Attributes:
        means: Centres, world frame, scene units.
        quats: wxyz, any non-zero length; rotate the Gaussian's own axes into the world.
        scales: Standard deviations along the own axes, scene units; a surfel's third is ignored.
        opacities: Peak alpha in [0, 1].
        primitive: "ellipsoid" (3DGS) or "surfel" (2DGS, a disc in its own xy plane).
    """

    means: Float[Tensor, "n 3"]
    quats: Float[Tensor, "n 4"]
    scales: Float[Tensor, "n 3"]
    opacities: Float[Tensor, " n"]
    primitive: Primitive = "ellipsoid"

    def detach(self) -> "Gaussians":
        """The same geometry as a constant."""
        return Gaussians(
            self.means.detach(),
            self.quats.detach(),
            self.scales.detach(),
            self.opacities.detach(),
            self.primitive,
        )


class GaussianModel(nn.Module):
    """Raw, optimisable parameters of all Gaussians of a scene.

    Only this class activates: outside it, names mean quantities.

    Attributes:
        params: Raw tensors by key, first axis the Gaussian; see `PARAMETER_SPACES`.
        primitive: Which shape the parameters describe.
    """

    def __init__(self, params: Mapping[str, Tensor], primitive: Primitive) -> None:
        """Wrap raw parameters.

        Args:
            params: means [N,3], quats [N,4], scales [N,3], opacities [N], sh0 [N,1,3],
                shN [N,K-1,3] with K = (degree + 1)^2; a model with materials also has albedo
                [N,3], roughness [N] and metallic [N]; and may have sheen [N].
            primitive: "ellipsoid" or "surfel".

        Raises:
            ValueError: A key is missing, or counts or shapes disagree.
        """
        super().__init__()
        _check_shapes(params)
        self.params = nn.ParameterDict(
            {key: nn.Parameter(value.detach().clone()) for key, value in params.items()}
        )
        self.primitive: Primitive = primitive

    @property
    def num_gaussians(self) -> int:
        """Number of Gaussians."""
        return self.params["means"].shape[0]

    @property
    def sh_degree(self) -> int:
        """Highest spherical-harmonic degree the parameters hold."""
        return int((self.params["shN"].shape[1] + 1) ** 0.5) - 1

    @property
    def means(self) -> Float[Tensor, "n 3"]:
        """Centres, world frame."""
        return self.params["means"]

    @property
    def scales(self) -> Float[Tensor, "n 3"]:
        """Standard deviations, scene units."""
        return PARAMETER_SPACES["scales"].activate(self.params["scales"])

    @property
    def opacities(self) -> Float[Tensor, " n"]:
        """Peak alpha in (0, 1)."""
        return PARAMETER_SPACES["opacities"].activate(self.params["opacities"])

    @property
    def has_materials(self) -> bool:
        """Whether the Gaussians have albedo, roughness and metallic."""
        return "albedo" in self.params

    @property
    def material_keys(self) -> tuple[str, ...]:
        """Those of `MATERIAL_KEYS` and "sheen" that it has."""
        return tuple(key for key in (*MATERIAL_KEYS, SHEEN) if key in self.params)

    @property
    def sheen(self) -> Float[Tensor, " n"] | None:
        """How the diffuse lobe falls towards the normal, 0 to 1; None for 0 everywhere."""
        return (
            PARAMETER_SPACES[SHEEN].activate(self.params[SHEEN]) if SHEEN in self.params else None
        )

    def material(self, key: str) -> Tensor:
        """Activated albedo [N,3] (linear), roughness [N] (perceptual) or metallic [N], in (0, 1).

        Args:
            key: One of `MATERIAL_KEYS`.

        Raises:
            ValueError: The model has no materials.
        """
        if not self.has_materials:
            raise ValueError(f"these Gaussians have no {key}: train the stage 'materials' first.")
        return PARAMETER_SPACES[key].activate(self.params[key])

    @property
    def materials(self) -> dict[str, Tensor]:
        """All activated materials by key, sheen only where the model has it.

        Raises:
            ValueError: The model has no materials.
        """
        materials = {key: self.material(key) for key in MATERIAL_KEYS}
        return materials if self.sheen is None else {**materials, SHEEN: self.sheen}

    @property
    def sh(self) -> Float[Tensor, "n k 3"]:
        """All SH coefficients of the radiance (sRGB display values), degree 0 first."""
        return torch.cat([self.params["sh0"], self.params["shN"]], dim=1)

    @property
    def gaussians(self) -> Gaussians:
        """Activated geometry, differentiable in the parameters."""
        return Gaussians(
            means=self.params["means"],
            quats=self.params["quats"],
            scales=self.scales,
            opacities=self.opacities,
            primitive=self.primitive,
        )


def with_sheen(model: GaussianModel) -> GaussianModel:
    """The model itself if it has a sheen, else a copy with one that is 0 everywhere.

    Raises:
        ValueError: The model has no materials.
    """
    if SHEEN in model.params:
        return model
    none = torch.full_like(model.material("roughness"), NO_SHEEN)
    return GaussianModel({**model.params, SHEEN: none}, model.primitive)


def _check_shapes(params: Mapping[str, Tensor]) -> None:
    needed = [*GEOMETRY_KEYS, *RADIANCE_KEYS]
    if any(key in params for key in MATERIAL_KEYS):
        needed += MATERIAL_KEYS
    if SHEEN in params:
        needed += [*MATERIAL_KEYS, SHEEN]
    missing = [key for key in needed if key not in params]
    if missing:
        raise ValueError(f"Gaussian parameters lack {missing}; got {sorted(params)}.")
    n = params["means"].shape[0]
    num_sh = params["shN"].shape[1] + 1
    degree = round(num_sh**0.5) - 1
    if (degree + 1) ** 2 != num_sh:
        raise ValueError(
            f"shN must hold (degree + 1)^2 - 1 coefficients, got {num_sh - 1}; "
            "degrees 0 to 4 have 0, 3, 8, 15 and 24."
        )
    expected = {
        "means": (n, 3),
        "quats": (n, 4),
        "scales": (n, 3),
        "opacities": (n,),
        "sh0": (n, 1, 3),
        "shN": (n, num_sh - 1, 3),
        "albedo": (n, 3),
        "roughness": (n,),
        "metallic": (n,),
        SHEEN: (n,),
    }
    for key in needed:
        shape = expected[key]
        if tuple(params[key].shape) != shape:
            raise ValueError(f"{key} must have shape {shape}, got {tuple(params[key].shape)}.")
