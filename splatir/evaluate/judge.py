"""How good is a run over all held-out views: by its shaded picture, and by its radiance alone?"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from splatir.data.dataset import View
from splatir.data.images import Photo
from splatir.evaluate.alignment import align_view
from splatir.evaluate.held_out import RenderedView, ShadedView, render_view, shade_view
from splatir.evaluate.metrics import ImageScores, mean_scores
from splatir.evaluate.report import SheetRow, material_row, radiance_row
from splatir.raster.contract import RasterBackend, RasterOptions
from splatir.render.relighting import lighting_for
from splatir.render.surrounded import whole_scene
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
        extent: Radius of the scene, scene units, where photos are also scored after
            camera and exposure were fitted to each (`alignment`); None to score as calibrated only.
        surroundings: Radiance of what stands around the Gaussians, or None.
    """

    model: GaussianModel
    light: EnvironmentLight | None
    background_srgb: Float[Tensor, " 3"] | None
    rasterizer: RasterBackend
    antialiased: bool
    transport: SceneTransport | None = None
    extent: float | None = None
    surroundings: GaussianModel | None = None

    @property
    def is_shaded(self) -> bool:
        """Whether there are materials and a light to shade them with."""
        return self.model.has_materials and self.light is not None


@dataclass(frozen=True)
class _Scored:
    """Scores of one picture."""

    image: ImageScores
    lpips: float | None


# Scores of one view by the prefix of their names: "" of its main picture, "radiance_", "aligned_"
# and "aligned_radiance_".
_Looks = dict[str, _Scored]


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
        self._whole = whole_scene(scene.model, scene.surroundings)
        self._lighting = None
        if scene.is_shaded:
            assert scene.light is not None
            self._lighting = lighting_for(scene.model, scene.light, scene.transport)
        self._seen: list[_Looks] = []
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
        looks, row = self._look(view, photo, None)
        if scene.extent is not None:
            plain = RasterOptions(antialiased=scene.antialiased)
            fitted = align_view(
                self._whole,
                view,
                photo,
                scene.rasterizer,
                scene.background_srgb,
                scene.extent,
                plain,
            )
            view = replace(view, camera=fitted.camera)
            aligned, aligned_row = self._look(view, photo, fitted.log_gains)
            looks = {**looks, **{f"aligned_{key}": look for key, look in aligned.items()}}
            row = replace(aligned_row, title=f"{aligned_row.title}   (camera and exposure fitted)")
        self._seen.append(looks)
        self.per_view.append({"name": view.name, **_flat([looks])})
        if draw:
            self.rows.append(row)

    def _look(self, view: View, photo: Photo, log_gains: Tensor | None) -> tuple[_Looks, SheetRow]:
        """Scores and row of a view under the given exposure."""
        scene, background = self._scene, self._scene.background_srgb
        options = RasterOptions(
            depth=True,
            normals=scene.model.primitive == "surfel",
            antialiased=scene.antialiased,
        )
        radiance = render_view(
            self._whole, view, photo, scene.rasterizer, background, options, log_gains
        )
        scored = self._scored(radiance)
        if self._lighting is None:
            return {"": scored, "radiance_": scored}, radiance_row(radiance)
        plain = RasterOptions(antialiased=scene.antialiased)
        shaded = shade_view(
            scene.model,
            view,
            photo,
            self._lighting,
            scene.rasterizer,
            background,
            plain,
            log_gains,
            None if scene.surroundings is None else self._whole,
        )
        looks = {"": self._scored(shaded), "radiance_": scored}
        return looks, material_row(shaded, radiance.scores)

    def scores(self) -> dict[str, Any]:
        """Means over all views: psnr_full, psnr_fg, ssim, lpips, and the same for radiance alone.

        Without materials both are the radiance's. Under the prefix `aligned_`, where views were
        aligned, the same after that.
        """
        return _flat(self._seen)

    def _scored(self, view: RenderedView | ShadedView) -> _Scored:
        lpips = self._lpips
        perceptual = None if lpips is None else float(lpips(view.image_srgb, view.photo_srgb))
        return _Scored(view.scores, perceptual)


def _flat(views: Sequence[_Looks]) -> dict[str, Any]:
    return {
        f"{prefix}{key}": value
        for prefix in views[0]
        for key, value in _mean([looks[prefix] for looks in views]).items()
    }


def _mean(views: Sequence[_Scored]) -> dict[str, Any]:
    perceptual = [view.lpips for view in views if view.lpips is not None]
    mean = asdict(mean_scores([view.image for view in views]))
    return {**mean, "lpips": sum(perceptual) / len(perceptual) if perceptual else None}
