"""How does the present look become one web page that needs neither server nor network?"""

import html
import re

import numpy as np
import viser
from jaxtyping import Float

from viewer.pose import Pose
from viewer.splats import Splats


def web_page(
    splats: Splats, pose: Pose, target: Float[np.ndarray, " 3"], background: int, title: str
) -> str:
    """A page that holds viser's client and the splats.

    Args:
        splats: What is shown; their colours are fixed.
        pose: Camera of the start.
        target: What it turns about, world frame.
        background: Grey behind the splats, 0 to 255.
        title: Of the page.
    """
    # A server of its own: what it holds is what the page will hold.
    server = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
    try:
        server.scene.set_up_direction("+z")
        camera = server.initial_camera
        camera.position, camera.look_at, camera.fov = pose.position, target, pose.fov
        camera.near = 0.01 * float(np.linalg.norm(np.asarray(pose.position) - target))
        server.scene.set_background_image(np.full((4, 4, 3), background, np.uint8), format="png")
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
    named = f"<title>{html.escape(title)}</title>"
    return re.sub(r"<title>.*?</title>", lambda _: named, page, count=1, flags=re.DOTALL)
