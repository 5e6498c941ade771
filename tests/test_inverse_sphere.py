"""Are gradients right end to end: does descent from a wrong start find what made the picture?

Given the light and all other buffers of one view of a sphere, each parameter is recovered from its
picture; then the gradient through the whole renderer is compared with finite differences.
"""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from splatir.maths.safe import safe_normalise
from splatir.raster.reference.backend import ReferenceBackend
from splatir.render.deferred import render_scene
from splatir.scene.camera import Camera
from splatir.scene.gaussians import GaussianModel
from splatir.scene.lights import EnvironmentLight
from splatir.shade.monte_carlo import MonteCarlo
from splatir.shade.split_sum import SplitSum
from splatir.shade.surface import Shader, SurfacePoints
from tests.spheres import sphere_points, unit

# One material per quarter of the sphere: cloth, glossy plastic, rough and polished metal.
ALBEDO = [[0.7, 0.2, 0.1], [0.2, 0.4, 0.8], [0.9, 0.7, 0.3], [0.6, 0.6, 0.7]]
ROUGHNESS = [0.8, 0.25, 0.6, 0.3]
METALLIC = [0.05, 0.1, 0.9, 0.95]


def split_sum(radiance: Tensor) -> Shader:
    return SplitSum(EnvironmentLight(radiance))


def monte_carlo(radiance: Tensor) -> Shader:
    return MonteCarlo(EnvironmentLight(radiance), 64)


SHADERS = {"split-sum": split_sum, "Monte Carlo": monte_carlo}


def sky() -> Tensor:
    """Coloured gradients and two soft lamps, so that no direction looks like another."""
    rows = torch.linspace(0.0, 1.0, 16, dtype=torch.float64)[:, None]
    columns = torch.linspace(0.0, 6.0868, 32, dtype=torch.float64)[None]
    red = 1.1 + columns.cos() * (3.1416 * rows).sin()
    green = 1.1 + columns.sin() * (3.1416 * rows).sin()
    blue = (2.0 - 1.8 * rows).expand_as(red)
    radiance = 0.5 * torch.stack([red, green, blue], dim=-1)
    radiance[4:6, 10:12] += 8.0
    radiance[9:11, 19:21] += torch.tensor([6.0, 4.0, 2.0], dtype=torch.float64)
    return radiance


def patches(points: SurfacePoints) -> Tensor:
    """Quarter of the sphere that each point is in, as the camera on +X sees it."""
    return (points.normals[:, 1] > 0.0).long() + 2 * (points.normals[:, 2] > 0.0).long()


def truth(size: int = 14) -> SurfacePoints:
    """The sphere with its four materials."""
    points = sphere_points(size, 0.5, 0.5)
    patch = patches(points)
    return dataclasses.replace(
        points,
        albedo=torch.tensor(ALBEDO, dtype=torch.float64)[patch],
        roughness=torch.tensor(ROUGHNESS, dtype=torch.float64)[patch][:, None],
        metallic=torch.tensor(METALLIC, dtype=torch.float64)[patch][:, None],
    )


def descend(
    start: dict[str, Tensor], picture: Callable[[dict[str, Tensor]], Tensor], steps: int
) -> dict[str, Tensor]:
    """L-BFGS on raw parameters until they reproduce the picture of no parameters."""
    raw = {name: value.clone().requires_grad_() for name, value in start.items()}
    target = picture({}).detach()
    optimizer = torch.optim.LBFGS(
        list(raw.values()), max_iter=steps, history_size=30, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        # Relative, so that highlights do not outweigh all else.
        error = ((picture(raw) - target) / (0.1 + target)).square().mean()
        error.backward()
        return error

    optimizer.step(loss)  # pyright: ignore[reportArgumentType]
    return {name: value.detach() for name, value in raw.items()}


def materials(points: SurfacePoints, raw: dict[str, Tensor]) -> SurfacePoints:
    """Points with some materials replaced by the sigmoid of a raw value per patch."""
    patch = patches(points)
    replaced = {name: torch.sigmoid(value)[patch] for name, value in raw.items()}
    return dataclasses.replace(points, **replaced)


WRONG = {
    "albedo": torch.zeros(4, 3, dtype=torch.float64),
    "roughness": torch.full((4, 1), 0.2, dtype=torch.float64),
    "metallic": torch.zeros(4, 1, dtype=torch.float64),
}
RIGHT = {
    "albedo": torch.tensor(ALBEDO, dtype=torch.float64),
    "roughness": torch.tensor(ROUGHNESS, dtype=torch.float64)[:, None],
    "metallic": torch.tensor(METALLIC, dtype=torch.float64)[:, None],
}


@pytest.mark.parametrize("shader", SHADERS)
@pytest.mark.parametrize("name", ["albedo", "roughness", "metallic"])
def test_each_material_is_recovered_given_the_others(name: str, shader: str) -> None:
    points, prepared = truth(), SHADERS[shader](sky())
    found = descend(
        {name: WRONG[name]},
        lambda raw: prepared.shade(materials(points, raw)).radiance,
        steps=50,
    )
    assert torch.allclose(torch.sigmoid(found[name]), RIGHT[name], atol=0.01)


def test_all_materials_are_recovered_together() -> None:
    """Rough dielectric and rough metal differ least: a hundredth of metallic is left open."""
    points, prepared = truth(), split_sum(sky())
    found = descend(WRONG, lambda raw: prepared.shade(materials(points, raw)).radiance, steps=150)
    for name, right in RIGHT.items():
        assert torch.allclose(torch.sigmoid(found[name]), right, atol=0.01), name


def test_normals_are_recovered() -> None:
    """Each by itself, from 10 degrees off."""
    points, prepared = truth(), split_sum(sky())
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(points.normals.shape, dtype=torch.float64, generator=generator)
    start = unit(points.normals + 0.18 * unit(noise))

    def picture(raw: dict[str, Tensor]) -> Tensor:
        normals = safe_normalise(raw["normals"]) if raw else points.normals
        return prepared.shade(dataclasses.replace(points, normals=normals)).radiance

    found = unit(descend({"normals": start}, picture, steps=200)["normals"])
    angles, before = (
        (normals * points.normals).sum(-1).clamp(-1.0, 1.0).acos().rad2deg()
        for normals in (found, start)
    )
    assert before.median() > 5.0
    # A few end where another direction reflects the same colour.
    assert angles.median() < 0.1
    assert angles.quantile(0.85) < 1.0


@pytest.mark.parametrize(("shader", "size"), [("split-sum", 26), ("Monte Carlo", 16)])
def test_light_is_recovered(shader: str, size: int) -> None:
    """From grey, by a polished metal ball, which sees all but the directions behind it."""
    points, radiance = sphere_points(size, 0.12, 1.0, (0.9, 0.9, 0.9)), sky()
    radiance = radiance.reshape(8, 2, 16, 2, 3).mean((1, 3))

    def picture(raw: dict[str, Tensor]) -> Tensor:
        shown = raw["light"].exp() if raw else radiance
        return SHADERS[shader](shown).shade(points).radiance

    found = descend({"light": torch.zeros_like(radiance)}, picture, steps=50)
    # Not the quarter of the map around -X.
    is_seen = torch.zeros(8, 16, dtype=torch.bool)
    is_seen[1:7, 3:13] = True
    error = (found["light"].exp() - radiance)[is_seen].abs() / radiance[is_seen]
    assert error.mean() < 0.03


def tiny_model() -> GaussianModel:
    """Round ellipsoids on a bowl: their orientation moves normals, but not what they cover."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    means = 0.5 * random(14, 3)
    means[:, 2] = 3.0 + 0.2 * means[:, :2].square().sum(-1)
    # The shortest axis, the first of equal ones, is turned towards the camera at the origin.
    quats = torch.tensor([0.7, 0.0, 0.7, 0.0], dtype=torch.float64) + 0.1 * random(14, 4)
    params = {
        "means": means,
        "quats": quats,
        "scales": torch.full((14, 3), -1.2, dtype=torch.float64),
        "opacities": torch.full((14,), 1.5, dtype=torch.float64),
        "sh0": torch.zeros(14, 1, 3, dtype=torch.float64),
        "shN": torch.zeros(14, 0, 3, dtype=torch.float64),
        "albedo": random(14, 3),
        "roughness": random(14),
        "metallic": random(14),
    }
    return GaussianModel(params, "ellipsoid")


# Monte Carlo's directions, and so its error, move with the other parameters: the gradient of its
# expectation is tested with the integrator.
WHOLE_RENDERER = [
    *(("split-sum", name) for name in ("albedo", "roughness", "metallic", "quats", "light")),
    *(("Monte Carlo", name) for name in ("albedo", "metallic")),
]


@pytest.mark.parametrize(("shader", "name"), WHOLE_RENDERER)
def test_gradient_through_the_whole_renderer_is_the_finite_difference(
    shader: str, name: str
) -> None:
    """Directional derivative along a random direction, in float64."""
    model, radiance = tiny_model(), sky().requires_grad_()
    K = torch.tensor([[20.0, 0.0, 10.0], [0.0, 20.0, 8.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    camera = Camera(K, torch.eye(4, dtype=torch.float64), 20, 16)
    value = radiance if name == "light" else model.params[name]
    generator = torch.Generator().manual_seed(2)
    direction = torch.randn(value.shape, dtype=torch.float64, generator=generator)

    def loss() -> Tensor:
        output = render_scene(model, camera, SHADERS[shader](radiance), ReferenceBackend())
        return (output.rgb * output.alpha).square().mean()

    (gradient,) = torch.autograd.grad(loss(), value)
    step = 1e-6
    with torch.no_grad():
        value += step * direction
        above = loss()
        value -= 2.0 * step * direction
        difference = (above - loss()) / (2.0 * step)
    slope = (gradient * direction).sum()
    assert abs(slope) > 1e-6, "a flat direction checks nothing"
    assert slope.item() == pytest.approx(difference.item(), rel=1e-4)
