"""Which controls does the page have, and what does each change?"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import viser

from viewer.edit_controls import EditTab, linear_colour
from viewer.lights import Lamp, LightChoice, Sun, environment_of
from viewer.look import BACKDROPS, TONE_CURVES, channels_of
from viewer.page import Page, pose_of
from viewer.pictures import environment_thumbnail
from viewer.renderer import Pixel

_NONE = "(none)"
_HELP = """
**Mouse** drag: orbit; right drag: pan; wheel: zoom; click: read the surface there.
**Keys** W A S D: move; Q E: down, up; arrows: turn.

*View*: what is shown, alone or beside a second channel. While the camera moves the picture is
coarse and reflections may lag; both are mended when it stands.
*Light*: another environment, a lamp (drag its gizmo), a sun. *Cameras*: click a frustum to look
through it; then the channels `photo` and `error` compare with the photograph.
*Edit*: change or hide what lies in a region; saving makes a new run.
"""


def add_controls(server: viser.ViserServer, page: Page) -> None:
    """Fill the page.

    Args:
        server: Of the page.
        page: State that the controls change.
    """
    tabs = server.gui.add_tab_group()
    with tabs.add_tab("View"):
        _add_view(server, page)
    if page.scene.model.has_materials:
        with tabs.add_tab("Light"):
            _add_light(server, page)
    if page.scene.photos:
        with tabs.add_tab("Cameras"):
            _add_cameras(server, page)
    if page.scene.model.has_materials:
        with tabs.add_tab("Edit"):
            EditTab(server, page)
    with tabs.add_tab("Help"):
        server.gui.add_markdown(_HELP)


def _add_view(server: viser.ViserServer, page: Page) -> None:
    gui, look = server.gui, page.look
    names = channels_of(page.scene.model.has_materials, page.scene.has_photos)
    channel = gui.add_dropdown("Channel", names, initial_value=look.channel)
    second = gui.add_dropdown("Beside it", (_NONE, *names), initial_value=_NONE)
    divider = gui.add_slider("Divider", 0.0, 1.0, 0.01, look.divider)
    exposure = gui.add_slider("Exposure", -6.0, 6.0, 0.1, look.exposure, hint="Stops")
    tone = gui.add_dropdown("Tone curve", TONE_CURVES, initial_value=look.tone)
    backdrop = gui.add_dropdown("Background", BACKDROPS, initial_value=look.backdrop)
    gui.add_markdown("**Surface** (click into the picture)")
    picked = gui.add_markdown("nothing picked yet")

    channel.on_update(lambda _: page.change_look(channel=channel.value))
    second.on_update(
        lambda _: page.change_look(second=None if second.value == _NONE else second.value)
    )
    divider.on_update(lambda _: page.change_look(divider=divider.value))
    exposure.on_update(lambda _: page.change_look(exposure=exposure.value))
    tone.on_update(lambda _: page.change_look(tone=tone.value))
    backdrop.on_update(lambda _: page.change_look(backdrop=backdrop.value))

    def pick(event: Any) -> None:
        client = page.client(event.client_id)
        if client is None:
            return
        with page.guarded(event.client, "Nothing read"):
            page.picked = client.pick(*event.screen_pos)
            picked.content = describe_pixel(page.picked)

    server.scene.on_click()(pick)


def describe_pixel(pixel: Pixel | None) -> str:
    """The surface at a pixel, as the page says it.

    Args:
        pixel: What was read; None for nothing.
    """
    if pixel is None:
        return "nothing there"

    def numbers(values: tuple[float, ...]) -> str:
        return ", ".join(f"{value:.3f}" for value in values)

    lines = []
    if pixel.albedo is not None:
        lines += [
            f"albedo {numbers(pixel.albedo)} (linear)",
            f"roughness {pixel.roughness:.3f}",
            f"metallic {pixel.metallic:.3f}",
        ]
    lines += [
        f"normal {numbers(pixel.normal)}",
        f"depth {pixel.depth:.4f}",
        f"position {numbers(pixel.position)}",
        f"alpha {pixel.alpha:.3f}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _add_light(server: viser.ViserServer, page: Page) -> None:
    gui, choice = server.gui, page.choice
    names = (*page.library.names, _NONE)
    source = gui.add_dropdown("Environment", names, initial_value=choice.source or _NONE)
    picture = gui.add_image(_thumbnail(page), format="jpeg")
    upload = gui.add_upload_button("Upload .hdr or .exr", mime_type=".hdr,.exr")
    rotate = gui.add_slider("Rotation", -180.0, 180.0, 1.0, 0.0, hint="Degrees about the vertical")
    shadows = gui.add_checkbox(
        "Shadows and bounced light",
        choice.shadows,
        disabled=page.scene.trace is None,
        hint="Only for runs that were trained with transport" if page.scene.trace is None else None,
    )

    def relight(**fields: Any) -> None:
        before = page.choice
        with page.guarded(None, "No new light"):
            # A map is read here, so that a broken file leaves the present light.
            environment_of(replace(before, **fields), page.library)
            page.change_light(**fields)
        picture.image = _thumbnail(page)

    @source.on_update
    def _(_: Any) -> None:
        relight(source=None if source.value == _NONE else source.value)

    rotate.on_update(lambda _: relight(rotate=rotate.value))
    shadows.on_update(lambda _: relight(shadows=shadows.value))

    @upload.on_upload
    def _(event: Any) -> None:
        with page.guarded(event.client, "This file is no light"):
            name = page.library.add(upload.value.name, upload.value.content)
            source.options = (*page.library.names, _NONE)
            source.value = name

    with gui.add_folder("Lamp"):
        _add_lamp(server, page, relight)
    with gui.add_folder("Sun"):
        _add_sun(server, relight)


def _thumbnail(page: Page) -> Any:
    environment = environment_of(page.choice, page.library)
    if environment is None:
        environment = environment_of(LightChoice(page.library.names[0]), page.library)
        assert environment is not None
        return 0 * environment_thumbnail(environment, 0.0)
    return environment_thumbnail(environment, page.look.exposure)


def _add_lamp(server: viser.ViserServer, page: Page, relight: Callable[..., None]) -> None:
    gui, radius = server.gui, page.radius
    place = (0.0, 0.0, 0.0)
    if page.scene.model.num_gaussians:
        x, y, z = page.scene.model.means.detach().median(0).values.tolist()
        place = (x + 0.7 * radius, y, z + 0.7 * radius)
    is_on = gui.add_checkbox("On", False)
    power = gui.add_slider("Power", 0.0, 20.0, 0.1, 3.0)
    colour = gui.add_rgb("Colour", (255, 255, 255))
    gizmo = server.scene.add_transform_controls(
        "/lamp", scale=0.3 * radius, disable_rotations=True, position=place, visible=False
    )

    def update(_: Any) -> None:
        gizmo.visible = is_on.value
        x, y, z = (float(value) for value in gizmo.position)
        # Power is the irradiance at the scene's own scale, whatever its units.
        power_at_one = power.value * radius**2
        lamp = Lamp((x, y, z), linear_colour(colour.value), power_at_one)
        relight(lamp=lamp if is_on.value else None)

    for control in (is_on, power, colour, gizmo):
        control.on_update(update)


def _add_sun(server: viser.ViserServer, relight: Callable[..., None]) -> None:
    gui = server.gui
    is_on = gui.add_checkbox("On", False)
    azimuth = gui.add_slider("Azimuth", -180.0, 180.0, 1.0, 45.0)
    elevation = gui.add_slider("Elevation", -90.0, 90.0, 1.0, 40.0)
    power = gui.add_slider("Power", 0.0, 20.0, 0.1, 3.0)
    colour = gui.add_rgb("Colour", (255, 249, 237))

    def update(_: Any) -> None:
        sun = Sun(azimuth.value, elevation.value, linear_colour(colour.value), power.value)
        relight(sun=sun if is_on.value else None)

    for control in (is_on, azimuth, elevation, power, colour):
        control.on_update(update)


def _add_cameras(server: viser.ViserServer, page: Page) -> None:
    gui, photos = server.gui, page.scene.photos
    by_name = {photo.name: photo for photo in photos}
    are_shown = gui.add_checkbox("Show cameras", False)
    chosen = gui.add_dropdown("Photograph", tuple(by_name), initial_value=photos[0].name)
    jump = gui.add_button("Look through it")
    frustums = []

    def look_through(client_id: int | None, name: str) -> None:
        client = page.client(client_id)
        if client is not None:
            client.jump(by_name[name])

    for index, photo in enumerate(photos):
        pose = pose_of(photo.camera)
        frustum = server.scene.add_camera_frustum(
            f"/cameras/{index}",
            fov=pose.fov,
            aspect=pose.aspect,
            scale=0.12 * page.radius,
            color=(60, 110, 200),
            wxyz=pose.wxyz,
            position=pose.position,
            visible=False,
        )
        frustum.on_click(lambda event, name=photo.name: look_through(event.client_id, name))
        frustums.append(frustum)

    @are_shown.on_update
    def _(_: Any) -> None:
        for frustum in frustums:
            frustum.visible = are_shown.value

    jump.on_click(lambda event: look_through(event.client_id, chosen.value))
