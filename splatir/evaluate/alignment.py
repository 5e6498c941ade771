"""Which camera, and how much light, did a held-out photo really have?

Cameras and exposures of training photos are learned with the model; a held-out photo was not there.
Before it is scored a second time, its own few numbers are fitted to it with the model fixed.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.data.dataset import View
from splatir.data.images import Photo
from splatir.data.resample import area_average
from splatir.evaluate.metrics import on_white
from splatir.maths.colour import SRGB_OFFSET, exposed_over
from splatir.maths.photometric import photometric_loss
from splatir.raster.contract import RasterBackend, RasterOptions
from splatir.render.camera_gradient import CameraCorrection
from splatir.render.radiance import RadianceImage, render_radiance
from splatir.scene.camera import Camera
from splatir.scene.corrections import NUM_CORRECTIONS, TYPICAL_CORRECTION, corrected_camera
from splatir.scene.gaussians import GaussianModel

# Of Adam.
STEPS = 30
# Step sizes at the first step, of typical corrections and of log gains; they fall to a twentieth.
_RATE = 0.15
_GAIN_RATE = 0.03
_LAST = 0.05
# Larger photos are reduced to this for it, pixels: what is fitted does not depend on the size.
_LONGER_SIDE = 512
# As in training: a photo that says nothing of a number leaves it.
_PRIOR = 1e-3
_SSIM = 0.2
_SATURATED = 254.5 / 255.0


@dataclass(frozen=True)
class Alignment:
    """What was fitted to a photo.

    Attributes:
        camera: Corrected.
        log_gains: Logarithm of linear gains of red, green and blue.
    """

    camera: Camera
    log_gains: Float[Tensor, " 3"]


def align_view(
    model: GaussianModel,
    view: View,
    photo: Photo,
    rasterizer: RasterBackend,
    background_srgb: Float[Tensor, " 3"] | None,
    extent: float,
    options: RasterOptions = RasterOptions(),
) -> Alignment:
    """Fit camera and gains of one photo by gradient descent, the model fixed.

    Args:
        model: Gaussians; unchanged, and left without gradients.
        view: Camera as calibrated.
        photo: Pixels; those with alpha are compared on white.
        rasterizer: Backend.
        background_srgb: Behind the Gaussians where the photo has no alpha; None is black.
        extent: Radius of the scene, scene units.
        options: As in training.
    """
    device = model.means.device
    given = view.camera.to(device)
    small, target, is_solid = reduced_view(given, photo)
    background = torch.zeros(3, device=device) if background_srgb is None else background_srgb
    if is_solid is not None:
        background = torch.ones(3, device=device)
    constant = GaussianModel({k: v.detach() for k, v in model.params.items()}, model.primitive)

    def picture(correction: Float[Tensor, " 7"]) -> RadianceImage:
        camera = corrected_camera(small, correction.detach(), extent)
        tie = CameraCorrection(correction, extent)
        return render_radiance(
            constant, camera, rasterizer, background, options=options, correction=tie
        )

    typical = torch.tensor(TYPICAL_CORRECTION, device=device)
    relative = torch.zeros(NUM_CORRECTIONS, device=device, requires_grad=True)
    first = picture(relative * typical).rgb_srgb
    log_gains = fitted_log_gains(first, target, is_solid).requires_grad_()
    groups = [{"params": [relative], "lr": _RATE}, {"params": [log_gains], "lr": _GAIN_RATE}]
    optimizer = torch.optim.Adam(groups)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, _LAST ** (1.0 / STEPS))
    for _ in range(STEPS):
        image = picture(relative * typical)
        alpha = None if is_solid is None else image.raster.alpha
        shown = exposed_over(image.rgb_srgb, log_gains, alpha, background)
        loss = photometric_loss(shown, target, _SSIM) + _PRIOR * relative.square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        decay.step()
    correction = (relative * typical).detach()
    return Alignment(corrected_camera(given, correction, extent), log_gains.detach())


def reduced_view(
    camera: Camera, photo: Photo
) -> tuple[Camera, Float[Tensor, "_height _width 3"], Float[Tensor, "_height _width"] | None]:
    """Camera, photo on white and alpha, no larger than alignment needs.

    Args:
        camera: At the size of the photo.
        photo: Pixels.
    """
    target = on_white(photo.rgb_srgb, None if photo.alpha is None else photo.alpha[..., 0]).float()
    alpha = photo.alpha
    scale = _LONGER_SIDE / max(camera.width, camera.height)
    if scale < 1.0:
        width, height = (max(round(scale * n), 1) for n in (camera.width, camera.height))
        camera = camera.resized(width, height)
        target = area_average(target, width, height)
        alpha = None if alpha is None else area_average(alpha, width, height)
    device = camera.K.device
    return camera, target.to(device), None if alpha is None else alpha[..., 0].to(device)


@torch.no_grad()
def fitted_log_gains(
    image_srgb: Float[Tensor, "height width 3"],
    photo_srgb: Float[Tensor, "height width 3"],
    alpha: Float[Tensor, "height width"] | None = None,
) -> Float[Tensor, " 3"]:
    """Log gains, linear light, with which a picture is nearest to a photo in sRGB.

    Args:
        image_srgb: Rendered; not clipped.
        photo_srgb: In [0, 1]; its saturated pixels are left out.
        alpha: Of the photo; only opaque pixels count. None where all are.
    """
    weights = (photo_srgb < _SATURATED).to(image_srgb)
    if alpha is not None:
        weights = weights * (alpha > _SATURATED)[..., None]
    image, photo = image_srgb.clamp_min(0.0) + SRGB_OFFSET, photo_srgb + SRGB_OFFSET
    product = (weights * image * photo).sum((0, 1))
    square = (weights * image * image).sum((0, 1))
    # Nothing but saturated pixels: as it is.
    factors = torch.where(square > 0, product / square.clamp_min(1e-12), 1.0)
    return 2.4 * factors.clamp(0.1, 10.0).log()
