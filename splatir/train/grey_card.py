"""What is the albedo of the user's grey card in the scene, and what should it be?"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.data.dataset import Dataset, View
from splatir.data.image_files import image_size
from splatir.data.lens import colmap_camera, rescaled
from splatir.raster.contract import RasterBackend, RasterOptions
from splatir.render.gbuffer import render_gbuffer
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel

# Side of the square of pixels whose mean counts.
_PATCH = 5
# Coverage below which the card is not there.
_MIN_COVERAGE = 0.5
# Darkest albedo that a factor is taken of.
_MIN_ALBEDO = 1e-3


@dataclass(frozen=True)
class GreyCard:
    """A neutral surface of known reflectance that is part of the scene.

    Attributes:
        text: As the user gave it, for messages.
        camera: The few pixels of a view that show it.
        reflectance: Linear, 0 to 1, the same in all channels.
    """

    text: str
    camera: Camera
    reflectance: float

    @classmethod
    def find(cls, text: str, reflectance: float, dataset: Dataset) -> "GreyCard":
        """The card that a setting names.

        Args:
            text: NAME:X,Y, a photo's name and a pixel of its file, from 0 at the top left.
            reflectance: Linear.
            dataset: Capture.

        Raises:
            ValueError: Not of this form, no such photo, or a pixel outside it.
        """
        name, x, y = _parsed(text)
        view = _view_named(name, dataset)
        width, height = image_size(view.image_path)
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(
                f"--grey-card {text}: {view.image_path} has {width}x{height} pixels. Give one of "
                "them, counted from 0 at the top left."
            )
        column, row = _in_camera(x + 0.5, y + 0.5, width, height, view)
        offset = torch.zeros_like(view.camera.K)
        offset[:2, 2] = torch.tensor([round(column - 0.5 * _PATCH), round(row - 0.5 * _PATCH)])
        K = view.camera.K - offset
        return cls(text, Camera(K, view.camera.T_camera_world, _PATCH, _PATCH), reflectance)

    @torch.no_grad()
    def missing_factor(
        self, model: GaussianModel, rasterizer: RasterBackend, options: RasterOptions
    ) -> Float[Tensor, " 3"]:
        """What the albedo must be multiplied by, per channel, for the card to be as it is.

        Args:
            model: Gaussians with materials.
            rasterizer: Backend.
            options: Culling and antialiasing.

        Raises:
            ValueError: The model has no surface there.
        """
        gbuffer = render_gbuffer(model, self.camera.to(model.means.device), rasterizer, options)
        is_card = gbuffer.alpha[..., 0] > _MIN_COVERAGE
        if not bool(is_card.any()):
            raise ValueError(
                f"--grey-card {self.text}: the scene has no surface there. The card must be part "
                "of what is trained: inside the masks, not transparent."
            )
        albedo = gbuffer.albedo[is_card].mean(0)
        return self.reflectance / albedo.clamp_min(_MIN_ALBEDO)


def _parsed(text: str) -> tuple[str, int, int]:
    name, _, pixel = text.rpartition(":")
    try:
        x, y = (int(word) for word in pixel.split(","))
    except ValueError as error:
        raise ValueError(
            f"--grey-card takes NAME:X,Y, a photo and a pixel of it such as IMG_0012:1034,760; got "
            f"'{text}'."
        ) from error
    return name, x, y


def _view_named(name: str, dataset: Dataset) -> View:
    """The view of this name, with or without folders and extension; training views first."""
    views = (*dataset.train, *dataset.test)
    exact = [view for view in views if name == view.name]
    train, test = (
        [v for v in part if name in (v.name.rpartition("/")[2], v.image_path.name)]
        for part in (dataset.train, dataset.test)
    )
    matches = exact or train or test
    if len(matches) != 1:
        found = "no photo" if not matches else f"{len(matches)} photos"
        raise ValueError(f"--grey-card: {found} called '{name}'; names are like '{views[0].name}'.")
    return matches[0]


def _in_camera(x: float, y: float, width: int, height: int, view: View) -> tuple[float, float]:
    """Position in the camera's pixels of one in the file's."""
    camera = view.camera
    if view.distortion is None:
        return x * camera.width / width, y * camera.height / height
    ray = colmap_camera(rescaled(view.distortion, width, height)).cam_from_img([x, y])
    if ray is None:
        raise ValueError(f"--grey-card: the lens of {view.image_path} has no ray for that pixel.")
    K = camera.K.double()
    return float(K[0, 0] * ray[0] + K[0, 2]), float(K[1, 1] * ray[1] + K[1, 2])
