"""Where Gaussians are added and removed: gsplat's Default and MCMC strategies, on any device.

Semantics are those of gsplat 1.5.3's strategies with two differences. Its opacity reset never
fires there (`step % every == 0 & step > 0` compares with `0 & step`); here it does. Its MCMC
relocation exists as a CUDA kernel only; here it is the paper's formula in torch. Randomness comes
from a generator that the caller seeds by step, so that a resumed run repeats it.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from splatir.maths.rotations import rotation_from_quat
from splatir.optim.parameters import gather_rows, group
from splatir.raster.contract import ScreenSpace
from splatir.scene.gaussians import GaussianModel
from splatir.settings import Settings, SettingsError, check_range

# A split Gaussian's children are this much smaller (Kerbl et al. 2023).
_SPLIT_SHRINK = 1.6
# Relocation counts above this hardly change the result (Kheradmand et al. 2024).
_MAX_COPIES = 51


@dataclass(frozen=True)
class DensificationSettings(Settings):
    """When and where Gaussians are added and removed.

    Attributes:
        strategy: "default" (clone and split by screen gradient), "mcmc" (relocate) or "none".
            "auto" is mcmc where photos show a background, default elsewhere: cloning grows fog
            where few views see a place.
        start: First step, as a part of the stage's steps.
        stop: Last step, likewise (default strategy).
        every: Steps between refinements (default strategy).
        max_gaussians: Never more than this.
        pixels_per_gaussian: In captures with a background, nor more than one per this many
            training pixels.
        gradient: Mean screen-position gradient (image width and height count 2) that asks for more
            Gaussians; with `absgrad`, of absolute values.
        absgrad: Use absolute gradients (Ye et al. 2024).
        grow_scale: Larger Gaussians are split, smaller ones cloned; in scene extents.
        prune_opacity: Below it Gaussians are removed (default) or relocated (mcmc).
        prune_scale: Above it Gaussians are removed, in scene extents, after the first reset.
        reset_every: Steps between opacity resets; 0 for none.
        mcmc_stop: Last step under mcmc, as a part of the stage's steps.
        mcmc_every: Steps between refinements under mcmc.
        mcmc_growth: Growth of the number of Gaussians per refinement.
        mcmc_noise: Noise on the centres, times their learning rate.
    """

    strategy: Literal["auto", "default", "mcmc", "none"] = "auto"
    start: float = 0.05
    stop: float = 0.5
    every: int = 100
    max_gaussians: int = 200_000
    pixels_per_gaussian: float = 100.0
    gradient: float = 2e-4
    absgrad: bool = False
    grow_scale: float = 0.01
    prune_opacity: float = 0.005
    prune_scale: float = 0.1
    reset_every: int = 0
    mcmc_stop: float = 0.8
    mcmc_every: int = 25
    mcmc_growth: float = 0.05
    mcmc_noise: float = 5e5

    def __post_init__(self) -> None:
        """Refuse values under which densification does harm or nothing.

        Raises:
            SettingsError: A value out of range.
        """
        check_range(self, "start stop mcmc_stop", 0, 1, group="densify")
        check_range(self, "every mcmc_every max_gaussians", 1, group="densify")
        positive = "pixels_per_gaussian gradient prune_scale"
        check_range(self, positive, 0, open_ends=True, group="densify")
        check_range(self, "grow_scale reset_every mcmc_growth mcmc_noise", 0, group="densify")
        # A reset leaves opacities of twice this value, which must be below 1.
        check_range(self, "prune_opacity", 0, 0.5, open_ends=True, group="densify")
        for name in ("stop", "mcmc_stop"):
            stop = getattr(self, name)
            if self.start > stop:
                raise SettingsError(
                    f"densify.start must not lie after densify.{name}, got {self.start} and {stop}."
                )


@dataclass
class GradientStatistics:
    """Screen gradients since the last refinement.

    Attributes:
        total: Sum of gradient norms per Gaussian.
        count: Number of views in which it was visible.
    """

    total: Float[Tensor, " n"]
    count: Float[Tensor, " n"]

    @classmethod
    def zeros(cls, n: int, device: torch.device) -> "GradientStatistics":
        """Statistics of nothing yet."""
        return cls(torch.zeros(n, device=device), torch.zeros(n, device=device))

    @torch.no_grad()
    def add(self, screen: ScreenSpace, width: int, height: int) -> None:
        """Count one view, after `backward`.

        Args:
            screen: Statistics of the rasterised view.
            width: Image width, pixels; gradients are per half image as in gsplat.
            height: Image height, pixels.
        """
        half_size = torch.tensor([0.5 * width, 0.5 * height], device=self.total.device)
        norms = (screen.gradient * half_size).norm(dim=-1)
        visible = (screen.radii > 0).all(dim=-1)
        self.total += torch.where(visible, norms, torch.zeros_like(norms))
        self.count += visible

    @property
    def mean(self) -> Float[Tensor, " n"]:
        """Mean gradient norm over the views that saw the Gaussian."""
        return self.total / self.count.clamp_min(1.0)


@dataclass(frozen=True)
class Refinement:
    """What one refinement did.

    Attributes:
        added: Gaussians added.
        removed: Gaussians removed or relocated.
    """

    added: int = 0
    removed: int = 0


@torch.no_grad()
def refine_default(
    model: GaussianModel,
    optimizer: torch.optim.Optimizer,
    statistics: GradientStatistics,
    settings: DensificationSettings,
    extent: float,
    prune_large: bool,
    generator: torch.Generator,
) -> Refinement:
    """Clone small and split large Gaussians under strong gradients, remove faint and huge ones.

    Where the limit on the number would be passed, the strongest gradients go first.

    Args:
        model: Changed in place, with `optimizer`.
        optimizer: As made by `make_optimizer`.
        statistics: Gradients since the last refinement; the caller starts new ones.
        settings: Thresholds.
        extent: Radius of the scene, scene units.
        prune_large: Also remove Gaussians above `prune_scale`.
        generator: Places the children of a split.
    """
    scales = _visible_scales(model)
    gradient = statistics.mean
    wants_more = gradient > settings.gradient
    room = max(settings.max_gaussians - model.num_gaussians, 0)
    if int(wants_more.sum()) > room:
        strongest = gradient.where(wants_more, gradient.new_tensor(-1.0)).topk(room).indices
        wants_more = torch.zeros_like(wants_more)
        wants_more[strongest] = True
    is_large = scales.amax(dim=-1) > settings.grow_scale * extent
    clones = (wants_more & ~is_large).nonzero()[:, 0]
    splits = (wants_more & is_large).nonzero()[:, 0]
    kept = torch.ones_like(wants_more)
    kept[splits] = False
    survivors = kept.nonzero()[:, 0]
    source = torch.cat([survivors, clones, splits, splits])
    is_fresh = torch.arange(len(source), device=source.device) >= len(survivors)
    first_child = len(survivors) + len(clones)
    means, raw_scales = model.params["means"][source], model.params["scales"][source]
    means[first_child:] += _sample_offsets(model, splits.repeat(2), generator)
    raw_scales[first_child:] -= math.log(_SPLIT_SHRINK)
    gather_rows(model, optimizer, source, is_fresh, {"means": means, "scales": raw_scales})

    dead = model.opacities < settings.prune_opacity
    if prune_large:
        dead |= _visible_scales(model).amax(dim=-1) > settings.prune_scale * extent
    # A model without Gaussians could never recover.
    if bool(dead.all()):
        dead[:] = False
    alive = (~dead).nonzero()[:, 0]
    gather_rows(model, optimizer, alive, torch.zeros_like(alive, dtype=torch.bool))
    return Refinement(added=len(clones) + len(splits), removed=int(dead.sum()))


@torch.no_grad()
def reset_opacities(
    model: GaussianModel, optimizer: torch.optim.Optimizer, settings: DensificationSettings
) -> None:
    """Make every Gaussian faint, so that those nobody needs are removed (Kerbl et al. 2023)."""
    ceiling = torch.tensor(2.0 * settings.prune_opacity).logit()
    raw = model.params["opacities"]
    raw.clamp_(max=float(ceiling))
    for name, value in optimizer.state.get(raw, {}).items():
        if name in ("exp_avg", "exp_avg_sq"):
            value.zero_()


@torch.no_grad()
def refine_mcmc(
    model: GaussianModel,
    optimizer: torch.optim.Optimizer,
    settings: DensificationSettings,
    generator: torch.Generator,
) -> Refinement:
    """Move faint Gaussians onto opaque ones and add a few more (Kheradmand et al. 2024).

    Args:
        model: Changed in place, with `optimizer`.
        optimizer: As made by `make_optimizer`.
        settings: Thresholds and the limit on the number.
        generator: Chooses the targets.
    """
    opacities = model.opacities
    dead = (opacities <= settings.prune_opacity).nonzero()[:, 0]
    alive = (opacities > settings.prune_opacity).nonzero()[:, 0]
    relocated = 0
    if len(dead) and len(alive):
        targets = alive[_sample(opacities[alive], len(dead), generator)]
        source = torch.arange(model.num_gaussians, device=targets.device)
        source[dead] = targets
        _copy_onto(model, optimizer, source, targets, settings)
        relocated = len(dead)
    wanted = min(settings.max_gaussians, int((1.0 + settings.mcmc_growth) * model.num_gaussians))
    added = max(wanted - model.num_gaussians, 0)
    if added:
        targets = _sample(model.opacities, added, generator)
        rows = torch.arange(model.num_gaussians, device=targets.device)
        _copy_onto(model, optimizer, torch.cat([rows, targets]), targets, settings)
    return Refinement(added=added, removed=relocated)


@torch.no_grad()
def add_mcmc_noise(
    model: GaussianModel, optimizer: torch.optim.Optimizer, noise: float, generator: torch.Generator
) -> None:
    """Let faint Gaussians wander along their own shape, eq. 9 of Kheradmand et al. 2024.

    Args:
        model: Centres are changed in place.
        optimizer: Gives the centres' present learning rate.
        noise: Noise strength times learning rate.
        generator: Source of the noise.
    """
    rows = torch.arange(model.num_gaussians, device=model.means.device)
    gate = torch.sigmoid(-100.0 * (model.opacities - 0.005))
    rate = noise * group(optimizer, "means")["lr"]
    standard = _randn(len(rows), generator, model.means)
    R = rotation_from_quat(model.params["quats"])
    own_scales = _own_scales(model)
    # Covariance (not its root) times noise, as in the paper.
    local = own_scales**2 * (R.mT @ (standard * gate[:, None])[:, :, None])[:, :, 0]
    model.params["means"] += rate * (R @ local[:, :, None])[:, :, 0]


def relocation(
    opacities: Float[Tensor, " n"], scales: Float[Tensor, "n 3"], copies: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
    """Opacity and scale that let `copies` coincident Gaussians look like one, eq. 9 there.

    Args:
        opacities: Of the one, in (0, 1).
        scales: Of the one, linear.
        copies: How many stand in its place, at least 1; capped at 51.

    Returns:
        Opacities and scales of each copy.
    """
    copies = copies.clamp(1, _MAX_COPIES)
    new = 1.0 - (1.0 - opacities).clamp_min(0.0) ** (1.0 / copies)
    denominator = torch.zeros_like(new)
    for i in range(1, int(copies.max()) + 1):
        k = torch.arange(i, dtype=torch.float64, device=new.device)
        binomial = torch.tensor(
            [math.comb(i - 1, j) for j in range(i)], dtype=torch.float64, device=new.device
        )
        sign = 1.0 - 2.0 * (k % 2)
        # Terms alternate in sign and grow with i; float32 loses them all from about i = 25.
        terms = binomial * sign / (k + 1.0).sqrt() * new.double()[:, None] ** (k + 1.0)
        denominator += torch.where(copies >= i, terms.sum(-1).to(new), torch.zeros_like(new))
    return new, scales * (opacities / denominator)[:, None]


def _copy_onto(
    model: GaussianModel,
    optimizer: torch.optim.Optimizer,
    source: Int[Tensor, " m"],
    targets: Int[Tensor, " k"],
    settings: DensificationSettings,
) -> None:
    """Replace rows by copies of `targets` and share each target's look among its copies."""
    extra = torch.bincount(targets, minlength=model.num_gaussians)
    opacities, scales = relocation(model.opacities, model.scales, extra + 1)
    # At the pruning limit itself a fresh copy would be relocated again at once.
    ceiling = 1.0 - torch.finfo(opacities.dtype).eps
    opacities = opacities.clamp(settings.prune_opacity, ceiling)
    raw_opacities, raw_scales = opacities.logit(), scales.log()
    if model.primitive == "surfel":
        raw_scales[:, 2] = model.params["scales"][:, 2]
    untouched = extra == 0
    raw_opacities[untouched] = model.params["opacities"][untouched]
    raw_scales[untouched] = model.params["scales"][untouched]
    is_fresh = (extra > 0)[source]
    changed = {"opacities": raw_opacities[source], "scales": raw_scales[source]}
    gather_rows(model, optimizer, source, is_fresh, changed)


def _own_scales(model: GaussianModel) -> Float[Tensor, "n 3"]:
    """Standard deviations; a surfel has none across its plane."""
    scales = model.scales
    if model.primitive == "surfel":
        return torch.cat([scales[:, :2], torch.zeros_like(scales[:, :1])], dim=-1)
    return scales


def _visible_scales(model: GaussianModel) -> Float[Tensor, "n k"]:
    return model.scales[:, :2] if model.primitive == "surfel" else model.scales


def _sample_offsets(
    model: GaussianModel, rows: Int[Tensor, " m"], generator: torch.Generator
) -> Float[Tensor, "m 3"]:
    """A draw from each Gaussian about its centre, world axes."""
    local = _own_scales(model)[rows] * _randn(len(rows), generator, model.means)
    R = rotation_from_quat(model.params["quats"][rows])
    return (R @ local[:, :, None])[:, :, 0]


def _randn(rows: int, generator: torch.Generator, like: Tensor) -> Float[Tensor, "m 3"]:
    """Normal deviates drawn on the generator's device: the same on every device."""
    return torch.randn(rows, 3, generator=generator, dtype=like.dtype).to(like.device)


def _sample(
    weights: Float[Tensor, " n"], count: int, generator: torch.Generator
) -> Int[Tensor, " k"]:
    """Indices drawn with replacement, by inverting the cumulative weights (any number of rows)."""
    cumulative = weights.double().cumsum(0)
    draws = torch.rand(count, generator=generator, dtype=torch.float64).to(weights.device)
    index = torch.searchsorted(cumulative, draws * cumulative[-1], right=True)
    return index.clamp_max(len(weights) - 1)
