"""The ground lies under the scene, fades, and shows the shadow where the light says."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from splatir.commands.main import main
from splatir.maths.rotations import quat_from_normal, rotation_from_quat
from splatir.raster.contract import RasterOptions
from splatir.raster.selection import rasterizer
from splatir.render.buffers import PictureOptions
from splatir.render.grounded import GroundedScene
from splatir.render.relighting import Quality, lighting_for
from splatir.scene.camera import Camera
from splatir.scene.ground import GroundSettings, ground_height, ground_under
from splatir.scene.joining import joined_models
from splatir.scene.lights import DirectionalLight
from splatir.scene.surface_samples import model_from_samples
from splatir.shade.surface import Shader
from splatir.transport.lighting import GaussianLighting
from splatir.transport.scene import SceneTransport
from tests.lit_runs import InstallRun, install_run, sphere_run
from tests.solids import model_of, moved, sphere

__all__ = ["install_run"]

RADIUS = 0.3
BALL = model_of(moved(sphere(RADIUS, 1200), (0.0, 0.0, RADIUS)))


def camera_towards(place: tuple[float, float, float], size: int = 64) -> Camera:
    """Looks at the origin with a field of view of 28 degrees."""
    position = torch.tensor(place)
    R_world_camera = rotation_from_quat(quat_from_normal(-position / position.norm()))
    T = torch.eye(4)
    T[:3, :3] = R_world_camera.mT
    T[:3, 3] = -R_world_camera.mT @ position
    K = torch.tensor([[2.0 * size, 0, size / 2], [0, 2.0 * size, size / 2], [0, 0, 1]])
    return Camera(K, T, size, size)


def grounded(shows_shadow: bool, quality: Quality = "fast") -> GroundedScene:
    """The ball under a sun from +X, 45 degrees high."""
    ground = model_from_samples(ground_under(BALL, GroundSettings(0.0)), "surfel", 0)
    model = joined_models(BALL, ground)
    sun = DirectionalLight(torch.tensor([1.0, 0.0, 1.0]) / math.sqrt(2.0), torch.full((3,), 3.0))
    transport = SceneTransport.of(model.gaussians, 64)
    lighting = lighting_for(model, sun, transport, quality)
    alone = lighting_for(model, sun, None, quality)
    assert isinstance(lighting, GaussianLighting) and isinstance(alone, Shader)
    return GroundedScene(model, 1200, 0.0, lighting, alone if shows_shadow else None)


def pixel_of(camera: Camera, place: tuple[float, float, float]) -> tuple[int, int]:
    x, y, z = camera.T_camera_world[:3, :3] @ torch.tensor(place) + camera.T_camera_world[:3, 3]
    u, v = camera.K[0, 0] * x / z + camera.K[0, 2], camera.K[1, 1] * y / z + camera.K[1, 2]
    return int(v), int(u)


def test_the_ground_lies_at_the_scenes_foot_and_spreads_around_it() -> None:
    assert ground_height(BALL) == pytest.approx(0.0, abs=0.02)
    ground = ground_under(BALL)
    distance = ground.positions[:, :2].norm(dim=-1)
    assert 3.5 * RADIUS < distance.max() < 4.5 * RADIUS
    assert (ground.opacities[distance < 2.4 * RADIUS] > 0.95).all()
    assert (ground.opacities[distance > 3.95 * RADIUS] < 0.05).all()
    # Together the points stand for the disc's area.
    area = ground.spacings.square().sum()
    assert area == pytest.approx(math.pi * float(distance.max()) ** 2, rel=0.05)


@pytest.mark.parametrize("quality", ["fast", "reference"])
def test_the_shadow_lies_opposite_to_the_sun_and_touches_the_ball(quality: Quality) -> None:
    scene = grounded(True, quality)
    camera = camera_towards((0.0, -1.5, 2.6))
    found = scene.buffers(camera, rasterizer("auto", torch.device("cpu")))
    # The ball's shadow is an ellipse about (-0.3, 0): from the contact on, away from the sun.
    shadowed = pixel_of(camera, (-0.5, 0.0, 0.0))
    assert found.alpha[shadowed].item() > 0.7
    assert found.rgb[shadowed].max() < 0.02
    for place in ((0.6, 0.0, 0.0), (-0.3, -0.5, 0.0), (-0.3, 0.6, 0.0), (-0.95, 0.0, 0.0)):
        assert found.alpha[pixel_of(camera, place)].item() < 0.1, place
    ball = pixel_of(camera, (0.1, 0.0, 2.0 * RADIUS))
    assert found.alpha[ball].item() > 0.95 and found.rgb[ball].min() > 0.2
    # Between ball and shadow there is no gap.
    (row, end), (_, start) = shadowed, pixel_of(camera, (-0.2, 0.0, 0.0))
    assert found.alpha[row, end : start + 1].min() > 0.6


def test_a_floor_is_grey_in_the_light_and_nothing_is_seen_from_below() -> None:
    scene = grounded(False)
    backend = rasterizer("auto", torch.device("cpu"))
    camera = camera_towards((0.0, -1.5, 2.6))
    found = scene.buffers(camera, backend)
    lit = pixel_of(camera, (0.6, 0.0, 0.0))
    assert found.alpha[lit].item() > 0.95
    # Albedo over pi times 3 times the cosine, and a little that is specular.
    expected = 0.5 / math.pi * 3.0 * math.sqrt(0.5)
    assert found.rgb[lit].mean() == pytest.approx(expected, rel=0.1)
    assert found.rgb[pixel_of(camera, (-0.5, 0.0, 0.0))].max() < 0.1 * expected
    below = scene.buffers(camera_towards((0.0, -1.5, -2.6)), backend)
    assert below.alpha[32, 32].item() > 0.95 and below.alpha[4, 4].item() == 0.0


def test_a_supersampled_shadow_is_the_mean_of_a_finer_one() -> None:
    scene, backend = grounded(True), rasterizer("auto", torch.device("cpu"))
    camera = camera_towards((0.0, -1.5, 2.6), 32)
    found = scene.buffers(camera, backend, picture=PictureOptions(2))
    finer, options = PictureOptions(2).finer(camera, RasterOptions())
    fine = scene.buffers(finer, backend, options)
    for name in ("alpha", "rgb"):
        samples = fine.alpha if name == "alpha" else fine.rgb * fine.alpha
        mean = samples.reshape(32, 2, 32, 2, -1).mean((1, 3))
        value = found.alpha if name == "alpha" else found.rgb * found.alpha
        assert torch.allclose(value, mean, atol=1e-5), name


def test_relight_stands_the_run_on_a_ground(tmp_path: Path, install_run: InstallRun) -> None:
    finished = sphere_run(tmp_path)
    finished = replace(finished, settings=replace(finished.settings, backend="auto"))
    run = install_run(finished)
    words = ["relight", run, "--light", "sun:90,30,3,3,3", "--format", "npz", "--output"]
    assert main([*words, str(tmp_path / "plain")]) == 0
    assert main([*words, str(tmp_path / "ground"), "--ground"]) == 0
    floor = ["--ground", "--ground-shows", "floor", "--ground-height", "-0.9"]
    assert main([*words, str(tmp_path / "floor"), *floor]) == 0
    plain, ground, shown = (
        dict(np.load(tmp_path / name / "r_0.npz")) for name in ("plain", "ground", "floor")
    )
    # The lowest hundredth of the ball is under the ground.
    assert (ground["alpha"] >= plain["alpha"] - 1e-3).mean() > 0.95
    assert ground["alpha"].sum() > plain["alpha"].sum()
    assert shown["alpha"].sum() > ground["alpha"].sum()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ground", "--no-transport"], "--ground catches shadows"),
        (["--ground-height", "1"], "add --ground"),
        (["--supersample", "0"], "supersample"),
    ],
)
def test_grounds_that_make_no_sense_are_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["relight", str(tmp_path), *words]) == 2
    assert said in capsys.readouterr().err


def test_a_run_without_shadows_has_no_ground(
    tmp_path: Path, install_run: InstallRun, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = sphere_run(tmp_path)
    materials = replace(finished.settings.materials, transport=False)
    finished = replace(finished, settings=replace(finished.settings, materials=materials))
    run = install_run(finished)
    assert main(["relight", run, "--ground", "--output", str(tmp_path / "out")]) == 1
    assert "Train it with transport" in capsys.readouterr().err
