"""Can these tensors and options be rasterised together? Checks that every backend shares."""

from torch import Tensor

from splatir.raster.contract import RasterOptions
from splatir.scene.gaussians import Gaussians


def check_inputs(
    gaussians: Gaussians,
    features: Tensor,
    background: Tensor | None,
    options: RasterOptions,
) -> None:
    """Check shapes, dtypes, devices and that the primitive has the outputs asked for.

    Raises:
        ValueError: They do not fit together.
    """
    means = gaussians.means
    n = means.shape[0]
    tensors = {
        "quats": (gaussians.quats, (n, 4)),
        "scales": (gaussians.scales, (n, 3)),
        "opacities": (gaussians.opacities, (n,)),
        "features": (features, (n, features.shape[-1])),
    }
    if background is not None:
        tensors["background"] = (background, (features.shape[-1],))
    for name, (tensor, shape) in tensors.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} must have shape {shape} to go with {n} means, got {tuple(tensor.shape)}."
            )
        if tensor.dtype != means.dtype or tensor.device != means.device:
            raise ValueError(
                f"{name} must be {means.dtype} on {means.device} like the means, "
                f"got {tensor.dtype} on {tensor.device}."
            )
    if not 0 <= options.detached_features <= features.shape[-1]:
        raise ValueError(
            f"detached_features must be 0 to {features.shape[-1]}, the number of channels, "
            f"got {options.detached_features}."
        )
    if gaussians.primitive == "ellipsoid":
        lacking = [name for name in ("normals", "distortion") if getattr(options, name)]
    else:
        lacking = ["antialiased"] if options.antialiased else []
    if lacking:
        raise ValueError(
            f"{gaussians.primitive}s have no {' or '.join(lacking)}; do not ask for it."
        )
