"""Does an independent renderer, Mitsuba 3, see the same light and the same surfaces?"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from splatir.codecs.hdr import read_hdr
from splatir.scene.lights import EnvironmentLight, environment_radiance
from splatir.shade.brdf import ShadingSettings
from splatir.shade.monte_carlo import MonteCarlo
from tests.spheres import unit
from tests.test_lights import coloured_axes

pytest.importorskip("mitsuba", reason="mitsuba is not installed (extra: dev)")

from benchmarks.mitsuba_sphere import (
    Material,
    diffuse_bsdf,
    emitted_radiance,
    reflected_radiance,
    specular_bsdf,
    sphere_points,
)


def sky() -> Tensor:
    """A smooth sky with a warm lamp of a few texels."""
    rows, columns = torch.linspace(0, 1, 32), torch.linspace(0, 6.2, 64)
    radiance = (1.2 - rows)[:, None, None] * (1.0 + 0.5 * columns.sin())[None, :, None]
    radiance = radiance * torch.tensor([0.6, 0.8, 1.0])
    radiance[9:12, 30:33] += torch.tensor([60.0, 45.0, 30.0])
    return radiance


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Sum of absolute differences over the sum of values."""
    return float((actual - expected).abs().sum() / expected.sum())


def test_mitsuba_sees_the_same_colours_in_the_same_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = unit(torch.randn(200, 3, generator=generator))
    for radiance in (coloured_axes().float(), torch.rand(6, 12, 3, generator=generator)):
        ours = environment_radiance(radiance, directions)
        assert torch.allclose(emitted_radiance(radiance, directions), ours, atol=1e-5)


@pytest.mark.parametrize("roughness", [0.1, 0.35, 1.0])
def test_specular_lobe_reflects_what_mitsuba_says(roughness: float) -> None:
    """Plastic, half and full metal at once, as the three channels of F0: fails for any wrong factor
    of the lobe, its frame or its light."""
    material = Material((0.9, 0.5, 0.1), roughness, 0.7)
    points = sphere_points(12, material)
    ours = MonteCarlo(EnvironmentLight(sky()), 4096).shade(points).specular
    theirs = reflected_radiance(points, sky(), specular_bsdf(material), 4096)
    # Noise of both, with 16 times the samples 0.04 %.
    assert relative_error(ours, theirs) < 0.01
    assert ours.sum().item() == pytest.approx(theirs.sum().item(), rel=4e-3)


@pytest.mark.parametrize("diffuse", ["lambert", "disney"])
def test_diffuse_lobe_reflects_what_mitsuba_says(diffuse: str) -> None:
    material = Material((0.9, 0.5, 0.1), 0.6, 0.25)
    points = sphere_points(12, material)
    settings = ShadingSettings(diffuse="disney" if diffuse == "disney" else "lambert")
    ours = MonteCarlo(EnvironmentLight(sky()), 4096, settings=settings).shade(points).diffuse
    bsdf = diffuse_bsdf(material, disney=diffuse == "disney")
    theirs = reflected_radiance(points, sky(), bsdf, 4096)
    assert relative_error(ours, theirs) < 0.01
    assert ours.sum().item() == pytest.approx(theirs.sum().item(), rel=4e-3)


@pytest.mark.shared_data
def test_a_measured_sky_with_sun_reflects_what_mitsuba_says(shared_data: Path) -> None:
    radiance = torch.from_numpy(read_hdr(shared_data / "env" / "venice_sunset_1k.hdr"))
    material = Material((0.9, 0.5, 0.1), 0.3, 0.5)
    points = sphere_points(8, material)
    lambert = ShadingSettings("lambert")
    shading = MonteCarlo(EnvironmentLight(radiance), 8192, settings=lambert).shade(points)
    theirs = reflected_radiance(points, radiance, specular_bsdf(material), 8192)
    assert relative_error(shading.specular, theirs) < 0.01
    theirs = reflected_radiance(points, radiance, diffuse_bsdf(material), 8192)
    assert relative_error(shading.diffuse, theirs) < 0.01
