"""Photos at reduced size, for the first part of a training."""

import torch

from splatir.data.images import Photo, Rim
from splatir.data.resample import area_average
from splatir.scene.camera import Camera


def reduced_photo(camera: Camera, photo: Photo, divisor: int) -> tuple[Camera, Photo]:
    """Average blocks of `divisor` x `divisor` pixels, colour weighted by alpha.

    Sizes that do not divide lose their last rows and columns: the camera's intrinsics are those of
    the pixels that remain. Maps keep one pixel of each block: means across an edge are no surface.

    Args:
        camera: View at full size.
        photo: Its pixels.
        divisor: At least 1; at most half the shorter side.
    """
    width, height = camera.width // divisor, camera.height // divisor
    if divisor == 1 or min(width, height) < 2:
        return camera, photo
    scale = torch.tensor([[1.0 / divisor], [1.0 / divisor], [1.0]]).to(camera.K)
    small = Camera(camera.K * scale, camera.T_camera_world, width, height)
    maps = None if photo.maps is None else photo.maps.reduced(divisor, height, width)
    crop = (slice(0, height * divisor), slice(0, width * divisor))
    if photo.alpha is None:
        rgb = area_average(photo.rgb[crop], width, height)
        return small, Photo(rgb, None, photo.encoding, photo.bits, maps)
    alpha = photo.alpha[crop]
    mean_alpha = area_average(alpha, width, height)
    weighted = area_average(photo.rgb[crop] * alpha, width, height)
    rgb = torch.where(mean_alpha > 0, weighted / mean_alpha.clamp_min(1e-6), weighted)
    rim = None
    if photo.rim is not None:
        is_rim = area_average(photo.rim.is_rim[crop].float(), width, height) > 0.0
        rim = Rim(is_rim, area_average(photo.rim.behind_srgb[crop], width, height))
        # There, colour is that of object and background together.
        rgb = torch.where(is_rim, area_average(photo.rgb[crop], width, height), rgb)
    return small, Photo(rgb, mean_alpha, photo.encoding, photo.bits, maps, rim)
