"""Which light falls on the viewed scene: a map with a turn, a lamp, a sun?"""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.frames import similarity_scale
from splatir.scene.environment_map import rotate_environment, rotation_about_z
from splatir.scene.lights import (
    DirectionalLight,
    EnvironmentLight,
    Light,
    LightSum,
    PointLight,
    SimpleLight,
)
from splatir.storage.environment import ENVIRONMENT_SUFFIXES, read_environment

RECOVERED = "recovered"
# Rows that maps are brought to: as background they fill a screen, as light fewer would do.
_MAX_ROWS = 256


@dataclass(frozen=True)
class Lamp:
    """A point light.

    Attributes:
        position: World frame.
        colour: Linear.
        power: Irradiance at distance 1 is `power` times the colour.
    """

    position: tuple[float, float, float] = (0.0, 0.0, 1.0)
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    power: float = 3.0


@dataclass(frozen=True)
class Sun:
    """A light from one direction of the sky.

    Attributes:
        azimuth: Degrees from +X towards +Y.
        elevation: Degrees above the horizon.
        colour: Linear.
        power: Irradiance of a surface that faces it is `power` times the colour.
    """

    azimuth: float = 45.0
    elevation: float = 40.0
    colour: tuple[float, float, float] = (1.0, 0.95, 0.85)
    power: float = 3.0


def direction_of(azimuth: float, elevation: float) -> tuple[float, float, float]:
    """The unit vector towards a place of the sky.

    Args:
        azimuth: Degrees from +X towards +Y.
        elevation: Degrees above the horizon.
    """
    turn, rise = math.radians(azimuth), math.radians(elevation)
    level = math.cos(rise)
    return level * math.cos(turn), level * math.sin(turn), math.sin(rise)


def angles_of(direction: Float[np.ndarray, " 3"]) -> tuple[float, float]:
    """Azimuth and elevation of a vector, degrees; the inverse of `direction_of`.

    Args:
        direction: Of any length; 0 counts as +X.
    """
    x, y, z = (float(value) for value in direction)
    return math.degrees(math.atan2(y, x)), math.degrees(math.atan2(z, math.hypot(x, y)))


@dataclass(frozen=True)
class LightChoice:
    """What the user has lit the scene with.

    Attributes:
        source: Name of a map in the library, or None for no environment.
        rotate: Turn of the map about the vertical, degrees, from +X towards +Y.
        lamp: Point light, or None.
        sun: Directional light, or None.
        shadows: Trace what Gaussians hide from each other, and the light between them.
    """

    source: str | None = RECOVERED
    rotate: float = 0.0
    lamp: Lamp | None = None
    sun: Sun | None = None
    shadows: bool = True


class LightLibrary:
    """Environment maps by name, in the world frame; files are read when first needed."""

    def __init__(
        self,
        recovered: EnvironmentLight | None,
        files: dict[str, Path],
        S_world_input: Float[Tensor, "4 4"],
        device: torch.device,
    ) -> None:
        """Know of maps.

        Args:
            recovered: Light of the run, world frame, or None.
            files: Further maps by name, each in the capture's own frame.
            S_world_input: Similarity from the capture's frame to the world.
            device: Where light is to be.
        """
        S = S_world_input.double()
        self._R_world_map = (S[:3, :3] / similarity_scale(S)).cpu()
        self.device = device
        self._files = dict(files)
        self._known: dict[str, EnvironmentLight] = {}
        if recovered is not None:
            self._known[RECOVERED] = recovered

    @property
    def names(self) -> tuple[str, ...]:
        """Of all maps, the recovered one first."""
        return tuple(dict.fromkeys([*self._known, *self._files]))

    def map(self, name: str) -> EnvironmentLight:
        """A map in the world frame.

        Args:
            name: One of `names`.

        Raises:
            FileNotFoundError: Its file is gone.
            ValueError: Its file is no map.
        """
        if name not in self._known:
            self._known[name] = self._read(self._files[name])
        return self._known[name]

    def recover(self, light: EnvironmentLight) -> None:
        """Take in the light of a run as it is now, in place of what it was.

        Args:
            light: World frame.
        """
        others = {name: known for name, known in self._known.items() if name != RECOVERED}
        self._known = {RECOVERED: light, **others}

    def add(self, filename: str, contents: bytes) -> str:
        """Take in a map that was sent as a file.

        Args:
            filename: As the sender named it; its suffix says the format.
            contents: Of the file.

        Returns:
            The name it goes by from now on.

        Raises:
            ValueError: It is no map.
        """
        suffix = Path(filename).suffix.lower()
        if suffix not in ENVIRONMENT_SUFFIXES:
            raise ValueError(f"{filename} is no environment map; send a .hdr or .exr file.")
        with tempfile.TemporaryDirectory() as folder:
            # Never the sender's name: it may hold anything.
            path = Path(folder) / f"upload{suffix}"
            path.write_bytes(contents)
            try:
                light = self._read(path)
            except ValueError as error:
                raise ValueError(str(error).replace(str(path), Path(filename).name)) from error
        stem = Path(filename).stem or "upload"
        name, number = stem, 2
        while name in self.names:
            name, number = f"{stem} {number}", number + 1
        self._known[name] = light
        return name

    def _read(self, path: Path) -> EnvironmentLight:
        light = read_environment(path)
        rows = light.radiance.shape[0]
        if rows > _MAX_ROWS:
            light = read_environment(path, _MAX_ROWS)
        light = rotate_environment(light, self._R_world_map)
        return EnvironmentLight(light.radiance.to(self.device))


def environment_of(choice: LightChoice, library: LightLibrary) -> EnvironmentLight | None:
    """The chosen map as it is turned, or None.

    Args:
        choice: What the user has chosen.
        library: Maps by name.
    """
    if choice.source is None:
        return None
    light = library.map(choice.source)
    if choice.rotate == 0.0:
        return light
    return rotate_environment(light, rotation_about_z(choice.rotate))


def light_of(choice: LightChoice, library: LightLibrary, stops: float = 0.0) -> Light:
    """All that was chosen, together.

    Args:
        choice: What the user has chosen.
        library: Maps by name.
        stops: That all of it is brighter by.
    """
    gain = 2.0**stops
    environment = environment_of(choice, library)
    lights: list[SimpleLight] = []
    if environment is not None:
        lights.append(EnvironmentLight(environment.radiance * gain) if stops else environment)
    device = library.device
    if choice.lamp is not None:
        colour = gain * choice.lamp.power * torch.tensor(choice.lamp.colour, device=device)
        lights.append(PointLight(torch.tensor(choice.lamp.position, device=device), colour))
    if choice.sun is not None:
        direction = torch.tensor(
            direction_of(choice.sun.azimuth, choice.sun.elevation), device=device
        )
        colour = gain * choice.sun.power * torch.tensor(choice.sun.colour, device=device)
        lights.append(DirectionalLight(direction, colour))
    return LightSum(tuple(lights))
