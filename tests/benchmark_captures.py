"""Made-up captures in the layouts of benchmarks of real objects, all of the same small scene."""

import json
from pathlib import Path

import numpy as np
import torch

from splatir.codecs.exr import write_exr
from splatir.maths.colour import linear_from_srgb
from splatir.scene.camera import Camera
from tests.captures import (
    SmallScene,
    field_of_view_x,
    image_names,
    opengl_matrix,
    write_colmap_model,
    write_photo,
)

# Of a point's disc, pixels: masks are eroded by 2 before they are scored.
_RADIUS = 6.0


def write_llff(root: Path, scene: SmallScene) -> list[str]:
    """images/, masks/ and poses_bounds.npy; returns the names."""
    names = image_names(len(scene.cameras))
    rows = []
    for camera, name in zip(scene.cameras, names, strict=True):
        photo = scene.photo(camera, _RADIUS)
        write_photo(root / "images" / name, photo, keep_alpha=False)
        write_photo(root / "masks" / name, np.repeat(photo[..., 3:], 4, -1), keep_alpha=False)
        right, up, back, position = np.array(opengl_matrix(camera))[:3].T
        size = np.array([camera.height, camera.width, float(camera.K[0, 0])])
        matrix = np.stack([-up, right, back, position, size], axis=1)
        rows.append([*matrix.ravel(), 1.0, 9.0])
    np.save(root / "poses_bounds.npy", np.array(rows))
    return names


def write_objects_with_lighting(root: Path, scene: SmallScene) -> None:
    """test/inputs with images, cameras and masks, and one picture under another light."""
    inputs = root / "test" / "inputs"
    for i, camera in enumerate(scene.cameras):
        photo = scene.photo(camera, _RADIUS)
        write_photo(inputs / f"image_{i:04d}.png", photo, keep_alpha=False)
        mask = np.repeat(photo[..., 3:], 4, -1)
        write_photo(inputs / f"mask_{i:04d}.png", mask, keep_alpha=False)
        T = camera.T_camera_world.numpy()
        size = [camera.width, camera.height, 3]
        rows = np.vstack([camera.K.numpy(), T[:3, :3], T[:3, 3], size])
        np.savetxt(inputs / f"camera_{i:04d}.txt", rows)
    (inputs / "exposure.txt").write_text("1.5\n")
    write_photo(root / "test" / "gt_image_0000.png", scene.photo(scene.cameras[0]))


def write_orb(root: Path, scene: SmallScene, num_test: int = 2) -> list[str]:
    """Two captures of an object, mug_scene001 and mug_scene002, in all of Stanford-ORB's layouts.

    Returns:
        Their names.
    """
    names = ["mug_scene001", "mug_scene002"]
    num_train = len(scene.cameras) - num_test
    parts = {"train": scene.cameras[:num_train], "test": scene.cameras[num_train:]}
    for name, other in zip(names, reversed(names), strict=True):
        folder = root / "blender_HDR" / name
        for part, cameras in parts.items():
            for i, camera in enumerate(cameras):
                _write_hdr_photo(folder, part, f"{i:04d}", scene, camera)
            _write_frames(folder / f"transforms_{part}.json", part, cameras, {})
        _write_frames(
            folder / "transforms_novel.json", "test", parts["test"], {"scene_name": other}
        )
        truth = root / "ground_truth" / name
        for i, camera in enumerate(parts["test"]):
            _write_truth(truth, f"{i:04d}", scene, camera)
        _write_colmap(root / "llff_colmap_LDR" / name, scene, num_train)
    return names


def _write_hdr_photo(folder: Path, part: str, stem: str, scene: SmallScene, camera: Camera) -> None:
    photo = scene.photo(camera, _RADIUS)
    linear = linear_values(photo)
    (folder / part).mkdir(parents=True, exist_ok=True)
    write_exr(folder / part / f"{stem}.exr", 1.5 * linear)
    mask = np.repeat(photo[..., 3:], 4, -1)
    write_photo(folder / f"{part}_mask" / f"{stem}.png", mask, keep_alpha=False)


def linear_values(photo: np.ndarray) -> np.ndarray:
    """Linear colours of 8-bit ones."""
    return linear_from_srgb(torch.from_numpy(photo[..., :3] / np.float32(255.0))).numpy()


def _write_frames(
    path: Path, part: str, cameras: tuple[Camera, ...], extra: dict[str, str]
) -> None:
    angle = {"camera_angle_x": field_of_view_x(cameras[0])}
    frames = [
        {
            "file_path": f"{part}/{i:04d}",
            "transform_matrix": opengl_matrix(camera),
            **extra,
            **(angle if extra else {}),
        }
        for i, camera in enumerate(cameras)
    ]
    path.write_text(json.dumps({**({} if extra else angle), "frames": frames}))


def _write_truth(folder: Path, stem: str, scene: SmallScene, camera: Camera) -> None:
    photo = scene.photo(camera, _RADIUS)
    for name in ("env_map", "surface_normal", "z_depth", "pseudo_gt_albedo"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    # Brighter from where the camera looks.
    env = np.full((8, 16, 3), 0.5, np.float32)
    env[2:6, 6:10] = 3.0
    write_exr(folder / "env_map" / f"{stem}.exr", env)
    towards = np.zeros((*photo.shape[:2], 3), np.float32)
    towards[..., 2] = 1.0
    np.save(folder / "surface_normal" / f"{stem}.npy", towards)
    np.save(folder / "z_depth" / f"{stem}.npy", np.full(photo.shape[:2], 4.0, np.float32))
    np.save(folder / "pseudo_gt_albedo" / f"{stem}.npy", linear_values(photo))


def _write_colmap(folder: Path, scene: SmallScene, num_train: int) -> None:
    names = [f"{i:04d}.png" for i in range(len(scene.cameras))]
    write_colmap_model(folder / "sparse" / "0", scene, names, binary=True)
    write_colmap_model(folder / "sparse" / "mug_scene009", scene, names, binary=True)
    for camera, name in zip(scene.cameras, names, strict=True):
        photo = scene.photo(camera, _RADIUS)
        write_photo(folder / "images" / name, photo, keep_alpha=False)
        mask = np.repeat(photo[..., 3:], 4, -1)
        write_photo(folder / "masks" / name, mask, keep_alpha=False)
    (folder / "train_id.txt").write_text("\n".join(names[:num_train]) + "\n")
    (folder / "test_id.txt").write_text("\n".join(names[num_train:]) + "\n")
