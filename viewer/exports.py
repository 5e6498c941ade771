"""How does what a browser shows become files that it can keep?"""

import io
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from splatir.codecs.mp4 import write_mp4
from splatir.maths.frames import invert_rigid, invert_similarity, similarity_scale
from splatir.render.bake import bake_radiance
from splatir.render.relighting import lighting_for
from splatir.scene.camera import Camera
from splatir.scene.environment_map import rotation_about_z
from splatir.scene.gaussians import GaussianModel
from splatir.storage.environment import turn_for_file, write_environment
from splatir.storage.relightable import RelightableMetadata, write_relightable
from splatir.transport.orientation import orient_outwards, surrounding_cameras
from viewer.lights import LightChoice, LightLibrary, environment_of, light_of
from viewer.pictures import Picture
from viewer.scene import ViewedScene

FILM_FPS = 30.0


def png_file(picture: Picture) -> bytes:
    """A picture as a PNG file.

    Args:
        picture: sRGB.
    """
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    return stream.getvalue()


def relightable_files(scene: ViewedScene, model: GaussianModel) -> bytes:
    """PLY, sidecar and the run's own light, zipped; in the frame of the capture.

    Args:
        scene: What is viewed.
        model: Its Gaussians as they are now.
    """
    if model.has_materials:
        model = _oriented(scene, model)

    def write(folder: Path) -> tuple[Path, ...]:
        light = scene.light if model.has_materials else None
        return write_relightable(folder / "splats.ply", model, light, _metadata(scene))

    return _zipped(write)


def baked_ply(
    scene: ViewedScene,
    model: GaussianModel,
    choice: LightChoice,
    library: LightLibrary,
    exposure: float,
) -> bytes:
    """A plain PLY that shows the scene under the present light in any splat viewer.

    Args:
        scene: What is viewed.
        model: Its Gaussians as they are now, with materials.
        choice: Light.
        library: Environment maps by name.
        exposure: Stops that the picture is brighter by.

    Raises:
        ValueError: No materials, or a light that cannot be used.
    """
    if not model.has_materials:
        raise ValueError("this run has no materials, so no light can be baked into it.")
    model = _oriented(scene, model)
    light = light_of(choice, library, exposure)
    transport = None
    if scene.trace is not None and choice.shadows:
        transport = scene.trace(model)
    baked = bake_radiance(model, lighting_for(model, light, transport))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "splats.ply"
        write_relightable(path, baked, None, _metadata(scene))
        return path.read_bytes()


def environment_file(
    choice: LightChoice, library: LightLibrary, S_world_input: Float[Tensor, "4 4"]
) -> bytes:
    """The present environment as it is turned, .exr, in the frame of the capture.

    Args:
        choice: Light.
        library: Environment maps by name.
        S_world_input: Similarity from the capture's frame to the world.

    Raises:
        ValueError: There is no environment.
    """
    environment = environment_of(choice, library)
    if environment is None:
        raise ValueError("no environment is chosen.")
    R_input_world = (S_world_input[:3, :3] / similarity_scale(S_world_input)).mT.float()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "environment.exr"
        write_environment(path, turn_for_file(environment, R_input_world.cpu()))
        return path.read_bytes()


def orbit(camera: Camera, target: Float[np.ndarray, " 3"], num_frames: int) -> list[Camera]:
    """One turn about the vertical through a point, from a camera on.

    Args:
        camera: The first; its size is reduced to even numbers, as videos need.
        target: World frame.
        num_frames: In the turn.
    """
    width, height = camera.width // 2 * 2, camera.height // 2 * 2
    centre = torch.from_numpy(np.asarray(target)).double()
    start = camera.T_world_camera.double()
    cameras = []
    for index in range(num_frames):
        turn = torch.eye(4, dtype=torch.float64)
        turn[:3, :3] = rotation_about_z(360.0 * index / num_frames).double()
        turn[:3, 3] = centre - turn[:3, :3] @ centre
        pose = invert_rigid(turn @ start).float()
        cameras.append(Camera(camera.K, pose, width, height))
    return cameras


def video_file(pictures: Iterable[Picture]) -> bytes:
    """Pictures as an .mp4 file.

    Args:
        pictures: sRGB, of one even size; taken one by one.

    Raises:
        ImportError: There is no ffmpeg.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        write_mp4(path, pictures, FILM_FPS)
        return path.read_bytes()


def _oriented(scene: ViewedScene, model: GaussianModel) -> GaussianModel:
    """The model with its normals outwards, as plain viewers and baking need them."""
    cameras = [photo.camera.to(scene.device) for photo in scene.photos]
    return orient_outwards(model, cameras or surrounding_cameras(model), scene.backend)


def _metadata(scene: ViewedScene) -> RelightableMetadata:
    return RelightableMetadata(
        invert_similarity(scene.S_world_input), background_srgb=scene.background_srgb
    )


def _zipped(write: Callable[[Path], tuple[Path, ...]]) -> bytes:
    stream = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        written = write(Path(folder))
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in written:
                archive.write(path, path.name)
    return stream.getvalue()
