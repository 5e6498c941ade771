"""How does the present look become one web page that needs neither server nor network?"""

import html
import re

import numpy as np
import viser
from jaxtyping import Float

from viewer.pose import Pose
from viewer.splats import Sky, Splats

# Browsers refuse module workers of blobs to pages opened from files, silently, and splats would
# never be sorted: those behind would be seen through those before. viser's client has the worker
# as a data URL too, and takes it where the first way throws.
_WORKERS = """<script>
if (location.protocol === "file:") {
  window.Worker = class extends window.Worker {
    constructor(url, options) {
      if (String(url).startsWith("blob:")) throw new Error("no workers of blobs");
      super(url, options);
    }
  };
}
</script>"""


def web_page(
    splats: Splats,
    pose: Pose,
    target: Float[np.ndarray, " 3"],
    background: int | Sky,
    title: str,
) -> str:
    """A page that holds viser's client and the splats.

    Args:
        splats: What is shown; their colours are fixed.
        pose: Camera of the start.
        target: What it turns about, world frame.
        background: Grey behind the splats, 0 to 255, or an environment.
        title: Of the page.
    """
    # A server of its own: what it holds is what the page will hold.
    server = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
    try:
        server.scene.set_up_direction("+z")
        camera = server.initial_camera
        camera.position, camera.look_at, camera.fov = pose.position, target, pose.fov
        camera.near = 0.01 * float(np.linalg.norm(np.asarray(pose.position) - target))
        _add_background(server.scene, background)
        server.scene.add_gaussian_splats(
            "/splats",
            splats.centres,
            splats.covariances,
            splats.colours,
            splats.opacities,
            scale=splats.unit,
        )
        page = server.scene.as_html()
    finally:
        server.stop()
    named = f"<title>{html.escape(title)}</title>{_WORKERS}"
    return re.sub(r"<title>.*?</title>", lambda _: named, page, count=1, flags=re.DOTALL)


def _add_background(scene: viser.SceneApi, background: int | Sky) -> None:
    if isinstance(background, Sky):
        scene.add_point_cloud(
            "/sky",
            background.points,
            background.colours,
            point_size=background.size,
            point_shading="flat",
        )
    else:
        scene.set_background_image(np.full((4, 4, 3), background, np.uint8), format="png")
