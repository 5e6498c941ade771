"""How does the page select Gaussians, change them, and save the result?"""

import threading
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.colour import linear_from_srgb
from viewer.client import Client
from viewer.edits import Change, Selection

# Of the Gaussians that are chosen, so many are marked: more would hide what they mark.
_MAX_MARKS = 3000
_MARK_COLOUR = (255, 140, 0)


def linear_colour(rgb: tuple[int, int, int]) -> tuple[float, float, float]:
    """The linear colour of a colour picker.

    Args:
        rgb: sRGB, 0 to 255.
    """
    r, g, b = linear_from_srgb(torch.tensor(rgb) / 255.0).tolist()
    return r, g, b


class EditTab:
    """The controls of the tab, and what they mean together."""

    def __init__(self, client: Client) -> None:
        """Add the controls to the container that is open.

        Args:
            client: Whose page it is.
        """
        self.client, self.page = client, client.page
        page, gui = client.page, client.browser.gui
        size = float(f"{0.6 * page.radius:.2g}")
        centre = tuple(page.scene.model.means.detach().median(0).values.tolist())
        self.shape = gui.add_dropdown("Region", ("box", "sphere", "all"), initial_value="box")
        self.size = gui.add_vector3("Size", (size, size, size), min=(1e-6, 1e-6, 1e-6), step=0.01)
        self.is_shown = gui.add_checkbox(
            "Show selection",
            False,
            hint="Its region, with a gizmo to drag, and what it holds",
        )
        self.to_picked = gui.add_button("Move region to picked point")
        self.is_alike = gui.add_checkbox("Only albedo like the picked point", False)
        self.tolerance = gui.add_slider("Tolerance", 0.01, 0.5, 0.01, 0.1)
        self.count = gui.add_markdown("")
        with gui.add_folder("New materials"):
            self.sets_albedo = gui.add_checkbox("Set albedo", True)
            self.albedo = gui.add_rgb("Albedo", (200, 40, 40))
            self.sets_roughness = gui.add_checkbox("Set roughness", False)
            self.roughness = gui.add_slider("Roughness", 0.0, 1.0, 0.01, 0.3)
            self.sets_metallic = gui.add_checkbox("Set metallic", False)
            self.metallic = gui.add_slider("Metallic", 0.0, 1.0, 0.01, 1.0)
            self.sets_sheen = gui.add_checkbox("Set sheen", False)
            self.sheen = gui.add_slider("Sheen", 0.0, 1.0, 0.01, 0.5)
        self.apply = gui.add_button("Apply to selection")
        self.hide = gui.add_button("Hide selection")
        self.undo = gui.add_button("Undo")
        self.save = gui.add_button("Save as new run", disabled=page.scene.save is None)
        self.gizmo = client.browser.scene.add_transform_controls(
            "/region",
            scale=0.4 * page.radius,
            disable_rotations=True,
            position=centre,
            visible=False,
        )
        self._box = client.browser.scene.add_box(
            "/region_box", color=_MARK_COLOUR, wireframe=True, visible=False
        )
        self._ball = client.browser.scene.add_icosphere(
            "/region_ball", radius=0.5, color=_MARK_COLOUR, wireframe=True, visible=False
        )
        self._marks: Any = None
        # Others' edits redraw it as well.
        self._marking = threading.Lock()
        self._connect()
        self.draw()

    def selection(self) -> Selection:
        """What the controls choose.

        Raises:
            ValueError: Alike to a point that was not picked.
        """
        x, y, z = (float(value) for value in self.gizmo.position)
        albedo = None
        if self.is_alike.value:
            if self.client.picked is None or self.client.picked.albedo is None:
                raise ValueError("click into the picture first: there is no picked albedo.")
            albedo = self.client.picked.albedo
        return Selection(self.shape.value, (x, y, z), self.size.value, albedo, self.tolerance.value)

    def change(self) -> Change:
        """What is to be changed."""
        return Change(
            linear_colour(self.albedo.value) if self.sets_albedo.value else None,
            self.roughness.value if self.sets_roughness.value else None,
            self.metallic.value if self.sets_metallic.value else None,
            self.sheen.value if self.sets_sheen.value else None,
        )

    def _connect(self) -> None:
        for control in (self.shape, self.size, self.is_shown, self.is_alike, self.tolerance):
            control.on_update(lambda _: self.draw())
        for value, is_set in (
            (self.albedo, self.sets_albedo),
            (self.roughness, self.sets_roughness),
            (self.metallic, self.sets_metallic),
            (self.sheen, self.sets_sheen),
        ):
            value.on_update(_ticker(is_set))
        self.apply.on_click(lambda _: self._edit("apply"))
        self.hide.on_click(lambda _: self._edit("hide"))
        self.undo.on_click(lambda _: self._undo())
        self.save.on_click(lambda _: self._save())
        self.to_picked.on_click(lambda _: self._move())
        self.gizmo.on_update(lambda _: self.draw())

    @property
    def actions(self) -> dict[str, Callable[[], None]]:
        """What keys may do here."""
        return {"selection": self._toggle, "undo": self._undo}

    def _toggle(self) -> None:
        self.is_shown.value = not self.is_shown.value

    def draw(self) -> None:
        """Show the region as lines in the scene, and what it holds as points and as a number."""
        place, size, shape = self.gizmo.position, self.size.value, self.shape.value
        is_shown = self.is_shown.value
        self.gizmo.visible = is_shown and shape != "all"
        self._box.visible, self._ball.visible = (
            is_shown and shape == name for name in ("box", "sphere")
        )
        self._box.position, self._box.dimensions = place, size
        self._ball.position, self._ball.scale = place, size
        model = self.page.history.now.model
        centres = model.means.detach()[:0]
        with self.page.guarded(self.client.browser, "Nothing selected"):
            centres = model.means.detach()[self.selection().of(model)]
        self.count.content = f"{len(centres):,} of {model.num_gaussians:,} Gaussians"
        self._mark(centres if is_shown else centres[:0])

    def _mark(self, centres: Float[Tensor, "n 3"]) -> None:
        """Points at the Gaussians that are chosen; none for none."""
        with self._marking:
            if self._marks is not None:
                self._marks.remove()
                self._marks = None
            if len(centres):
                self._marks = self.client.browser.scene.add_point_cloud(
                    "/selection",
                    centres[:: -(-len(centres) // _MAX_MARKS)].cpu().numpy(),
                    _MARK_COLOUR,
                    point_size=0.006 * self.page.radius,
                    point_shape="circle",
                    point_shading="flat",
                    precision="float32",
                )

    def _edit(self, what: str) -> None:
        page, browser = self.page, self.client.browser
        with page.guarded(browser, "Nothing changed"):
            selection = self.selection()
            if what == "hide":
                count, done = page.history.hide(selection), "hidden"
            else:
                count, done = page.history.recolour(selection, self.change()), "changed"
            page.notify(browser, "Edited", f"{count:,} Gaussians {done}.")
        page.edited()

    def _undo(self) -> None:
        if not self.page.history.undo():
            self.page.notify(self.client.browser, "Nothing to undo", "No edit is left.")
        self.page.edited()

    def _save(self) -> None:
        page, browser = self.page, self.client.browser
        assert page.scene.save is not None
        with page.guarded(browser, "Not saved"):
            now = page.history.now
            folder = page.scene.save(now.model, list(now.log))
            page.notify(browser, "Saved", f"A new run: {folder}")

    def _move(self) -> None:
        picked = self.client.picked
        if picked is None:
            self.page.notify(self.client.browser, "No point", "Click into the picture first.")
            return
        self.gizmo.position = picked.position
        self.draw()


def _ticker(box: Any) -> Callable[[Any], None]:
    """Who chooses a value wants it set."""

    def tick(_: Any) -> None:
        box.value = True

    return tick
