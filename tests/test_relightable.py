"""The files of a relightable splat belong together: frame, light, metadata, and what is broken."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from splatir.maths.frames import similarity
from splatir.maths.rotations import rotation_from_quat
from splatir.scene.environment_map import sample_environment
from splatir.scene.lights import EnvironmentLight, environment_directions
from splatir.scene.transform import transform_model
from splatir.storage.relightable import (
    RelightableMetadata,
    SidecarError,
    companion_files,
    read_relightable,
    write_relightable,
)
from tests.test_ply import assert_models_equal, random_model
from tests.test_ply_materials import with_materials

R_INPUT_WORLD = rotation_from_quat(torch.tensor([0.5, 0.1, -0.7, 0.4]).double())
S_INPUT_WORLD = similarity(3.0, R_INPUT_WORLD, torch.tensor([1.0, 2.0, 3.0]).double())
SMOOTH = EnvironmentLight(2 + environment_directions(16, 32))


@pytest.fixture
def relightable(tmp_path: Path) -> Path:
    path = tmp_path / "scene.ply"
    model = with_materials(random_model(primitive="surfel"))
    metadata = RelightableMetadata(S_INPUT_WORLD, None, 0.5, (0.0, 0.5, 1.0))
    written = write_relightable(path, model, SMOOTH, metadata)
    assert set(written) == set(companion_files(path)) == set(tmp_path.iterdir())
    return path


def test_everything_comes_back_in_the_files_frame(relightable: Path) -> None:
    model, light, metadata = read_relightable(relightable)
    expected = with_materials(random_model(primitive="surfel"))
    assert model.has_materials
    torch.testing.assert_close(model.means, transform_model(expected, S_INPUT_WORLD).means)
    assert metadata.S_input_world is not None and torch.equal(metadata.S_input_world, S_INPUT_WORLD)
    assert metadata.environment == "scene.exr" and metadata.exposure_stops == 0.5
    assert metadata.background_srgb == (0.0, 0.5, 1.0) and metadata.appearance == "photographs"
    assert light is not None
    directions = environment_directions(8, 16)
    seen = sample_environment(light, directions @ R_INPUT_WORLD.float().mT)
    torch.testing.assert_close(seen, 2 + directions, atol=0.02, rtol=0)


def test_a_light_that_is_not_turned_comes_back_bit_for_bit(tmp_path: Path) -> None:
    """Synthetic captures keep their frame."""
    metadata = RelightableMetadata(torch.eye(4).double())
    write_relightable(tmp_path / "a.ply", with_materials(random_model()), SMOOTH, metadata)
    light = read_relightable(tmp_path / "a.ply")[1]
    assert light is not None and torch.equal(light.radiance, SMOOTH.radiance)


def test_a_splat_without_light_or_sidecar_is_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    assert write_relightable(path, random_model(), None, RelightableMetadata()) == (
        path, path.with_suffix(".json")
    )  # fmt: skip
    assert json.loads(path.with_suffix(".json").read_text())["frame"] == "world"
    for _ in range(2):
        model, light, metadata = read_relightable(path)
        assert_models_equal(random_model(), model)
        assert light is None and metadata == RelightableMetadata()
        path.with_suffix(".json").unlink(missing_ok=True)


def test_a_light_that_was_not_copied_along_is_missed(relightable: Path) -> None:
    relightable.with_suffix(".exr").unlink()
    with pytest.warns(UserWarning, match=r"scene\.exr is missing, which scene\.json names"):
        assert read_relightable(relightable)[1] is None


def test_the_examples_of_the_documentation_run(
    relightable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[1] / "docs" / "files.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 3
    for suffix in (".ply", ".json", ".exr"):
        relightable.with_suffix(suffix).rename(relightable.with_name(f"splats{suffix}"))
    sidecar = relightable.with_name("splats.json")
    sidecar.write_text(sidecar.read_text().replace("scene.exr", "splats.exr"))
    monkeypatch.chdir(relightable.parent)
    found: dict[str, Any] = {}
    for example in examples:
        exec(example, found)
    assert found["light"] is not None and found["normals"].shape == (5, 3)
    assert found["transfer"] is None
    np.testing.assert_allclose(found["base_color"], found["albedo"].detach(), atol=3e-6)
    np.testing.assert_allclose(found["opacity"], found["model"].opacities.detach(), rtol=1e-5)
    np.testing.assert_allclose(found["sigmas"], found["model"].scales.detach(), rtol=1e-5)


def changed(**values: object) -> Callable[[str], str]:
    return lambda text: json.dumps({**json.loads(text), **values})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:50], r"scene\.json is not valid JSON.*Export again, or remove it"),
        (lambda text: "[]", "must hold a JSON object, got list"),
        (changed(splatir_format=2), "format 2, this splatir reads up to 1"),
        (changed(splatir_format="new"), "format new"),
        (changed(environment="../../etc/light.exr"), "must name a file beside the PLY"),
        (changed(environment=7), "'environment' must be text, got 7"),
        (changed(S_input_world=[[1, 0], [0, 1]]), "'S_input_world' must hold 16 finite numbers"),
        (changed(S_input_world=[1] * 16), "last row"),
        (changed(exposure_stops="bright"), "'exposure_stops' must hold 1 finite numbers"),
        (changed(background_srgb=[0, 1, float("nan")]), "'background_srgb' must hold 3 finite"),
    ],
)
def test_broken_sidecars_are_named(
    relightable: Path, change: Callable[[str], str], message: str
) -> None:
    sidecar = relightable.with_suffix(".json")
    sidecar.write_text(change(sidecar.read_text()))
    with pytest.raises(SidecarError, match=message) as caught:
        read_relightable(relightable)
    assert "scene.json" in str(caught.value)


def test_keys_of_later_minor_changes_are_ignored(relightable: Path) -> None:
    sidecar = relightable.with_suffix(".json")
    sidecar.write_text(json.dumps({"mood": "warm", "splatir_format": 1}))
    assert read_relightable(relightable)[2] == RelightableMetadata()
