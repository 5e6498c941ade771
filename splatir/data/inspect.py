"""What does a data set hold, and what is wrong with it before hours are spent on it?"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.data.broken import BrokenPhoto, blur_warnings, broken_warnings, photo_sharpness
from splatir.data.cache import compact_bytes
from splatir.data.dataset import Dataset, DatasetKind, View
from splatir.data.images import Photo, load_photo, mask_polarity_warning, read_photo_file
from splatir.maths.colour import linear_from_srgb

# A view this far from the median brightness in linear light was exposed differently, or shows
# something else: more than a change of viewpoint around one object gives.
_EXPOSURE_STOPS = 1.0
# One lens, focused near and far, changes its focal length by less than this part of it.
_FOCAL_SPREAD = 0.15
_NUM_LISTED = 5


@dataclass(frozen=True)
class ViewCheck:
    """What decoding one view showed.

    Attributes:
        name: The view's name.
        error: Why its pixels cannot be had, or None.
        memory_bytes: Bytes it takes in a `PhotoCache`.
        has_alpha: Whether it comes with coverage, from its alpha channel or a mask.
        coverage: Mean coverage in [0, 1]; 1 without alpha.
        brightness_stops: log2 of the mean linear luminance of what is covered; NaN if black.
        mask_warning: What is odd about its mask, or None.
        sharpness: Of its pixels, as `broken.photo_sharpness` gives it.
        is_broken: Whether the error is that its image file cannot be decoded.
    """

    name: str
    error: str | None
    memory_bytes: int = 0
    has_alpha: bool = False
    coverage: float = 1.0
    brightness_stops: float = math.nan
    mask_warning: str | None = None
    sharpness: float = 0.0
    is_broken: bool = False


@dataclass(frozen=True)
class DatasetReport:
    """A data set in numbers and sentences.

    Attributes:
        root: Folder that was read.
        kind: Format.
        num_train: Views to optimise on.
        num_test: Held-out views.
        image_sizes: Width, height and number of views, most frequent first; as trained on.
        camera_models: Lens model of the files and number of views, most frequent first.
        num_with_mask: Views with a mask file.
        num_with_alpha: Views whose pixels come with coverage, from a mask or an alpha channel.
        has_background: Whether pixels outside the object show something real.
        num_points: Sparse points, 0 without.
        extent: Radius of the training cameras, scene units.
        points_radius: Median distance of the points to their median, scene units; None without.
        reprojection_error: As of the data set, pixels; None without.
        memory_bytes: Bytes that all readable photos take in a `PhotoCache`.
        warnings: What may spoil the result, one sentence each.
        errors: What stops training, one sentence each; unreadable images are named.
    """

    root: Path
    kind: DatasetKind
    num_train: int
    num_test: int
    image_sizes: tuple[tuple[int, int, int], ...]
    camera_models: tuple[tuple[str, int], ...]
    num_with_mask: int
    num_with_alpha: int
    has_background: bool
    num_points: int
    extent: float
    points_radius: float | None
    reprojection_error: float | None
    memory_bytes: int
    warnings: tuple[str, ...]
    errors: tuple[str, ...]


def inspect_dataset(
    dataset: Dataset, load: Callable[[View], Photo] = load_photo, num_threads: int = 2
) -> DatasetReport:
    """Decode every view once, as training would, and gather what is there and what is wrong.

    Takes as long as decoding all images: about a tenth of a second per megapixel and thread.

    Args:
        dataset: A data set whose reading succeeded.
        load: How to load one view's pixels.
        num_threads: Images decoded at the same time.
    """
    views = (*dataset.train, *dataset.test)
    with ThreadPoolExecutor(num_threads) as pool:
        checks = list(pool.map(lambda view: _check_view(view, load), views))
    left_out, errors = _faults(dataset, checks)
    sizes = Counter((view.camera.width, view.camera.height) for view in views)
    models = Counter(view.distortion.model if view.distortion else "PINHOLE" for view in views)
    points = dataset.points.positions if dataset.points is not None else None
    return DatasetReport(
        root=dataset.root,
        kind=dataset.kind,
        num_train=len(dataset.train),
        num_test=len(dataset.test),
        image_sizes=tuple((w, h, count) for (w, h), count in sizes.most_common()),
        camera_models=tuple(models.most_common()),
        num_with_mask=sum(view.mask_path is not None for view in views),
        num_with_alpha=sum(check.has_alpha for check in checks),
        has_background=dataset.has_background,
        num_points=0 if points is None else len(points),
        extent=dataset.extent,
        points_radius=None if points is None or len(points) == 0 else _radius(points),
        reprojection_error=dataset.reprojection_error,
        memory_bytes=sum(check.memory_bytes for check in checks),
        warnings=(*dataset.warnings, *left_out, *_warnings(dataset, checks)),
        errors=errors,
    )


def format_report(report: DatasetReport) -> str:
    """The report as the text that `splatir info` prints, without a final line break."""
    sizes = ", ".join(f"{w}x{h} ({count})" for w, h, count in report.image_sizes[:_NUM_LISTED])
    if len(report.image_sizes) > _NUM_LISTED:
        sizes += f", {len(report.image_sizes) - _NUM_LISTED} more sizes"
    models = ", ".join(f"{model} ({count})" for model, count in report.camera_models)
    rows = [
        ("data set", f"{report.root} ({report.kind})"),
        ("views", f"{report.num_train} train, {report.num_test} test"),
        ("image size", sizes),
        ("cameras", models),
        ("object marked", _object_text(report)),
        ("sparse points", _points_text(report)),
        ("extent", f"{report.extent:.3g} scene units around the training cameras"),
        ("memory", f"{_size_text(report.memory_bytes)} for all decoded photos"),
    ]
    width = max(len(label) for label, _ in rows) + 2
    lines = [f"{label:<{width}}{text}" for label, text in rows]
    for title, sentences in (("warnings", report.warnings), ("errors", report.errors)):
        if sentences:
            lines += ["", f"{title} ({len(sentences)}):", *(f"- {text}" for text in sentences)]
    if not report.warnings and not report.errors:
        lines += ["", "no faults found"]
    return "\n".join(lines)


def _check_view(view: View, load: Callable[[View], Photo]) -> ViewCheck:
    """Decode a view and judge its pixels alone."""
    try:
        photo = load(view)
    except ValueError as error:
        return ViewCheck(view.name, str(error), is_broken=_is_broken(view))
    alpha = photo.alpha
    mask_warning = None
    if view.mask_path is not None and alpha is not None:
        mask_warning = mask_polarity_warning(alpha)
    return ViewCheck(
        name=view.name,
        error=None,
        memory_bytes=compact_bytes(photo),
        has_alpha=alpha is not None,
        coverage=1.0 if alpha is None else float(alpha.mean()),
        brightness_stops=_brightness_stops(photo),
        mask_warning=mask_warning,
        sharpness=photo_sharpness(photo),
    )


def _faults(
    dataset: Dataset, checks: Sequence[ViewCheck]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What training leaves out, and what stops it."""
    errors = [check.error for check in checks if check.error is not None and not check.is_broken]
    broken = [BrokenPhoto(c.name, c.error) for c in checks if c.error is not None and c.is_broken]
    try:
        return broken_warnings(dataset.root, broken, len(checks)), tuple(errors)
    except ValueError:
        # Training would name the first; here every one is.
        return (), (*errors, *(photo.fault for photo in broken))


def _is_broken(view: View) -> bool:
    try:
        read_photo_file(view.image_path)
    except ValueError:
        return True
    return False


def _brightness_stops(photo: Photo) -> float:
    """log2 of the mean linear luminance (Rec. 709) of the covered pixels."""
    # A sixteenth of the pixels gives the mean to far less than a stop.
    rgb = photo.rgb[::4, ::4]
    linear = linear_from_srgb(rgb) if photo.encoding == "srgb" else rgb
    luminance = linear @ torch.tensor([0.2126, 0.7152, 0.0722])
    weight = torch.ones_like(luminance) if photo.alpha is None else photo.alpha[::4, ::4, 0]
    mean = float((luminance * weight).sum() / weight.sum().clamp_min(1e-12))
    return math.log2(mean) if mean > 0 else math.nan


def _warnings(dataset: Dataset, checks: Sequence[ViewCheck]) -> list[str]:
    """What the views show together."""
    readable = [check for check in checks if check.error is None]
    found = []
    inverted = [check for check in readable if check.mask_warning]
    if inverted:
        found.append(f"{_named(inverted, len(readable))}: {inverted[0].mask_warning}")
    empty = [check for check in readable if check.has_alpha and check.coverage < 1e-3]
    if empty:
        found.append(
            f"{_named(empty, len(readable))}: alpha or mask covers less than 0.1 % of the image."
        )
    marked = [check for check in readable if check.has_alpha]
    if 0 < len(marked) < len(readable):
        bare = [check for check in readable if not check.has_alpha]
        found.append(
            f"{_named(bare, len(readable))}: neither alpha nor mask, while other views have it."
        )
    elif marked and dataset.train and all(check.coverage > 0.999 for check in marked):
        found.append(
            "alpha or masks cover every image entirely: nothing marks the object. If there is a "
            "background, make masks or remove the alpha channel."
        )
    found += blur_warnings({check.name: check.sharpness for check in readable})
    views = [*dataset.train, *dataset.test]
    return found + _exposure_warnings(readable) + _calibration_warnings(views)


def _exposure_warnings(readable: Sequence[ViewCheck]) -> list[str]:
    """Views that are black, or far from the others in brightness."""
    black = [c for c in readable if math.isnan(c.brightness_stops) and c.coverage >= 1e-3]
    found = []
    if black:
        found.append(f"{_named(black, len(readable))}: the covered pixels are black.")
    lit = [check for check in readable if not math.isnan(check.brightness_stops)]
    if len(lit) < 3:
        return found
    stops = torch.tensor([check.brightness_stops for check in lit])
    odd = [
        check
        for check in lit
        if abs(check.brightness_stops - float(stops.median())) > _EXPOSURE_STOPS
    ]
    if odd:
        found.append(
            f"{_named(odd, len(readable))}: more than {_EXPOSURE_STOPS:g} stop brighter or darker "
            "than the median view. They see something else, or were exposed differently: "
            "photographs should share one exposure and white balance."
        )
    return found


def _calibration_warnings(views: Sequence[View]) -> list[str]:
    """Views whose focal length, as a part of the longer side, is far from that of most."""
    if len(views) < 3:
        return []
    focal = torch.tensor(
        [float(v.camera.K[0, 0]) / max(v.camera.width, v.camera.height) for v in views]
    )
    is_odd = (focal / focal.median() - 1.0).abs() > _FOCAL_SPREAD
    odd = [view for view, flag in zip(views, is_odd.tolist(), strict=True) if flag]
    # So many are another lens.
    if not odd or 3 * len(odd) >= len(views):
        return []
    return [
        f"{_named(odd, len(views))}: focal length more than {100 * _FOCAL_SPREAD:.0f} % from the "
        "median. Unless the lens was zoomed, their calibration is poor and so is their position: "
        "reconstruct with one camera for all photos (COLMAP: --ImageReader.single_camera 1)."
    ]


def _named(checks: Sequence[ViewCheck] | Sequence[View], total: int) -> str:
    """ "3 of 40 views (a, b, c)"."""
    names = ", ".join(check.name for check in checks[:_NUM_LISTED])
    dots = ", ..." if len(checks) > _NUM_LISTED else ""
    return f"{len(checks)} of {total} views ({names}{dots})"


def _radius(points: Float[Tensor, "n 3"]) -> float:
    """Median distance to the median point: outliers of the reconstruction do not matter."""
    return float((points - points.median(dim=0).values).norm(dim=-1).median())


def _object_text(report: DatasetReport) -> str:
    total = report.num_train + report.num_test
    if report.num_with_alpha == 0:
        return "no masks, no alpha: training finds the object before its background"
    source = f"masks in {report.num_with_mask}" if report.num_with_mask else "alpha channel"
    background = "with background" if report.has_background else "no background"
    return f"in {report.num_with_alpha} of {total} views ({source}), {background}"


def _points_text(report: DatasetReport) -> str:
    if report.points_radius is None:
        return "none: Gaussians start from the volume that the cameras share"
    text = f"{report.num_points:,} (half within {report.points_radius:.3g} of their middle"
    if report.reprojection_error is not None:
        text += f", and seen within {report.reprojection_error:.2f} pixels of where cameras expect"
    return text + ")"


def _size_text(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
