"""A wall of known material, and browsers that are none: what tests of the viewer share."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from splatir.maths.frames import invert_rigid
from splatir.raster.selection import rasterizer
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.lights import EnvironmentLight
from splatir.scene.surface_samples import SurfaceSamples, model_from_samples
from viewer.page import Page
from viewer.pose import Pose
from viewer.scene import ViewedScene

ALBEDO, ROUGHNESS, METALLIC = (0.6, 0.3, 0.1), 0.7, 0.2
CPU = torch.device("cpu")


def wall(count: int = 24) -> GaussianModel:
    """A square of one material in the plane x = 0, facing +x, from -1 to 1."""
    steps = torch.linspace(-1.0, 1.0, count)
    y, z = torch.meshgrid(steps, steps, indexing="ij")
    n = count * count
    positions = torch.stack([torch.zeros(n), y.flatten(), z.flatten()], -1)
    normals = torch.tensor([[1.0, 0.0, 0.0]]).expand(n, 3)
    samples = SurfaceSamples(
        positions,
        normals,
        torch.full((n,), 2.0 / (count - 1)),
        torch.full((n,), 0.95),
        torch.tensor([ALBEDO]).expand(n, 3),
        torch.full((n,), ROUGHNESS),
        torch.full((n,), METALLIC),
    )
    return model_from_samples(samples, "surfel", 0)


def scene_of(model: GaussianModel, **fields: Any) -> ViewedScene:
    light = EnvironmentLight(torch.ones(8, 16, 3))
    options = {"light": light, "S_world_input": torch.eye(4, dtype=torch.float64), **fields}
    return ViewedScene("wall", model, backend=rasterizer("auto", CPU), **options)


# From +x towards the wall, upright: camera z is -x of the world, camera y is -z.
FACING = Pose((0.5, -0.5, -0.5, 0.5), (3.0, 0.0, 0.0), math.radians(30.0), 1.5, 64)


class FakeBrowser:
    """What the page uses of a viser client; keeps what it was sent."""

    def __init__(self, client_id: int, pose: Pose = FACING) -> None:
        self.client_id = client_id
        self.moved: list[Callable[[Any], None]] = []
        self.camera = SimpleNamespace(
            wxyz=np.array(pose.wxyz),
            position=np.array(pose.position),
            look_at=np.zeros(3),
            fov=pose.fov,
            aspect=pose.aspect,
            image_height=pose.height,
            on_update=self.moved.append,
        )
        self.scene = SimpleNamespace(
            set_background_image=self._keep, add_gaussian_splats=self._add_splats
        )
        self.gui = None
        self.splats: Any = None
        self.pictures: list[tuple[np.ndarray, np.ndarray | None]] = []
        self.notices: list[str] = []
        self.waits: list[str] = []

    def _keep(self, picture: np.ndarray, depth: np.ndarray | None = None, **_: Any) -> None:
        self.pictures.append((picture, depth))

    def _add_splats(self, name: str, *arrays: np.ndarray, scale: float) -> Any:
        self.splats = SimpleNamespace(arrays=arrays, scale=scale)
        self.splats.set_gaussians = lambda *new: setattr(self.splats, "arrays", new)
        self.splats.remove = lambda: setattr(self, "splats", None)
        return self.splats

    def send_file_download(self, filename: str, content: bytes, **_: Any) -> None:
        raise AssertionError("no file was asked for")

    def add_notification(self, title: str, body: str, **options: Any) -> Any:
        kept = self.waits if options.get("loading") else self.notices
        kept.append(f"{title}: {body}")
        return SimpleNamespace(remove=lambda: self.waits.append("done"))

    @contextlib.contextmanager
    def atomic(self) -> Iterator[None]:
        yield


def until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def connected(page: Page, *ids: int) -> list[FakeBrowser]:
    browsers = [FakeBrowser(number) for number in ids]
    for browser in browsers:
        page.connect(browser)
    return browsers


def looking_at_origin(position: tuple[float, float, float]) -> Camera:
    camera = FACING.camera(64)
    place = torch.tensor(position)
    forward = -place / place.norm()
    right = torch.linalg.cross(forward, torch.tensor([0.0, 0.0, 1.0]))
    right = right / right.norm()
    T = torch.eye(4)
    T[:3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], -1)
    T[:3, 3] = place
    return Camera(camera.K, invert_rigid(T), camera.width, camera.height)
