"""How does a browser choose the light: an environment, a lamp, a sun?"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from viewer.client import Client
from viewer.edit_tab import linear_colour
from viewer.lights import Lamp, Sun, angles_of, direction_of, environment_of
from viewer.pictures import Picture, environment_thumbnail
from viewer.view_tab import NONE

# Distance of the sun's gizmo from the scene's middle, in radii of the scene.
_SUN_DISTANCE = 0.9


class LightTab:
    """The controls of the tab."""

    def __init__(self, client: Client) -> None:
        """Add the controls to the container that is open.

        Args:
            client: Whose page it is.
        """
        self.client = client
        gui, choice, page = client.browser.gui, client.choice, client.page
        names = (*page.library.names, NONE)
        self.source = gui.add_dropdown("Environment", names, initial_value=choice.source or NONE)
        self.picture = gui.add_image(self._thumbnail(), format="jpeg")
        self.upload = gui.add_upload_button("Upload .hdr or .exr", mime_type=".hdr,.exr")
        self.rotate = gui.add_slider(
            "Rotation", -180.0, 180.0, 1.0, 0.0, hint="Degrees about the vertical"
        )
        has_transport = page.scene.trace is not None
        self.shadows = gui.add_checkbox(
            "Shadows and bounced light",
            choice.shadows,
            disabled=not has_transport,
            hint=None if has_transport else "Only for runs that were trained with transport",
        )
        self.source.on_update(lambda _: self._set_source())
        self.rotate.on_update(lambda _: self.relight(rotate=self.rotate.value))
        self.shadows.on_update(lambda _: self.relight(shadows=self.shadows.value))
        self.upload.on_upload(lambda _: self._take_upload())
        with gui.add_folder("Lamp", expand_by_default=False):
            self.lamp = LampControls(client, self.relight)
        with gui.add_folder("Sun", expand_by_default=False):
            self.sun = SunControls(client, self.relight)

    @property
    def actions(self) -> dict[str, Callable[[], None]]:
        """What keys may do here."""
        return {} if self.client.page.scene.trace is None else {"shadows": self._toggle_shadows}

    def follow_maps(self) -> None:
        """Offer the maps that there are now."""
        names = (*self.client.page.library.names, NONE)
        if self.source.options != names:
            shown = self.client.choice.source or NONE
            self.source.options = names
            self.source.value = shown

    def relight(self, **fields: Any) -> None:
        """Change the light; a map that cannot be read leaves the present one.

        Args:
            **fields: Of `LightChoice`.
        """
        client = self.client
        with client.page.guarded(client.browser, "No new light"):
            environment_of(replace(client.choice, **fields), client.page.library)
            client.change_light(**fields)
        self.picture.image = self._thumbnail()

    def _set_source(self) -> None:
        source = self.source.value
        self.relight(source=None if source == NONE else source)

    def _toggle_shadows(self) -> None:
        self.shadows.value = not self.shadows.value

    def _take_upload(self) -> None:
        client, sent = self.client, self.upload.value
        with client.page.guarded(client.browser, "This file is no light"):
            name = client.page.add_map(sent.name, sent.content)
            self.source.value = name

    def _thumbnail(self) -> Picture:
        environment = environment_of(self.client.choice, self.client.page.library)
        if environment is None:
            return np.zeros((64, 128, 3), np.uint8)
        return environment_thumbnail(environment, self.client.look.exposure)


class LampControls:
    """A point light with its gizmo."""

    def __init__(self, client: Client, relight: Callable[..., None]) -> None:
        """Add the controls to the container that is open.

        Args:
            client: Whose page it is.
            relight: Takes the lamp.
        """
        self.client, self._relight = client, relight
        gui, radius = client.browser.gui, client.page.radius
        x, y, z = middle_of(client)
        self.is_on = gui.add_checkbox("Lamp on", False)
        self.power = gui.add_slider("Power", 0.0, 20.0, 0.1, 3.0)
        self.colour = gui.add_rgb("Colour", (255, 255, 255))
        self.gizmo = client.browser.scene.add_transform_controls(
            "/lamp",
            scale=0.3 * radius,
            disable_rotations=True,
            position=(x + 0.7 * radius, y, z + 0.7 * radius),
            visible=False,
        )
        client.browser.scene.add_icosphere(
            "/lamp/ball", radius=0.03 * radius, color=(255, 240, 200), cast_shadow=False
        )
        for control in (self.is_on, self.power, self.colour, self.gizmo):
            control.on_update(lambda _: self._update())

    def _update(self) -> None:
        self.gizmo.visible = self.is_on.value
        x, y, z = (float(value) for value in self.gizmo.position)
        # Power is the irradiance at the scene's own scale, whatever its units.
        power_at_one = self.power.value * self.client.page.radius**2
        lamp = Lamp((x, y, z), linear_colour(self.colour.value), power_at_one)
        self._relight(lamp=lamp if self.is_on.value else None)


class SunControls:
    """A directional light; its gizmo is dragged about the scene, at any distance."""

    def __init__(self, client: Client, relight: Callable[..., None]) -> None:
        """Add the controls to the container that is open.

        Args:
            client: Whose page it is.
            relight: Takes the sun.
        """
        self.client, self._relight = client, relight
        gui, radius = client.browser.gui, client.page.radius
        self._middle = np.array(middle_of(client))
        self.is_on = gui.add_checkbox("Sun on", False)
        self.azimuth = gui.add_slider("Azimuth", -180.0, 180.0, 1.0, 45.0)
        self.elevation = gui.add_slider("Elevation", -90.0, 90.0, 1.0, 40.0)
        self.power = gui.add_slider("Power", 0.0, 20.0, 0.1, 3.0)
        self.colour = gui.add_rgb("Colour", (255, 249, 237))
        self.gizmo = client.browser.scene.add_transform_controls(
            "/sun",
            scale=0.25 * radius,
            disable_rotations=True,
            position=self._place(),
            visible=False,
        )
        self._ball = client.browser.scene.add_icosphere(
            "/sun/ball", radius=0.05 * radius, color=(255, 190, 40), cast_shadow=False
        )
        for control in (self.is_on, self.azimuth, self.elevation, self.power, self.colour):
            control.on_update(lambda _: self._update())
        self.gizmo.on_update(lambda event: self._drag())
        self.gizmo.on_drag_end(lambda _: self._settle())

    def _place(self) -> tuple[float, float, float]:
        """Where the gizmo stands by the sliders."""
        away = np.array(direction_of(self.azimuth.value, self.elevation.value))
        x, y, z = self._middle + _SUN_DISTANCE * self.client.page.radius * away
        return float(x), float(y), float(z)

    def _update(self) -> None:
        self.gizmo.visible = self.is_on.value
        self.gizmo.position = self._place()
        self._light()

    def _light(self) -> None:
        angles = self.azimuth.value, self.elevation.value
        sun = Sun(*angles, linear_colour(self.colour.value), self.power.value)
        self._relight(sun=sun if self.is_on.value else None)

    def _drag(self) -> None:
        """Take the direction of the gizmo, which stays under the pointer."""
        azimuth, elevation = angles_of(np.asarray(self.gizmo.position) - self._middle)
        sun = Sun(azimuth, elevation, linear_colour(self.colour.value), self.power.value)
        self._relight(sun=sun if self.is_on.value else None)

    def _settle(self) -> None:
        """Show the dragged direction in the sliders, and bring the gizmo back to its distance."""
        azimuth, elevation = angles_of(np.asarray(self.gizmo.position) - self._middle)
        self.azimuth.value, self.elevation.value = round(azimuth), round(elevation)


def middle_of(client: Client) -> tuple[float, float, float]:
    """The middle of the Gaussians, world frame; the origin where there are none.

    Args:
        client: Whose page it is.
    """
    model = client.page.scene.model
    if not model.num_gaussians:
        return 0.0, 0.0, 0.0
    x, y, z = torch.median(model.means.detach(), 0).values.tolist()
    return x, y, z
