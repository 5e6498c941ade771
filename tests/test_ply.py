import contextlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plyfile import PlyData, PlyElement
from torch import Tensor

from splatir.maths.frames import invert_similarity, similarity
from splatir.maths.rotations import rotation_from_quat
from splatir.scene.gaussians import SURFEL_LOG_THICKNESS, GaussianModel, Primitive
from splatir.scene.transform import transform_model
from splatir.storage.ply import PlyError, read_ply, write_ply

ORDER = [
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"),
    *(f"f_rest_{i}" for i in range(45)),
    *("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
]


def random_model(
    n: int = 5, degree: int = 3, primitive: Primitive = "ellipsoid", seed: int = 0
) -> GaussianModel:
    g = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    scales = randn(n, 3) - 3
    if primitive == "surfel":
        scales[:, 2] = SURFEL_LOG_THICKNESS
    params = {
        "means": 10 * randn(n, 3),
        "quats": torch.nn.functional.normalize(randn(n, 4), dim=-1),
        "scales": scales,
        "opacities": randn(n),
        "sh0": randn(n, 1, 3),
        "shN": randn(n, (degree + 1) ** 2 - 1, 3),
    }
    return GaussianModel(params, primitive)


def assert_models_equal(a: GaussianModel, b: GaussianModel, tolerance: float = 2e-7) -> None:
    assert a.primitive == b.primitive
    for key, value in a.params.items():
        torch.testing.assert_close(
            b.params[key],
            value,
            rtol=tolerance,
            atol=tolerance,
            msg=lambda m, key=key: f"{key} {m}",
        )


def table_of(path: Path) -> np.ndarray:
    with path.open("rb") as stream:
        return np.array(PlyData.read(stream)["vertex"].data)


def rewrite(path: Path, change) -> None:
    """Pass the vertex table of a file through a function that returns another one."""
    table = change(table_of(path))
    PlyData([PlyElement.describe(table, "vertex")], byte_order="<").write(str(path))


def keep(table: np.ndarray, names: list[str], dtype: str = "<f4") -> np.ndarray:
    out = np.empty(len(table), dtype=[(name, dtype) for name in names])
    for name in names:
        out[name] = table[name] if name in (table.dtype.names or ()) else 0
    return out


@pytest.fixture
def splat_file(tmp_path: Path) -> Path:
    path = tmp_path / "splats.ply"
    write_ply(path, random_model())
    return path


def test_header_is_the_original_layout(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.ply"
    write_ply(path, random_model(3), comments=["made by a test"])
    data = path.read_bytes()
    header, body = data.split(b"end_header\n", 1)
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    comments = [line[8:] for line in lines if line.startswith("comment ")]
    assert comments == [
        "splatir_format 1",
        "splatir_primitive ellipsoid",
        "splatir_colour_space srgb",
        "made by a test",
    ]
    rest = [line for line in lines[2:] if not line.startswith("comment")]
    assert rest == ["element vertex 3", *(f"property float {name}" for name in ORDER)]
    assert len(body) == 3 * 62 * 4


def test_values_lie_where_the_layout_says(tmp_path: Path) -> None:
    """Read back with nothing but numpy: f_rest is channel-major, rot wxyz, the rest raw."""
    model = random_model(4)
    path = tmp_path / "a.ply"
    write_ply(path, model)
    table = np.frombuffer(path.read_bytes().split(b"end_header\n", 1)[1], "<f4").reshape(4, 62)
    p = {key: value.detach().numpy() for key, value in model.params.items()}
    np.testing.assert_array_equal(table[:, 0:3], p["means"])
    np.testing.assert_array_equal(table[:, 6:9], p["sh0"][:, 0])
    for channel in range(3):
        start = 9 + 15 * channel
        np.testing.assert_array_equal(table[:, start : start + 15], p["shN"][:, :, channel])
    np.testing.assert_array_equal(table[:, 54], p["opacities"])
    np.testing.assert_array_equal(table[:, 55:58], p["scales"])
    np.testing.assert_allclose(table[:, 58:62], p["quats"], rtol=1e-6)
    R = rotation_from_quat(model.params["quats"]).detach().numpy()
    shortest = R[np.arange(4), :, p["scales"].argmin(1)]
    np.testing.assert_allclose(table[:, 3:6], shortest, atol=1e-6)


def test_surfels_have_their_axis_as_normal_and_a_tiny_third_scale(tmp_path: Path) -> None:
    model = random_model(4, primitive="surfel")
    with torch.no_grad():
        model.params["scales"][:, 2] = 5.0  # never rasterised, so whatever it drifted to
    path = tmp_path / "a.ply"
    write_ply(path, model)
    table = table_of(path)
    axis = rotation_from_quat(model.params["quats"])[:, :, 2].detach().numpy()
    normals = np.stack([table["nx"], table["ny"], table["nz"]], -1)
    np.testing.assert_allclose(normals, axis, atol=1e-6)
    assert (table["scale_2"] == np.float32(SURFEL_LOG_THICKNESS)).all()
    assert read_ply(path).primitive == "surfel"


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(0, 6),
    degree=st.integers(0, 4),
    primitive=st.sampled_from(["ellipsoid", "surfel"]),
    seed=st.integers(0, 10_000),
)
def test_round_trip_keeps_every_parameter(
    tmp_path_factory: pytest.TempPathFactory, n: int, degree: int, primitive: Primitive, seed: int
) -> None:
    path = tmp_path_factory.mktemp("ply") / "a.ply"
    model = random_model(n, degree, primitive, seed)
    write_ply(path, model)
    assert_models_equal(model, read_ply(path))


def test_export_is_in_the_inputs_frame(tmp_path: Path) -> None:
    model = random_model()
    R = rotation_from_quat(torch.tensor([0.5, 0.1, -0.7, 0.4]))
    S_world_input = similarity(0.3, R, torch.tensor([1.0, 2.0, 3.0]))
    write_ply(tmp_path / "a.ply", model, invert_similarity(S_world_input))
    back = transform_model(read_ply(tmp_path / "a.ply"), S_world_input)
    sign = (back.params["quats"] * model.params["quats"]).sum(-1, keepdim=True).sign()
    back.params["quats"].data *= sign
    assert_models_equal(model, back, tolerance=2e-5)


def test_models_that_are_not_finite_are_not_written(splat_file: Path) -> None:
    before = splat_file.read_bytes()
    model = random_model()
    model.params["opacities"].data[2] = math.nan
    with pytest.raises(ValueError, match="'opacity' of 1 Gaussians is not a finite"):
        write_ply(splat_file, model)
    assert splat_file.read_bytes() == before


def test_files_of_others_are_read(splat_file: Path) -> None:
    """gsplat's has no normals; order, types and extra properties are free."""
    model = read_ply(splat_file)
    names = [name for name in ORDER if not name.startswith("n")]
    for order, dtype in ((names, "<f4"), (names[::-1], "<f8"), (["albedo0", *names, "sdf"], "<f4")):
        rewrite(splat_file, lambda t, order=order, dtype=dtype: keep(t, order, dtype))
        assert_models_equal(model, read_ply(splat_file))


def test_files_of_2dgs_without_third_scale_are_surfels(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    model = random_model(primitive="surfel")
    write_ply(path, model)
    rewrite(path, lambda t: keep(t, [name for name in ORDER if name != "scale_2"]))
    assert_models_equal(model, read_ply(path))


def test_surfels_stay_surfels_without_comments(tmp_path: Path) -> None:
    """Converters keep properties and drop comments."""
    path = tmp_path / "a.ply"
    model = random_model(primitive="surfel")
    write_ply(path, model)
    rewrite(path, lambda table: table)
    assert b"splatir" not in path.read_bytes()
    assert_models_equal(model, read_ply(path))


@pytest.mark.parametrize("form", ["ascii", "big-endian", "integer-colours"])
def test_other_encodings_are_read_by_value(splat_file: Path, form: str) -> None:
    model = read_ply(splat_file)
    table = table_of(splat_file)
    if form == "integer-colours":
        types = {name: "i4" if name.startswith("f_dc") else "f4" for name in ORDER}
        table = table.astype(np.dtype(list(types.items())))
        model.params["sh0"].data.trunc_()
    element = PlyElement.describe(table, "vertex")
    PlyData([element], text=form == "ascii", byte_order=">").write(str(splat_file))
    assert_models_equal(model, read_ply(splat_file), tolerance=1e-6)


def test_zero_quaternions_become_the_identity(splat_file: Path) -> None:
    def zero(table: np.ndarray) -> np.ndarray:
        table = table.copy()
        for i in range(4):
            table[f"rot_{i}"][1] = 0
        return table

    rewrite(splat_file, zero)
    assert read_ply(splat_file).params["quats"][1].tolist() == [1, 0, 0, 0]


def test_missing_file_and_other_file_types_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no PLY file .*a\.ply"):
        read_ply(tmp_path / "a.ply")
    for content in (b"", b"\x89PNG\r\n", b"play"):
        (tmp_path / "a.ply").write_bytes(content)
        with pytest.raises(PlyError, match="is not a PLY file"):
            read_ply(tmp_path / "a.ply")


@pytest.mark.parametrize("cut", [5, 60, 500, -1])
def test_truncated_files_are_refused(splat_file: Path, cut: int) -> None:
    splat_file.write_bytes(splat_file.read_bytes()[:cut])
    with pytest.raises(PlyError, match=r"truncated|has no end"):
        read_ply(splat_file)


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (b"6", "truncated or damaged"),
        (b"999999999999999999", "promises 999999999999999999 splats"),
        (b"4", "holds 248 bytes more than its header promises"),
        (b"-5", "is no valid PLY|truncated"),
        (b"x", "is no valid PLY"),
    ],
)
def test_wrong_counts_are_refused(splat_file: Path, count: bytes, message: str) -> None:
    data = splat_file.read_bytes()
    splat_file.write_bytes(data.replace(b"element vertex 5", b"element vertex " + count, 1))
    with pytest.raises(PlyError, match=message):
        read_ply(splat_file)


def test_missing_properties_are_named(splat_file: Path) -> None:
    rewrite(splat_file, lambda t: keep(t, [n for n in ORDER if n not in ("opacity", "rot_2")]))
    with pytest.raises(PlyError, match=r"lacks the properties \['opacity', 'rot_2'\]"):
        read_ply(splat_file)
    rewrite(splat_file, lambda t: keep(t, ["x", "y", "z"]))
    with pytest.raises(PlyError, match="mesh or a point cloud"):
        read_ply(splat_file)
    rewrite(splat_file, lambda t: keep(t, ["packed_position", "packed_rotation"]))
    with pytest.raises(PlyError, match="compressed PLY"):
        read_ply(splat_file)


def test_wrong_f_rest_counts_and_gaps_are_named(splat_file: Path) -> None:
    rewrite(splat_file, lambda t: keep(t, [n for n in ORDER if n != "f_rest_44"]))
    with pytest.raises(PlyError, match=r"44 properties f_rest_\*"):
        read_ply(splat_file)
    rewrite(splat_file, lambda t: keep(t, [*(n for n in ORDER if n != "f_rest_44"), "f_rest_50"]))
    with pytest.raises(PlyError, match=r"0 to 44, \['f_rest_44'\]"):
        read_ply(splat_file)


def test_list_properties_and_other_elements_are_refused(splat_file: Path) -> None:
    data = splat_file.read_bytes()
    splat_file.write_bytes(
        data.replace(b"property float opacity", b"property list uchar float opacity", 1)
    )
    with pytest.raises(PlyError, match=r"\['opacity'\] of its vertices are lists"):
        read_ply(splat_file)
    splat_file.write_bytes(data.replace(b"element vertex", b"element points", 1))
    with pytest.raises(PlyError, match="no element 'vertex'"):
        read_ply(splat_file)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_counted(splat_file: Path, value: float) -> None:
    def spoil(table: np.ndarray) -> np.ndarray:
        table = table.copy()
        table["scale_1"][[0, 3]] = value
        return table

    rewrite(splat_file, spoil)
    with pytest.raises(PlyError, match="'scale_1' is NaN or infinite for 2 of 5 splats"):
        read_ply(splat_file)


def test_unknown_properties_of_ours_are_refused_not_guessed(splat_file: Path) -> None:
    data = splat_file.read_bytes()
    splat_file.write_bytes(data.replace(b"splatir_format 1", b"splatir_format 2", 1))
    with pytest.raises(PlyError, match="format 2, this splatir reads up to 1"):
        read_ply(splat_file)
    splat_file.write_bytes(data.replace(b"primitive ellipsoid", b"primitive tetrahedr", 1))
    with pytest.raises(PlyError, match="primitives 'tetrahedr'"):
        read_ply(splat_file)
    splat_file.write_bytes(data.replace(b"float scale_2", b"float thicker", 1))
    with pytest.raises(PlyError, match=r"lacks the properties \['scale_2'\]"):
        read_ply(splat_file)


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ply") / "whole.ply"
    write_ply(path, random_model(2, degree=1))
    return path


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damaged_header_gives_anything_but_a_ply_error(
    whole_file: Path, data: st.DataObject
) -> None:
    content = bytearray(whole_file.read_bytes())
    path = whole_file.with_name("damaged.ply")
    end = content.index(b"end_header") + 11
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, end - 1))
        removed = data.draw(st.integers(0, 12))
        inserted = data.draw(
            st.sampled_from([b"", b"\n", b" ", b"9", b"\xff", b"element face 3\n"])
        )
        content[at : at + removed] = inserted
    path.write_bytes(content)
    with contextlib.suppress(PlyError):
        read_ply(path)


@pytest.mark.parametrize("line", [b"property flaot opacity", b"hello", b"element vertex 5"])
def test_broken_headers_are_refused(splat_file: Path, line: bytes) -> None:
    data = splat_file.read_bytes()
    splat_file.write_bytes(data.replace(b"property float opacity", line, 1))
    with pytest.raises(PlyError, match=r"splats\.ply"):
        read_ply(splat_file)


@pytest.mark.parametrize("primitive", ["ellipsoid", "surfel"])
def test_an_independent_reader_agrees(tmp_path: Path, primitive: Primitive) -> None:
    gsply = pytest.importorskip("gsply")
    model = random_model(50, primitive=primitive)
    write_ply(tmp_path / "a.ply", model)
    read = gsply.plyread(str(tmp_path / "a.ply"))
    for key, values in (
        ("means", model.params["means"]),
        ("scales", model.params["scales"]),
        ("opacities", model.params["opacities"]),
        ("sh0", model.params["sh0"][:, 0]),
        ("shN", model.params["shN"]),
    ):
        np.testing.assert_array_equal(getattr(read, key), values.detach().numpy(), key)
    np.testing.assert_allclose(read.quats, model.params["quats"].detach().numpy(), atol=1e-6)
