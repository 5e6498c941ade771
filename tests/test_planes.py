"""Do planes of Gaussians meet the pixels' rays where the surface is?"""

import math

import pytest
import torch

from splatir.maths.rotations import quat_from_normal
from splatir.optim.losses import LossWeights, Target, radiance_losses
from splatir.raster.reference.backend import ReferenceBackend
from splatir.render.geometry import camera_rays, normals_from_depth
from splatir.render.radiance import render_radiance
from splatir.scene.gaussians import GaussianModel
from splatir.scene.planes import inverse_depth_planes
from tests.gradients import assert_grads_agree
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


def test_planes_follow_their_centres_and_take_normals_as_given() -> None:
    generator = torch.Generator().manual_seed(3)
    camera = random_camera(24, 16, seed=2).to(dtype=torch.float64)
    T = camera.T_camera_world
    in_camera = torch.rand(6, 3, generator=generator, dtype=torch.float64) + torch.tensor([0, 0, 2])
    means = ((in_camera - T[:3, 3]) @ T[:3, :3]).requires_grad_()
    normals = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    normals = torch.nn.functional.normalize(normals, dim=-1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda means: inverse_depth_planes(means, normals.detach(), camera), means
    )
    (unused,) = torch.autograd.grad(
        inverse_depth_planes(means, normals, camera).sum(), normals, allow_unused=True
    )
    assert unused is None


def _slanted_plane() -> tuple[GaussianModel, torch.Tensor]:
    """Wide splats on a plane in front of `axis_camera`, and its normal."""
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
    return GaussianModel(params, "ellipsoid"), normal


def test_wide_splats_on_a_slanted_plane_give_a_smooth_depth() -> None:
    camera = axis_camera(48, 48)
    model, normal = _slanted_plane()
    with torch.no_grad():
        image = render_radiance(model, camera, ReferenceBackend(), with_surface=True)
    assert image.depth is not None

    inner = (slice(12, 36), slice(12, 36))
    assert float(image.raster.alpha[inner].min()) > 0.9
    depth = image.depth / image.raster.alpha.clamp_min(1e-6)
    agreement = normals_from_depth(depth, camera)[inner] @ normal
    assert float(agreement.min()) > math.cos(math.radians(0.5))


def _pull(share: float) -> dict[str, torch.Tensor]:
    """Gradients of the normal term on a dented plane, for a part of it that moves splats."""
    camera = axis_camera(48, 48)
    model, _ = _slanted_plane()
    with torch.no_grad():
        model.params["means"][len(model.means) // 2, 2] += 0.2
    image = render_radiance(model, camera, ReferenceBackend(), with_surface=True)
    target = Target(image.rgb_srgb.detach(), None)
    weights = LossWeights(opacity=0.0, scale=0.0, normal_pull=share)
    terms = radiance_losses(image, target, camera, model, weights, 1.0, 0.5)
    keys = ("means", "quats", "scales", "opacities")
    wanted = [model.params[key] for key in keys]
    found = torch.autograd.grad(terms["normal"], wanted, allow_unused=True, materialize_grads=True)
    return dict(zip(keys, found, strict=True))


def test_the_normal_term_turns_splats_and_moves_them_by_its_pull() -> None:
    none, some, full = _pull(0.0), _pull(0.25), _pull(1.0)
    assert float(none["means"].norm()) == 0.0
    assert_grads_agree({"means": some["means"]}, {"means": 0.25 * full["means"]})
    for gradients in (none, some, full):
        assert_grads_agree({"quats": gradients["quats"]}, {"quats": full["quats"]})
        assert float(gradients["scales"].norm()) == float(gradients["opacities"].norm()) == 0.0
