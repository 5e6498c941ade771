"""Finished runs with materials that no training made: a sphere at the origin of its capture."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from splatir.data.recognise import read_dataset
from splatir.maths.frames import similarity_scale, transform_points
from splatir.maths.rotations import quat_from_rotation
from splatir.scene.gaussians import SURFEL_LOG_THICKNESS, GaussianModel
from splatir.scene.lights import EnvironmentLight, environment_directions
from splatir.train.finished import FinishedRun
from splatir.train.run_folder import RunFolder
from splatir.train.settings import TrainSettings
from tests.captures import SmallScene, small_scene, write_colmap, write_nerf_synthetic

RADIUS = 0.8
ALBEDO = (0.6, 0.3, 0.2)
ROUGHNESS, METALLIC = 0.5, 0.0

# Patches the loader of the commands; gives the run's folder.
InstallRun = Callable[[FinishedRun], str]


@pytest.fixture
def install_run(monkeypatch: pytest.MonkeyPatch) -> InstallRun:
    """Make every command find a run that no checkpoint holds."""

    def install(finished: FinishedRun) -> str:
        for module in ("render", "relight", "evaluate", "export"):
            monkeypatch.setattr(f"splatir.commands.{module}.load_run", lambda *_: finished)
        return str(finished.folder.root)

    return install


def sphere(
    S_world_input: Float[Tensor, "4 4"], num_splats: int = 400, with_materials: bool = True
) -> GaussianModel:
    """Surfels tangent to a sphere of `RADIUS` about the input's origin, in the world frame."""
    index = torch.arange(num_splats, dtype=torch.float64) + 0.5
    z = 1.0 - 2.0 * index / num_splats
    angle = math.pi * (1.0 + math.sqrt(5.0)) * index
    ring = (1.0 - z * z).sqrt()
    normals = torch.stack([ring * angle.cos(), ring * angle.sin(), z], dim=-1)
    scale = similarity_scale(S_world_input)
    normals_world = normals @ (S_world_input[:3, :3] / scale).mT
    side = torch.nn.functional.normalize(
        torch.linalg.cross(normals_world, normals_world.roll(1, dims=-1)), dim=-1
    )
    R = torch.stack([side, torch.linalg.cross(normals_world, side), normals_world], dim=-1)
    spread = 1.2 * RADIUS * scale * math.sqrt(math.pi / num_splats)
    params = {
        "means": transform_points(S_world_input, RADIUS * normals).float(),
        "quats": torch.stack([quat_from_rotation(matrix) for matrix in R]).float(),
        "scales": torch.full((num_splats, 3), math.log(spread)),
        "opacities": torch.full((num_splats,), 4.0),
        "sh0": torch.full((num_splats, 1, 3), 0.5),
        "shN": torch.zeros(num_splats, 0, 3),
    }
    params["scales"][:, 2] = SURFEL_LOG_THICKNESS
    if with_materials:
        params["albedo"] = torch.logit(torch.tensor(ALBEDO)).repeat(num_splats, 1)
        params["roughness"] = torch.logit(torch.tensor(ROUGHNESS)).repeat(num_splats)
        params["metallic"] = torch.full((num_splats,), -20.0)
    return GaussianModel(params, "surfel")


def sloping_light(height: int = 16) -> EnvironmentLight:
    """Bright from +X and above, coloured, without symmetry."""
    directions = environment_directions(height, 2 * height)
    slope = directions @ torch.tensor([[0.8, 0.2, 0.1], [0.1, 0.5, 0.0], [0.3, 0.3, 0.6]])
    return EnvironmentLight((1.0 + slope).clamp_min(0.05))


def turned_scene(S_new_input: Float[Tensor, "4 4"]) -> SmallScene:
    """The small scene with cameras and points in another frame."""
    scene = small_scene()
    cameras = tuple(camera.in_world(S_new_input) for camera in scene.cameras)
    return SmallScene(cameras, transform_points(S_new_input, scene.points), scene.colours_srgb)


def sphere_run(
    folder: Path, with_materials: bool = True, scene: SmallScene | None = None
) -> FinishedRun:
    """A run of a sphere; of a COLMAP capture of `scene`, or of a synthetic one without."""
    if scene is None:
        write_nerf_synthetic(folder / "capture", small_scene(num_cameras=4), num_test=1)
    else:
        write_colmap(folder / "capture", scene)
    settings = TrainSettings(data=folder / "capture", backend="reference", device="cpu")
    S_world_input = read_dataset(folder / "capture", settings.dataset).S_world_input
    return FinishedRun(
        folder=RunFolder(folder / "run"),
        settings=settings,
        model=sphere(S_world_input, with_materials=with_materials),
        background_srgb=None,
        light=sloping_light() if with_materials else None,
        S_world_input=S_world_input,
        step=100,
        seconds=1.5,
    )
