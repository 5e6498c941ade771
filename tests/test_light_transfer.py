"""How light reaches Gaussians, in a few numbers: against the bake, turned, and through a file."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement
from torch import Tensor

from splatir.maths.frames import similarity
from splatir.maths.rotations import rotation_from_quat
from splatir.maths.spherical_harmonics import rotate_sh
from splatir.scene.gaussians import GaussianModel
from splatir.scene.light_transfer import LightTransfer, cosine_transfer
from splatir.scene.lights import SphericalHarmonicLight
from splatir.storage.ply import PlyError, read_ply, read_transfer, write_ply
from splatir.transport.lit import light_gaussians
from splatir.transport.materials import SurfaceMaterials
from splatir.transport.scene import SceneTransport
from splatir.transport.transfer import light_transfer
from tests.solids import disc, model_of, sphere, square, transport_of
from tests.spheres import unit

R_FILE_WORLD = rotation_from_quat(torch.tensor([0.5, 0.1, -0.7, 0.4]).double())
# A positive sky, brightest at a slant; one column for each colour.
SKY = torch.zeros(16, 3)
SKY[0] = torch.tensor([3.0, 2.5, 2.0])
SKY[1:4] = torch.tensor([0.5, 0.9, -0.4])[:, None]
SKY[6] = 0.3


def covered_ground() -> tuple[GaussianModel, SceneTransport, SurfaceMaterials]:
    """A bright disc above a bright square."""
    model = model_of(
        square(1.0, 0.08, albedo=(0.7, 0.6, 0.5)), disc(0.4, 0.4, 0.08, albedo=(0.6, 0.6, 0.6))
    )
    return model, *transport_of(model)


def test_an_open_surface_receives_what_the_closed_form_says() -> None:
    model = model_of(sphere(0.5, 1500))
    scene, materials = transport_of(model)
    transfer = light_transfer(scene, materials)
    normals = scene.visibility.normals
    expected = cosine_transfer(normals, 3)
    assert (transfer.visible - expected).abs().max() < 0.02
    assert transfer.bounced.abs().max() < 0.02
    # Radiance 1 from everywhere has irradiance pi.
    white = torch.zeros(16, 3)
    white[0] = 2.0 * math.sqrt(math.pi)
    torch.testing.assert_close(
        expected @ white, torch.full_like(normals, math.pi), atol=1e-4, rtol=0.0
    )


def test_shadow_and_bounced_light_are_those_of_the_bake() -> None:
    _, scene, materials = covered_ground()
    transfer = light_transfer(scene, materials)
    lit = light_gaussians(scene, materials, SphericalHarmonicLight(SKY))
    ratio = transfer.shadow_ratio(scene.visibility.normals, SKY)
    assert (ratio - lit.diffuse_ratio).abs().mean() < 0.01
    assert float(lit.diffuse_ratio.min()) < 0.6
    bounced = transfer.bounced_irradiance(SKY)
    assert (bounced - lit.bounced.irradiance).abs().mean() < 0.02 * lit.bounced.irradiance.max()


def test_turning_transfer_and_light_together_changes_nothing() -> None:
    _, scene, materials = covered_ground()
    transfer = light_transfer(scene, materials)
    turned, sky = transfer.rotated(R_FILE_WORLD), rotate_sh(SKY, R_FILE_WORLD)
    normals = scene.visibility.normals
    torch.testing.assert_close(
        turned.shadow_ratio(normals @ R_FILE_WORLD.float().mT, sky),
        transfer.shadow_ratio(normals, SKY),
        atol=1e-4,
        rtol=0.0,
    )
    torch.testing.assert_close(
        turned.bounced_irradiance(sky), transfer.bounced_irradiance(SKY), atol=1e-4, rtol=0.0
    )


def test_a_file_keeps_shadows_for_those_who_trace_no_rays_and_for_those_who_do(
    tmp_path: Path,
) -> None:
    """Read back in the file's frame; traced anew there, what Gaussians see is the same."""
    model, scene, materials = covered_ground()
    transfer = light_transfer(scene, materials)
    S = similarity(2.0, R_FILE_WORLD, torch.tensor([1.0, 2.0, 3.0]).double())
    write_ply(tmp_path / "a.ply", model, S, transfer=transfer)
    found = read_transfer(tmp_path / "a.ply")
    assert found is not None
    expected = transfer.rotated(R_FILE_WORLD)
    torch.testing.assert_close(found.visible, expected.visible)
    torch.testing.assert_close(found.bounced, expected.bounced)
    again = SceneTransport.of(read_ply(tmp_path / "a.ply").gaussians)
    light = SphericalHarmonicLight(rotate_sh(SKY, R_FILE_WORLD))
    traced = light_gaussians(again, materials, light)
    before = light_gaussians(scene, materials, SphericalHarmonicLight(SKY))
    # Directions of the bake stay with the frame.
    assert (traced.diffuse_ratio - before.diffuse_ratio).abs().mean() < 0.01


def test_a_file_without_them_has_none_and_with_some_is_refused(tmp_path: Path) -> None:
    model, scene, materials = covered_ground()
    write_ply(tmp_path / "plain.ply", model)
    assert read_transfer(tmp_path / "plain.ply") is None
    write_ply(tmp_path / "a.ply", model, transfer=light_transfer(scene, materials))
    vertices = PlyData.read(tmp_path / "a.ply")["vertex"].data
    kept = [name for name in vertices.dtype.names if name != "bounce_7"]
    fewer = np.empty(len(vertices), dtype=[(name, "<f4") for name in kept])
    for name in kept:
        fewer[name] = vertices[name]
    PlyData([PlyElement.describe(fewer, "vertex")]).write(tmp_path / "b.ply")
    with pytest.raises(PlyError, match=r"42 of the 43 properties .* lacks \['bounce_7'\]"):
        read_transfer(tmp_path / "b.ply")


def test_shadows_are_ratios_between_nothing_and_all() -> None:
    generator = torch.Generator().manual_seed(0)
    normals = unit(torch.randn(50, 3, generator=generator))
    wild: Tensor = torch.randn(50, 16, generator=generator)
    ratio = LightTransfer(wild, torch.zeros(50, 9, 3)).shadow_ratio(normals, SKY)
    assert float(ratio.min()) >= 0.0 and float(ratio.max()) <= 1.0
