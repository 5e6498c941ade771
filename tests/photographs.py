"""Photographs of a textured corner of a room, from which poses can be found in seconds."""

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from splatir.scene.camera import Camera
from tests.captures import look_at

WIDTH, HEIGHT, FOCAL = 320, 240, 380.0
_TEXELS = 512


def corner_cameras(count: int = 8) -> list[Camera]:
    """Cameras on an arc before the corner, float64, world frame with +Z up."""
    K = torch.tensor(
        [[FOCAL, 0.0, WIDTH / 2], [0.0, FOCAL, HEIGHT / 2], [0.0, 0.0, 1.0]], dtype=torch.float64
    )
    target = torch.tensor([0.5, 0.5, 0.4], dtype=torch.float64)
    cameras = []
    for i in range(count):
        azimuth = math.radians(20.0 + 50.0 * i / (count - 1))
        position = torch.tensor(
            [2.6 * math.cos(azimuth), 2.6 * math.sin(azimuth), 1.1 + 0.15 * (i % 3)],
            dtype=torch.float64,
        )
        cameras.append(Camera(K, look_at(position, target), WIDTH, HEIGHT))
    return cameras


def corner_photo(camera: Camera, seed: int = 0) -> UInt8[np.ndarray, "h w 3"]:
    """What a camera sees of the planes x = 0, y = 0 and z = 0.

    Args:
        camera: In front of all three.
        seed: Of the texture: another one shows an unrelated corner.
    """
    textures = _textures(seed)
    columns, rows = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    K = camera.K.numpy()
    rays = np.stack(
        [(columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1], np.ones_like(rows)], -1
    )
    T = camera.T_world_camera.numpy()
    directions = rays @ T[:3, :3].T
    origin = T[:3, 3]
    nearest = np.full(rows.shape, np.inf)
    photo = np.zeros((*rows.shape, 3))
    for axis in range(3):
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = -origin[axis] / directions[..., axis]
        hits = (distance > 0) & (distance < nearest)
        nearest = np.where(hits, distance, nearest)
        points = origin + np.where(hits, distance, 0.0)[..., None] * directions
        u, v = (points[..., other] for other in range(3) if other != axis)
        photo[hits] = _sample(textures[axis], u, v)[hits]
    return (photo * 255.0).round().astype(np.uint8)


def write_photographs(folder: Path, count: int = 8) -> list[str]:
    """JPEG files of the corner; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for i, camera in enumerate(corner_cameras(count)):
        names.append(f"IMG {i:02d}.jpg")
        Image.fromarray(corner_photo(camera)).save(folder / names[-1], quality=95)
    return names


def _textures(seed: int) -> Float[np.ndarray, "3 n n 3"]:
    """Smoothed noise of several sizes."""
    generator = np.random.default_rng(seed)
    total = np.zeros((3, _TEXELS, _TEXELS, 3))
    for size, weight in ((16, 0.4), (64, 0.5), (256, 0.35)):
        coarse = generator.random((3, size, size, 3))
        total += weight * coarse.repeat(_TEXELS // size, 1).repeat(_TEXELS // size, 2)
    return total / total.max()


def _sample(
    texture: Float[np.ndarray, "n n 3"], u: Float[np.ndarray, "h w"], v: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w 3"]:
    """Bilinear, over and over beyond 2 units."""
    count = len(texture)
    x, y = (np.mod(w / 2.0 * count, count) for w in (u, v))
    x0, y0 = np.floor(x).astype(int) % count, np.floor(y).astype(int) % count
    x1, y1 = (x0 + 1) % count, (y0 + 1) % count
    fx, fy = (x % 1.0)[..., None], (y % 1.0)[..., None]
    top = texture[x0, y0] * (1 - fx) + texture[x1, y0] * fx
    bottom = texture[x0, y1] * (1 - fx) + texture[x1, y1] * fx
    return top * (1 - fy) + bottom * fy
