"""How well does a run do on a capture of Stanford-ORB: new views, other lights, surfaces?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from splatir.data.dataset import View
from splatir.data.images import load_photo
from splatir.data.orb import NovelView, OrbCapture, rotation_of_map, true_plane
from splatir.evaluate.judge import ScoredScene
from splatir.evaluate.orb import (
    albedo_psnr,
    depth_error,
    display_pair,
    normal_distance,
    picture_scores,
)
from splatir.evaluate.protocols import mean_of
from splatir.raster.contract import RasterOptions
from splatir.render.buffers import ViewBuffers, radiance_buffers, shaded_buffers
from splatir.render.relighting import lighting_for
from splatir.scene.environment_map import rotate_environment
from splatir.scene.lights import EnvironmentLight
from splatir.storage.environment import read_environment

# Rows of the maps that pictures are lit by; the files have four times as many.
_MAP_HEIGHT = 256

# LPIPS of two sRGB pictures.
PictureDistance = Callable[[Tensor, Tensor], Tensor]
_Array = np.ndarray


@dataclass
class _Depths:
    """Depth of all views, which are scored together."""

    predicted: list[_Array] = field(default_factory=list)
    truth: list[_Array] = field(default_factory=list)
    masks: list[_Array] = field(default_factory=list)


def score_views_and_surfaces(
    scene: ScoredScene,
    capture: OrbCapture,
    views: Sequence[View],
    lpips: PictureDistance | None,
) -> dict[str, float]:
    """Means over the test views of a capture.

    Args:
        scene: What is scored.
        capture: What it was trained on.
        views: Its test views.
        lpips: Distance of two pictures, None to leave it out.

    Returns:
        `view_psnr_h`, `view_psnr_l`, `view_ssim` of shaded pictures under the light that was found
        (`radiance_view_...` of the radiance splat), `normal_distance`, `depth_error`, `albedo_psnr`
        as far as the truth goes.
    """
    own = None
    if scene.is_shaded and scene.light is not None:
        own = lighting_for(scene.model, scene.light, scene.transport)
    options = RasterOptions(antialiased=scene.antialiased)
    scores: list[dict[str, float]] = []
    depths = _Depths()
    for view in tqdm(views, desc="views", unit="view"):
        camera = view.camera.to(scene.model.means.device)
        radiance = radiance_buffers(scene.model, camera, scene.rasterizer, options)
        truth, mask = _true_picture(view)
        found = _compared("radiance_view", radiance, truth, mask, lpips)
        if own is not None:
            shaded = shaded_buffers(scene.model, camera, own, scene.rasterizer, options)
            found |= _compared("view", shaded, truth, mask, lpips)
        scores.append(found | _surfaces(capture, view, radiance, mask, depths))
    means = mean_of(scores)
    if depths.truth:
        means["depth_error"] = depth_error(depths.predicted, depths.truth, depths.masks)
    return means


def score_other_lights(
    scene: ScoredScene, novel: Sequence[NovelView], lpips: PictureDistance | None
) -> dict[str, float]:
    """Means of `relight_psnr_h`, `relight_psnr_l` and `relight_ssim` over pictures elsewhere.

    Args:
        scene: With materials.
        novel: Pictures under other lights with their environment maps.
        lpips: Distance of two pictures, None to leave it out.
    """
    options = RasterOptions(antialiased=scene.antialiased)
    device = scene.model.means.device
    scores = []
    for other in tqdm(novel, desc="other lights", unit="view"):
        light = read_environment(other.environment, height=_MAP_HEIGHT)
        turned = rotate_environment(light, rotation_of_map(other.view))
        lighting = lighting_for(
            scene.model, EnvironmentLight(turned.radiance.to(device)), scene.transport
        )
        camera = other.view.camera.to(device)
        buffers = shaded_buffers(scene.model, camera, lighting, scene.rasterizer, options)
        truth, mask = _true_picture(other.view)
        scores.append(_compared("relight", buffers, truth, mask, lpips))
    return mean_of(scores)


def _true_picture(view: View) -> tuple[_Array, _Array]:
    """Linear colours and the object's mask, at the size of the view's camera."""
    photo = load_photo(view)
    if photo.encoding != "linear" or photo.alpha is None:
        raise ValueError(
            f"{view.image_path} must be an .exr with a mask beside it, as in blender_HDR."
        )
    return _array(photo.rgb), _array(photo.alpha[..., 0]) > 0.5


def _compared(
    kind: str, buffers: ViewBuffers, truth: _Array, mask: _Array, lpips: PictureDistance | None
) -> dict[str, float]:
    """Scores of a picture, their names beginning with its kind."""
    predicted = _array(buffers.rgb * buffers.alpha)
    found = picture_scores(predicted, truth, mask)
    if lpips is not None:
        pair = display_pair(predicted, truth, mask)
        device = buffers.rgb.device
        a, b = (torch.from_numpy(picture).float().to(device) for picture in pair)
        found["lpips"] = float(lpips(a, b))
    return {f"{kind}_{name}": value for name, value in found.items()}


def _surfaces(
    capture: OrbCapture, view: View, buffers: ViewBuffers, mask: _Array, depths: _Depths
) -> dict[str, float]:
    """Scores of normals and albedo; depth is gathered."""
    found = {}
    normals = true_plane(capture, "surface_normal", view)
    if normals is not None:
        predicted = _array(_opengl(buffers.normals, view))
        found["normal_distance"] = normal_distance(predicted, normals, mask)
    depth = true_plane(capture, "z_depth", view)
    if depth is not None:
        depths.predicted.append(_array(buffers.depth[..., 0]))
        depths.truth.append(depth[..., 0])
        depths.masks.append(mask)
    albedo = true_plane(capture, "pseudo_gt_albedo", view)
    if albedo is not None and buffers.albedo is not None:
        predicted = _array(buffers.albedo * buffers.alpha)
        found["albedo_psnr"] = albedo_psnr(predicted, albedo, mask)
    return found


def _opengl(
    normals_world: Float[Tensor, "height width 3"], view: View
) -> Float[Tensor, "height width 3"]:
    """Normals in the axes of the benchmark's maps: the camera's, y up and z towards the viewer."""
    R_camera_world = view.camera.T_camera_world[:3, :3].to(normals_world)
    return normals_world @ R_camera_world.mT * normals_world.new_tensor([1.0, -1.0, -1.0])


def _array(values: Tensor) -> _Array:
    return values.detach().cpu().numpy().astype(np.float64)
