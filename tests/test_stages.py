from dataclasses import replace

import pytest

from splatir.optim.densification import DensificationSettings
from splatir.optim.parameters import LearningRates
from splatir.train.material_settings import MaterialSettings
from splatir.train.settings import TrainSettings
from splatir.train.stages import MaterialStage, RadianceStage, for_capture, stages_of


def radiance(settings: TrainSettings, has_background: bool) -> RadianceStage:
    stage = stages_of(for_capture(settings, has_background))[0]
    assert isinstance(stage, RadianceStage)
    return stage


def test_photos_of_an_object_alone_keep_cloning_without_regularisers_and_one_exposure() -> None:
    stage = radiance(TrainSettings(), has_background=False)
    assert stage.densify.strategy == "default"
    assert stage.loss.opacity == 0.0 and stage.loss.scale == 0.0
    assert for_capture(TrainSettings(), has_background=False).exposures == "shared"


def test_photos_with_a_background_are_trained_by_relocation_under_their_own_exposure() -> None:
    settings = for_capture(TrainSettings(), has_background=True)
    assert settings.stages == ("surroundings", "radiance", "materials")
    assert settings.exposures == "per-photo"
    stage = radiance(TrainSettings(), has_background=True)
    assert stage.densify.strategy == "mcmc"
    assert stage.loss.opacity > 0.0 and stage.loss.scale > 0.0


def test_an_object_that_is_told_apart_is_trained_like_one_that_was_photographed_alone() -> None:
    alone = stages_of(for_capture(TrainSettings(), has_background=False))
    apart = stages_of(for_capture(TrainSettings(), has_background=True))[1:]
    start = apart[0].start
    assert [replace(stage, start=stage.start - start) for stage in apart] == list(alone)


def test_without_a_region_everything_keeps_radiance_alone() -> None:
    settings = for_capture(TrainSettings(roi="none"), has_background=True)
    assert settings.stages == ("radiance",)
    assert radiance(TrainSettings(roi="none"), has_background=True).densify.strategy == "mcmc"


def test_priors_lead_the_materials_at_first_and_let_go() -> None:
    stage = stages_of(TrainSettings(stages=("radiance", "materials")))[1]
    assert isinstance(stage, MaterialStage)
    steps = [stage.start + part * stage.steps // 4 for part in range(5)]
    of_shading = [stage.loss_at(step) for step in steps]
    of_radiance = [stage.radiance_at(step) for step in steps]
    for name, left in {"few_paints": 0.0, "roughness_smooth": 0.0, "normal_smooth": 0.3}.items():
        weights = [getattr(loss, name) for loss in of_shading]
        assert weights[0] == getattr(stage.loss, name) > 0.0
        assert weights[-1] == pytest.approx(left * weights[0])
        assert weights == sorted(weights, reverse=True)
    assert of_radiance[0].normal == stage.radiance.normal > 0.0
    assert of_radiance[-1].normal == pytest.approx(0.3 * stage.radiance.normal)
    assert {loss.albedo_smooth for loss in of_shading} == {stage.loss.albedo_smooth}
    assert {loss.alpha for loss in of_radiance} == {stage.radiance.alpha}


@pytest.mark.parametrize("has_background", [False, True])
@pytest.mark.parametrize(
    "named",
    [
        TrainSettings(
            exposures="per-photo",
            cameras="refine",
            densify=DensificationSettings(strategy="default"),
        ),
        TrainSettings(
            exposures="shared", cameras="refine", densify=DensificationSettings(strategy="mcmc")
        ),
        TrainSettings(
            exposures="shared", cameras="refine", densify=DensificationSettings(strategy="none")
        ),
    ],
)
def test_what_is_named_is_not_replaced(named: TrainSettings, has_background: bool) -> None:
    named = replace(named, stages=("radiance",))
    assert for_capture(named, has_background) == named


@pytest.mark.parametrize(
    ("error", "cameras"), [(None, "refine"), (0.6, "refine"), (0.4, "fixed"), (0.0, "fixed")]
)
def test_cameras_that_agree_with_sparse_points_stay(error: float | None, cameras: str) -> None:
    assert for_capture(TrainSettings(), True, error).cameras == cameras
    assert for_capture(TrainSettings(cameras="refine"), True, error).cameras == "refine"
    assert for_capture(TrainSettings(), False, error).cameras == "fixed"


def test_resolving_twice_changes_nothing() -> None:
    """A run keeps its resolved settings and is resumed from them."""
    once = for_capture(TrainSettings(), has_background=True)
    assert for_capture(once, has_background=True) == once


def test_each_strategy_has_its_own_rhythm() -> None:
    settings = TrainSettings(
        steps=1000,
        surroundings_steps=1000,
        densify=DensificationSettings(start=0.1, stop=0.5, every=100, mcmc_stop=0.8, mcmc_every=40),
    )
    cloning = radiance(settings, has_background=False)
    assert [s for s in range(1000) if cloning.refines(s)] == [100, 200, 300, 400]
    relocating = radiance(settings, has_background=True)
    assert [s for s in range(1000) if relocating.refines(s)] == list(range(120, 800, 40))
    none = replace(settings, densify=replace(settings.densify, strategy="none"))
    assert not any(radiance(none, has_background=False).refines(s) for s in range(1000))


def test_stages_follow_each_other_and_rates_fall_only_late() -> None:
    settings = TrainSettings(
        stages=("radiance", "materials"),
        steps=10,
        materials=MaterialSettings(steps=20, decay_from=0.5, geometry=0.5, turns_from=0.4),
    )
    first_stage, materials = stages_of(settings)
    assert isinstance(first_stage, RadianceStage) and isinstance(materials, MaterialStage)
    assert (first_stage.start, first_stage.end, materials.start, materials.end) == (0, 10, 10, 30)
    assert stages_of(replace(settings, stages=("radiance",))) == (first_stage,)
    rates = LearningRates(albedo=0.2, quats=0.001)
    first, middle = (materials.rate(rates, "albedo", step, 3.0) for step in (10, 20))
    assert first == middle == 0.2
    late = settings.materials.decay**0.5
    assert materials.rate(rates, "albedo", 25, 3.0) == pytest.approx(0.2 * late)
    # Geometry moves by a part of the rates of the radiance stage, in the scene's own units.
    assert materials.rate(rates, "quats", 17, 3.0) == 0.0
    assert materials.rate(rates, "quats", 18, 3.0) == pytest.approx(0.0005)
    assert materials.rate(rates, "means", 10, 3.0) == pytest.approx(1.5 * rates.means)
    assert materials.image_divisor(10) == 1


@pytest.mark.parametrize(("settles_at", "still"), [(0.5, [20, 29]), (1.0, [])])
def test_once_settled_the_light_stays_and_squared_errors_count(
    settles_at: float, still: list[int]
) -> None:
    settings = TrainSettings(
        stages=("radiance", "materials"),
        steps=10,
        materials=MaterialSettings(steps=20, settles_at=settles_at),
    )
    stage = stages_of(settings)[1]
    assert isinstance(stage, MaterialStage)
    steps = [10, 19, 20, 29]
    rates = [stage.rate(LearningRates(), "environment", step, 1.0) for step in steps]
    assert [step for step, rate in zip(steps, rates, strict=True) if rate == 0.0] == still
    assert [step for step in steps if stage.loss_at(step).squared > 0.0] == still


@pytest.mark.parametrize(("steps", "expected"), [(600, [150, 300]), (250, [62, 125])])
def test_metal_is_checked_after_parts_of_the_stage(steps: int, expected: list[int]) -> None:
    settings = TrainSettings(
        stages=("radiance", "materials"), steps=10, materials=MaterialSettings(steps=steps)
    )
    stage = stages_of(settings)[1]
    assert isinstance(stage, MaterialStage)
    assert [step - 10 for step in range(10, 10 + steps) if stage.checks_metal(step)] == expected


def test_rates_that_never_fall_divide_by_nothing() -> None:
    settings = TrainSettings(
        stages=("radiance", "materials"),
        steps=1,
        materials=MaterialSettings(steps=2, decay_from=1.0),
    )
    stage = stages_of(settings)[1]
    assert isinstance(stage, MaterialStage)
    rates = LearningRates(albedo=0.2)
    assert [stage.rate(rates, "albedo", step, 1.0) for step in (1, 2, 3)] == [0.2, 0.2, 0.2]
