import math
from unittest import mock

import pytest
import torch
from gsplat.strategy import DefaultStrategy

from splatir.maths.rotations import rotation_from_quat
from splatir.optim.densification import (
    DensificationSettings,
    GradientStatistics,
    add_mcmc_noise,
    refine_default,
    refine_mcmc,
    relocation,
    reset_opacities,
)
from splatir.optim.parameters import LearningRates, gather_rows, group, make_optimizer
from splatir.raster.contract import ScreenSpace
from splatir.scene.gaussians import GaussianModel, Primitive


def random_model(n: int = 60, primitive: Primitive = "ellipsoid", seed: int = 0) -> GaussianModel:
    gen = torch.Generator().manual_seed(seed)
    params = {
        "means": torch.randn(n, 3, generator=gen),
        "quats": torch.randn(n, 4, generator=gen),
        "scales": torch.randn(n, 3, generator=gen) - 4.0,
        "opacities": 2.0 * torch.randn(n, generator=gen) - 2.0,
        "sh0": torch.randn(n, 1, 3, generator=gen),
        "shN": torch.randn(n, 15, 3, generator=gen),
    }
    return GaussianModel(params, primitive)


def with_moments(model: GaussianModel) -> torch.optim.Optimizer:
    """An optimiser that has done one step, so that every group has moments."""
    optimizer = make_optimizer(dict(model.params.items()), LearningRates(), extent=1.0)
    torch.stack([p.square().sum() for p in model.params.values()]).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


def moments(model: GaussianModel, optimizer: torch.optim.Optimizer, key: str) -> torch.Tensor:
    return optimizer.state[model.params[key]]["exp_avg"]


def test_gathered_rows_carry_parameters_and_moments_and_fresh_rows_start_at_rest() -> None:
    model = random_model(5)
    optimizer = with_moments(model)
    before = {k: v.detach().clone() for k, v in model.params.items()}
    old_moments = moments(model, optimizer, "shN").clone()
    source = torch.tensor([4, 0, 0])
    gather_rows(model, optimizer, source, torch.tensor([False, False, True]))
    for key, value in model.params.items():
        torch.testing.assert_close(value.detach(), before[key][source])
        assert group(optimizer, key)["params"] == [value]
    torch.testing.assert_close(moments(model, optimizer, "shN")[:2], old_moments[source[:2]])
    assert moments(model, optimizer, "shN")[2].abs().max() == 0
    assert len(optimizer.state) == len(model.params), "moments of old parameters are left behind"


def test_default_strategy_grows_and_prunes_the_same_gaussians_as_gsplat() -> None:
    settings = DensificationSettings(gradient=0.5, grow_scale=0.02, prune_opacity=0.02)
    ours, theirs = random_model(), random_model()
    optimizer = with_moments(ours)
    theirs_optimizers: dict[str, torch.optim.Optimizer] = {
        k: torch.optim.Adam([{"params": [p], "lr": 1e-3, "name": k}])
        for k, p in theirs.params.items()
    }
    for key, value in ours.params.items():
        theirs.params[key].data.copy_(value.detach())
    gradients = torch.rand(60, generator=torch.Generator().manual_seed(3))
    counts = torch.ones(60)

    strategy = DefaultStrategy(
        prune_opa=0.02, grow_grad2d=0.5, grow_scale3d=0.02, reset_every=10**9, verbose=False
    )
    state = strategy.initialize_state(scene_scale=1.3)
    state["grad2d"], state["count"] = gradients.clone(), counts.clone()
    with mock.patch.object(torch, "randn", side_effect=lambda *s, **k: torch.zeros(*s)):
        strategy._grow_gs(theirs.params, theirs_optimizers, state, step=1)
        strategy._prune_gs(theirs.params, theirs_optimizers, state, step=1)
        report = refine_default(
            ours,
            optimizer,
            GradientStatistics(gradients, counts),
            settings,
            extent=1.3,
            prune_large=False,
            generator=torch.Generator(),
        )

    assert report.added > 5 and report.removed > 0
    assert ours.num_gaussians == len(theirs.params["means"])

    def rows(model: GaussianModel) -> torch.Tensor:
        flat = torch.cat(
            [
                v.detach().flatten(1)
                for v in (
                    model.params["means"],
                    model.params["scales"],
                    model.params["opacities"][:, None],
                    model.params["shN"],
                )
            ],
            dim=1,
        )
        return flat[flat[:, 0].argsort(stable=True)]

    # Children of one split coincide here (no noise), so the order among equal rows cannot matter.
    torch.testing.assert_close(rows(ours), rows(theirs))


def test_growth_stops_at_the_limit_with_the_strongest_gradients_first() -> None:
    model = random_model(50)
    model.params["opacities"].data.fill_(3.0)
    optimizer = with_moments(model)
    gradients = torch.linspace(1.0, 2.0, 50)
    settings = DensificationSettings(gradient=0.5, grow_scale=1e9, max_gaussians=53)
    strongest = model.params["means"].detach()[-3:].clone()
    refine_default(
        model, optimizer, GradientStatistics(gradients, torch.ones(50)), settings, 1.0, False,
        torch.Generator(),
    )  # fmt: skip
    assert model.num_gaussians == 53
    assert {tuple(r) for r in model.params["means"][50:].tolist()} == {
        tuple(r) for r in strongest.tolist()
    }


def test_surfels_split_within_their_plane_and_keep_their_thickness_out_of_it() -> None:
    model = random_model(40, "surfel")
    model.params["scales"].data[:, 2] = 5.0
    model.params["opacities"].data.fill_(3.0)
    optimizer = with_moments(model)
    before = model.params["means"].detach().clone()
    quats = model.params["quats"].detach().clone()
    refine_default(
        model, optimizer, GradientStatistics(torch.ones(40), torch.ones(40)),
        DensificationSettings(gradient=0.5, grow_scale=0.0, prune_scale=9.0), 1.0, True,
        torch.Generator(),
    )  # fmt: skip
    axis = rotation_from_quat(quats)[:, :, 2]
    children = model.params["means"].detach()
    offset = children.view(2, 40, 3) - before
    assert offset.norm(dim=-1).max() > 1e-4
    assert (offset * axis).sum(-1).abs().max() < 1e-6


def test_statistics_count_only_visible_gaussians_in_half_image_units() -> None:
    probe = torch.zeros(3, 2)
    probe.grad = torch.tensor([[3.0, 0.0], [0.0, 4.0], [9.0, 9.0]])
    screen = ScreenSpace(probe, torch.tensor([[1, 1], [2, 2], [0, 0]]), probe)
    statistics = GradientStatistics.zeros(3, torch.device("cpu"))
    statistics.add(screen, width=20, height=10)
    torch.testing.assert_close(statistics.mean, torch.tensor([30.0, 20.0, 0.0]))
    assert statistics.count.tolist() == [1, 1, 0]


def test_opacity_reset_lowers_opaque_gaussians_only() -> None:
    model = random_model()
    optimizer = with_moments(model)
    settings = DensificationSettings(prune_opacity=0.01)
    before = model.opacities.detach().clone()
    reset_opacities(model, optimizer, settings)
    after = model.opacities.detach()
    assert after.max() <= 0.02 + 1e-6
    torch.testing.assert_close(after[before < 0.02], before[before < 0.02])
    assert moments(model, optimizer, "opacities").abs().max() == 0


@pytest.mark.parametrize("copies", [2, 5, 51])
def test_relocated_copies_together_keep_the_central_alpha(copies: int) -> None:
    opacities = torch.tensor([0.1, 0.6, 0.99])
    new, _ = relocation(opacities, torch.ones(3, 3), torch.full((3,), copies))
    torch.testing.assert_close(1 - (1 - new) ** copies, opacities, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("copies", [2, 3, 8])
def test_relocated_copies_keep_the_integral_of_alpha_along_a_line(copies: int) -> None:
    """What the scale of Kheradmand et al. 2024, eq. 9 is derived from."""
    opacity, scale = torch.tensor([0.7]), torch.tensor([[0.5, 0.5, 0.5]])
    new, new_scale = relocation(opacity, scale, torch.tensor([copies]))
    x = torch.linspace(-20, 20, 400_001, dtype=torch.float64)
    one = (opacity * torch.exp(-0.5 * (x / scale[0, 0]) ** 2)).sum()
    alpha = new * torch.exp(-0.5 * (x / new_scale[0, 0]) ** 2)
    together = (1 - (1 - alpha) ** copies).sum()
    assert together.item() == pytest.approx(one.item(), rel=1e-4)


def test_mcmc_keeps_every_gaussian_useful_and_grows_to_the_limit() -> None:
    model = random_model(100)
    optimizer = with_moments(model)
    settings = DensificationSettings(
        strategy="mcmc", prune_opacity=0.05, mcmc_growth=0.5, max_gaussians=120
    )
    assert (model.opacities <= 0.05).any()
    report = refine_mcmc(model, optimizer, settings, torch.Generator().manual_seed(0))
    assert model.num_gaussians == 120 and report.added == 20 and report.removed > 0
    assert model.opacities.min() >= 0.05 - 1e-6
    assert all(v.isfinite().all() for v in model.params.values())


def test_mcmc_leaves_untouched_gaussians_bit_for_bit() -> None:
    model = random_model(30)
    model.params["opacities"].data = torch.full((30,), 2.0)
    model.params["opacities"].data[7] = -9.0
    optimizer = with_moments(model)
    before = {k: v.detach().clone() for k, v in model.params.items()}
    settings = DensificationSettings(strategy="mcmc", mcmc_growth=0.0)
    refine_mcmc(model, optimizer, settings, torch.Generator().manual_seed(1))
    same = (model.params["opacities"] == before["opacities"]).nonzero()[:, 0]
    assert len(same) == 28
    for key, value in model.params.items():
        assert torch.equal(value[same], before[key][same]), key


@pytest.mark.parametrize("primitive", ["ellipsoid", "surfel"])
def test_noise_moves_faint_gaussians_along_their_own_shape(primitive: Primitive) -> None:
    model = random_model(2000, primitive)
    model.params["scales"].data[:] = torch.tensor([-2.0, -3.0, -9.0])
    model.params["quats"].data[:] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    model.params["opacities"].data[:] = torch.logit(torch.tensor(0.001))
    model.params["opacities"].data[:1000] = 4.0
    optimizer = make_optimizer(dict(model.params.items()), LearningRates(means=1.0), extent=1.0)
    before = model.params["means"].detach().clone()
    add_mcmc_noise(model, optimizer, 3.0, torch.Generator().manual_seed(0))
    moved = (model.params["means"] - before).detach()
    assert moved[:1000].abs().max() < 1e-12
    gate = 1 / (1 + math.exp(100 * (0.001 - 0.005)))
    expected = 3.0 * gate * torch.tensor([math.exp(-4.0), math.exp(-6.0)])
    torch.testing.assert_close(moved[1000:, :2].std(0), expected, rtol=0.1, atol=0.0)
    if primitive == "surfel":
        assert moved[:, 2].abs().max() == 0
