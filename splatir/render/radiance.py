"""The picture of a radiance splat: view-dependent colours, composited."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from splatir.raster.contract import RasterBackend, RasterOptions, RasterOutput
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.radiance import radiance_colours


@dataclass(frozen=True)
class RadianceImage:
    """One view of a radiance splat.

    Attributes:
        rgb_srgb: Display colour over the background; not clipped.
        raster: Everything else that was composited.
    """

    rgb_srgb: Float[Tensor, "height width 3"]
    raster: RasterOutput


def render_radiance(
    model: GaussianModel,
    camera: Camera,
    rasterizer: RasterBackend,
    background_srgb: Float[Tensor, " 3"] | None = None,
    sh_degree: int | None = None,
    options: RasterOptions = RasterOptions(),
) -> RadianceImage:
    """Render the spherical-harmonic radiance of a model.

    As in Kerbl et al. 2023 the coefficients hold sRGB display values and compositing happens in
    sRGB, so that exported splats look the same in any viewer.

    Args:
        model: Gaussians, on the camera's device.
        camera: View.
        rasterizer: Backend.
        background_srgb: Colour behind everything; None leaves the colour premultiplied on black.
        sh_degree: Highest degree used; the model's own if None.
        options: Further outputs.
    """
    degree = model.sh_degree if sh_degree is None else min(sh_degree, model.sh_degree)
    colours = radiance_colours(
        model.params["sh0"], model.params["shN"], model.means, camera.position_world, degree
    )
    raster = rasterizer.rasterize(model.gaussians, camera, colours, background_srgb, options)
    return RadianceImage(rgb_srgb=raster.features, raster=raster)
