"""How close do geometry, materials and relighting of a run come to the truth of its test views?"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from splatir.data.dataset import View
from splatir.evaluate.judge import ScoredScene
from splatir.evaluate.protocols import (
    AlbedoRatios,
    AlbedoScales,
    Prediction,
    mean_of,
    relit_scores,
    surface_scores,
)
from splatir.evaluate.truth import Protocol, relit_lights, relit_picture, true_buffers
from splatir.maths.frames import invert_similarity
from splatir.raster.contract import RasterOptions
from splatir.render.buffers import ViewBuffers, radiance_buffers, shaded_buffers
from splatir.render.deferred import Lighting
from splatir.render.relighting import lighting_for
from splatir.scene.lights import EnvironmentLight


@dataclass(frozen=True)
class Truth:
    """Where the truth about a scene is.

    Attributes:
        root: Scene folder.
        protocol: Its layout.
        views: Test views.
    """

    root: Path
    protocol: Protocol
    views: tuple[View, ...]

    @property
    def lights(self) -> tuple[str, ...]:
        """Lights under which the first view is known, and so all are."""
        return relit_lights(self.root, self.protocol, self.views[0])


def score_surfaces(
    scene: ScoredScene, S_world_input: Float[Tensor, "4 4"], truth: Truth
) -> tuple[dict[str, float], AlbedoScales]:
    """Mean scores of geometry and materials over all test views, and the factors of albedo.

    Views are rendered twice, since the factors need all of them first and keeping 200 views of
    800x800 would take gigabytes.

    Args:
        scene: What is scored.
        S_world_input: Similarity from the data's frame to the world.
        truth: At least one view.

    Raises:
        ValueError: Truth that is missing, broken or of another size.
    """
    predict = _surfaces_of(scene, S_world_input)
    ratios = AlbedoRatios()
    for view in tqdm(truth.views, desc="albedo", unit="view"):
        true = true_buffers(truth.root, truth.protocol, view)
        found = predict(view)
        if true.albedo is not None and found.albedo is not None:
            fg = true.alpha > 0.5
            if fg.shape == found.alpha.shape:
                ratios.add(true.albedo[fg], found.albedo[fg])
    scales = ratios.scales()
    scores = [
        surface_scores(true_buffers(truth.root, truth.protocol, view), predict(view), scales)
        for view in tqdm(truth.views, desc="surface", unit="view")
    ]
    return mean_of(scores), scales


def score_relighting(
    scene: ScoredScene,
    truth: Truth,
    lights: dict[str, EnvironmentLight],
    scales: AlbedoScales,
) -> dict[str, float]:
    """Mean scores of all test views under all lights, shaded as the scene is.

    Args:
        scene: With materials.
        truth: At least one view.
        lights: By name, world frame.
        scales: Of albedo.

    Raises:
        ValueError: Truth that is missing, broken or of another size; no materials.
    """
    scores = []
    for name, light in lights.items():
        lighting = lighting_for(scene.model, light, scene.transport)
        for view in tqdm(truth.views, desc=f"relight {name}", unit="view"):
            buffers = _shaded(scene, view, lighting)
            mask = true_buffers(truth.root, truth.protocol, view).alpha
            true = relit_picture(truth.root, truth.protocol, view, name)
            rgb, alpha = _array(buffers.rgb), _array(buffers.alpha[..., 0])
            scores.append(relit_scores(true, mask, rgb, alpha, scales))
    return mean_of(scores)


def _surfaces_of(
    scene: ScoredScene, S_world_input: Float[Tensor, "4 4"]
) -> Callable[[View], Prediction]:
    S_input_world = invert_similarity(S_world_input)

    def predict(view: View) -> Prediction:
        camera = view.camera.to(scene.model.means.device)
        options = RasterOptions(antialiased=scene.antialiased)
        found = radiance_buffers(scene.model, camera, scene.rasterizer, options)
        return _prediction(found.in_frame(S_input_world))

    return predict


def _shaded(scene: ScoredScene, view: View, lighting: Lighting) -> ViewBuffers:
    camera = view.camera.to(scene.model.means.device)
    options = RasterOptions(antialiased=scene.antialiased)
    return shaded_buffers(scene.model, camera, lighting, scene.rasterizer, options)


def _prediction(buffers: ViewBuffers) -> Prediction:
    return Prediction(
        rgb=_array(buffers.rgb),
        alpha=_array(buffers.alpha[..., 0]),
        depth=_array(buffers.depth[..., 0]),
        normals=_array(buffers.normals),
        albedo=None if buffers.albedo is None else _array(buffers.albedo),
        roughness=None if buffers.roughness is None else _array(buffers.roughness[..., 0]),
        metallic=None if buffers.metallic is None else _array(buffers.metallic[..., 0]),
    )


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy().astype(np.float64)
