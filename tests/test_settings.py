"""Values that no training could follow are refused by name, before anything is read."""

import math

import pytest

from splatir.optim.densification import DensificationSettings
from splatir.optim.losses import LossWeights
from splatir.optim.parameters import LearningRates
from splatir.scene.initialise import InitialisationSettings
from splatir.settings import Settings, SettingsError, override
from splatir.train.settings import ScheduleSettings, TrainSettings


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (TrainSettings, {"steps": 0}, r"^steps must be at least 1, got 0\.$"),
        (TrainSettings, {"steps": -5}, "steps must be at least 1"),
        (TrainSettings, {"seed": -1}, "seed must be between 0 and"),
        (TrainSettings, {"photo_memory_gb": math.nan}, "photo_memory_gb must be at least 0"),
        (TrainSettings, {"checkpoint_every": -1}, "checkpoint_every must be at least 0"),
        (TrainSettings, {"eval_every": -1}, "eval_every must be at least 0"),
        (TrainSettings, {"stages": ()}, "stages must be auto, or radiance"),
        (ScheduleSettings, {"coarse_factor": 0}, r"schedule\.coarse_factor must be at least 1"),
        (ScheduleSettings, {"coarse_until": 1.5}, "coarse_until must be between 0 and 1"),
        (ScheduleSettings, {"sh_every": -0.1}, "sh_every must be between 0 and 1"),
        (DensificationSettings, {"every": 0}, r"densify\.every must be at least 1"),
        (DensificationSettings, {"stop": 2.0}, r"densify\.stop must be between 0 and 1"),
        (DensificationSettings, {"start": 0.9}, "must not lie after densify.stop"),
        (DensificationSettings, {"gradient": 0.0}, "gradient must be above 0"),
        (DensificationSettings, {"prune_opacity": 0.5}, "strictly between 0 and 0.5"),
        (DensificationSettings, {"max_gaussians": 0}, "max_gaussians must be at least 1"),
        (LossWeights, {"ssim": 1.01}, r"loss\.ssim must be between 0 and 1"),
        (LossWeights, {"alpha": -1.0}, r"loss\.alpha must be at least 0"),
        (LearningRates, {"means": 0.0}, r"rates\.means must be above 0"),
        (LearningRates, {"scales": math.inf}, r"rates\.scales must be at least 0, got inf"),
        (InitialisationSettings, {"num_points": 0}, r"init\.num_points must be at least 1"),
        (InitialisationSettings, {"opacity": 1.0}, r"init\.opacity must be strictly between"),
        (InitialisationSettings, {"sh_degree": 5}, r"init\.sh_degree must be between 0 and 4"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_full_name(
    kind: type[Settings], values: dict, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        kind(**values)


def test_limits_themselves_pass() -> None:
    TrainSettings(steps=1, seed=0, eval_every=0, checkpoint_every=0, photo_memory_gb=0.0)
    ScheduleSettings(sh_every=0.0, coarse_until=1.0, coarse_factor=1)
    DensificationSettings(start=0.0, stop=0.0, every=1)
    InitialisationSettings(num_points=1, sh_degree=4)


def test_values_of_a_preset_are_checked_like_those_of_code() -> None:
    with pytest.raises(SettingsError, match=r"densify\.every must be at least 1, got -3"):
        override(TrainSettings(), {"densify": {"every": -3}})
