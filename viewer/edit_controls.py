"""How does the page select Gaussians, change them, and save the result?"""

from typing import Any

import torch
import viser

from splatir.maths.colour import linear_from_srgb
from viewer.edits import Change, Selection
from viewer.page import Page


def linear_colour(rgb: tuple[int, int, int]) -> tuple[float, float, float]:
    """The linear colour of a colour picker.

    Args:
        rgb: sRGB, 0 to 255.
    """
    r, g, b = linear_from_srgb(torch.tensor(rgb) / 255.0).tolist()
    return r, g, b


class EditTab:
    """The controls of the tab, and what they mean together."""

    def __init__(self, server: viser.ViserServer, page: Page) -> None:
        """Add the controls to the container that is open.

        Args:
            server: Of the page.
            page: State that they change.
        """
        self.server, self.page = server, page
        gui, size = server.gui, 0.6 * page.radius
        centre = tuple(page.scene.model.means.detach().median(0).values.tolist())
        self.shape = gui.add_dropdown("Region", ("box", "sphere", "all"), initial_value="box")
        self.size = gui.add_vector3("Size", (size, size, size), min=(1e-6, 1e-6, 1e-6), step=0.01)
        self.is_shown = gui.add_checkbox("Show region", False, hint="Drag its gizmo to move it")
        self.to_picked = gui.add_button("Move region to picked point")
        self.is_alike = gui.add_checkbox("Only albedo like the picked point", False)
        self.tolerance = gui.add_slider("Tolerance", 0.01, 0.5, 0.01, 0.1)
        with gui.add_folder("New materials"):
            self.sets_albedo = gui.add_checkbox("Set albedo", True)
            self.albedo = gui.add_rgb("Albedo", (200, 40, 40))
            self.sets_roughness = gui.add_checkbox("Set roughness", False)
            self.roughness = gui.add_slider("Roughness", 0.0, 1.0, 0.01, 0.3)
            self.sets_metallic = gui.add_checkbox("Set metallic", False)
            self.metallic = gui.add_slider("Metallic", 0.0, 1.0, 0.01, 1.0)
        self.apply = gui.add_button("Apply")
        self.hide = gui.add_button("Hide")
        self.undo = gui.add_button("Undo")
        self.save = gui.add_button("Save as new run", disabled=page.scene.save is None)
        self.gizmo = server.scene.add_transform_controls(
            "/region",
            scale=0.4 * page.radius,
            disable_rotations=True,
            position=centre,
            visible=False,
        )
        self._region: Any = None
        self._connect()

    def selection(self) -> Selection:
        """What the controls choose.

        Raises:
            ValueError: Alike to a point that was not picked.
        """
        x, y, z = (float(value) for value in self.gizmo.position)
        albedo = None
        if self.is_alike.value:
            if self.page.picked is None or self.page.picked.albedo is None:
                raise ValueError("click into the picture first: there is no picked albedo.")
            albedo = self.page.picked.albedo
        return Selection(self.shape.value, (x, y, z), self.size.value, albedo, self.tolerance.value)

    def change(self) -> Change:
        """What is to be changed."""
        return Change(
            linear_colour(self.albedo.value) if self.sets_albedo.value else None,
            self.roughness.value if self.sets_roughness.value else None,
            self.metallic.value if self.sets_metallic.value else None,
        )

    def _connect(self) -> None:
        for control in (self.shape, self.size, self.is_shown):
            control.on_update(lambda _: self._draw())
        self.apply.on_click(lambda event: self._edit(event.client, "apply"))
        self.hide.on_click(lambda event: self._edit(event.client, "hide"))
        self.undo.on_click(lambda event: self._undo(event.client))
        self.save.on_click(lambda event: self._save(event.client))
        self.to_picked.on_click(lambda event: self._move(event.client))
        self.gizmo.on_update(lambda _: self._draw())

    def _draw(self) -> None:
        """The region as lines in the scene."""
        if self._region is not None:
            self._region.remove()
            self._region = None
        self.gizmo.visible = self.is_shown.value
        if not self.is_shown.value or self.shape.value == "all":
            return
        scene, place = self.server.scene, self.gizmo.position
        x, y, z = self.size.value
        colour = (255, 140, 0)
        if self.shape.value == "box":
            self._region = scene.add_box(
                "/region_shape", color=colour, dimensions=(x, y, z), wireframe=True, position=place
            )
        else:
            self._region = scene.add_icosphere(
                "/region_shape",
                radius=0.5,
                color=colour,
                wireframe=True,
                scale=(x, y, z),
                position=place,
            )

    def _edit(self, browser: Any, what: str) -> None:
        page = self.page
        with page.guarded(browser, "Nothing changed"):
            selection = self.selection()
            if what == "hide":
                count, done = page.history.hide(selection), "hidden"
            else:
                count, done = page.history.recolour(selection, self.change()), "changed"
            page.notify(browser, "Edited", f"{count:,} Gaussians {done}.")
        page.refresh()

    def _undo(self, browser: Any) -> None:
        if not self.page.history.undo():
            self.page.notify(browser, "Nothing to undo", "The scene is as it was trained.")
        self.page.refresh()

    def _save(self, browser: Any) -> None:
        page = self.page
        assert page.scene.save is not None
        with page.guarded(browser, "Not saved"):
            now = page.history.now
            folder = page.scene.save(now.model, list(now.log))
            page.notify(browser, "Saved", f"A new run: {folder}")

    def _move(self, browser: Any) -> None:
        if self.page.picked is None:
            self.page.notify(browser, "No point", "Click into the picture first.")
            return
        self.gizmo.position = self.page.picked.position
        self._draw()
