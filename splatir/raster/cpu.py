"""The native backend: the contract on the CPU, float32, by the kernels of `splatir.native`."""

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.native.library import NativeLibrary
from splatir.native.library import library as default_library
from splatir.raster.contract import RasterOptions, RasterOutput
from splatir.raster.native_ellipsoids import rasterize_ellipsoids
from splatir.raster.native_surfels import rasterize_surfels
from splatir.raster.validation import check_inputs
from splatir.scene.camera import Camera
from splatir.scene.gaussians import Gaussians

# Tile coordinates have 16 bits.
_MAX_SIDE = 16 * 65535


class CpuBackend:
    """Native kernels on the CPU; same bits for any number of threads (`torch.set_num_threads`)."""

    name = "cpu"

    def __init__(self, library: NativeLibrary | None = None) -> None:
        """Choose the kernels.

        Args:
            library: One build of them; by default the best for this processor.

        Raises:
            NativeLibraryMissing: The native library is not built.
        """
        self._library = library or default_library()

    def rasterize(
        self,
        gaussians: Gaussians,
        camera: Camera,
        features: Float[Tensor, "n channels"],
        background: Float[Tensor, " channels"] | None = None,
        options: RasterOptions = RasterOptions(),
    ) -> RasterOutput:
        """Composite `features` front to back; see `RasterBackend.rasterize`.

        Args:
            gaussians: Geometry, world frame, float32 on the CPU.
            camera: View.
            features: Any number of channels per Gaussian, also none.
            background: Composited behind everything, features only.
            options: Outputs wanted and culling.

        Raises:
            ValueError: Shapes, dtypes or devices that the kernels do not take, an image side that
                is not in 1 .. 1048560, or an output that the primitive does not have.
            MemoryError: The lists of splats per tile do not fit.
        """
        check_inputs(gaussians, features, background, options)
        _check_supported(gaussians.means, camera)
        rasterize = rasterize_surfels if gaussians.primitive == "surfel" else rasterize_ellipsoids
        return rasterize(gaussians, camera, features, background, options, self._library)


def _check_supported(means: Tensor, camera: Camera) -> None:
    if means.dtype != torch.float32 or means.device.type != "cpu":
        raise ValueError(
            f"the cpu rasteriser takes float32 on the CPU, got {means.dtype} on {means.device}. "
            "Convert the Gaussians, or use the reference rasteriser."
        )
    if not (1 <= camera.width <= _MAX_SIDE and 1 <= camera.height <= _MAX_SIDE):
        raise ValueError(
            f"the image must have sides of 1 to {_MAX_SIDE} pixels, "
            f"got {camera.width}x{camera.height}."
        )
