"""Small scenes for rasteriser tests, random and adversarial, and one way to render them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splatir.raster.contract import RasterBackend, RasterOptions, RasterOutput
from splatir.scene.camera import Camera
from splatir.scene.gaussians import Gaussians, Primitive

GEOMETRY = ("means", "quats", "scales", "opacities")


@dataclass(frozen=True)
class RasterScene:
    """What one call of a rasteriser takes. Made in float32, so that any dtype holds it exactly."""

    gaussians: Gaussians
    camera: Camera
    features: Tensor
    background: Tensor | None

    def to(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> "RasterScene":
        """The same numbers in another dtype or on another device."""
        geometry = {
            key: getattr(self.gaussians, key).detach().to(device=device, dtype=dtype)
            for key in GEOMETRY
        }
        background = self.background
        if background is not None:
            background = background.detach().to(device=device, dtype=dtype)
        return RasterScene(
            replace(self.gaussians, **geometry),
            self.camera.to(device, dtype),
            self.features.detach().to(device=device, dtype=dtype),
            background,
        )

    def leaves(self) -> dict[str, Tensor]:
        """The tensors that a rasteriser is differentiable in."""
        tensors = {key: getattr(self.gaussians, key) for key in GEOMETRY}
        tensors["features"] = self.features
        if self.background is not None:
            tensors["background"] = self.background
        return tensors

    def with_leaves(self, tensors: dict[str, Tensor]) -> "RasterScene":
        """The same view of other tensors."""
        return RasterScene(
            replace(self.gaussians, **{key: tensors[key] for key in GEOMETRY}),
            self.camera,
            tensors["features"],
            tensors.get("background"),
        )


def random_gaussians(
    n: int,
    seed: int,
    primitive: Primitive = "ellipsoid",
    extent: float = 1.0,
    size: float = 0.05,
    max_opacity: float = 1.0,
) -> Gaussians:
    """Gaussians in a cube about the origin.

    Args:
        n: How many.
        seed: Of the generator.
        primitive: Their shape.
        extent: Half edge of the cube.
        size: Median scale; single scales vary by about a factor of three.
        max_opacity: Opacities are uniform in [0.02, this).
    """
    generator = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=(torch.rand(n, 3, generator=generator) * 2 - 1) * extent,
        quats=torch.randn(n, 4, generator=generator),
        scales=size * torch.exp(0.5 * torch.randn(n, 3, generator=generator)),
        opacities=0.02 + (max_opacity - 0.02) * torch.rand(n, generator=generator),
        primitive=primitive,
    )


def random_camera(width: int, height: int, seed: int, distance: float = 3.0) -> Camera:
    """A camera that looks at the origin from a random side, principal point off the centre.

    Args:
        width: Image width, pixels.
        height: Image height, pixels.
        seed: Of the generator.
        distance: From the origin.
    """
    generator = torch.Generator().manual_seed(seed)
    Q, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    R_camera_world = Q * torch.linalg.det(Q)
    T_camera_world = torch.eye(4, dtype=torch.float64)
    T_camera_world[:3, :3] = R_camera_world
    T_camera_world[2, 3] = distance
    shift = torch.rand(2, generator=generator).tolist()
    K = torch.tensor(
        [
            [1.1 * width, 0.0, width * (0.45 + 0.1 * shift[0])],
            [0.0, 1.05 * width, height * (0.45 + 0.1 * shift[1])],
            [0.0, 0.0, 1.0],
        ]
    )
    return Camera(K, T_camera_world.float(), width, height)


def axis_camera(width: int, height: int, focal: float | None = None) -> Camera:
    """A camera at the origin that looks along world +z."""
    f = focal if focal is not None else float(width)
    K = torch.tensor([[f, 0.0, width / 2], [0.0, f, height / 2], [0.0, 0.0, 1.0]])
    return Camera(K, torch.eye(4), width, height)


def random_scene(
    n: int,
    seed: int,
    primitive: Primitive = "ellipsoid",
    width: int = 83,
    height: int = 61,
    channels: int = 3,
    has_background: bool = True,
    max_opacity: float = 1.0,
) -> RasterScene:
    """Random Gaussians seen by a random camera, on an image of odd size."""
    generator = torch.Generator().manual_seed(seed + 1000)
    gaussians = random_gaussians(n, seed, primitive, max_opacity=max_opacity)
    features = torch.rand(n, channels, generator=generator)
    background = torch.rand(channels, generator=generator) if has_background else None
    return RasterScene(gaussians, random_camera(width, height, seed), features, background)


def _edited(
    primitive: Primitive, n: int = 40, **changes: Callable[[Tensor], Tensor]
) -> RasterScene:
    """Random scene in front of the axis camera with some of its tensors mapped."""
    scene = random_scene(n, 7, primitive, 37, 29)
    means = scene.gaussians.means + torch.tensor([0.0, 0.0, 3.0])
    gaussians = replace(scene.gaussians, means=means)
    gaussians = replace(
        gaussians, **{key: change(getattr(gaussians, key)) for key, change in changes.items()}
    )
    return RasterScene(gaussians, axis_camera(37, 29), scene.features, scene.background)


def _at_depths(first: float, last: float) -> Callable[[Tensor], Tensor]:
    """Move the splats to depths spread evenly over an interval."""
    return lambda means: torch.cat(
        [means[:, :2] * 0.3, torch.linspace(first, last, len(means))[:, None]], -1
    )


def _resized(n: int, width: int, height: int) -> Callable[[Primitive], RasterScene]:
    def make(primitive: Primitive) -> RasterScene:
        scene = random_scene(n, 11, primitive, width, height)
        return replace(scene, camera=random_camera(width, height, 11))

    return make


# Scenes that break rasterisers, by what they hold. Each takes the primitive.
ADVERSARIAL: dict[str, Callable[[Primitive], RasterScene]] = {
    "behind": lambda p: _edited(p, means=_at_depths(-3.0, -0.5)),
    "half behind": lambda p: _edited(p, means=_at_depths(-1.0, 3.0)),
    "across the near plane": lambda p: _edited(p, means=_at_depths(0.005, 0.2)),
    "huge": lambda p: _edited(p, scales=lambda s: s * 200.0),
    "tiny": lambda p: _edited(p, scales=lambda s: s * 1e-4),
    "needle-thin": lambda p: _edited(p, scales=lambda s: s * torch.tensor([20.0, 1e-3, 1e-3])),
    "edge-on": lambda p: _edited(
        p, quats=lambda q: torch.tensor([math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0]).expand_as(q)
    ),
    "fully opaque": lambda p: _edited(p, 200, opacities=torch.ones_like),
    "nearly transparent": lambda p: _edited(p, opacities=lambda o: o * 0.008),
    "same depth": lambda p: _edited(p, means=_at_depths(2.0, 2.0)),
    "far off screen": lambda p: _edited(p, means=lambda m: m * torch.tensor([6.0, 6.0, 1.0])),
    "unnormalised quats": lambda p: _edited(p, quats=lambda q: q * 37.0),
    "none": _resized(0, 21, 17),
    "one": _resized(1, 21, 17),
    "one pixel": _resized(30, 1, 1),
    "one row": _resized(30, 53, 1),
    "whole tiles": _resized(60, 32, 48),
    "one past a tile": _resized(60, 33, 17),
}


def all_outputs(primitive: Primitive) -> RasterOptions:
    """Every output the primitive has in every backend."""
    if primitive == "surfel":
        return RasterOptions(depth=True, median_depth=True, normals=True, distortion=True)
    return RasterOptions(depth=True)


def images(output: RasterOutput) -> dict[str, Tensor]:
    """The images of an output that are there."""
    names = ("features", "alpha", "depth", "median_depth", "normals", "distortion")
    found = {name: getattr(output, name) for name in names}
    return {name: image for name, image in found.items() if image is not None}


def rasterize(
    backend: RasterBackend, scene: RasterScene, options: RasterOptions = RasterOptions()
) -> RasterOutput:
    """Call a backend on a scene."""
    return backend.rasterize(
        scene.gaussians, scene.camera, scene.features, scene.background, options
    )


def outputs_and_gradients(
    backend: RasterBackend, scene: RasterScene, options: RasterOptions, seed: int = 0
) -> tuple[RasterOutput, dict[str, Tensor]]:
    """Images and the gradients of one fixed random linear function of all of them.

    Returns:
        The output, and gradients by name: those of `RasterScene.leaves`, and `screen`.
    """
    leaves = {key: value.clone().requires_grad_() for key, value in scene.leaves().items()}
    output = rasterize(backend, scene.with_leaves(leaves), options)
    generator = torch.Generator().manual_seed(seed)
    loss = torch.zeros((), dtype=scene.features.dtype, device=scene.features.device)
    for image in images(output).values():
        cotangent = torch.randn(image.shape, generator=generator)
        loss = loss + (image * cotangent.to(image)).sum()
    loss.backward()
    gradients = {
        key: torch.zeros_like(value) if value.grad is None else value.grad
        for key, value in leaves.items()
    }
    gradients["screen"] = output.screen.gradient
    return output, gradients
