"""Which tabs does a browser's page have, and what do they hear of each other?"""

from collections.abc import Callable

from viewer.camera_tab import CameraTab
from viewer.client import Client
from viewer.edit_tab import EditTab
from viewer.export_tab import ExportTab
from viewer.keys import Keys, help_text
from viewer.light_tab import LightTab
from viewer.train_tab import TrainTab
from viewer.view_tab import ViewTab


class Controls:
    """All controls of one browser."""

    def __init__(self, client: Client) -> None:
        """Fill the page.

        Args:
            client: Whose page it is.
        """
        self.client = client
        page, gui = client.page, client.browser.gui
        self._tabs = gui.add_tab_group()
        self.light: LightTab | None = None
        self.cameras: CameraTab | None = None
        self.edit: EditTab | None = None
        self.train: TrainTab | None = None
        if page.live is not None:
            with self._tabs.add_tab("Train"):
                self.train = TrainTab(client, page.live)
        with self._tabs.add_tab("View"):
            self.view = ViewTab(client)
        if page.scene.model.has_materials:
            self._add_light()
        if page.scene.photos:
            with self._tabs.add_tab("Cameras"):
                self.cameras = CameraTab(client, self.view)
        # A scene in the making replaces what was edited.
        if page.scene.model.has_materials and page.live is None:
            with self._tabs.add_tab("Edit"):
                self.edit = EditTab(client)
        with self._tabs.add_tab("Export"):
            self.export = ExportTab(client)
        self._keys = Keys(gui)
        with self._tabs.add_tab("Help"):
            self._help = gui.add_markdown("")
        self._offer_keys()
        client.panels = self

    @property
    def actions(self) -> dict[str, Callable[[], None]]:
        """What keys may do."""
        tabs = (self.view, self.light, self.cameras, self.edit, self.train)
        return {
            name: action for tab in tabs if tab is not None for name, action in tab.actions.items()
        }

    def maps_changed(self) -> None:
        """There are other environment maps to choose from."""
        if self.light is not None:
            self.light.follow_maps()

    def scene_replaced(self) -> None:
        """The scene is another one, perhaps with other channels."""
        self.view.follow_scene()
        if self.light is None and self.client.page.scene.model.has_materials:
            self._add_light()
            self._offer_keys()
        self.maps_changed()

    def edited(self) -> None:
        """Gaussians were changed, or another point was picked."""
        if self.edit is not None:
            self.edit.draw()

    def progressed(self) -> None:
        """The training has gone on."""
        if self.train is not None:
            self.train.follow()

    @property
    def follow_every(self) -> float | None:
        """Seconds between states of the scene that is being made; None for as it is."""
        if self.train is None or not self.train.follows.value:
            return None
        return float(self.train.every.value)

    def close(self) -> None:
        """Work no more for a browser that has gone."""
        if self.cameras is not None:
            self.cameras.close()

    def _offer_keys(self) -> None:
        self._keys.add(self.actions, self.view.channels)
        self._help.content = help_text(self.actions, self.view.channels)

    def _add_light(self) -> None:
        with self._tabs.add_tab("Light"):
            self.light = LightTab(self.client)
