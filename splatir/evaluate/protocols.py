"""By which arithmetic are normals, materials and relit pictures compared with the truth?

`_fg` looks inside the true mask (alpha above one half) only. Photos show the product of albedo and
light, so albedo and relit pictures are scored three times: `_raw`; after one factor per channel
that is the median of truth / prediction over all test foreground, in linear, as most papers do (no
suffix); and after the least-squares factor (`_ls`), which holds where a channel is near 0.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float

from splatir.evaluate.metrics import on_white, psnr, ssim_full
from splatir.evaluate.truth import TrueBuffers, TruePicture
from splatir.maths.colour import srgb_from_linear

Colours = Float[np.ndarray, "n 3"] | Float[np.ndarray, "height width 3"]

# Albedo channels below these say nothing about a ratio.
_MIN_TRUTH, _MIN_PREDICTION = 1e-3, 1e-4


@dataclass(frozen=True)
class Prediction:
    """Buffers of a rendered view, input frame, not multiplied by coverage.

    Attributes:
        rgb: Linear.
        alpha: Coverage in [0, 1].
        depth: Camera z, units of the data.
        normals: Unit.
        albedo: Linear; None without materials.
        roughness: Perceptual; likewise.
        metallic: Likewise.
    """

    rgb: Float[np.ndarray, "height width 3"]
    alpha: Float[np.ndarray, "height width"]
    depth: Float[np.ndarray, "height width"]
    normals: Float[np.ndarray, "height width 3"]
    albedo: Float[np.ndarray, "height width 3"] | None = None
    roughness: Float[np.ndarray, "height width"] | None = None
    metallic: Float[np.ndarray, "height width"] | None = None


@dataclass(frozen=True)
class AlbedoScales:
    """Factors per channel from predicted to true albedo, linear.

    Attributes:
        median: Of the ratios.
        least_squares: Of least squared error.
    """

    median: Float[np.ndarray, " 3"]
    least_squares: Float[np.ndarray, " 3"]

    def by_suffix(self) -> dict[str, Float[np.ndarray, " 3"]]:
        """Factors by the suffix of the scores that use them."""
        return {"_raw": np.ones(3), "": self.median, "_ls": self.least_squares}


@dataclass
class AlbedoRatios:
    """What the factors between predicted and true albedo are found from, view by view."""

    _ratios: list[Float[np.ndarray, "n 3"]] = field(default_factory=list)
    _products: Float[np.ndarray, " 3"] = field(default_factory=lambda: np.zeros(3))
    _squares: Float[np.ndarray, " 3"] = field(default_factory=lambda: np.zeros(3))

    def add(self, truth: Float[np.ndarray, "n 3"], predicted: Float[np.ndarray, "n 3"]) -> None:
        """Take the foreground of a view.

        Args:
            truth: Linear albedo.
            predicted: Linear albedo of the same pixels.
        """
        x, y = truth.astype(np.float64), predicted.astype(np.float64)
        ratios = (x / np.maximum(y, _MIN_PREDICTION))[x.min(-1) > _MIN_TRUTH]
        self._ratios.append(ratios.astype(np.float32))
        self._products += (x * y).sum(0)
        self._squares += (y * y).sum(0)

    def scales(self) -> AlbedoScales:
        """Factors over all views so far; 1 where nothing says which."""
        ratios = np.concatenate([np.ones((0, 3), np.float32), *self._ratios])
        median = np.median(ratios, axis=0) if len(ratios) else np.ones(3)
        least = np.where(self._squares > 0, self._products / np.maximum(self._squares, 1e-12), 1.0)
        return AlbedoScales(median.astype(np.float64), least)


def surface_scores(
    truth: TrueBuffers, predicted: Prediction, scales: AlbedoScales
) -> dict[str, float]:
    """Scores of geometry and materials of a view, as far as the truth has them.

    Args:
        truth: Input frame.
        predicted: Input frame, same size.
        scales: Over all test views.

    Returns:
        mask_iou; normal_mae_fg, normal_mae_full and geo_normal_mae_fg in degrees; depth_rel_fg
        (median of |error| / truth); albedo*_psnr_fg and _full in dB, of sRGB values, over white;
        roughness_mse_fg and metallic_mse_fg.

    Raises:
        ValueError: Sizes that differ, or no foreground.
    """
    fg = _foreground(truth.alpha, predicted.alpha.shape)
    covered = predicted.alpha > 0.5
    scores = {"mask_iou": float((fg & covered).sum() / max((fg | covered).sum(), 1))}
    if truth.normals is not None:
        angles = _angles(predicted.normals, truth.normals)
        scores["normal_mae_fg"] = float(angles[fg].mean())
        scores["normal_mae_full"] = float(angles[fg].sum() / fg.size)
    if truth.geo_normals is not None:
        scores["geo_normal_mae_fg"] = float(
            _angles(predicted.normals, truth.geo_normals)[fg].mean()
        )
    if truth.depth is not None:
        error = np.abs(predicted.depth[fg] - truth.depth[fg]) / truth.depth[fg]
        scores["depth_rel_fg"] = float(np.median(error))
    if truth.albedo is not None and predicted.albedo is not None:
        for suffix, scale in scales.by_suffix().items():
            shown, true = _srgb(predicted.albedo * scale), _srgb(truth.albedo)
            scores[f"albedo{suffix}_psnr_fg"] = psnr(shown, true, fg)
            on = fg[..., None]
            scores[f"albedo{suffix}_psnr_full"] = psnr(
                np.where(on, shown, 1.0), np.where(on, true, 1.0)
            )
    for name in ("roughness", "metallic"):
        true, found = getattr(truth, name), getattr(predicted, name)
        if true is not None and found is not None:
            error = found.astype(np.float64) - true.astype(np.float64)
            scores[f"{name}_mse_fg"] = float(np.square(error)[fg].mean())
    return scores


def relit_scores(
    truth: TruePicture,
    mask: Float[np.ndarray, "height width"],
    rgb: Float[np.ndarray, "height width 3"],
    alpha: Float[np.ndarray, "height width"],
    scales: AlbedoScales,
) -> dict[str, float]:
    """Scores of a view under another light.

    Args:
        truth: The view under that light.
        mask: True coverage.
        rgb: Relit, linear, not multiplied by coverage.
        alpha: Its coverage.
        scales: Of albedo, over all test views.

    Returns:
        relight*_psnr_full and _fg in dB, relight_ssim after the median factor.

    Raises:
        ValueError: Sizes that differ, or no foreground.
    """
    fg = _foreground(mask, alpha.shape)
    photo = on_white(truth.rgb_srgb, truth.alpha)
    scores = {}
    for suffix, scale in scales.by_suffix().items():
        shown = on_white(_srgb(rgb * scale), alpha)
        scores[f"relight{suffix}_psnr_full"] = psnr(shown, photo)
        scores[f"relight{suffix}_psnr_fg"] = psnr(shown, photo, fg)
        if suffix == "":
            scores["relight_ssim"] = ssim_full(shown, photo)
    return scores


def mean_of(scores: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each score over the views that have it."""
    names = dict.fromkeys(name for view in scores for name in view)
    return {name: float(np.mean([v[name] for v in scores if name in v])) for name in names}


def _foreground(
    mask: Float[np.ndarray, "height width"], shape: tuple[int, ...]
) -> Bool[np.ndarray, "height width"]:
    if mask.shape != shape:
        raise ValueError(
            f"the truth is {mask.shape[1]}x{mask.shape[0]} pixels, the rendered view "
            f"{shape[1]}x{shape[0]}. Train without --downscale and --max-size."
        )
    if not (mask > 0.5).any():
        raise ValueError("a test view shows nothing of the object, so it has no scores.")
    return mask > 0.5


def _angles(
    a: Float[np.ndarray, "height width 3"], b: Float[np.ndarray, "height width 3"]
) -> Float[np.ndarray, "height width"]:
    """Degrees."""
    first, second = (_unit(vectors.astype(np.float64)) for vectors in (a, b))
    return np.degrees(np.arccos(np.clip((first * second).sum(-1), -1.0, 1.0)))


def _unit(vectors: Float[np.ndarray, "height width 3"]) -> Float[np.ndarray, "height width 3"]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-8)


def _srgb(linear: Colours) -> Colours:
    """Clipped display values, float64."""
    values = torch.from_numpy(np.asarray(linear, np.float64)).clamp(0.0, 1.0)
    return srgb_from_linear(values).numpy()
