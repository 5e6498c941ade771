"""Triangle meshes with vertex colours: reading PLY and OBJ files."""

from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElementParseError, PlyParseError

from splatir.scene.mesh import TriangleMesh

MESH_SUFFIXES = (".ply", ".obj")
# Of meshes without colours.
_GREY = 0.5


class MeshError(ValueError):
    """A file that holds no usable mesh; the message says what is wrong with it."""


def read_mesh(path: Path) -> TriangleMesh:
    """Read a mesh; polygons become fans of triangles, meshes without colours are grey.

    PLY: `x y z`, and `red green blue` as bytes or as parts of 1, in sRGB. OBJ: `v x y z` with
    `r g b` behind, in parts of 1; textures and materials are not read.

    Args:
        path: .ply or .obj file.

    Raises:
        FileNotFoundError: No such file.
        MeshError: Another kind of file, broken, or without faces.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no mesh {path}.")
    if path.suffix.lower() == ".ply":
        vertices, colours, polygons = _read_ply(path)
    elif path.suffix.lower() == ".obj":
        vertices, colours, polygons = _read_obj(path)
    else:
        raise MeshError(f"{path}: a mesh is a .ply or .obj file.")
    fans = [np.stack([p[i] for i in (0, k, k + 1)]) for p in polygons for k in range(1, len(p) - 1)]
    if not fans:
        raise MeshError(f"{path} has no faces, so it is no mesh (splats and points have none).")
    faces = np.stack(fans).astype(np.int64)
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise MeshError(f"{path} has faces of vertices that it does not have.")
    if not np.isfinite(vertices).all() or not np.isfinite(colours).all():
        raise MeshError(f"{path} has coordinates or colours that are not finite.")
    return TriangleMesh(
        torch.from_numpy(vertices.astype(np.float32)),
        torch.from_numpy(faces),
        torch.from_numpy(colours.clip(0.0, 1.0).astype(np.float32)),
    )


def _read_ply(path: Path) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    try:
        ply = PlyData.read(str(path))
        vertex = ply["vertex"]
        vertices = np.stack([vertex[axis] for axis in "xyz"], axis=-1).astype(np.float64)
        names = [p.name for p in vertex.properties]
        colours = np.full_like(vertices, _GREY)
        if all(name in names for name in ("red", "green", "blue")):
            found = np.stack([vertex[name] for name in ("red", "green", "blue")], axis=-1)
            scale = 255.0 if found.dtype.kind in "iu" else 1.0
            colours = found.astype(np.float64) / scale
        if "face" not in ply:
            return vertices, colours, []
        lists = [p.name for p in ply["face"].properties if p.name.startswith("vertex_ind")]
        polygons = [np.asarray(polygon) for polygon in ply["face"][lists[0]]] if lists else []
    except (
        PlyParseError,
        PlyElementParseError,
        KeyError,
        ValueError,
        UnicodeDecodeError,
        MemoryError,
        OverflowError,
    ) as error:
        raise MeshError(f"{path} is no readable PLY mesh: {error}") from error
    return vertices, colours, polygons


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    vertices: list[list[float]] = []
    polygons: list[np.ndarray] = []
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        try:
            if words[:1] == ["v"]:
                values = [float(word) for word in words[1:]]
                if len(values) < 3:
                    raise ValueError("a vertex needs three coordinates")
                # Four are x y z w.
                colour = values[3:6] if len(values) >= 6 else [_GREY] * 3
                vertices.append(values[:3] + colour)
            elif words[:1] == ["f"]:
                corners = [int(word.split("/")[0]) for word in words[1:]]
                # Negative numbers count from the newest vertex back.
                polygons.append(np.array([c - 1 if c > 0 else len(vertices) + c for c in corners]))
        except ValueError as error:
            raise MeshError(f"{path}, line {number}: {error}.") from error
    table = np.array(vertices, dtype=np.float64).reshape(-1, 6)
    return table[:, :3], table[:, 3:], polygons
