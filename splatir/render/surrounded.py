"""What stands around an object, behind it and before it, as the photos showed it?"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.raster.contract import RasterBackend, RasterOptions
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.joining import joined_models
from splatir.scene.radiance import radiance_colours


@dataclass(frozen=True)
class SurroundedView:
    """A view of an object's surroundings with a hole where the object is.

    Attributes:
        share: Part of each pixel in which the object is seen.
        rest_srgb: The other part, multiplied by it, background included.
    """

    share: Float[Tensor, "height width 1"]
    rest_srgb: Float[Tensor, "height width 3"]

    def around(self, picture_srgb: Float[Tensor, "height width 3"]) -> Tensor:
        """The whole picture.

        Args:
            picture_srgb: Of the object, not multiplied by coverage.
        """
        return self.rest_srgb + self.share * picture_srgb


def radiance_alone(model: GaussianModel) -> GaussianModel:
    """A model without its materials.

    Args:
        model: With or without them.
    """
    kept = {k: value.detach() for k, value in model.params.items() if k not in model.material_keys}
    return GaussianModel(kept, model.primitive)


def whole_scene(model: GaussianModel, surroundings: GaussianModel | None) -> GaussianModel:
    """Radiance of an object and of what stands around it, the object's Gaussians first.

    Args:
        model: The object.
        surroundings: The rest; None if `model` is everything.
    """
    if surroundings is None:
        return model
    return joined_models(radiance_alone(model), surroundings)


@torch.no_grad()
def surrounded_view(
    whole: GaussianModel,
    num_object: int,
    camera: Camera,
    rasterizer: RasterBackend,
    background_srgb: Float[Tensor, " 3"] | None = None,
    options: RasterOptions = RasterOptions(),
) -> SurroundedView:
    """Render the surroundings, hidden by the object where it is before them.

    Args:
        whole: As `whole_scene` gives it.
        num_object: Gaussians of the object, the first of `whole`.
        camera: View, on the model's device.
        rasterizer: Backend.
        background_srgb: Behind everything; None is black.
        options: Antialiasing.
    """
    colours = radiance_colours(
        whole.params["sh0"],
        whole.params["shN"],
        whole.means,
        camera.position_world.to(whole.means),
        whole.sh_degree,
    )
    is_object = torch.zeros_like(colours[:, :1])
    is_object[:num_object] = 1.0
    features = torch.cat([is_object, (1.0 - is_object) * colours], dim=-1)
    behind = torch.zeros(4).to(colours)
    if background_srgb is not None:
        behind[1:] = background_srgb.to(colours)
    raster = rasterizer.rasterize(whole.gaussians, camera, features, behind, options)
    share, rest = raster.features.split([1, 3], dim=-1)
    return SurroundedView(share, rest)
