"""How does a request of one client become a picture with depth?"""

import threading
import time
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from splatir.render.deferred import Lighting
from splatir.render.gbuffer import MIN_COVERAGE
from splatir.render.relighting import lighting_for
from splatir.scene.camera import Camera
from splatir.scene.lights import EnvironmentLight, LightSum
from splatir.shade.split_sum import SplitSum
from splatir.shade.surface import Shading, SurfacePoints
from splatir.transport.lighting import GaussianLighting
from splatir.transport.scene import SceneTransport
from viewer.edits import Edited
from viewer.lights import LightChoice, LightLibrary, environment_of, light_of
from viewer.look import LIT_CHANNELS, Look
from viewer.pictures import Picture, backdrop_picture, look_picture, seen_photo
from viewer.scene import PhotoView, ViewedScene
from viewer.splats import Splats, Subject, splat_colours, splats_of
from viewer.view import View

# Lights that are kept ready: of clients that look at the same time.
_MAX_LIT = 4
# Depth of pixels that show nothing, farther than anything the page draws.
_NOTHING = 1e4
# Rows of depth that are sent: the page draws few things with edges against the scene.
_DEPTH_ROWS = 360


@dataclass(frozen=True)
class Frame:
    """What is sent to a client.

    Attributes:
        picture: sRGB.
        depth: Camera z; every so many pixels of the picture, as it may be coarser.
        seconds: That it took, without making light ready.
    """

    picture: Picture
    depth: Float[np.ndarray, "rows columns"]
    seconds: float


@dataclass(frozen=True)
class Pixel:
    """The surface at one pixel.

    Attributes:
        alpha: Coverage; the rest means nothing where it is 0.
        position: World frame.
        depth: Camera z.
        normal: Unit, world frame.
        albedo: Linear; None without materials, as the next two.
        roughness: Perceptual.
        metallic: 0 to 1.
        sheen: 0 to 1; None also where the scene has no cloth.
    """

    alpha: float
    position: tuple[float, float, float]
    depth: float
    normal: tuple[float, float, float]
    albedo: tuple[float, float, float] | None = None
    roughness: float | None = None
    metallic: float | None = None
    sheen: float | None = None


class HeldLighting:
    """A lighting whose channels of the last fine view serve for the coarse ones too.

    They vary slowly with the camera, and finding them takes longer than a picture may while the
    camera moves.
    """

    def __init__(self, lighting: GaussianLighting) -> None:
        self.lighting = lighting
        self.is_held = False
        self._channels: Float[Tensor, "n c"] | None = None

    def channels(self, camera_position: Float[Tensor, " 3"]) -> Float[Tensor, "n c"]:
        """As `GaussianLighting.channels`, but of an earlier position while held."""
        if self._channels is None or not self.is_held:
            self._channels = self.lighting.channels(camera_position)
        return self._channels

    def channels_of(
        self, who: Int[Tensor, " p"], views: Float[Tensor, "p 3"]
    ) -> Float[Tensor, "p c"]:
        """As `GaussianLighting.channels_of`."""
        return self.lighting.channels_of(who, views)

    def shade(self, points: SurfacePoints, channels: Float[Tensor, "p c"]) -> Shading:
        """As `GaussianLighting.shade`."""
        return self.lighting.shade(points, channels)


@dataclass
class ClientMemory:
    """What is kept from one picture of a client to the next."""

    held: HeldLighting | None = None


@dataclass(frozen=True)
class _Lit:
    """A light prepared for a state of the Gaussians."""

    edited: Edited
    choice: LightChoice
    lighting: Lighting
    unshadowed: SplitSum
    environment: EnvironmentLight | None


class Renderer:
    """Renders for all clients, one picture at a time; keeps the light ready."""

    def __init__(self, scene: ViewedScene, library: LightLibrary) -> None:
        self.scene, self.library = scene, library
        self._lock = threading.Lock()
        # Newest last.
        self._lit: list[_Lit] = []
        # By geometry; hidden Gaussians cast no shadows, and undo brings the old ones back.
        self._transports: dict[int, SceneTransport] = {}
        self._photos: dict[str, Tensor] = {}

    @torch.no_grad()
    def frame(
        self,
        camera: Camera,
        look: Look,
        edited: Edited,
        choice: LightChoice,
        memory: ClientMemory | None = None,
        is_fine: bool = True,
        photo: PhotoView | None = None,
    ) -> Frame:
        """Render a view.

        Args:
            camera: View, of the picture's size.
            look: What is shown.
            edited: State of the Gaussians.
            choice: Light.
            memory: Of the client; None keeps nothing.
            is_fine: Whether the camera stands still; else reflections may lag behind it.
            photo: The photograph that this camera compares with.

        Raises:
            ValueError: A channel, or a map, that cannot be shown.
        """
        with self._lock:
            camera = camera.to(self.scene.device)
            lit = self._light(edited, choice) if look.needs_light else None
            started = time.perf_counter()
            lighting = None
            if lit is not None:
                lighting = self._held(lit.lighting, memory, is_fine)
            view = View(
                edited.model,
                camera,
                self.scene.backend,
                self.scene.options,
                lighting,
                None if lit is None else lit.unshadowed,
            )
            pixels = None
            if photo is not None and {"photo", "error"} & set(look.channels):
                pixels = self._photo(photo, camera)
            environment = lit.environment if lit is not None else None
            if look.backdrop == "environment" and environment is None:
                environment = environment_of(choice, self.library)
            picture = look_picture(view, look, environment, pixels)
            return Frame(picture, _depth(view), time.perf_counter() - started)

    @torch.no_grad()
    def pick(self, camera: Camera, edited: Edited, column: int, row: int) -> Pixel | None:
        """The surface at a pixel, or None where there is none.

        Args:
            camera: View.
            edited: State of the Gaussians.
            column: From the left.
            row: From the top.
        """
        K = camera.K.clone()
        K[:2, 2] -= torch.tensor([column, row]).to(K)
        ray = Camera(K, camera.T_camera_world, 1, 1).to(self.scene.device)
        with self._lock:
            view = View(edited.model, ray, self.scene.backend, self.scene.options)
            surface = view.surface
        alpha = float(surface.alpha)
        if alpha <= MIN_COVERAGE:
            return None
        depth = float(surface.depth)
        direction = torch.tensor(
            [(0.5 - K[0, 2]) / K[0, 0], (0.5 - K[1, 2]) / K[1, 1], 1.0], dtype=torch.float32
        )
        T = camera.T_world_camera
        position = _triple(T[:3, :3] @ (direction * depth) + T[:3, 3])
        normal = _triple(surface.normals[0, 0])
        if surface.albedo is None or surface.roughness is None or surface.metallic is None:
            return Pixel(alpha, position, depth, normal)
        return Pixel(
            alpha,
            position,
            depth,
            normal,
            _triple(surface.albedo[0, 0]),
            float(surface.roughness),
            float(surface.metallic),
            None if surface.sheen is None else float(surface.sheen),
        )

    @torch.no_grad()
    def splats(
        self,
        position: tuple[float, float, float],
        subject: Subject,
        memory: ClientMemory | None = None,
    ) -> Splats:
        """The Gaussians as splats of one colour each.

        Args:
            position: Of the camera that they are coloured for, world frame.
            subject: What is drawn.
            memory: Of the client; None keeps nothing.

        Raises:
            ValueError: A channel, or a map, that cannot be shown.
        """
        with self._lock:
            lighting = None
            if subject.look.channel in LIT_CHANNELS:
                lit = self._light(subject.edited, subject.choice)
                lighting = self._held(lit.lighting, memory, is_fine=True)
            colours = splat_colours(subject, torch.tensor(position), lighting)
            return splats_of(subject.edited.model.gaussians, colours)

    @torch.no_grad()
    def backdrop(self, camera: Camera, look: Look, choice: LightChoice) -> Picture:
        """What is behind the scene, alone; a few pixels where it is of one colour.

        Args:
            camera: View.
            look: Backdrop, exposure, tone.
            choice: Light.
        """
        if look.backdrop == "environment":
            environment = environment_of(choice, self.library)
            if environment is not None:
                return backdrop_picture(environment, camera.to(self.scene.device), look)
        return np.full((4, 4, 3), 0 if look.backdrop == "black" else 255, np.uint8)

    def must_trace(self, look: Look, edited: Edited, choice: LightChoice) -> bool:
        """Whether the next picture waits until shadows are traced.

        Args:
            look: What is shown.
            edited: State of the Gaussians.
            choice: Light.
        """
        is_shadowed = self.scene.trace is not None and choice.shadows
        return look.needs_light and is_shadowed and edited.geometry not in self._transports

    def _light(self, edited: Edited, choice: LightChoice) -> _Lit:
        for found in self._lit:
            if found.edited is edited and found.choice == choice:
                return found
        light = light_of(choice, self.library)
        transport = self._transport(edited) if choice.shadows else None
        lighting = lighting_for(edited.model, light, transport)
        unshadowed = lighting if isinstance(lighting, SplitSum) else SplitSum(LightSum((light,)))
        environment = environment_of(choice, self.library)
        self._lit.append(_Lit(edited, choice, lighting, unshadowed, environment))
        del self._lit[:-_MAX_LIT]
        return self._lit[-1]

    def _transport(self, edited: Edited) -> SceneTransport | None:
        if self.scene.trace is None:
            return None
        if edited.geometry not in self._transports:
            self._transports[edited.geometry] = self.scene.trace(edited.model)
        return self._transports[edited.geometry]

    def _held(self, lighting: Lighting, memory: ClientMemory | None, is_fine: bool) -> Lighting:
        if memory is None or not isinstance(lighting, GaussianLighting):
            return lighting
        if memory.held is None or memory.held.lighting is not lighting:
            memory.held = HeldLighting(lighting)
        memory.held.is_held = not is_fine
        return memory.held

    def _photo(self, photo: PhotoView, camera: Camera) -> Tensor | None:
        if photo.load is None:
            return None
        if photo.name not in self._photos:
            self._photos[photo.name] = photo.load()
        return seen_photo(self._photos[photo.name], photo.camera, camera)


def _depth(view: View) -> Float[np.ndarray, "rows columns"]:
    """Depth of the pixels that are mostly covered, on a grid that may be coarser."""
    surface = view.surface
    stride = -(-surface.depth.shape[0] // _DEPTH_ROWS)
    is_solid = surface.alpha[::stride, ::stride, 0] > 0.5
    depth = surface.depth[::stride, ::stride, 0]
    return torch.where(is_solid, depth, _NOTHING).cpu().numpy()


def _triple(vector: Float[Tensor, " 3"]) -> tuple[float, float, float]:
    x, y, z = vector.tolist()
    return x, y, z
