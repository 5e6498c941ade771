"""Do planes of Gaussians meet the pixels' rays where the surface is?"""

import math

import pytest
import torch

from splatir.maths.rotations import quat_from_normal
from splatir.raster.reference.backend import ReferenceBackend
from splatir.render.geometry import camera_rays, normals_from_depth
from splatir.render.radiance import render_radiance
from splatir.scene.gaussians import GaussianModel
from splatir.scene.planes import inverse_depth_planes
from tests.scenes import axis_camera, random_camera


def test_all_points_of_a_plane_agree_on_its_depth_at_every_ray() -> None:
    camera = random_camera(24, 16, seed=2)
    R, t = camera.T_camera_world[:3, :3], camera.T_camera_world[:3, 3]
    normal = torch.nn.functional.normalize(torch.tensor([0.2, -0.3, -1.0]), dim=0)
    in_camera = torch.tensor([[0.0, 0.0, 3.0], [0.5, 0.2, 0.0], [-0.4, 0.3, 0.0]])
    in_camera[1:, 2] = 3.0 - in_camera[1:, :2] @ normal[:2] / normal[2]
    means, normals = (in_camera - t) @ R, (normal @ R).expand(3, 3)

    planes = inverse_depth_planes(means, normals, camera)

    rays = camera_rays(camera)
    expected = (rays @ normal) / (normal[2] * 3.0)
    for plane in planes:
        torch.testing.assert_close(rays @ plane, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(inverse_depth_planes(means, -normals, camera), planes)


@pytest.mark.parametrize("degrees", [60.0, 89.0, 90.0, 91.0])
def test_grazing_planes_stay_at_their_centre_and_turn_to_45_degrees(degrees: float) -> None:
    angle = math.radians(degrees)
    normal = torch.tensor([[math.sin(angle), 0.0, -math.cos(angle)]])
    (plane,) = inverse_depth_planes(torch.tensor([[0.0, 0.0, 2.0]]), normal, axis_camera(8, 8))

    assert plane[2] == pytest.approx(0.5)
    assert abs(float(plane[0] / plane[2])) == pytest.approx(1.0, rel=1e-4)
    assert plane.isfinite().all()


def test_wide_splats_on_a_slanted_plane_give_a_smooth_depth() -> None:
    camera = axis_camera(48, 48)
    normal = torch.nn.functional.normalize(torch.tensor([0.0, -0.5, -1.0]), dim=0)
    grid = torch.linspace(-3.0, 3.0, 25)
    means = torch.cartesian_prod(grid, grid)
    means = torch.cat([means, 3.0 - means @ normal[:2, None] / normal[2]], dim=-1)
    n = len(means)
    params = {
        "means": means,
        "quats": quat_from_normal(normal.expand(n, 3)),
        "scales": torch.tensor([0.25, 0.25, 0.001]).log().repeat(n, 1),
        "opacities": torch.full((n,), 1.0),
        "sh0": torch.zeros(n, 1, 3),
        "shN": torch.zeros(n, 0, 3),
    }
    model = GaussianModel(params, "ellipsoid")
    with torch.no_grad():
        image = render_radiance(model, camera, ReferenceBackend(), with_surface=True)
    assert image.depth is not None

    inner = (slice(12, 36), slice(12, 36))
    assert float(image.raster.alpha[inner].min()) > 0.9
    depth = image.depth / image.raster.alpha.clamp_min(1e-6)
    agreement = normals_from_depth(depth, camera)[inner] @ normal
    assert float(agreement.min()) > math.cos(math.radians(0.5))
