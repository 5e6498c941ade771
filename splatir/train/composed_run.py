"""How is a scene that nobody trained kept as a run, so that every command works on it?"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from splatir import __version__
from splatir.codecs.atomic import write_text
from splatir.optim.densification import GradientStatistics
from splatir.optim.parameters import make_optimizer
from splatir.scene.gaussians import GaussianModel
from splatir.settings import to_plain
from splatir.train.finished import FinishedRun
from splatir.train.run_folder import RunFolder
from splatir.train.state import TrainState

# Beside config.toml: what was put together, and how.
RECORD = "composed.json"


def new_folder(root: Path) -> RunFolder:
    """Make the folder of a run.

    Args:
        root: Where; nothing may be there yet.

    Raises:
        FileExistsError: Something is.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(f"{root} exists and is not empty; give another --output.")
    root.mkdir(parents=True, exist_ok=True)
    return RunFolder(root)


def write_composed_run(
    folder: RunFolder, base: FinishedRun, model: GaussianModel, record: dict[str, Any]
) -> None:
    """Write a run whose capture, light, frame and settings are another's.

    It stands at the end of its training, so that nothing would be trained further.

    Args:
        folder: Empty.
        base: Run with materials and light.
        model: Gaussians with materials, in the world frame of `base`.
        record: What was put together, plain values for JSON.
    """
    assert base.light is not None
    parameters = {key: model.params[key] for key in model.material_keys}
    environment = nn.Parameter(base.light.radiance.log(), requires_grad=False)
    background = base.background_srgb
    state = TrainState(
        model=model,
        background=None if background is None else nn.Parameter(background),
        exposures=None,
        corrections=None,
        environment=environment,
        surroundings=None,
        optimizer=make_optimizer(parameters, base.settings.rates, 1.0),
        statistics=GradientStatistics.zeros(model.num_gaussians, model.means.device),
        step=base.step,
        seconds=base.seconds,
    )
    settings = replace(base.settings, output=folder.root)
    folder.write_settings(settings)
    folder.save(
        base.step,
        {
            "state": state.to_plain(),
            "settings": to_plain(settings),
            "version": __version__,
            "S_world_input": base.S_world_input,
        },
    )
    write_text(folder.root / RECORD, json.dumps(record, indent=2) + "\n")
