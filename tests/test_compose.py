"""`splatir compose`: objects and meshes stand where they were put, in the scene's light."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from splatir.commands.main import main
from splatir.maths.colour import linear_from_srgb
from splatir.maths.frames import invert_similarity, similarity_scale, transform_points
from splatir.scene.gaussians import GaussianModel
from splatir.scene.joining import joined_models
from splatir.scene.mesh import TriangleMesh, sample_mesh
from splatir.scene.normals import normal_axes
from splatir.storage.mesh import MeshError, read_mesh
from splatir.train.composed_run import write_composed_run
from splatir.train.finished import FinishedRun, load_run
from splatir.train.run_folder import RunFolder
from tests.faults import the_error
from tests.lit_runs import RADIUS, sphere, sphere_run
from tests.solids import model_of
from tests.solids import sphere as solid_sphere

# A cube from 0 to 1; quads wound outwards.
CORNERS = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
QUADS = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]


@pytest.fixture
def scene(tmp_path: Path) -> FinishedRun:
    """A run on the disk, of a ball about the origin of its capture."""
    found = sphere_run(tmp_path / "scene")
    return stored(tmp_path / "scene" / "run", found, found.model)


def stored(root: Path, base: FinishedRun, model: GaussianModel) -> FinishedRun:
    root.mkdir(parents=True, exist_ok=True)
    settings = replace(base.settings, stages=("radiance", "materials"))
    write_composed_run(RunFolder(root), replace(base, settings=settings), model, {})
    return load_run(root, torch.device("cpu"))


def input_means(run: FinishedRun) -> torch.Tensor:
    return transform_points(invert_similarity(run.S_world_input), run.model.means.detach().double())


def write_cube_ply(path: Path, flipped: bool = False) -> Path:
    lines = ["ply", "format ascii 1.0", "element vertex 8"]
    lines += [f"property float {axis}" for axis in "xyz"]
    lines += [f"property uchar {colour}" for colour in ("red", "green", "blue")]
    lines += ["element face 6", "property list uchar int vertex_indices", "end_header"]
    lines += [f"{x} {y} {z} 188 128 0" for x, y, z in CORNERS]
    lines += ["4 " + " ".join(map(str, q[::-1] if flipped else q)) for q in QUADS]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_an_object_stands_with_its_foot_at_the_place(scene: FinishedRun, tmp_path: Path) -> None:
    root, out = str(scene.folder.root), tmp_path / "both"
    words = ["--at", "2,-1,0.5", "--scale", "0.5", "--rotate", "30", "--output", str(out)]
    assert main(["compose", root, root, *words]) == 0
    both = load_run(out, torch.device("cpu"))
    count = scene.model.num_gaussians
    assert both.model.num_gaussians == 2 * count
    for key, value in scene.model.params.items():
        assert torch.equal(both.model.params[key][:count], value), key
    for key in ("albedo", "roughness", "metallic", "opacities"):
        assert torch.equal(both.model.params[key][count:], scene.model.params[key]), key
    low, high = input_means(both)[count:].aminmax(dim=0)
    middle = torch.tensor([2.0, -1.0, 0.5 + 0.5 * RADIUS]).double()
    assert torch.allclose(0.5 * (low + high), middle, atol=0.02)
    assert torch.allclose(high - low, torch.full((3,), RADIUS).double(), atol=0.02)
    shrunk = both.model.params["scales"][count:, :2] - scene.model.params["scales"][:, :2]
    assert torch.allclose(shrunk, torch.full_like(shrunk, math.log(0.5)), atol=1e-5)
    assert both.light is not None and scene.light is not None
    assert torch.allclose(both.light.radiance, scene.light.radiance)
    record = json.loads((out / "composed.json").read_text())
    assert record["num_scene"] == count and record["at"] == [2.0, -1.0, 0.5]


def test_normals_and_view_dependent_colour_turn_with_the_object(
    scene: FinishedRun, tmp_path: Path
) -> None:
    model = scene.model
    params = {key: value.detach().clone() for key, value in model.params.items()}
    params["shN"] = torch.zeros(model.num_gaussians, 3, 3)
    # Band 1 is (-y, z, -x): brighter towards +X.
    params["shN"][:, 2] = -1.0
    turned = stored(tmp_path / "turned", scene, GaussianModel(params, model.primitive))
    words = [str(scene.folder.root), str(turned.folder.root), "--at", "3,0,0", "--rotate", "90"]
    assert main(["compose", *words, "--output", str(tmp_path / "both")]) == 0
    both = load_run(tmp_path / "both", torch.device("cpu")).model
    count = model.num_gaussians
    assert both.sh_degree == 1 and bool((both.params["shN"][:count] == 0.0).all())
    # Now towards +Y.
    expected = torch.zeros(count, 3, 3)
    expected[:, 0] = -1.0
    assert torch.allclose(both.params["shN"][count:], expected, atol=1e-5)
    before, after = (normal_axes(m.gaussians) for m in (model, both))
    quarter = torch.stack([-before[:, 1], before[:, 0], before[:, 2]], dim=-1)
    assert torch.allclose(after[count:], quarter, atol=1e-5)


def test_a_composed_run_renders_and_relights(scene: FinishedRun, tmp_path: Path) -> None:
    mesh = write_cube_ply(tmp_path / "cube.ply")
    out = str(tmp_path / "both")
    words = ["--at", "0,0,0.9", "--scale", "0.5", "--output", out]
    assert main(["compose", str(scene.folder.root), str(mesh), *words]) == 0
    both = load_run(Path(out), torch.device("cpu"))
    few = GaussianModel(
        {key: torch.cat([value[:400], value[400::50]]) for key, value in both.model.params.items()},
        both.model.primitive,
    )
    few.params["scales"].data[400:] += math.log(50.0) / 2.0
    stored(Path(out), both, few)
    light = ["--light", "sun:90,30,3,3,3", "--format", "npz", "--output"]
    assert main(["relight", str(scene.folder.root), *light, str(tmp_path / "a")]) == 0
    assert main(["relight", out, *light, str(tmp_path / "b")]) == 0
    alone, together = (dict(np.load(tmp_path / name / "r_0.npz")) for name in ("a", "b"))
    assert together["alpha"].sum() > 1.1 * alone["alpha"].sum()
    assert main(["info", out]) == 0


def test_a_mesh_becomes_points_on_its_faces_facing_out(tmp_path: Path) -> None:
    for flipped in (False, True):
        mesh = read_mesh(write_cube_ply(tmp_path / "cube.ply", flipped))
        assert mesh.faces.shape == (12, 3)
        samples = sample_mesh(mesh, 3000)
        centred = samples.positions - 0.5
        assert torch.allclose(centred.abs().amax(-1), torch.tensor(0.5), atol=1e-5)
        assert ((centred * samples.normals).sum(-1) > 0.49).all()
        assert samples.spacings[0].item() == pytest.approx(math.sqrt(6.0 / 3000))
        expected = linear_from_srgb(torch.tensor([188.0, 128.0, 0.0]) / 255.0)
        assert torch.allclose(samples.albedo, expected.expand(3000, 3), atol=1e-5)
        # All six sides get their share.
        sides = (samples.normals > 0.5).sum(0).tolist() + (samples.normals < -0.5).sum(0).tolist()
        assert min(sides) > 480 and max(sides) < 520


def test_obj_counts_from_one_and_from_behind(tmp_path: Path) -> None:
    lines = [f"v {x} {y} {z} 1 0.5 0" for x, y, z in CORNERS]
    lines += ["vt 0 0", "# a comment", "f 1/1 2/1 4/1 3/1", "f -4 -2 -1 -3"]
    (tmp_path / "a.obj").write_text("\n".join(lines))
    mesh = read_mesh(tmp_path / "a.obj")
    assert mesh.faces.tolist() == [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5]]
    assert mesh.colours_srgb[0].tolist() == [1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.obj", "v 0 0\n", "line 1: a vertex needs three"),
        ("a.obj", "v 0 0 0\nf 1 2 3\n", "vertices that it does not have"),
        ("a.obj", "v 0 0 0\nv 1 0 0\n", "no faces"),
        ("a.obj", "v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "not finite"),
        ("a.ply", "ply\nformat ascii 1.0\n", "no readable PLY mesh"),
        ("a.ply", "", "no readable PLY mesh"),
        ("a.stl", "solid", ".ply or .obj"),
    ],
)
def test_broken_meshes_say_what_is_wrong(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(MeshError, match=said):
        read_mesh(tmp_path / name)


def test_a_mesh_without_area_is_refused() -> None:
    flat = TriangleMesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]), torch.ones(3, 3))
    with pytest.raises(ValueError, match="no area"):
        sample_mesh(flat, 10)


def test_models_of_different_shape_join_in_that_of_the_first() -> None:
    ball = solid_sphere(1.0, 50)
    surfels, S = model_of(ball), torch.eye(4)
    ellipsoids = GaussianModel(dict(surfels.params.items()), "ellipsoid")
    # Their shortest axis is the first one.
    ellipsoids.params["scales"].data = ellipsoids.params["scales"].data.roll(1, -1)
    assert similarity_scale(S) == 1.0
    for first, second in ((surfels, ellipsoids), (ellipsoids, surfels)):
        both = joined_models(first, second)
        assert both.primitive == first.primitive
        normals = normal_axes(both.gaussians)
        assert torch.allclose(normals[:50], normal_axes(first.gaussians), atol=1e-6)
        alike = (normals[50:] * normal_axes(second.gaussians)).sum(-1)
        assert torch.allclose(alike, torch.ones(50), atol=1e-5)
        sizes = both.scales[50:].sort(-1).values[:, 1:]
        assert torch.allclose(sizes, second.scales.sort(-1).values[:, 1:], rtol=1e-5)


def test_only_one_model_with_materials_is_refused() -> None:
    eye = torch.eye(4, dtype=torch.float64)
    with pytest.raises(ValueError, match="materials"):
        joined_models(sphere(eye), sphere(eye, with_materials=False))


def test_faults_end_in_one_sentence(
    scene: FinishedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(scene.folder.root)
    full = tmp_path / "full"
    full.mkdir()
    (full / "a.txt").write_text("mine")
    cases = {
        "--at x,y,z": ["compose", root, root],
        "3 numbers": ["compose", root, root, "--at", "1,2"],
        "no run folder": ["compose", root, str(tmp_path / "none"), "--at", "0,0,0"],
        "no mesh": ["compose", root, str(tmp_path / "none.obj"), "--at", "0,0,0"],
        "not empty": ["compose", root, root, "--at", "0,0,0", "--output", str(full)],
        "scale": ["compose", root, root, "--at", "0,0,0", "--scale", "0"],
    }
    for said, words in cases.items():
        capsys.readouterr()
        assert main(words) in (1, 2)
        printed = capsys.readouterr()
        assert said in the_error(printed.err, printed.out), said
    assert (full / "a.txt").read_text() == "mine"
