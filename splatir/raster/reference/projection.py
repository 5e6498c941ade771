"""Where does an ellipsoid land on the image, and with which footprint?"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from splatir.maths.rotations import rotation_from_quat
from splatir.raster.contract import MIN_ALPHA, RasterOptions
from splatir.scene.camera import Camera
from splatir.scene.gaussians import Gaussians

# Largest half extent in standard deviations. exp(-3.33^2 / 2) = 1/256 is just below MIN_ALPHA.
MAX_EXTENT = 3.33
# The linearisation is evaluated at most this fraction of the half image outside the image.
_GUARD_BAND = 0.3
# Radii saturate here: a conversion of larger floats to int32 is undefined.
MAX_RADIUS = 1e9


@dataclass(frozen=True)
class ProjectedEllipsoids:
    """Image footprints of ellipsoids. Rows of culled splats are zero.

    Attributes:
        means2d: Projected centres, pixels.
        depths: Camera z of the centres, scene units.
        conics: Inverse of the blurred image covariance as (xx, xy, yy), per square pixel.
        compensations: sqrt(det(cov) / det(cov + blur)) in [0, 1].
        radii: Half extents of the rectangle that holds every alpha >= 1/255, pixels; (0, 0) for
            culled splats.
    """

    means2d: Float[Tensor, "n 2"]
    depths: Float[Tensor, " n"]
    conics: Float[Tensor, "n 3"]
    compensations: Float[Tensor, " n"]
    radii: Int[Tensor, "n 2"]


@dataclass(frozen=True)
class _Footprints:
    """Centres and blurred image covariances (xx, xy, yy) before any culling but near and far."""

    means2d: Float[Tensor, "n 2"]
    depths: Float[Tensor, " n"]
    covariances: Float[Tensor, "n 3"]
    determinants: Float[Tensor, " n"]
    compensations: Float[Tensor, " n"]


def project_ellipsoids(
    gaussians: Gaussians, camera: Camera, options: RasterOptions
) -> ProjectedEllipsoids:
    """Project ellipsoids by linearising the perspective map at their centres (Zwicker et al. 2001).

    Differentiable in means, quats and scales; radii are not differentiable. Culled: centres nearer
    than `options.near` or farther than `options.far`, peaks below 1/255, rectangles off the image,
    and rectangles not above `options.radius_clip` in either axis.

    Args:
        gaussians: Ellipsoids, world frame.
        camera: View, in the dtype and on the device of the Gaussians.
        options: Culling, and whether the opacity-aware radius sees the antialiased opacity.
    """
    with torch.no_grad():
        depths = gaussians.means @ camera.T_camera_world[2, :3] + camera.T_camera_world[2, 3]
        in_range = torch.nonzero((depths >= options.near) & (depths <= options.far))[:, 0]
        footprints = _footprints(gaussians, camera, in_range, options.blur)
        radii = _radii(footprints, gaussians, in_range, options)
        keep = (radii > 0).all(-1) & rectangle_on_image(footprints.means2d, radii, camera)
    visible, n = in_range[keep], gaussians.means.shape[0]
    # Only visible splats are projected with gradients, so no culled one can bring in 0 * inf.
    footprints = _footprints(gaussians, camera, visible, options.blur)
    xx, xy, yy = footprints.covariances.unbind(-1)
    conics = torch.stack([yy, -xy, xx], -1) / footprints.determinants[:, None]
    return ProjectedEllipsoids(
        means2d=scatter(footprints.means2d, visible, n),
        depths=scatter(footprints.depths, visible, n),
        conics=scatter(conics, visible, n),
        compensations=scatter(footprints.compensations, visible, n),
        radii=scatter(radii[keep].int(), visible, n),
    )


def project_points(
    means: Float[Tensor, "n 3"], camera: Camera
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 2"]]:
    """Camera-frame positions and pixel coordinates of world points in front of the camera."""
    means_camera = means @ camera.T_camera_world[:3, :3].mT + camera.T_camera_world[:3, 3]
    K = camera.K
    focal, centre = torch.stack([K[0, 0], K[1, 1]]), torch.stack([K[0, 2], K[1, 2]])
    return means_camera, focal * (means_camera[:, :2] / means_camera[:, 2:]) + centre


def scatter(rows: Float[Tensor, "m ..."] | Int[Tensor, "m ..."], index: Tensor, n: int) -> Tensor:
    """A tensor of `n` rows that holds `rows` at `index` and zeros elsewhere."""
    return rows.new_zeros((n, *rows.shape[1:])).index_copy(0, index, rows)


def rectangle_on_image(
    means2d: Float[Tensor, "m 2"], radii: Float[Tensor, "m 2"], camera: Camera
) -> Bool[Tensor, " m"]:
    """Whether rectangles of half extents `radii` overlap the image."""
    size = means2d.new_tensor([camera.width, camera.height])
    return ((means2d + radii > 0) & (means2d - radii < size)).all(-1)


def _footprints(gaussians: Gaussians, camera: Camera, index: Tensor, blur: float) -> _Footprints:
    """Centres and covariances of the indexed splats, which must lie in front of the camera."""
    means_camera, means2d = project_points(gaussians.means.index_select(0, index), camera)
    jacobians = _perspective_jacobians(means_camera, camera)
    # Not quats[index]: its gradient is summed by atomics, in another order each time.
    R_world_splat = rotation_from_quat(gaussians.quats.index_select(0, index))
    axes = R_world_splat * gaussians.scales.index_select(0, index)[:, None, :]
    half = jacobians @ (camera.T_camera_world[:3, :3] @ axes)
    covariances = half @ half.mT
    xx, xy, yy = covariances[:, 0, 0], covariances[:, 0, 1], covariances[:, 1, 1]
    sharp = xx * yy - xy * xy
    xx, yy = xx + blur, yy + blur
    blurred = xx * yy - xy * xy
    # The floor keeps the root's derivative finite; visible splats have a ratio above (1/255)^2.
    compensations = (sharp / blurred).clamp_min(1e-12).sqrt()
    return _Footprints(
        means2d, means_camera[:, 2], torch.stack([xx, xy, yy], -1), blurred, compensations
    )


def _perspective_jacobians(
    means_camera: Float[Tensor, "n 3"], camera: Camera
) -> Float[Tensor, "n 2 3"]:
    """Derivative of pixel coordinates by camera coordinates, far off-screen centres clamped."""
    x, y, z = means_camera.unbind(-1)
    fx, fy, cx, cy = camera.K[0, 0], camera.K[1, 1], camera.K[0, 2], camera.K[1, 2]
    band_x = _GUARD_BAND * 0.5 * camera.width / fx
    band_y = _GUARD_BAND * 0.5 * camera.height / fy
    slope_x = (x / z).clamp(-cx / fx - band_x, (camera.width - cx) / fx + band_x)
    slope_y = (y / z).clamp(-cy / fy - band_y, (camera.height - cy) / fy + band_y)
    zero = torch.zeros_like(z)
    rows = [fx / z, zero, -fx * slope_x / z, zero, fy / z, -fy * slope_y / z]
    return torch.stack(rows, -1).unflatten(-1, (2, 3))


def _radii(
    footprints: _Footprints, gaussians: Gaussians, index: Tensor, options: RasterOptions
) -> Float[Tensor, "m 2"]:
    """Half extents that hold every alpha >= 1/255 (Radl et al. 2024, B.2), before the image cut."""
    opacities = gaussians.opacities.index_select(0, index)
    if options.antialiased:
        opacities = opacities * footprints.compensations
    extents = (2 * (opacities / MIN_ALPHA).clamp_min(1.0).log()).sqrt().clamp_max(MAX_EXTENT)
    radii = (extents[:, None] * footprints.covariances[:, [0, 2]].sqrt()).ceil()
    keep = (opacities >= MIN_ALPHA) & (footprints.determinants > 0)
    keep &= (radii > options.radius_clip).any(-1)
    return torch.where(keep[:, None], radii.clamp_max(MAX_RADIUS), 0.0)
