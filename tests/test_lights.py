"""Is light where the conventions say, before and after it is turned, scaled, or summed?"""

import math

import pytest
import torch
from torch import Tensor

from splatir.maths.spherical_harmonics import SH_DC
from splatir.scene.environment_map import rotate_light
from splatir.scene.lights import (
    DirectionalLight,
    EnvironmentLight,
    Light,
    LightSum,
    PointLight,
    SphericalHarmonicLight,
    check_light,
    environment_coordinates,
    environment_directions,
    environment_from_sh,
    environment_radiance,
    flatten_light,
    scale_light,
    texel_solid_angles,
)
from tests.spheres import unit

AXES = torch.cat([torch.eye(3), -torch.eye(3)]).double()


def coloured_axes(height: int = 32, width: int = 64) -> Tensor:
    """The orientation map: red at +X, green +Y, blue +Z, and cyan, magenta, yellow opposite.

    Painted row by row from the written convention (the image's centre is +X, a quarter of its width
    +Y, row 0 +Z), not with the functions under test.
    """
    colours = torch.cat([torch.eye(3), 1.0 - torch.eye(3)]).double()
    image = torch.zeros(height, width, 3, dtype=torch.float64)
    middle, patch = slice(height // 2 - 2, height // 2 + 2), 2
    for axis, share in ((0, 0.5), (1, 0.25), (4, 0.75)):
        centre = round(share * width)
        image[middle, centre - patch : centre + patch] = colours[axis]
    image[middle, :patch] = colours[3]
    image[middle, -patch:] = colours[3]
    image[:4], image[-4:] = colours[2], colours[5]
    return image


def random_map(height: int = 6, width: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(height, width, 3, dtype=torch.float64, generator=generator)


def quarter_turn() -> Tensor:
    """About +Z: X to Y, Y to -X."""
    return torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def test_coloured_axes_are_seen_along_their_axes() -> None:
    colours = torch.cat([torch.eye(3), 1.0 - torch.eye(3)]).double()
    assert torch.allclose(environment_radiance(coloured_axes(), AXES), colours)


def test_directions_are_inverse_to_coordinates() -> None:
    directions = environment_directions(5, 9, AXES)
    u, v = environment_coordinates(directions)
    columns = (torch.arange(9, dtype=torch.float64) + 0.5) / 9
    rows = (torch.arange(5, dtype=torch.float64) + 0.5) / 5
    assert torch.allclose(u, columns.expand(5, 9))
    assert torch.allclose(v, rows[:, None].expand(5, 9))


def test_lookup_at_texel_centres_gives_the_texels() -> None:
    image = random_map()
    assert torch.allclose(environment_radiance(image, environment_directions(6, 12, image)), image)


def test_lookup_wraps_around_at_minus_x() -> None:
    """Just either side of -X, and on it, the first and last column count equally."""
    image = random_map()
    rows = image[2:4].mean(0)
    expected = 0.5 * (rows[0] + rows[-1])
    for y in (-1e-9, 0.0, 1e-9):
        direction = unit(torch.tensor([-1.0, y, 0.0], dtype=torch.float64))
        assert torch.allclose(environment_radiance(image, direction), expected, atol=1e-7)


def test_lookup_at_the_poles_is_finite_and_from_the_first_and_last_row() -> None:
    image = torch.arange(3.0, dtype=torch.float64)[:, None, None].expand(3, 4, 3)
    poles = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]], dtype=torch.float64)
    assert environment_radiance(image, poles)[:, 0].tolist() == [0.0, 2.0]
    for dtype in (torch.float32, torch.float64):
        leaf = poles.to(dtype).requires_grad_()
        environment_radiance(random_map().to(dtype), leaf).sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_lookup_is_continuous_over_a_pole() -> None:
    """Across the pole the nearest texels are those of the other side, not of the same one."""
    image = random_map()
    around = [unit(torch.tensor([c, s, 1.0]).double()) for c, s in ((1e-9, 0), (-1e-9, 0))]
    one, other = (environment_radiance(image, direction) for direction in around)
    assert torch.allclose(one, other, atol=1e-6)
    assert torch.allclose(one, 0.25 * (image[0, 5:7] + image[0, [11, 0]]).sum(0), atol=1e-6)


def test_gradients_of_the_lookup() -> None:
    generator = torch.Generator().manual_seed(1)
    directions = unit(torch.randn(7, 3, dtype=torch.float64, generator=generator))
    leaves = (random_map(4, 6).requires_grad_(), directions.requires_grad_())
    assert torch.autograd.gradcheck(environment_radiance, leaves)


def test_solid_angles_add_up_to_the_sphere() -> None:
    angles = texel_solid_angles(16, 32, AXES)
    assert (32 * angles.sum()).item() == pytest.approx(4.0 * math.pi)
    assert angles.argmax().item() in (7, 8)


def test_a_turned_map_shows_each_colour_along_the_turned_axis() -> None:
    """Turning by R: what came from d now comes from R d."""
    light = EnvironmentLight(coloured_axes())
    angle = torch.tensor(0.5, dtype=torch.float64)
    c, s = angle.cos().item(), angle.sin().item()
    about_y = torch.tensor([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]], dtype=torch.float64)
    for R in (quarter_turn(), about_y, quarter_turn() @ about_y):
        turned = rotate_light(light, R)
        seen = environment_radiance(turned.radiance, AXES @ R.mT)
        assert torch.allclose(seen, environment_radiance(light.radiance, AXES), atol=1e-6)


def test_a_quarter_turn_about_z_shifts_a_map_by_a_quarter() -> None:
    light = EnvironmentLight(random_map(4, 8))
    turned = rotate_light(light, quarter_turn())
    assert torch.allclose(turned.radiance, light.radiance.roll(-2, dims=1), atol=1e-9)


def test_spherical_harmonics_turn_as_their_map_does() -> None:
    generator = torch.Generator().manual_seed(2)
    coefficients = 0.1 * torch.randn(9, 3, dtype=torch.float64, generator=generator)
    coefficients[0] = 3.0
    light = SphericalHarmonicLight(coefficients)
    R = quarter_turn()
    turned = environment_from_sh(rotate_light(light, R)).radiance
    directions = environment_directions(64, 128, turned)
    expected = environment_radiance(environment_from_sh(light, 256, 512).radiance, directions @ R)
    assert torch.allclose(turned, expected, atol=1e-3)


def test_constant_harmonics_make_a_constant_map_and_negative_ones_a_black_one() -> None:
    coefficients = torch.zeros(4, 3, dtype=torch.float64)
    coefficients[0] = torch.tensor([2.0, 1.0, -1.0])
    radiance = environment_from_sh(SphericalHarmonicLight(coefficients), 4, 8).radiance
    expected = torch.tensor([2.0 * SH_DC / 1.0, SH_DC, 0.0], dtype=torch.float64)
    assert torch.allclose(radiance, expected.expand(4, 8, 3))


def test_punctual_lights_turn_about_the_origin() -> None:
    position = torch.tensor([1.0, 2.0, 3.0])
    point = rotate_light(PointLight(position, torch.ones(3)), quarter_turn())
    assert point.position.tolist() == [-2.0, 1.0, 3.0]
    sun = rotate_light(DirectionalLight(torch.tensor([1.0, 0, 0]), torch.ones(3)), quarter_turn())
    assert sun.direction.tolist() == [0.0, 1.0, 0.0]


def test_turning_by_something_else_than_a_rotation_is_refused() -> None:
    light = EnvironmentLight(random_map())
    for matrix in (2.0 * torch.eye(3), torch.diag(torch.tensor([1.0, 1.0, -1.0]))):
        with pytest.raises(ValueError, match="rotation"):
            rotate_light(light, matrix)


def test_scaling_reaches_every_light_of_a_sum() -> None:
    tint = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    parts: tuple[Light, ...] = (
        EnvironmentLight(random_map()),
        LightSum((PointLight(torch.zeros(3), torch.ones(3, dtype=torch.float64)),)),
        DirectionalLight(torch.tensor([0.0, 0.0, 1.0]), torch.ones(3, dtype=torch.float64)),
        SphericalHarmonicLight(torch.ones(4, 3, dtype=torch.float64)),
    )
    environment, point, sun, harmonics = flatten_light(scale_light(LightSum(parts), tint))
    assert isinstance(environment, EnvironmentLight)
    assert torch.equal(environment.radiance, random_map() * tint)
    assert isinstance(point, PointLight)
    assert torch.equal(point.intensity, tint)
    assert isinstance(sun, DirectionalLight)
    assert torch.equal(sun.irradiance, tint)
    assert isinstance(harmonics, SphericalHarmonicLight)
    assert torch.equal(harmonics.coefficients, tint.expand(4, 3))


def test_an_empty_sum_has_no_lights() -> None:
    assert flatten_light(LightSum((LightSum(()),))) == ()


ZERO, ONE = torch.zeros(3), torch.ones(3)


@pytest.mark.parametrize(
    ("light", "message"),
    [
        (EnvironmentLight(torch.full((2, 4, 3), math.nan)), "NaN or infinite"),
        (EnvironmentLight(torch.full((2, 4, 3), math.inf)), "NaN or infinite"),
        (EnvironmentLight(torch.full((2, 4, 3), -1.0)), "must not be negative"),
        (EnvironmentLight(torch.zeros(0, 4, 3)), r"\[height, width, 3\]"),
        (DirectionalLight(2.0 * ONE, ONE), "must be unit"),
        (DirectionalLight(ZERO, ONE), "must be unit"),
        (PointLight(ZERO, -ONE), "must not be negative"),
        (LightSum((PointLight(ZERO * math.nan, ONE),)), "position has NaN"),
        (SphericalHarmonicLight(torch.zeros(5, 3)), "fit no degree"),
    ],
)
def test_unusable_lights_are_refused(light: Light, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_light(light)


def test_usable_lights_pass() -> None:
    check_light(EnvironmentLight(random_map()))
    check_light(SphericalHarmonicLight(-torch.ones(4, 3)))
    check_light(LightSum((PointLight(ZERO, ONE), DirectionalLight(ONE / math.sqrt(3.0), ONE))))
