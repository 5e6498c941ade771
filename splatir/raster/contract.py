"""What a rasteriser backend takes and returns. Backends import this file, never each other.

Semantics are gsplat 1.5.3's, whatever the backend: docs/rasteriser.md lists them.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from splatir.scene.camera import Camera
from splatir.scene.gaussians import Gaussians

# The blur that Gaussians are trained with, in square pixels.
BLUR = 0.3
# Contributions below this alpha are dropped.
MIN_ALPHA = 1.0 / 255.0
# Alpha of one splat never exceeds this, so transmittance stays positive.
MAX_ALPHA = 0.999
# A pixel is finished before the splat that would bring its transmittance to this or below.
MIN_TRANSMITTANCE = 1e-4


@dataclass(frozen=True)
class RasterOptions:
    """Which outputs are wanted and how splats are culled.

    Attributes:
        depth: Composite camera z.
        median_depth: Depth of the last splat met while transmittance is above one half.
        normals: Composite surfel normals (surfels only).
        distortion: Composite 2DGS's depth distortion (surfels only); implies `depth`.
        antialiased: Scale opacity by the area lost to the blur (ellipsoids only).
        absgrad: Sum absolute per-pixel gradients for densification (Ye et al. 2024).
        near: Splats whose centre has camera z below this are dropped, scene units.
        far: Likewise above.
        radius_clip: Splats with no screen radius above this are dropped, pixels.
        blur: Variance that is added to every ellipsoid's image covariance, square pixels.
        detached_features: The last this many channels of `features` give no gradient to geometry
            and opacities: in them, compositing weights and transmittance count as constants. The
            features themselves and the background receive theirs. Images do not depend on it.
    """

    depth: bool = False
    median_depth: bool = False
    normals: bool = False
    distortion: bool = False
    antialiased: bool = False
    absgrad: bool = False
    near: float = 0.01
    far: float = 1e10
    radius_clip: float = 0.0
    blur: float = BLUR
    detached_features: int = 0


@dataclass(frozen=True)
class ScreenSpace:
    """Per-splat screen statistics of one image, as densification needs them.

    Attributes:
        means2d: Projected centres in pixels; meaningless where `radii` is zero.
        radii: Half extents of the splat's rectangle in pixels; (0, 0) for culled splats.
        probe: Tensor whose gradient, once `backward` has run, is that of the loss with respect to
            the splat's screen position: `means2d` itself for ellipsoids, a tensor of zeros that
            stands for it for surfels (gsplat's `gradient_2dgs`). Retains its gradient where the
            geometry requires one.
    """

    means2d: Float[Tensor, "n 2"]
    radii: Int[Tensor, "n 2"]
    probe: Float[Tensor, "n 2"]

    @property
    def gradient(self) -> Float[Tensor, "n 2"]:
        """Screen-position gradient in loss per pixel; of absolute values under `absgrad`.

        Raises:
            RuntimeError: `backward` has not run.
        """
        gradient = getattr(self.probe, "absgrad", None)
        if gradient is None:
            gradient = self.probe.grad
        if gradient is None:
            raise RuntimeError("screen-space gradients exist only after loss.backward().")
        return gradient


@dataclass(frozen=True)
class RasterOutput:
    """Alpha-composited images of one view, before any shading.

    Sums run over splats front to back with weights w_i = alpha_i * prod_{j<i} (1 - alpha_j).

    Attributes:
        features: sum w_i f_i, plus (1 - alpha) * background where one was given.
        alpha: sum w_i, in [0, 1).
        depth: sum w_i z_i; z is camera z of the splat's centre, scene units. None unless asked.
        median_depth: z of the median splat, 0 where there is none. None unless asked.
        normals: sum w_i n_i, world frame, each n_i facing the camera. None unless asked.
        distortion: 2DGS eq. 13 with L1-free pairs: 2 sum_i w_i (z_i W_i - Z_i) with W, Z the sums
            of w and w z over earlier splats. None unless asked.
        screen: Per-splat statistics.
    """

    features: Float[Tensor, "height width channels"]
    alpha: Float[Tensor, "height width 1"]
    depth: Float[Tensor, "height width 1"] | None
    median_depth: Float[Tensor, "height width 1"] | None
    normals: Float[Tensor, "height width 3"] | None
    distortion: Float[Tensor, "height width 1"] | None
    screen: ScreenSpace

    @property
    def expected_depth(self) -> Float[Tensor, "height width 1"]:
        """Mean depth of what is visible, sum w z / sum w; 0 where nothing is.

        Raises:
            ValueError: Depth was not asked for.
        """
        if self.depth is None:
            raise ValueError("no depth was composited; ask with RasterOptions(depth=True).")
        return self.depth / self.alpha.clamp_min(1e-10)


@runtime_checkable
class RasterBackend(Protocol):
    """Turns Gaussians into images of features."""

    name: str

    def rasterize(
        self,
        gaussians: Gaussians,
        camera: Camera,
        features: Float[Tensor, "n channels"],
        background: Float[Tensor, " channels"] | None = None,
        options: RasterOptions = RasterOptions(),
    ) -> RasterOutput:
        """Composite `features` front to back.

        Differentiable in means, quats, scales, opacities, features and background; not in the
        camera. `options.detached_features` excepts channels from reaching the first four.

        Args:
            gaussians: Geometry, world frame.
            camera: View; pinhole.
            features: Any number of channels per Gaussian, also none.
            background: Composited behind everything, features only.
            options: Outputs wanted and culling.

        Raises:
            ValueError: Shapes, dtypes or devices that the backend does not take, or an output
                that the primitive does not have.
        """
        ...
