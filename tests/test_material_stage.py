"""The materials stage as part of a training: it resumes exactly, keeps a known light, learns."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from splatir.codecs.exr import write_exr
from splatir.data.dataset import DataSettings
from splatir.data.images import Photo
from splatir.data.recognise import read_dataset
from splatir.maths.frames import similarity
from splatir.maths.rotations import rotation_from_quat
from splatir.optim.densification import DensificationSettings
from splatir.optim.material_losses import MaterialLossWeights
from splatir.optim.metal_evidence import MetalEvidence
from splatir.optim.parameters import LearningRates
from splatir.raster.contract import RasterOptions
from splatir.raster.selection import rasterizer
from splatir.render.deferred import render_scene
from splatir.scene.camera import Camera
from splatir.scene.environment_map import rotate_environment
from splatir.scene.gaussians import NO_SHEEN, SHEEN, GaussianModel
from splatir.scene.initialise import InitialisationSettings
from splatir.scene.lights import EnvironmentLight
from splatir.settings import SettingsError
from splatir.shade.split_sum import SplitSum
from splatir.storage.checkpoint import load_checkpoint
from splatir.train import material_trainer
from splatir.train.finished import load_run
from splatir.train.material_settings import MaterialSettings
from splatir.train.material_step import KnownLight, MaterialContext, material_step
from splatir.train.session import train
from splatir.train.settings import TrainSettings
from splatir.train.stages import MaterialStage, stages_of
from splatir.train.start_materials import initial_materials, known_light, start_materials
from splatir.train.state import TrainState, check_contents
from splatir.train.step import StepReport
from tests.captures import small_scene, write_colmap, write_nerf_synthetic
from tests.faults import the_error
from tests.lit_runs import sloping_light, sphere
from tests.scenes import axis_camera
from tests.test_train import assert_same, final_state
from tests.test_transform import covariances

BOTH: tuple[Literal["radiance"], Literal["materials"]] = ("radiance", "materials")


@pytest.fixture
def small(tmp_path: Path) -> TrainSettings:
    """Three steps of radiance and two of materials, with a metal check before the second."""
    write_colmap(tmp_path / "capture", small_scene(num_cameras=5))
    return TrainSettings(
        data=tmp_path / "capture",
        output=tmp_path / "run",
        device="cpu",
        stages=BOTH,
        steps=3,
        eval_every=0,
        checkpoint_every=0,
        init=InitialisationSettings(num_points=100, sh_degree=0),
        densify=DensificationSettings(strategy="none"),
        materials=MaterialSettings(steps=2, environment_height=8, metal_checks=(0.5,)),
    )


def stopped_after(settings: TrainSettings, step: int) -> Path:
    """A run as if it had been stopped right after a step."""
    assert settings.output is not None
    run = settings.output.with_name(f"stopped_{step}")
    train(replace(settings, output=run, checkpoint_every=step))
    for path in (run / "checkpoints").glob("*.pt"):
        if int(path.stem.split("_")[1]) > step:
            path.unlink()
    assert final_state(run)["step"] == step
    return run


# The end of the radiance stage; inside the materials stage, right before its metal check.
@pytest.mark.parametrize("step", [3, 4])
def test_a_resumed_materials_stage_equals_an_unbroken_one_bit_for_bit(
    small: TrainSettings, step: int
) -> None:
    train(small)
    assert small.output is not None
    run = stopped_after(small, step)
    train(TrainSettings(resume=run))
    assert final_state(run)["step"] == 5
    assert_same(final_state(run), final_state(small.output))


def some_cloth(model: GaussianModel, *_: object) -> MetalEvidence:
    """A verdict that every third Gaussian is cloth."""
    count = model.num_gaussians
    sheen = torch.where(torch.arange(count) % 3 == 0, 0.5, 0.0)
    no = torch.zeros(count, dtype=torch.bool)
    return MetalEvidence(no, ~no, torch.ones(count, 3), torch.full((count, 3), 0.5), sheen)


# Before cloth is found; after it, where its sheen has moments of its own, and before it is judged
# again.
@pytest.mark.parametrize("step", [4, 5, 6])
def test_a_resumed_stage_with_cloth_equals_an_unbroken_one_bit_for_bit(
    small: TrainSettings, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("splatir.train.material_step.judge_metal", some_cloth)
    materials = replace(small.materials, steps=5, metal_checks=(0.2, 0.6))
    small = replace(small, materials=materials)
    train(small)
    assert small.output is not None
    run = stopped_after(small, step)
    train(TrainSettings(resume=run))
    end = final_state(run)
    assert_same(end, final_state(small.output))
    sheen = end["params"][SHEEN]
    is_cloth = torch.arange(len(sheen)) % 3 == 0
    assert bool((sheen[~is_cloth] == NO_SHEEN).all())
    assert bool((sheen[is_cloth] != 0.0).any()) and bool((sheen[is_cloth] > NO_SHEEN).all())


def test_geometry_0_leaves_geometry_and_radiance_as_they_were(small: TrainSettings) -> None:
    small = replace(small, materials=replace(small.materials, geometry=0.0))
    train(small)
    assert small.output is not None
    before = final_state(stopped_after(small, 3))
    after = final_state(small.output)
    kept = {key: value for key, value in before["params"].items() if key != "quats"}
    assert_same({key: after["params"][key] for key in kept}, kept)
    # Outward normals: half turns.
    turned, as_they_were = (
        covariances(GaussianModel(state["params"], "ellipsoid")) for state in (after, before)
    )
    torch.testing.assert_close(turned, as_they_were)
    assert before["environment"] is None and after["environment"].shape == (8, 16, 3)
    finished = load_run(small.output, torch.device("cpu"))
    assert finished.light is not None
    assert torch.equal(finished.light.radiance, after["environment"].exp())


def test_radiance_alone_leaves_no_materials_and_needs_no_environment(
    small: TrainSettings, tmp_path: Path
) -> None:
    train(replace(small, stages=("radiance",), envmap=tmp_path / "missing.hdr"))
    assert small.output is not None
    finished = load_run(small.output, torch.device("cpu"))
    assert finished.light is None and not finished.model.has_materials


def write_map(path: Path, light: EnvironmentLight) -> Path:
    write_exr(path, light.radiance.numpy())
    return path


def test_a_known_light_stays_as_its_file_says_in_the_world_frame(
    small: TrainSettings, tmp_path: Path
) -> None:
    small = replace(small, envmap=write_map(tmp_path / "light.exr", sloping_light()))
    train(small)
    assert small.output is not None
    finished = load_run(small.output, torch.device("cpu"))
    S = finished.S_world_input[:3, :3]
    R = (S / S.det() ** (1.0 / 3.0)).float()
    assert finished.light is not None
    expected = rotate_environment(sloping_light(), R).radiance
    assert torch.allclose(finished.light.radiance, expected, rtol=1e-5)
    # A resumed run takes the light of its checkpoint: the file may be gone.
    run = stopped_after(small, 4)
    assert small.envmap is not None
    small.envmap.unlink()
    train(TrainSettings(resume=run))
    assert_same(final_state(run), final_state(small.output))


def test_a_known_light_is_as_coarse_as_a_learned_one_until_that_would_have_settled(
    small: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    materials = replace(small.materials, environment_height=4, settles_at=0.5)
    envmap = write_map(tmp_path / "light.exr", sloping_light())
    rows = []

    def recorded(state: TrainState, context: MaterialContext, *view: Any) -> StepReport:
        assert context.known_light is not None
        rows.append((state.step, context.known_light.light.radiance.shape[0]))
        return material_step(state, context, *view)

    monkeypatch.setattr(material_trainer, "material_step", recorded)
    train(replace(small, envmap=envmap, materials=materials))
    middle = small.steps + materials.steps // 2
    whole = sloping_light().radiance.shape[0]
    assert rows == [(step, 4 if step < middle else whole) for step, _ in rows]
    assert {height for _, height in rows} == {4, whole}


def test_a_run_stopped_before_its_materials_still_needs_the_file_of_the_light(
    small: TrainSettings, tmp_path: Path
) -> None:
    light = write_map(tmp_path / "light.exr", sloping_light())
    run = stopped_after(replace(small, envmap=light), 3)
    light.unlink()
    with pytest.raises(FileNotFoundError, match="no environment map"):
        train(TrainSettings(resume=run))
    assert final_state(run)["step"] == 3


def _nan(path: Path) -> None:
    write_exr(path, np.full((8, 16, 3), np.nan, np.float32))


@pytest.mark.parametrize(
    ("break_it", "expected"),
    [
        (lambda path: None, "no environment map"),
        (lambda path: path.write_bytes(b"#?RADIANCE\n"), "light.exr"),
        (_nan, "NaN"),
    ],
)
def test_a_broken_light_is_one_error_before_any_training(
    small: TrainSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys,
    break_it,
    expected,
) -> None:
    from splatir.commands.main import main

    break_it(tmp_path / "light.exr")
    monkeypatch.setattr("splatir.train.session.train_step", lambda *_: pytest.fail("it trained"))
    output = tmp_path / "run"
    words = ["train", "--data", str(small.data), "--output", str(output)]
    words += ["--stages", "radiance", "materials"]
    assert main([*words, "--device", "cpu", "--envmap", str(tmp_path / "light.exr")]) == 1
    printed = capsys.readouterr()
    assert expected in the_error(printed.err, printed.out)
    assert not output.exists()


@pytest.mark.parametrize("stages", [(), ("materials",), ("materials", "radiance")])
def test_stages_in_an_impossible_order_are_refused(stages: tuple) -> None:
    with pytest.raises(SettingsError, match="radiance materials"):
        TrainSettings(stages=stages)


@pytest.mark.parametrize(
    "values",
    [
        {"steps": 0},
        {"roughness": 0.0},
        {"brightest": 1.0},
        {"environment_height": 2},
        {"metal_checks": (0.25, 150.0)},
    ],
)
def test_material_settings_out_of_range_are_refused_by_name(values: dict) -> None:
    with pytest.raises(SettingsError, match=next(iter(values))):
        MaterialSettings(**values)


def test_a_checkpoint_with_materials_but_no_light_is_refused(tmp_path: Path) -> None:
    state = TrainState.start(lit_sphere(), False, LearningRates(), 1.0)
    contents = {"state": state.to_plain(), "S_world_input": torch.eye(4)}
    with pytest.raises(ValueError, match="materials without an environment"):
        check_contents(contents, tmp_path)


def lit_sphere(with_materials: bool = True) -> GaussianModel:
    return sphere(torch.eye(4, dtype=torch.float64), with_materials=with_materials)


def test_albedo_starts_with_the_hue_of_the_radiance_and_one_brightness() -> None:
    model = lit_sphere(with_materials=False)
    with torch.no_grad():
        model.params["sh0"][0] = torch.tensor([[1.0, 0.0, -1.0]])
        model.params["sh0"][1] = -10.0
    start = initial_materials(model, MaterialSettings(albedo=0.6))
    assert torch.allclose(start["albedo"][:1].amax(-1), torch.tensor(0.6))
    assert torch.allclose(start["albedo"][2:], torch.tensor(0.6))
    # Black has no hue; it must not become NaN.
    assert torch.allclose(start["albedo"][1], torch.tensor(0.01))
    assert (start["albedo"][0].diff() < 0.0).all()


def test_the_first_light_shows_the_mean_albedo_as_bright_as_the_radiance() -> None:
    settings = TrainSettings()
    state = TrainState.start(lit_sphere(with_materials=False), False, settings.rates, 1.0)
    started = start_materials(state, None, settings)
    radiance = started.radiance
    assert torch.allclose(radiance, radiance[0, 0])
    # sh0 of 0.5 is sRGB 0.641, linear 0.3685.
    product = radiance[0, 0] * settings.materials.albedo
    assert torch.allclose(product, torch.tensor(0.3685), atol=1e-3)


def test_a_known_light_turns_with_the_world(tmp_path: Path) -> None:
    R = rotation_from_quat(torch.tensor([0.5**0.5, 0.0, 0.0, 0.5**0.5], dtype=torch.float64))
    write_colmap(tmp_path / "capture", small_scene(num_cameras=5))
    dataset = replace(
        read_dataset(tmp_path / "capture", DataSettings()),
        S_world_input=similarity(3.0, R, torch.ones(3, dtype=torch.float64)),
    )
    path = write_map(tmp_path / "light.exr", sloping_light())
    light = known_light(TrainSettings(stages=BOTH, envmap=path), dataset)
    assert light is not None
    # A quarter turn from +X to +Y: columns run from -X over +Y to +X.
    assert torch.allclose(light.radiance, sloping_light().radiance.roll(-8, 1), atol=1e-5)


def test_materials_move_towards_the_truth_under_a_known_light() -> None:
    truth, light = lit_sphere(), sloping_light()
    backend = rasterizer("cpu", torch.device("cpu"))
    cameras = [
        Camera(c.K.float(), c.T_camera_world.float(), c.width, c.height)
        for c in small_scene(num_cameras=4).cameras
    ]
    photos = []
    with torch.no_grad():
        for camera in cameras:
            image = render_scene(truth, camera, SplitSum(light), backend)
            photos.append(Photo(image.rgb, image.alpha, "linear", 32))
    # Starts from the wrong albedo.
    settings = TrainSettings(stages=BOTH, materials=MaterialSettings(steps=30))
    state = TrainState.start(lit_sphere(with_materials=False), False, settings.rates, 1.0)
    state = start_materials(state, light, settings)
    stage = stages_of(replace(settings, steps=1))[1]
    assert isinstance(stage, MaterialStage)
    state.step = 1
    plain = MaterialLossWeights(
        ssim=0.0,
        albedo_smooth=0.0,
        roughness_smooth=0.0,
        few_paints=0.0,
        white_light=0.0,
        light_smooth=0.0,
    )
    context = MaterialContext(
        replace(stage, loss=plain), backend, settings.rates, RasterOptions(), KnownLight.of(light)
    )

    def error() -> float:
        difference = state.model.material("albedo") - truth.material("albedo")
        return float(difference.detach().abs().mean())

    first = error()
    psnrs = [material_step(state, context, cameras[i % 4], photos[i % 4]).psnr for i in range(30)]
    assert error() < 0.7 * first
    assert psnrs[-1] > psnrs[0] + 2.0
    # What the stage does not move takes no gradient.
    assert all(state.model.params[key].grad is None for key in ("means", "quats", "opacities"))


@pytest.mark.parametrize(("photometric", "is_found"), [("auto", True), ("ldr", False)])
def test_only_hdr_comparison_finds_a_light_that_overexposes(
    photometric: Literal["auto", "ldr"], is_found: bool
) -> None:
    """Every channel of the linear photo is above white, which a clipped photo does not tell."""
    backend = rasterizer("cpu", torch.device("cpu"))
    camera = axis_camera(24, 20)
    truth, bright = lit_sphere(), EnvironmentLight(torch.full((8, 16, 3), 30.0))
    truth.params["means"].data[:, 2] += 3.0
    with torch.no_grad():
        image = render_scene(truth, camera, SplitSum(bright), backend)
    photo = Photo(image.rgb, image.alpha, "linear", 32)
    settings = TrainSettings(
        stages=BOTH, steps=1, rates=LearningRates(environment=0.3),
        materials=MaterialSettings(steps=30, environment_height=8, settles_at=1.0),
        material_loss=MaterialLossWeights(photometric=photometric),
    )  # fmt: skip
    state = TrainState.start(truth, False, settings.rates, 1.0)
    state = start_materials(state, None, settings)
    stage = stages_of(settings)[1]
    assert isinstance(stage, MaterialStage)
    state.step = 1
    context = MaterialContext(stage, backend, settings.rates, RasterOptions(), None)
    for _ in range(30):
        material_step(state, context, camera, photo)
    with torch.no_grad():
        found = render_scene(
            state.model, camera, SplitSum(EnvironmentLight(state.radiance)), backend
        )
    inside = image.alpha[..., 0] > 0.9
    ratio = float(found.rgb[inside].mean() / image.rgb[inside].mean())
    assert (0.8 < ratio < 1.25) is is_found


def test_a_view_that_sees_nothing_moves_nothing() -> None:
    settings = TrainSettings(stages=BOTH, steps=1, materials=MaterialSettings(steps=5))
    state = TrainState.start(lit_sphere(with_materials=False), False, settings.rates, 1.0)
    state = start_materials(state, None, settings)
    state.step = 2
    stage = stages_of(settings)[1]
    assert isinstance(stage, MaterialStage)
    backend = rasterizer("cpu", torch.device("cpu"))
    context = MaterialContext(stage, backend, settings.rates, RasterOptions(), None)
    T_behind = torch.eye(4)
    T_behind[2, 3] = -50.0
    K = torch.tensor([[30.0, 0.0, 12.0], [0.0, 30.0, 10.0], [0.0, 0.0, 1.0]])
    photo = Photo(torch.zeros(20, 24, 3), torch.zeros(20, 24, 1), "srgb", 8)
    before = state.model.params["albedo"].detach().clone()
    report = material_step(state, context, Camera(K, T_behind, 24, 20), photo)
    assert np.isfinite(report.loss)
    assert torch.equal(state.model.params["albedo"], before)


def test_object_captures_with_alpha_train_materials_too(tmp_path: Path) -> None:
    write_nerf_synthetic(tmp_path / "capture", small_scene(num_cameras=5), num_test=1)
    settings = TrainSettings(
        data=tmp_path / "capture",
        output=tmp_path / "run",
        steps=1,
        init=InitialisationSettings(num_points=60, sh_degree=0),
        materials=MaterialSettings(steps=2, metal_checks=(0.0,)),
    )
    train(settings)
    state = load_checkpoint(max((tmp_path / "run" / "checkpoints").glob("*.pt")))["state"]
    assert all(bool(value.isfinite().all()) for value in state["params"].values())
    assert bool(state["environment"].isfinite().all())
