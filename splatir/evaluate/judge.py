"""How good is a run over all held-out views: by its shaded picture, and by its radiance alone?"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from splatir.data.dataset import View
from splatir.data.images import Photo
from splatir.evaluate.held_out import RenderedView, ShadedView, render_view, shade_view
from splatir.evaluate.metrics import ImageScores, mean_scores
from splatir.evaluate.report import SheetRow, material_row, radiance_row
from splatir.raster.contract import RasterBackend, RasterOptions
from splatir.render.relighting import lighting_for
from splatir.scene.gaussians import GaussianModel
from splatir.scene.lights import EnvironmentLight
from splatir.transport.scene import SceneTransport


@dataclass(frozen=True)
class ScoredScene:
    """What is rendered to be scored.

    Attributes:
        model: Gaussians.
        light: That lit the photos; None without materials.
        background_srgb: Behind views whose photo has no alpha; None is black.
        rasterizer: Backend.
        antialiased: As in training.
        transport: What the Gaussians see of each other; None to shade without shadows.
    """

    model: GaussianModel
    light: EnvironmentLight | None
    background_srgb: Float[Tensor, " 3"] | None
    rasterizer: RasterBackend
    antialiased: bool
    transport: SceneTransport | None = None

    @property
    def is_shaded(self) -> bool:
        """Whether there are materials and a light to shade them with."""
        return self.model.has_materials and self.light is not None


@dataclass(frozen=True)
class _Scored:
    """Scores of one picture."""

    image: ImageScores
    lpips: float | None


class Judge:
    """Compares views one by one; keeps their scores and rows of the contact sheet.

    Attributes:
        per_view: Scores of each view so far, flat, with its name.
        rows: Of the views that were to be drawn.
    """

    def __init__(
        self, scene: ScoredScene, lpips: Callable[[Tensor, Tensor], Tensor] | None
    ) -> None:
        """Prepare the light.

        Args:
            scene: What is scored.
            lpips: Distance of two pictures, or None where it is not available.
        """
        self._scene = scene
        self._lpips = lpips
        self._lighting = None
        if scene.is_shaded:
            assert scene.light is not None
            self._lighting = lighting_for(scene.model, scene.light, scene.transport)
        self._radiance: list[_Scored] = []
        self._shaded: list[_Scored] = []
        self.per_view: list[dict[str, Any]] = []
        self.rows: list[SheetRow] = []

    def look_at(self, view: View, photo: Photo, draw: bool) -> None:
        """Render a view and score it.

        Args:
            view: Held out.
            photo: Its pixels.
            draw: Whether it goes on the contact sheet.
        """
        scene = self._scene
        options = RasterOptions(
            depth=True,
            normals=scene.model.primitive == "surfel",
            antialiased=scene.antialiased,
        )
        background = scene.background_srgb
        radiance = render_view(scene.model, view, photo, scene.rasterizer, background, options)
        self._radiance.append(self._scored(radiance))
        row = radiance_row(radiance)
        if self._lighting is not None:
            plain = RasterOptions(antialiased=scene.antialiased)
            shaded = shade_view(
                scene.model, view, photo, self._lighting, scene.rasterizer, background, plain
            )
            self._shaded.append(self._scored(shaded))
            row = material_row(shaded, radiance.scores)
        self.per_view.append({"name": view.name, **self._flat(slice(-1, None))})
        if draw:
            self.rows.append(row)

    def scores(self) -> dict[str, Any]:
        """Means over all views: psnr_full, psnr_fg, ssim, lpips, and the same for radiance alone.

        Without materials both are the radiance's.
        """
        return self._flat(slice(None))

    def _flat(self, part: slice) -> dict[str, Any]:
        radiance = _mean(self._radiance[part])
        main = _mean(self._shaded[part]) if self._scene.is_shaded else radiance
        return {**main, **{f"radiance_{key}": value for key, value in radiance.items()}}

    def _scored(self, view: RenderedView | ShadedView) -> _Scored:
        lpips = self._lpips
        perceptual = None if lpips is None else float(lpips(view.image_srgb, view.photo_srgb))
        return _Scored(view.scores, perceptual)


def _mean(views: Sequence[_Scored]) -> dict[str, Any]:
    perceptual = [view.lpips for view in views if view.lpips is not None]
    mean = asdict(mean_scores([view.image for view in views]))
    return {**mean, "lpips": sum(perceptual) / len(perceptual) if perceptual else None}
