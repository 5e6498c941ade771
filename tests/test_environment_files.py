"""Environment maps in files: values, frames, sizes, and maps that cannot be light."""

import math
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
import torch
from PIL import Image

from splatir.codecs.exr import write_exr, write_exr_channels
from splatir.codecs.hdr import write_hdr
from splatir.maths.rotations import rotation_from_quat
from splatir.scene.environment_map import rotation_about_z, sample_environment
from splatir.scene.lights import EnvironmentLight, environment_directions, texel_solid_angles
from splatir.storage.environment import (
    read_environment,
    resize_environment,
    turn_for_file,
    write_environment,
)

RNG = np.random.default_rng(0)


def random_map(height: int = 8, width: int | None = None) -> np.ndarray:
    width = 2 * height if width is None else width
    return np.exp(RNG.normal(0, 2, (height, width, 3))).astype(np.float32)


def as_light(rgb: np.ndarray) -> EnvironmentLight:
    return EnvironmentLight(torch.from_numpy(rgb))


def power(light: EnvironmentLight) -> torch.Tensor:
    height, width = light.radiance.shape[:2]
    return (light.radiance.double().sum(1) * texel_solid_angles(height, width)[:, None]).sum(0)


def test_exr_keeps_every_bit_and_hdr_eight(tmp_path: Path) -> None:
    light = as_light(random_map())
    write_environment(tmp_path / "a.exr", light)
    torch.testing.assert_close(
        read_environment(tmp_path / "a.exr").radiance, light.radiance, rtol=0, atol=0
    )
    write_environment(tmp_path / "A.HDR", light)
    error = (read_environment(tmp_path / "A.HDR").radiance - light.radiance).abs().amax(-1)
    assert (error <= light.radiance.amax(-1) / 256).all()


@pytest.mark.parametrize("suffix", [".hdr", ".exr"])
def test_a_sun_beyond_half_floats_survives(tmp_path: Path, suffix: str) -> None:
    rgb = np.full((8, 16, 3), 0.5, np.float32)
    rgb[2, 3] = (4.0e6, 3.9e6, 3.5e6)
    write_environment(tmp_path / f"a{suffix}", as_light(rgb))
    back = read_environment(tmp_path / f"a{suffix}").radiance.numpy()
    np.testing.assert_allclose(back[2, 3], rgb[2, 3], rtol=1 / 128)
    assert (back[0] == 0.5).all()


def test_maps_keep_their_directions_in_files(tmp_path: Path) -> None:
    """The texel that looks at +Y is at a quarter of the width, that at +Z in row 0."""
    rgb = np.zeros((64, 128, 3), np.float32)
    rgb[32, 31:33, 1] = 1.0
    rgb[0, :, 2] = 1.0
    write_environment(tmp_path / "a.exr", as_light(rgb))
    light = read_environment(tmp_path / "a.exr")
    seen = sample_environment(light, torch.tensor([[0.0, 1.0, -math.pi / 128], [0.0, 0.0, 1.0]]))
    assert seen[0, 1] > 0.9 and seen[1, 2] > 0.9


def test_luminance_alone_is_grey_and_alpha_is_ignored(tmp_path: Path) -> None:
    plane = random_map()[..., 0]
    write_exr_channels(tmp_path / "y.exr", {"Y": plane})
    grey = read_environment(tmp_path / "y.exr").radiance
    assert (grey == torch.from_numpy(plane)[..., None]).all()
    rgb = random_map()
    write_exr(tmp_path / "a.exr", rgb, np.zeros((8, 16, 1), np.float32))
    np.testing.assert_array_equal(read_environment(tmp_path / "a.exr").radiance.numpy(), rgb)


def test_half_float_maps_are_read(tmp_path: Path) -> None:
    rgb = random_map().astype(np.float16)
    header = {"type": OpenEXR.scanlineimage, "compression": OpenEXR.ZIP_COMPRESSION}
    with OpenEXR.File(header, {"RGB": rgb}) as file:
        file.write(str(tmp_path / "a.exr"))
    radiance = read_environment(tmp_path / "a.exr").radiance
    assert radiance.dtype == torch.float32
    np.testing.assert_array_equal(radiance.numpy(), rgb)


# Sizes and frames


@pytest.mark.parametrize(("old", "new"), [(16, 4), (16, 5), (6, 16), (8, 8)])
def test_another_size_keeps_the_power(old: int, new: int) -> None:
    light = as_light(random_map(old))
    other = resize_environment(light, new)
    assert other.radiance.shape == (new, 2 * new, 3)
    torch.testing.assert_close(power(other), power(light), rtol=1e-5, atol=0)


def test_a_smaller_map_is_the_mean_by_solid_angle(tmp_path: Path) -> None:
    rgb = np.zeros((4, 8, 3), np.float32)
    rgb[0, :2] = 3.0
    write_environment(tmp_path / "a.exr", as_light(rgb))
    small = read_environment(tmp_path / "a.exr", height=2).radiance
    # Row 0 of four covers 1 - cos(45 deg) of the hemisphere's 1.
    expected = 3.0 * (1 - math.sqrt(0.5))
    torch.testing.assert_close(small[0, 0], torch.full((3,), expected))
    assert (small[1] == 0).all() and (small[0, 1:] == 0).all()


def test_stretched_maps_become_twice_as_wide_as_high() -> None:
    light = as_light(random_map(8, 18))
    other = resize_environment(light, 8)
    assert other.radiance.shape == (8, 16, 3)
    torch.testing.assert_close(power(other), power(light), rtol=1e-5, atol=0)


def test_turned_maps_show_the_same_light() -> None:
    """A smooth map, seen in the file's frame along R d, is what the map has along d."""
    directions = environment_directions(24, 48)
    light = EnvironmentLight(2 + directions + directions[..., :1] * directions[..., 1:2])
    R = rotation_from_quat(torch.tensor([0.5, 0.1, -0.7, 0.4]))
    turned = turn_for_file(light, R)
    seen = sample_environment(turned, directions @ R.mT)
    torch.testing.assert_close(seen, light.radiance, atol=0.02, rtol=0)
    torch.testing.assert_close(power(turned), power(light), rtol=3e-3, atol=0)


def test_maps_that_need_no_turn_stay_exact() -> None:
    light = as_light(random_map())
    assert torch.equal(turn_for_file(light, torch.eye(3)).radiance, light.radiance)
    quarter = turn_for_file(light, rotation_about_z(90.0))
    assert torch.equal(quarter.radiance, light.radiance.roll(-4, dims=1))


# Files that are no light


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no environment map .*gone\.hdr"):
        read_environment(tmp_path / "gone.hdr")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_pictures_that_end_at_white_are_refused(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (16, 8)).save(tmp_path / f"a{suffix}")
    with pytest.raises(ValueError, match=rf"a\{suffix} cannot be.*end at white.*\.hdr or \.exr"):
        read_environment(tmp_path / f"a{suffix}")
    with pytest.raises(ValueError, match=r"\.hdr or \.exr"):
        write_environment(tmp_path / f"b{suffix}", as_light(random_map()))
    (tmp_path / "notes.txt").write_text("sun")
    with pytest.raises(ValueError, match=r"notes\.txt cannot be an environment map \(unknown\)"):
        read_environment(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("value", "fault"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "inf"), (-0.1, "neg")]
)
def test_values_that_are_no_radiance_are_found(tmp_path: Path, value: float, fault: str) -> None:
    rgb = random_map()
    rgb[5, 7, 1] = rgb[6, 0, 0] = value
    write_exr(tmp_path / "a.exr", rgb)
    message = rf"a\.exr holds {fault}.* in 2 texels, the first at row 5, column 7"
    with pytest.raises(ValueError, match=message):
        read_environment(tmp_path / "a.exr")
    for name in ("b.exr", "b.hdr"):
        with pytest.raises(ValueError, match=rf"{name} was to hold {fault}"):
            write_environment(tmp_path / name, as_light(rgb))
    assert not list(tmp_path.glob("b.*"))


@pytest.mark.parametrize("shape", [(8, 8), (6, 36), (12, 9)])
def test_cube_maps_and_probes_are_refused(tmp_path: Path, shape: tuple[int, int]) -> None:
    write_hdr(tmp_path / "a.hdr", random_map(*shape))
    with pytest.raises(ValueError, match=r"twice as wide as high\. Convert cube maps"):
        read_environment(tmp_path / "a.hdr")


def test_maps_slightly_off_the_shape_are_read_with_a_warning(tmp_path: Path) -> None:
    write_hdr(tmp_path / "a.hdr", random_map(8, 15))
    with pytest.warns(UserWarning, match=r"a\.hdr has 15x8 pixels; it is taken for"):
        assert read_environment(tmp_path / "a.hdr").radiance.shape == (8, 15, 3)


@pytest.mark.parametrize("suffix", [".hdr", ".exr"])
def test_truncated_maps_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_environment(path, as_light(random_map(16)))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ValueError, match=rf"a\{suffix}.*copy or export it again"):
        read_environment(path)


@pytest.mark.shared_data
def test_maps_of_others_are_read_whole(shared_data: Path) -> None:
    light = read_environment(shared_data / "env" / "royal_esplanade_1k.hdr")
    small = read_environment(shared_data / "env" / "royal_esplanade_1k.hdr", height=32)
    assert light.radiance.shape == (512, 1024, 3) and small.radiance.shape == (32, 64, 3)
    torch.testing.assert_close(power(small), power(light), rtol=1e-4, atol=0)
