"""How well does a model, by its radiance or shaded, predict photos it was not trained on?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.data.cache import PhotoSource
from splatir.data.dataset import View
from splatir.data.images import Photo
from splatir.evaluate.metrics import ImageScores, mean_scores, on_white, psnr, score_image
from splatir.maths.colour import exposed_over
from splatir.raster.contract import RasterBackend, RasterOptions, RasterOutput
from splatir.render.buffers import ViewBuffers, shaded_buffers
from splatir.render.deferred import Lighting
from splatir.render.radiance import render_radiance
from splatir.render.surrounded import surrounded_view
from splatir.render.tone import composite_srgb, display_srgb
from splatir.scene.gaussians import GaussianModel


@dataclass(frozen=True)
class RenderedView:
    """A held-out view beside its photo, as they are compared.

    Attributes:
        name: Of the view.
        image_srgb: Rendered, over white where the photo has alpha; clipped, on the CPU.
        photo_srgb: Photo, likewise.
        raster: Composited buffers.
        scores: Comparison of the two.
    """

    name: str
    image_srgb: Float[Tensor, "height width 3"]
    photo_srgb: Float[Tensor, "height width 3"]
    raster: RasterOutput
    scores: ImageScores


@dataclass(frozen=True)
class ShadedView:
    """A held-out view under the recovered light beside its photo, as they are compared.

    Attributes:
        name: Of the view.
        image_srgb: Shaded, over white where the photo has alpha; clipped, on the CPU.
        photo_srgb: Photo, likewise.
        buffers: Coverage, materials, normals and depth, world frame.
        scores: Comparison of the two.
    """

    name: str
    image_srgb: Float[Tensor, "height width 3"]
    photo_srgb: Float[Tensor, "height width 3"]
    buffers: ViewBuffers
    scores: ImageScores


@dataclass(frozen=True)
class HeldOutScores:
    """Scores of all held-out views.

    Attributes:
        names: Of the views.
        views: Scores per view, in the same order.
    """

    names: tuple[str, ...]
    views: tuple[ImageScores, ...]

    @property
    def mean(self) -> ImageScores:
        """Mean over views."""
        return mean_scores(self.views)


def score_views(
    model: GaussianModel,
    views: Sequence[View],
    photos: PhotoSource,
    rasterizer: RasterBackend,
    background_srgb: Float[Tensor, " 3"] | None,
    options: RasterOptions = RasterOptions(),
) -> HeldOutScores:
    """Render and score every view.

    Args:
        model: Gaussians.
        views: At least one.
        photos: Pixels of the views, in their order.
        rasterizer: Backend.
        background_srgb: Behind views whose photo has no alpha; None is black.
        options: As in training.
    """
    scores = []
    for index in range(len(views)):
        photos.prefetch(min(index + 1, len(views) - 1))
        rendered = render_view(
            model, views[index], photos[index], rasterizer, background_srgb, options
        )
        scores.append(rendered.scores)
    return HeldOutScores(tuple(view.name for view in views), tuple(scores))


@torch.no_grad()
def render_view(
    model: GaussianModel,
    view: View,
    photo: Photo,
    rasterizer: RasterBackend,
    background_srgb: Float[Tensor, " 3"] | None,
    options: RasterOptions = RasterOptions(),
    log_gains: Float[Tensor, " 3"] | None = None,
) -> RenderedView:
    """Render one view and compare it with its photo.

    Where the photo has alpha, both are composited on white; otherwise the render is composited on
    the scene's own background.

    Args:
        model: Gaussians.
        view: Camera.
        photo: Pixels.
        rasterizer: Backend.
        background_srgb: Behind views whose photo has no alpha; None is black.
        options: Further buffers wanted.
        log_gains: Of the photo, linear light; None for none.
    """
    device = model.means.device
    background = torch.zeros(3, device=device) if background_srgb is None else background_srgb
    if photo.alpha is not None:
        background = torch.ones(3, device=device)
    image = render_radiance(model, view.camera.to(device), rasterizer, background, options=options)
    rgb = image.rgb_srgb
    if log_gains is not None:
        alpha = None if photo.alpha is None else image.raster.alpha
        rgb = exposed_over(rgb, log_gains, alpha, background)
    rendered = rgb.clamp(0.0, 1.0).cpu()
    photo_srgb, scores = _compared(rendered, photo)
    return RenderedView(view.name, rendered, photo_srgb, image.raster, scores)


@torch.no_grad()
def shade_view(
    model: GaussianModel,
    view: View,
    photo: Photo,
    lighting: Lighting,
    rasterizer: RasterBackend,
    background_srgb: Float[Tensor, " 3"] | None,
    options: RasterOptions = RasterOptions(),
    log_gains: Float[Tensor, " 3"] | None = None,
    whole: GaussianModel | None = None,
) -> ShadedView:
    """Shade one view under a light and compare it with its photo as `render_view` does.

    Args:
        model: Gaussians with materials.
        view: Camera.
        photo: Pixels.
        lighting: Shader, or these Gaussians, under the recovered light.
        rasterizer: Backend.
        background_srgb: Behind views whose photo has no alpha; None is black.
        options: As in training.
        log_gains: Of the photo, linear light; None for none.
        whole: Radiance of these Gaussians and then of those around them; None to leave them out.
            They show in photos without alpha.

    Raises:
        ValueError: The model has no materials.
    """
    camera = view.camera.to(model.means.device)
    buffers = shaded_buffers(model, camera, lighting, rasterizer, options)
    background = torch.zeros(3) if background_srgb is None else background_srgb
    if photo.alpha is not None:
        background = torch.ones(3)
    shown = display_srgb(buffers.rgb, "srgb")
    if whole is None or photo.alpha is not None:
        rendered = composite_srgb(shown, buffers.alpha, background)
    else:
        count = model.num_gaussians
        around = surrounded_view(whole, count, camera, rasterizer, background_srgb, options)
        rendered = around.around(shown)
    if log_gains is not None:
        alpha = None if photo.alpha is None else buffers.alpha
        rendered = exposed_over(rendered, log_gains.to(rendered), alpha, background)
        rendered = rendered.clamp(0.0, 1.0)
    rendered = rendered.cpu()
    photo_srgb, scores = _compared(rendered, photo)
    return ShadedView(view.name, rendered, photo_srgb, buffers, scores)


def _compared(
    rendered: Float[Tensor, "height width 3"], photo: Photo
) -> tuple[Float[Tensor, "height width 3"], ImageScores]:
    """The photo on white, and scores of a composited picture against it."""
    alpha = None if photo.alpha is None else photo.alpha[..., 0]
    photo_on_white = on_white(photo.rgb_srgb, alpha)
    # Both pictures are composited already: only the foreground still needs the photo's alpha.
    scores = score_image(rendered, photo_on_white)
    if alpha is not None and bool((alpha > 0.5).any()):
        scores = replace(scores, psnr_fg=psnr(rendered, photo_on_white, alpha > 0.5))
    return photo_on_white.float(), scores
