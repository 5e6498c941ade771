"""How the native library composites surfels, and the gradient of that."""

from jaxtyping import Float
from torch import Tensor

from splatir.native.library import NativeLibrary
from splatir.raster.contract import RasterOptions, RasterOutput
from splatir.scene.camera import Camera
from splatir.scene.gaussians import Gaussians


def rasterize_surfels(
    gaussians: Gaussians,
    camera: Camera,
    features: Float[Tensor, "n channels"],
    background: Float[Tensor, " channels"] | None,
    options: RasterOptions,
    library: NativeLibrary,
) -> RasterOutput:
    """Project and composite surfels; inputs are checked by the caller.

    Args:
        gaussians: Geometry, world frame.
        camera: View.
        features: Any number of channels per Gaussian.
        background: Composited behind everything.
        options: Outputs wanted and culling.
        library: Build of the kernels.

    Raises:
        ValueError: Always; the kernels are not written yet.
    """
    raise ValueError("the cpu rasteriser has no surfels yet; use the reference rasteriser.")
