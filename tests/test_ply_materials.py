"""Materials in splat PLYs: splatir's own, those of other programs, and broken ones."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from splatir.maths.frames import similarity
from splatir.maths.rotations import rotation_from_quat
from splatir.raster.reference.backend import ReferenceBackend
from splatir.render.deferred import render_scene
from splatir.scene.gaussians import NO_SHEEN, SHEEN, GaussianModel, with_sheen
from splatir.shade.surface import Shading, SurfacePoints
from splatir.storage.ply import PlyError, read_ply, write_ply
from tests.scenes import random_camera
from tests.test_ply import ORDER, keep, random_model, rewrite, table_of

NAMES = ["base_color_0", "base_color_1", "base_color_2", "roughness", "metallic"]


def with_materials(model: GaussianModel, spread: float = 2.0) -> GaussianModel:
    g = torch.Generator().manual_seed(7)
    n = model.num_gaussians
    params = dict(model.params.items())
    params["albedo"] = spread * torch.randn(n, 3, generator=g)
    params["roughness"] = spread * torch.randn(n, generator=g)
    params["metallic"] = spread * torch.randn(n, generator=g)
    return GaussianModel(params, model.primitive)


@dataclass(frozen=True)
class EveryMaterialShows:
    """A shader whose picture changes with every material and with the normal."""

    def shade(self, points: SurfacePoints) -> Shading:
        diffuse = points.albedo * (1 - points.metallic) * (0.6 + 0.4 * points.normals[:, 2:])
        f0 = 0.04 + (points.albedo - 0.04) * points.metallic
        mirror = (points.normals * points.views).sum(-1, keepdim=True).clamp_min(0)
        return Shading(diffuse, f0 * mirror ** (1 / points.roughness.clamp_min(0.05)))


@pytest.fixture
def material_file(tmp_path: Path) -> Path:
    path = tmp_path / "splats.ply"
    write_ply(path, with_materials(random_model()))
    return path


def test_materials_follow_the_viewers_block_which_stays_as_it_was(tmp_path: Path) -> None:
    plain = random_model(4)
    write_ply(tmp_path / "plain.ply", plain)
    write_ply(tmp_path / "full.ply", with_materials(plain))
    before, after = table_of(tmp_path / "plain.ply"), table_of(tmp_path / "full.ply")
    assert list(after.dtype.names or ()) == ORDER + NAMES
    for name in ORDER:
        np.testing.assert_array_equal(after[name], before[name])
    header = (tmp_path / "full.ply").read_bytes().split(b"end_header")[0].decode()
    assert "comment splatir_materials base_color linear_rec709 roughness perceptual" in header
    assert b"splatir_materials" not in (tmp_path / "plain.ply").read_bytes()


def test_new_names_cannot_be_taken_for_those_of_the_original_layout() -> None:
    """Other loaders match by these prefixes and count what they find."""
    for name in NAMES:
        assert not name.startswith(("scale_", "rot", "f_rest_", "f_dc_", "n", "x", "y", "z"))


def test_the_file_holds_quantities_not_logits(material_file: Path) -> None:
    table, model = table_of(material_file), with_materials(random_model())
    for i in range(3):
        expected = model.material("albedo")[:, i].detach().numpy()
        np.testing.assert_allclose(table[f"base_color_{i}"], expected, rtol=1e-6)
    for key in ("roughness", "metallic"):
        np.testing.assert_allclose(table[key], model.material(key).detach().numpy(), rtol=1e-6)


@pytest.mark.parametrize("spread", [2.0, 40.0])
def test_materials_come_back_even_at_their_ends(tmp_path: Path, spread: float) -> None:
    """A spread of 40 gives quantities of exactly 0 and 1 in float32."""
    model = with_materials(random_model(50), spread)
    write_ply(tmp_path / "a.ply", model)
    back = read_ply(tmp_path / "a.ply")
    for key in ("albedo", "roughness", "metallic"):
        assert back.params[key].isfinite().all()
        torch.testing.assert_close(back.material(key), model.material(key), atol=3e-6, rtol=0)
    write_ply(tmp_path / "b.ply", back)
    first, second = table_of(tmp_path / "a.ply"), table_of(tmp_path / "b.ply")
    for name in NAMES:
        np.testing.assert_allclose(first[name], second[name], atol=3e-6)


@pytest.mark.parametrize("primitive", ["surfel", "ellipsoid"])
@pytest.mark.parametrize("spread", [1.0, 40.0])
def test_a_scene_looks_the_same_after_a_round_trip(
    tmp_path: Path, primitive: str, spread: float
) -> None:
    model = random_model(60, degree=0, primitive="surfel" if primitive == "surfel" else "ellipsoid")
    model.params["means"].data /= 20
    model.params["scales"].data[:, :2] += 1
    model = with_materials(model, spread)
    write_ply(tmp_path / "a.ply", model)
    back = read_ply(tmp_path / "a.ply")
    camera, rasterizer = random_camera(40, 30, 2), ReferenceBackend()
    with torch.no_grad():
        before = render_scene(model, camera, EveryMaterialShows(), rasterizer)
        after = render_scene(back, camera, EveryMaterialShows(), rasterizer)
    assert before.alpha.max() > 0.5
    torch.testing.assert_close(after.rgb, before.rgb, atol=0.25 / 255, rtol=0)
    torch.testing.assert_close(after.alpha, before.alpha, atol=1e-5, rtol=0)


def test_another_frame_turns_the_normals_and_keeps_the_materials(tmp_path: Path) -> None:
    model = with_materials(random_model(primitive="surfel"))
    R = rotation_from_quat(torch.tensor([0.5, 0.1, -0.7, 0.4]))
    write_ply(tmp_path / "a.ply", model)
    write_ply(tmp_path / "b.ply", model, similarity(2.0, R, torch.ones(3)))
    a, b = table_of(tmp_path / "a.ply"), table_of(tmp_path / "b.ply")
    normals_a, normals_b = (np.stack([t["nx"], t["ny"], t["nz"]], -1) for t in (a, b))
    np.testing.assert_allclose(normals_b, normals_a @ R.numpy().T, atol=1e-6)
    for name in NAMES:
        np.testing.assert_array_equal(a[name], b[name])


# Other programs


def test_a_file_of_ours_is_known_without_its_comments(material_file: Path) -> None:
    """Some converters drop comments and keep properties."""
    model = read_ply(material_file)
    rewrite(material_file, lambda table: table)
    assert b"splatir" not in material_file.read_bytes()
    back = read_ply(material_file)
    assert back.has_materials
    torch.testing.assert_close(back.params["albedo"], model.params["albedo"])


def foreign(path: Path, columns: dict[str, list[float]], without: str = "") -> None:
    """A file of another program: the usual block without some, then its own columns."""
    write_ply(path, random_model(2))
    table = keep(table_of(path), [name for name in ORDER if name != without])
    wide = np.empty(2, dtype=[*table.dtype.descr, *((name, "<f4") for name in columns)])
    for name in table.dtype.names or ():
        wide[name] = table[name]
    for name, values in columns.items():
        wide[name] = values
    PlyData([PlyElement.describe(wide, "vertex")], byte_order="<").write(str(path))


HALF = {f"base_color_{i}": [0.0, math.log(3.0)] for i in range(3)}


def test_r3dg_materials_are_converted(tmp_path: Path) -> None:
    """Sigmoid 0.5 and 0.75; base colour 0.77 s + 0.03, roughness 0.9 s + 0.09, no metals."""
    columns = {**HALF, "roughness": [0.0, math.log(3.0)], "incidents_dc_0": [5.0, 6.0]}
    foreign(tmp_path / "a.ply", columns)
    model = read_ply(tmp_path / "a.ply")
    expected = torch.tensor([0.415, 0.6075])
    torch.testing.assert_close(model.material("albedo"), expected[:, None].expand(2, 3))
    torch.testing.assert_close(model.material("roughness"), torch.tensor([0.54, 0.765]))
    assert (model.material("metallic") < 1e-5).all()


def test_irgs_materials_are_converted(tmp_path: Path) -> None:
    """Ours by name, but surfels of two scales hold logits."""
    columns = {**HALF, "roughness": [0.0, math.log(3.0)], "metallic": [math.log(3.0), -50.0]}
    foreign(tmp_path / "a.ply", columns, without="scale_2")
    model = read_ply(tmp_path / "a.ply")
    assert model.primitive == "surfel"
    torch.testing.assert_close(model.material("albedo")[0], torch.full((3,), 0.415))
    torch.testing.assert_close(model.material("roughness"), torch.tensor([0.5, 0.75]))
    torch.testing.assert_close(
        model.material("metallic"), torch.tensor([0.75, 0.0]), atol=1e-5, rtol=0
    )


GS_IR_COLUMNS = {
    "normal_0": [0.0, 0.0], "normal_1": [0.0, 0.0], "normal_2": [1.0, 1.0],
    "albedo_0": [0.0, 0.0], "albedo_1": [math.log(3.0), 0.0], "albedo_2": [-80.0, 80.0],
    "roughness": [0.0, math.log(3.0)],
}  # fmt: skip


@pytest.mark.parametrize(
    ("metallic", "expected"), [([0.0, 1.0], [0.5, 0.7310586]), ([1.0, 1.0], [0.0, 0.0])]
)
def test_gs_ir_materials_are_converted(
    tmp_path: Path, metallic: list[float], expected: list[float]
) -> None:
    """Sigmoids, roughness from 0.04 to 1; metallic 1 everywhere was never trained nor shown."""
    foreign(tmp_path / "a.ply", {**GS_IR_COLUMNS, "metallic": metallic})
    model = read_ply(tmp_path / "a.ply")
    torch.testing.assert_close(
        model.material("albedo"),
        torch.tensor([[0.5, 0.75, 0.0], [0.5, 0.5, 1.0]]),
        atol=3e-6,
        rtol=0,
    )
    torch.testing.assert_close(model.material("roughness"), torch.tensor([0.52, 0.76]))
    torch.testing.assert_close(
        model.material("metallic"), torch.tensor(expected), atol=3e-6, rtol=0
    )


@pytest.mark.parametrize(
    "names",
    [
        ["roughness"],
        ["albedo_0", "albedo_1", "albedo_2"],
        ["base_color_0", "base_color_1", "roughness", "metallic"],
        [*(f"base_color_{i}" for i in range(12)), "roughness", "metallic"],
    ],
)
def test_materials_of_no_known_layout_are_left_out_with_a_warning(
    tmp_path: Path, names: list[str]
) -> None:
    foreign(tmp_path / "a.ply", {name: [0.1, 0.2] for name in names})
    with pytest.warns(UserWarning, match="follow no known layout and are ignored"):
        model = read_ply(tmp_path / "a.ply")
    assert not model.has_materials and model.num_gaussians == 2


def test_the_sheen_of_cloth_is_one_more_property_and_comes_back(tmp_path: Path) -> None:
    model = with_sheen(with_materials(random_model()))
    with torch.no_grad():
        model.params[SHEEN][:3] = torch.tensor([-1.0, 0.0, 4.0])
    write_ply(tmp_path / "cloth.ply", model)
    table = table_of(tmp_path / "cloth.ply")
    assert list(table.dtype.names or ()) == ORDER + NAMES + [SHEEN]
    np.testing.assert_allclose(table[SHEEN][:3], torch.tensor([-1.0, 0.0, 4.0]).sigmoid())
    again = read_ply(tmp_path / "cloth.ply").params[SHEEN]
    assert torch.allclose(again[:3], model.params[SHEEN][:3], atol=1e-5)
    # What was no cloth is none, and would stay so in training.
    assert bool((again[3:] == NO_SHEEN).all())


# Broken files


def test_some_of_our_materials_only_are_refused(material_file: Path) -> None:
    data = material_file.read_bytes()
    material_file.write_bytes(data.replace(b"float base_color_1", b"float colour"))
    message = r"splats\.ply: it has the material properties .* lacks \['base_color_1'\]"
    with pytest.raises(PlyError, match=message):
        read_ply(material_file)


@pytest.mark.parametrize(("name", "value"), [("roughness", -0.2), ("base_color_2", 3.5)])
def test_quantities_out_of_range_are_counted(material_file: Path, name: str, value: float) -> None:
    def spoil(table: np.ndarray) -> np.ndarray:
        table = table.copy()
        table[name][[1, 2]] = value
        return table

    rewrite(material_file, spoil)
    with pytest.raises(PlyError, match=rf"'{name}' leaves the range 0 to 1 for 2 of 5 splats"):
        read_ply(material_file)


def test_a_sheen_out_of_range_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cloth.ply"
    write_ply(path, with_sheen(with_materials(random_model())))

    def spoil(table: np.ndarray) -> np.ndarray:
        table = table.copy()
        table[SHEEN][0] = 1.5
        return table

    rewrite(path, spoil)
    with pytest.raises(PlyError, match="'sheen' leaves the range 0 to 1 for 1 of 5 splats"):
        read_ply(path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_materials_that_are_not_finite_are_counted(material_file: Path, value: float) -> None:
    def spoil(table: np.ndarray) -> np.ndarray:
        table = table.copy()
        table["metallic"][4] = value
        return table

    rewrite(material_file, spoil)
    with pytest.raises(PlyError, match="'metallic' is NaN or infinite for 1 of 5 splats"):
        read_ply(material_file)


def test_materials_that_diverged_are_not_written(material_file: Path) -> None:
    before = material_file.read_bytes()
    model = with_materials(random_model())
    model.params["roughness"].data[1] = math.nan
    with pytest.raises(ValueError, match="'roughness' of 1 Gaussians is not a finite"):
        write_ply(material_file, model)
    assert material_file.read_bytes() == before
