"""`splatir view`: a run in the browser."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import UInt8
from torch import Tensor

from splatir.data.dataset import View
from splatir.data.images import load_photo
from splatir.data.recognise import read_dataset
from splatir.raster.contract import RasterOptions
from splatir.raster.selection import rasterizer
from splatir.render.tone import composite_srgb
from splatir.scene.gaussians import GaussianModel
from splatir.settings import Settings, SettingsError, check_range
from splatir.storage.environment import ENVIRONMENT_SUFFIXES
from splatir.train.composed_run import new_folder, write_composed_run
from splatir.train.device import pick_device
from splatir.train.finished import FinishedRun, load_run
from splatir.transport.scene import SceneTransport

if TYPE_CHECKING:
    from viewer.scene import PhotoView, ViewedScene

# Within an installed package, beside that of a clone.
_PACKAGE = Path(__file__).parents[1]
_BUNDLED_MAPS = (_PACKAGE / "maps", _PACKAGE.parent / "assets" / "demo")


@dataclass(frozen=True)
class ViewSettings(Settings):
    """Look at a run in the browser: inspect, relight, edit.

    Attributes:
        run: Run folder.
        maps: Folder with further environment maps (.hdr, .exr) to offer.
        host: Address to listen on. Others than 127.0.0.1 let anyone on the network in.
        port: Of the page; 0 takes a free one.
        height: Rows of the largest picture, pixels.
        device: "auto" takes CUDA where there is one.
    """

    run: Path | None = None
    maps: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    height: int = 720
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        """Refuse numbers that no page has.

        Raises:
            SettingsError: A value out of range.
        """
        check_range(self, "port", 0, 65535)
        check_range(self, "height", 96, 4320)
        if self.maps is not None and not self.maps.is_dir():
            raise SettingsError(f"--maps takes a folder of .hdr and .exr files, got {self.maps}.")


def run(settings: ViewSettings) -> None:
    """Serve until interrupted."""
    if settings.run is None:
        raise ValueError("give a run folder: splatir view RUN.")
    try:
        from viewer.server import serving
    except ImportError as error:
        raise ImportError(
            f"the viewer cannot be loaded ({error}). Install it: pip install splatir[viewer]"
        ) from error
    scene = viewed_scene(load_run(settings.run, pick_device(settings.device)), settings.maps)
    count = f"{scene.model.num_gaussians:,} Gaussians"
    with serving(scene, settings.host, settings.port, settings.height) as (server, _):
        host = "localhost" if settings.host in ("127.0.0.1", "0.0.0.0") else settings.host
        print(f"run      {settings.run}  ({count})")
        print(f"page     http://{host}:{server.get_port()}", flush=True)
        if settings.host != "127.0.0.1":
            print("note     anyone who reaches this address can look and edit")
        print("stop     Ctrl-C", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("\nstopped.")


def viewed_scene(
    finished: FinishedRun,
    maps: Path | None = None,
    photos: "tuple[PhotoView, ...] | None" = None,
) -> "ViewedScene":
    """A run as the viewer takes it.

    Args:
        finished: The run.
        maps: Folder of further environment maps.
        photos: Cameras of the capture, where they are known; None reads them.
    """
    from viewer.scene import ViewedScene

    materials = finished.settings.materials

    def trace(model: GaussianModel) -> SceneTransport:
        return SceneTransport.of(model.gaussians, materials.directions)

    def save(model: GaussianModel, log: list[str]) -> Path:
        return _save(finished, model, log)

    return ViewedScene(
        name="/".join(finished.folder.root.parts[-2:]),
        model=finished.model,
        light=finished.light,
        S_world_input=finished.S_world_input,
        backend=rasterizer(finished.settings.backend, finished.model.means.device),
        options=RasterOptions(antialiased=finished.settings.uses_antialiasing),
        trace=trace if finished.model.has_materials and materials.transport else None,
        photos=_photo_views(finished) if photos is None else photos,
        maps=_environment_maps(maps),
        background_srgb=_background_of(finished),
        save=save if finished.light is not None else None,
    )


def _background_of(finished: FinishedRun) -> tuple[float, float, float] | None:
    """The background that was trained along, sRGB, or None."""
    if finished.background_srgb is None:
        return None
    r, g, b = finished.background_srgb.tolist()
    return r, g, b


def _environment_maps(folder: Path | None) -> dict[str, Path]:
    """Maps to offer, by name: the bundled ones, and those of a folder."""
    found = {}
    for place in (*_BUNDLED_MAPS, folder):
        if place is not None and place.is_dir():
            for path in sorted(place.iterdir()):
                if path.suffix.lower() in ENVIRONMENT_SUFFIXES:
                    found[path.stem] = path
    return found


def _photo_views(finished: FinishedRun) -> "tuple[PhotoView, ...]":
    """The cameras of the capture; none where it is no longer there."""
    from viewer.scene import PhotoView

    settings = finished.settings
    if settings.data is None:
        return ()
    try:
        dataset = read_dataset(settings.data, settings.dataset)
    except (ValueError, OSError) as error:
        print(f"note     no photographs to compare with: {error}")
        return ()
    views = sorted((*dataset.train, *dataset.test), key=lambda view: view.name)

    def loader(view: View) -> Callable[[], UInt8[Tensor, "height width 3"]]:
        return lambda: _over_white(view)

    return tuple(PhotoView(view.name, view.camera, loader(view)) for view in views)


def _over_white(view: View) -> UInt8[Tensor, "height width 3"]:
    photo = load_photo(view)
    rgb = photo.rgb_srgb
    if photo.alpha is not None:
        rgb = composite_srgb(rgb, photo.alpha, rgb.new_ones(3))
    return (rgb * 255.0).round().to(torch.uint8)


def _save(finished: FinishedRun, model: GaussianModel, log: list[str]) -> Path:
    """Edited Gaussians as a run beside the one that was opened."""
    root = finished.folder.root.resolve()
    candidate, number = root.with_name(f"{root.name}_edited"), 2
    while candidate.exists():
        candidate, number = root.with_name(f"{root.name}_edited_{number}"), number + 1
    folder = new_folder(candidate)
    write_composed_run(folder, finished, model, {"edited": str(root), "edits": log})
    return folder.root
