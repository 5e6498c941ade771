"""Small captures in every input format, all of the same scene, for tests.

The scene is a cloud of coloured points near the origin (+Z up) seen by a ring of cameras. Photos
show each point as a disc, so a test can look for it in the pixels. Cameras are float64, in the
frame that the files are written in.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from splatir.maths.frames import invert_rigid
from splatir.maths.rotations import quat_from_rotation
from splatir.scene.camera import Camera


@dataclass(frozen=True)
class SmallScene:
    """Points, and cameras that see them.

    Attributes:
        cameras: float64 pinhole cameras, all of one size.
        points: Positions, float64.
        colours_srgb: In [0, 1], far from black and from each other.
    """

    cameras: tuple[Camera, ...]
    points: Float[Tensor, "n 3"]
    colours_srgb: Float[Tensor, "n 3"]

    def photo(self, camera: Camera, radius: float = 2.0) -> UInt8[np.ndarray, "h w 4"]:
        """RGBA photo: points as discs, nearer ones in front, transparent black elsewhere."""
        image = np.zeros((camera.height, camera.width, 4), np.uint8)
        rows, columns = np.mgrid[0 : camera.height, 0 : camera.width] + 0.5
        pixels, depths = project(camera, self.points)
        for i in torch.argsort(depths, descending=True).tolist():
            if depths[i] <= 0:
                continue
            x, y = pixels[i].tolist()
            inside = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
            image[inside, :3] = (self.colours_srgb[i].numpy() * 255).round()
            image[inside, 3] = 255
        return image


def small_scene(
    num_cameras: int = 9, width: int = 48, height: int = 36, num_points: int = 12
) -> SmallScene:
    """The scene that the writers below write; the same at every call."""
    cameras = []
    K = torch.tensor(
        [[1.2 * width, 0.0, 0.5 * width], [0.0, 1.2 * width, 0.5 * height], [0.0, 0.0, 1.0]],
        dtype=torch.float64,
    )
    for i in range(num_cameras):
        azimuth, elevation = 2 * math.pi * i / num_cameras, 0.4 + 0.1 * (i % 3)
        position = 4.0 * torch.tensor(
            [
                math.cos(azimuth) * math.cos(elevation),
                math.sin(azimuth) * math.cos(elevation),
                math.sin(elevation),
            ],
            dtype=torch.float64,
        )
        cameras.append(Camera(K, look_at(position, torch.zeros(3).double()), width, height))
    generator = torch.Generator().manual_seed(7)
    points = torch.rand((num_points, 3), generator=generator, dtype=torch.float64) - 0.5
    colours = 0.25 + 0.75 * torch.rand((num_points, 3), generator=generator, dtype=torch.float64)
    return SmallScene(tuple(cameras), 1.2 * points, colours)


def look_at(position: Float[Tensor, " 3"], target: Float[Tensor, " 3"]) -> Float[Tensor, "4 4"]:
    """T_camera_world of a camera at `position`, upright (+Z), OpenCV axes."""
    forward = torch.nn.functional.normalize(target - position, dim=0)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=position.dtype)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=0)
    down = torch.linalg.cross(forward, right)
    T_world_camera = torch.eye(4, dtype=position.dtype)
    T_world_camera[:3, :3] = torch.stack([right, down, forward], dim=1)
    T_world_camera[:3, 3] = position
    return invert_rigid(T_world_camera)


def project(
    camera: Camera, points_world: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, " n"]]:
    """Pixel positions (centres at +0.5) and depths."""
    T = camera.T_camera_world
    points = points_world @ T[:3, :3].mT + T[:3, 3]
    homogeneous = points @ camera.K.mT
    return homogeneous[:, :2] / homogeneous[:, 2:], points[:, 2]


def change_json(path: Path, change: Callable[[dict], object]) -> None:
    """Apply `change` to the object in a JSON file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def write_photo(path: Path, rgba: UInt8[np.ndarray, "h w 4"], keep_alpha: bool = True) -> None:
    """Save a photo, with its folders; without alpha on black."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgba if keep_alpha else np.ascontiguousarray(rgba[..., :3])).save(path)


def image_names(count: int, extension: str = ".png") -> list[str]:
    """frame_000.png, frame_001.png, ..."""
    return [f"frame_{i:03d}{extension}" for i in range(count)]


def write_colmap_model(
    folder: Path,
    scene: SmallScene,
    names: list[str],
    camera_lines: list[str] | None = None,
    binary: bool = False,
) -> None:
    """Write cameras, images and points3D.

    Args:
        folder: The model's folder.
        scene: Poses and points.
        names: Image names, one per camera.
        camera_lines: Lines of cameras.txt; image i uses camera i + 1 if there are several, else
            camera 1. Default: the scene's own intrinsics as one PINHOLE.
        binary: .bin instead of .txt.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = scene.cameras[0]
    fx, fy, cx, cy = (float(first.K[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    lines = camera_lines or [f"1 PINHOLE {first.width} {first.height} {fx!r} {fy!r} {cx!r} {cy!r}"]
    (folder / "cameras.txt").write_text("# cameras\n" + "\n".join(lines) + "\n")
    poses = ["# images"]
    for i, (camera, name) in enumerate(zip(scene.cameras, names, strict=True)):
        quat = quat_from_rotation(camera.T_camera_world[:3, :3]).tolist()
        numbers = [*quat, *camera.T_camera_world[:3, 3].tolist()]
        camera_id = i + 1 if len(lines) > 1 else 1
        poses += [f"{i + 1} {' '.join(repr(n) for n in numbers)} {camera_id} {name}", ""]
    (folder / "images.txt").write_text("\n".join(poses) + "\n")
    points = ["# points"]
    colours = (scene.colours_srgb * 255).round().int()
    for i, (position, colour) in enumerate(zip(scene.points, colours, strict=True)):
        words = [*map(repr, position.tolist()), *map(str, colour.tolist())]
        points.append(f"{i + 1} {' '.join(words)} 0.5")
    (folder / "points3D.txt").write_text("\n".join(points) + "\n")
    if binary:
        pycolmap.Reconstruction(str(folder)).write_binary(str(folder))
        for path in folder.glob("*.txt"):
            path.unlink()


def write_colmap(
    root: Path,
    scene: SmallScene,
    model_folder: str = "sparse/0",
    names: list[str] | None = None,
    binary: bool = False,
    image_folder: str = "images",
) -> list[str]:
    """Write a COLMAP capture with opaque photos.

    Returns:
        The image names.
    """
    names = names or image_names(len(scene.cameras))
    write_colmap_model(root / model_folder, scene, names, binary=binary)
    for camera, name in zip(scene.cameras, names, strict=True):
        write_photo(root / image_folder / name, scene.photo(camera), keep_alpha=False)
    return names


def opengl_matrix(camera: Camera) -> list[list[float]]:
    """Camera-to-world with OpenGL axes, as transforms.json has it."""
    return (
        camera.T_world_camera @ torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]).double())
    ).tolist()


def transforms_frames(scene: SmallScene, file_paths: list[str]) -> list[dict]:
    """The "frames" of a transforms.json."""
    return [
        {"file_path": path, "transform_matrix": opengl_matrix(camera)}
        for camera, path in zip(scene.cameras, file_paths, strict=True)
    ]


def write_transforms(root: Path, scene: SmallScene, **changes: object) -> dict:
    """Write a nerfstudio folder with opaque photos in images/.

    Args:
        root: The folder.
        scene: What to write.
        **changes: Top-level values to add or replace; None removes one.

    Returns:
        What transforms.json holds.
    """
    first = scene.cameras[0]
    names = image_names(len(scene.cameras))
    content: dict = {
        "camera_model": "OPENCV",
        "fl_x": float(first.K[0, 0]),
        "fl_y": float(first.K[1, 1]),
        "cx": float(first.K[0, 2]),
        "cy": float(first.K[1, 2]),
        "w": first.width,
        "h": first.height,
        "frames": transforms_frames(scene, [f"images/{name}" for name in names]),
    }
    content.update(changes)
    content = {key: value for key, value in content.items() if value is not None}
    for camera, name in zip(scene.cameras, names, strict=True):
        write_photo(root / "images" / name, scene.photo(camera), keep_alpha=False)
    (root / "transforms.json").write_text(json.dumps(content))
    return content


def field_of_view_x(camera: Camera) -> float:
    """Horizontal field of view in radians."""
    return 2.0 * math.atan(0.5 * camera.width / float(camera.K[0, 0]))


def write_nerf_synthetic(root: Path, scene: SmallScene, num_test: int = 2) -> None:
    """Write transforms_train.json and transforms_test.json with RGBA photos.

    The last `num_test` cameras become test views; 0 writes no transforms_test.json.
    """
    num_train = len(scene.cameras) - num_test
    parts = {"train": scene.cameras[:num_train], "test": scene.cameras[num_train:]}
    for part, cameras in parts.items():
        if not cameras:
            continue
        for i, camera in enumerate(cameras):
            write_photo(root / part / f"r_{i}.png", scene.photo(camera))
        paths = [f"./{part}/r_{i}" for i in range(len(cameras))]
        content = {
            "camera_angle_x": field_of_view_x(scene.cameras[0]),
            "frames": transforms_frames(
                SmallScene(cameras, scene.points, scene.colours_srgb), paths
            ),
        }
        (root / f"transforms_{part}.json").write_text(json.dumps(content))


def write_tensoir(
    root: Path, scene: SmallScene, num_test: int = 2, lights: tuple[str, ...] = ()
) -> None:
    """Write view folders; `lights` names rgba_<light>.png instead of rgba.png."""
    num_train = len(scene.cameras) - num_test
    for i, camera in enumerate(scene.cameras):
        part, index = ("train", i) if i < num_train else ("test", i - num_train)
        folder = root / f"{part}_{index:03d}"
        for name in [f"rgba_{light}.png" for light in lights] or ["rgba.png"]:
            write_photo(folder / name, scene.photo(camera))
        write_photo(folder / "normal.png", scene.photo(camera))
        numbers = [x for row in opengl_matrix(camera) for x in row]
        metadata = {
            "imw": camera.width,
            "imh": camera.height,
            "cam_angle_x": field_of_view_x(camera),
            "cam_transform_mat": ",".join(map(repr, numbers)),
            "envmap": "sunset",
        }
        (folder / "metadata.json").write_text(json.dumps(metadata))
