"""What does the viewer need to know of a run?"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from splatir.raster.contract import RasterBackend, RasterOptions
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.lights import EnvironmentLight
from splatir.transport.scene import SceneTransport


@dataclass(frozen=True)
class PhotoView:
    """A camera that took a photograph.

    Attributes:
        name: Of the photograph.
        camera: World frame.
        load: Reads the photograph, sRGB over white, of the camera's size; None where there is none.
    """

    name: str
    camera: Camera
    load: Callable[[], UInt8[Tensor, "height width 3"]] | None = None


@dataclass(frozen=True)
class ViewedScene:
    """A run as the viewer takes it.

    Attributes:
        name: Title of the page.
        model: Gaussians, world frame (+Z up).
        light: Recovered environment, world frame, or None.
        S_world_input: Similarity from the capture's frame to the world.
        backend: Rasteriser.
        options: Culling and antialiasing.
        trace: Finds what the Gaussians of a model see of each other, in seconds; None where the run
            is shaded without.
        photos: Cameras of the capture; may be empty.
        maps: Environment maps to offer, by name, in the capture's frame.
        background_srgb: Background that was trained along, or None.
        save: Writes edited Gaussians, with a record of the edits, as a new run; returns its folder.
    """

    name: str
    model: GaussianModel
    light: EnvironmentLight | None
    S_world_input: Float[Tensor, "4 4"]
    backend: RasterBackend
    options: RasterOptions = RasterOptions()
    trace: Callable[[GaussianModel], SceneTransport] | None = None
    photos: tuple[PhotoView, ...] = ()
    maps: dict[str, Path] = field(default_factory=dict)
    background_srgb: tuple[float, float, float] | None = None
    save: Callable[[GaussianModel, list[str]], Path] | None = None

    @property
    def device(self) -> torch.device:
        """Where the Gaussians are."""
        return self.model.means.device

    @property
    def has_photos(self) -> bool:
        """Whether there is any photograph to compare with."""
        return any(photo.load is not None for photo in self.photos)
