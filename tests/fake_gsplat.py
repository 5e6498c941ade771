"""gsplat's kernels played on the CPU: real signatures and layouts, the reference's values."""

import inspect
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import gsplat
import torch
from torch import Tensor

from splatir.raster.contract import BLUR, RasterOptions
from splatir.raster.reference.compositing import composite_ellipsoids, composite_surfels
from splatir.raster.reference.projection import ProjectedEllipsoids, project_ellipsoids
from splatir.raster.reference.surfel_projection import ProjectedSurfels, project_surfels
from splatir.raster.reference.tiles import tile_lists
from splatir.scene.camera import Camera
from splatir.scene.gaussians import Gaussians

SURFEL_CHANNELS = (1, 2, 3, 4, 8, 16, 32)


class FakeGsplat(ModuleType):
    """Functions of gsplat 1.5.3 that the adapter calls; every call must fit the real signature."""

    def __init__(self) -> None:
        super().__init__("gsplat")
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._radii = torch.zeros(0)
        self._depths = torch.zeros(0)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        real, fake = getattr(gsplat, name), getattr(type(self), f"fake_{name}")

        def call(**kwargs: Any) -> Any:
            bound = inspect.signature(real).bind(**kwargs)
            bound.apply_defaults()
            self.calls.append((name, dict(bound.arguments)))
            return fake(self, **bound.arguments)

        return call

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def fake_fully_fused_projection(self, **given: Any) -> tuple[Tensor | None, ...]:
        assert given["covars"] is None and not given["packed"]
        options = _options(given, antialiased=given["calc_compensations"], blur=given["eps2d"])
        projected = project_ellipsoids(_gaussians(given, "ellipsoid"), _camera(given), options)
        self._radii, self._depths = projected.radii, projected.depths
        return (
            projected.radii[None],
            projected.means2d[None],
            projected.depths[None],
            projected.conics[None],
            projected.compensations[None] if given["calc_compensations"] else None,
        )

    def fake_fully_fused_projection_2dgs(self, **given: Any) -> tuple[Tensor, ...]:
        assert not given["packed"]
        projected = project_surfels(_gaussians(given, "surfel"), _camera(given), _options(given))
        self._radii, self._depths = projected.radii, projected.depths
        return (
            projected.radii[None],
            projected.means2d[None],
            projected.depths[None],
            projected.ray_transforms[None],
            projected.normals[None],
        )

    def fake_isect_tiles(self, **given: Any) -> tuple[Tensor, Tensor, Tensor]:
        n = given["means2d"].shape[1]
        assert given["means2d"].shape == (1, n, 2) and given["radii"].shape == (1, n, 2)
        assert given["depths"].shape == (1, n) and not given["packed"] and given["tile_size"] == 16
        width, height = given["tile_width"] * 16, given["tile_height"] * 16
        lists = tile_lists(
            given["means2d"][0], given["radii"][0], given["depths"][0], width, height
        )
        tiles = torch.arange(len(lists.counts)).repeat_interleave(torch.tensor(lists.counts))
        return torch.zeros(1, n, dtype=torch.int32), tiles << 32, lists.splats.int()

    def fake_isect_offset_encode(self, **given: Any) -> Tensor:
        tiles = given["tile_width"] * given["tile_height"]
        counts = torch.bincount(given["isect_ids"] >> 32, minlength=tiles)
        offsets = (counts.cumsum(0) - counts).int()
        return offsets.reshape(given["n_images"], given["tile_height"], given["tile_width"])

    def fake_rasterize_to_pixels(self, **given: Any) -> tuple[Tensor, Tensor]:
        n, size = _check_layout(given)
        assert given["conics"].shape == (1, n, 3) and 1 <= given["colors"].shape[-1] <= 513
        absolute = None
        if given["absgrad"]:
            absolute = torch.zeros(n, 2, requires_grad=True)
            means2d = given["means2d"]

            def publish(collected: Tensor) -> None:
                assert collected.grad is not None
                means2d.absgrad = collected.grad[None]

            absolute.register_post_accumulate_grad_hook(publish)
        projected = ProjectedEllipsoids(
            given["means2d"][0],
            self._depths.detach(),
            given["conics"][0],
            torch.ones(n),
            self._radii,
        )
        composite = composite_ellipsoids(
            projected,
            given["opacities"][0],
            given["colors"][0],
            size,
            RasterOptions(),
            absolute,
        )
        return composite.values[None], 1 - composite.transmittance[None, ..., None]

    def fake_rasterize_to_pixels_2dgs(self, **given: Any) -> tuple[Tensor, ...]:
        n, size = _check_layout(given)
        colours, densify = given["colors"][0], given["densify"]
        assert colours.shape[1] in SURFEL_CHANNELS, "others are padded with uninitialised memory"
        assert given["ray_transforms"].shape == (1, n, 3, 3)
        assert given["normals"].shape == (1, n, 3) and densify.shape == (1, n, 2)
        transforms = given["ray_transforms"][0]
        shift = torch.zeros(n, 3, 3)
        shift[:, :2, 2] = densify[0] * transforms[:, 2, 2:].detach()
        projected = ProjectedSurfels(
            given["means2d"][0],
            colours[:, -1],
            transforms + shift,
            given["normals"][0],
            self._radii,
        )
        composite = composite_surfels(
            _sorted_by(self._depths, projected),
            given["opacities"][0],
            torch.cat([colours, given["normals"][0]], -1),
            size,
            RasterOptions(median_depth=True, distortion=True),
        )
        return (
            composite.values[None, ..., :-3],
            1 - composite.transmittance[None, ..., None],
            composite.values[None, ..., -3:],
            composite.distortion[None, ..., None],
            composite.median_depth[None, ..., None],
        )


def _sorted_by(depths: Tensor, projected: ProjectedSurfels) -> ProjectedSurfels:
    """gsplat sorts by depth but takes distortion and median of the last channel.

    The fake can only do both where they agree; elsewhere those two images are not looked at.
    """
    if torch.equal(depths, projected.depths):
        return projected
    return ProjectedSurfels(
        projected.means2d,
        depths.detach(),
        projected.ray_transforms,
        projected.normals,
        projected.radii,
    )


def _check_layout(given: dict[str, Any]) -> tuple[int, tuple[int, int]]:
    n = given["means2d"].shape[1]
    width, height = given["image_width"], given["image_height"]
    assert given["means2d"].shape == (1, n, 2) and given["opacities"].shape == (1, n)
    assert given["colors"].shape[:2] == (1, n) and not given["packed"]
    assert given["tile_size"] == 16 and given["backgrounds"] is None
    tiles = (1, math.ceil(height / 16), math.ceil(width / 16))
    assert given["isect_offsets"].shape == tiles and given["flatten_ids"].dtype == torch.int32
    return n, (width, height)


def _gaussians(given: dict[str, Any], primitive: Any) -> Gaussians:
    opacities = given.get("opacities")
    if opacities is None:
        opacities = torch.ones(len(given["means"]))
    return Gaussians(given["means"], given["quats"], given["scales"], opacities, primitive)


def _camera(given: dict[str, Any]) -> Camera:
    assert given["viewmats"].shape == (1, 4, 4) and given["Ks"].shape == (1, 3, 3)
    return Camera(given["Ks"][0], given["viewmats"][0], given["width"], given["height"])


def _options(given: dict[str, Any], antialiased: bool = False, blur: float = BLUR) -> RasterOptions:
    return RasterOptions(
        antialiased=antialiased,
        blur=blur,
        near=given["near_plane"],
        far=given["far_plane"],
        radius_clip=given["radius_clip"],
    )
