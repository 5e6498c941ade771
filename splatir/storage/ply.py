"""Splat PLY files: what splatir writes for any viewer, and reading its own and others' files.

Layout (that of the original 3DGS code): one `vertex` element of float32, `x y z`, `nx ny nz`,
`f_dc_0..2`, `f_rest_*` channel-major, `opacity` (logit), `scale_0..2` (natural log),
`rot_0..3` (wxyz). Display colour is 0.5 plus the SH expansion, in sRGB. Behind it come the
materials of models that have them: docs/files.md.
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from plyfile import PlyData, PlyElement, PlyElementParseError, PlyListProperty, PlyParseError
from torch import Tensor

from splatir.codecs.atomic import atomic_file
from splatir.maths.frames import similarity_scale
from splatir.maths.rotations import rotation_from_quat
from splatir.scene.gaussians import SURFEL_LOG_THICKNESS, GaussianModel, Primitive
from splatir.scene.light_transfer import LightTransfer
from splatir.scene.transform import transform_model
from splatir.storage.ply_materials import (
    MATERIAL_COMMENT,
    find_layout,
    material_columns,
    read_materials,
)
from splatir.storage.ply_transfer import (
    TRANSFER_COMMENT,
    has_transfer,
    transfer_columns,
    transfer_from,
)

FORMAT_VERSION = 1

# Number of f_rest properties of each spherical-harmonic degree.
_REST_COUNTS = {0: 0, 9: 1, 24: 2, 45: 3, 72: 4}
_MEANS = ("x", "y", "z")
_NORMALS = ("nx", "ny", "nz")
_SH0 = ("f_dc_0", "f_dc_1", "f_dc_2")
_SCALES = ("scale_0", "scale_1", "scale_2")
_QUATS = ("rot_0", "rot_1", "rot_2", "rot_3")
# A header of 72 SH coefficients takes 3 KB; beyond this the file is not a PLY of splats.
_MAX_HEADER_BYTES = 1 << 20


class PlyError(ValueError):
    """A file that holds no readable splats; the message says what is wrong with it."""


def _rest_names(count: int) -> tuple[str, ...]:
    return tuple(f"f_rest_{i}" for i in range(count))


def write_ply(
    path: Path,
    model: GaussianModel,
    S_input_world: Float[Tensor, "4 4"] | None = None,
    comments: Sequence[str] = (),
    transfer: LightTransfer | None = None,
) -> None:
    """Write a model as a PLY that any splat viewer opens; all or nothing.

    Viewers show the radiance; materials, where the model has them, follow as further properties.
    Quaternions are written with unit length. `nx ny nz` is the surfel's axis or the ellipsoid's
    shortest one, with the sign that the axis has: `orient_outwards` turns axes. The third scale
    of surfels, which viewers of ellipsoids need, is exp(-14).

    Args:
        path: File to create or replace.
        model: Gaussians in the world frame.
        S_input_world: Similarity from the world to the frame that the file is to have, usually
            that of the input data; None for the world itself.
        comments: Further header lines, ASCII.
        transfer: How light reaches the Gaussians, world frame; written behind the materials.

    Raises:
        ValueError: The model holds values that are not finite.
        OSError: The file cannot be written; the previous one is unchanged.
    """
    if S_input_world is not None:
        model = transform_model(model, S_input_world)
    columns = _columns_of(model)
    if transfer is not None:
        if S_input_world is not None:
            R_input_world = S_input_world[:3, :3].double() / similarity_scale(S_input_world)
            transfer = transfer.rotated(R_input_world)
        columns |= {key: value.numpy() for key, value in transfer_columns(transfer).items()}
    names = list(columns)
    vertices = np.empty(model.num_gaussians, dtype=[(name, "<f4") for name in names])
    for name, values in columns.items():
        if not np.isfinite(values).all():
            raise ValueError(
                f"cannot write {path}: '{name}' of {np.count_nonzero(~np.isfinite(values))} "
                "Gaussians is not a finite float32. Did training diverge?"
            )
        vertices[name] = values
    header = [
        f"splatir_format {FORMAT_VERSION}",
        f"splatir_primitive {model.primitive}",
        "splatir_colour_space srgb",
        *([" ".join(MATERIAL_COMMENT)] if model.has_materials else []),
        *([" ".join(TRANSFER_COMMENT)] if transfer is not None else []),
        *comments,
    ]
    document = PlyData([PlyElement.describe(vertices, "vertex")], False, "<", comments=header)
    with atomic_file(path) as stream:
        document.write(stream)


def _columns_of(model: GaussianModel) -> dict[str, np.ndarray]:
    """All properties by name, in the file's order, float32."""
    params = {key: value.detach().cpu() for key, value in model.params.items()}
    quats = torch.nn.functional.normalize(params["quats"].double(), dim=-1)
    scales = params["scales"].double()
    if model.primitive == "surfel":
        scales = torch.cat([scales[:, :2], torch.full_like(scales[:, :1], SURFEL_LOG_THICKNESS)], 1)
    axis = scales.argmin(-1)
    normals = torch.take_along_dim(rotation_from_quat(quats), axis[:, None, None], -1)[..., 0]
    rest = params["shN"].transpose(1, 2).flatten(1)
    blocks = [
        (_MEANS, params["means"]),
        (_NORMALS, normals),
        (_SH0, params["sh0"][:, 0]),
        (_rest_names(rest.shape[1]), rest),
        (("opacity",), params["opacities"][:, None]),
        (_SCALES, scales),
        (_QUATS, quats),
    ]
    columns = {name: block[:, i] for names, block in blocks for i, name in enumerate(names)}
    if model.has_materials:
        columns |= material_columns(params)
    with np.errstate(over="ignore"):
        return {name: values.numpy().astype(np.float32) for name, values in columns.items()}


def read_ply(path: Path) -> GaussianModel:
    """Read the splats of a PLY: splatir's, the original 3DGS and 2DGS code's, gsplat's, and kin.

    Properties are found by name, in any order and numeric type, binary of either byte order or
    ASCII; others are ignored. A file without `scale_2` holds surfels, as does one whose
    header says `splatir_primitive surfel`, or says nothing and has splatir's third scale of
    surfels throughout; else they are ellipsoids. Quaternions of zero length
    become the identity. Materials of splatir, R3DG, GS-IR and IRGS are converted; quantities are
    kept 2e-6 away from 0 and 1, whose logits are infinite. Materials under other names are
    ignored with a warning.

    Args:
        path: The file.

    Returns:
        Gaussians in the file's own frame, float32, on the CPU.

    Raises:
        FileNotFoundError: No such file.
        PlyError: Not a PLY, truncated, of another kind (mesh, point cloud, compressed), with
            missing or list properties, values that are not finite, materials outside 0 to 1, or a
            newer splatir format.
    """
    vertex, comments = _read_vertices(path)
    names = {prop.name for prop in vertex.properties}
    said = dict(comment.split(None, 1) for comment in comments if len(comment.split(None, 1)) == 2)
    primitive = _primitive(path, said, names)
    rest_names = _check_names(path, names, num_scales=3 if primitive == "ellipsoid" else 2)

    def block(*wanted: str) -> Tensor:
        return torch.from_numpy(_block(path, vertex, wanted))

    scales = block(*(_SCALES if primitive == "ellipsoid" else _SCALES[:2]))
    if "splatir_primitive" not in said and len(scales) and scales.shape[1] == 3:
        # Converters drop comments; no ellipsoids have splatir's third scale of surfels throughout.
        primitive = "surfel" if bool((scales[:, 2] == SURFEL_LOG_THICKNESS).all()) else primitive
        scales = scales[:, :2] if primitive == "surfel" else scales
    if primitive == "surfel":
        scales = torch.cat([scales, torch.full_like(scales[:, :1], SURFEL_LOG_THICKNESS)], 1)
    quats = block(*_QUATS)
    quats[(quats == 0).all(-1)] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    rest = block(*rest_names).unflatten(1, (3, len(rest_names) // 3)).transpose(1, 2)
    params = {
        "means": block(*_MEANS),
        "quats": quats,
        "scales": scales,
        "opacities": block("opacity")[:, 0],
        "sh0": block(*_SH0)[:, None],
        "shN": rest.contiguous(),
    }
    try:
        layout = find_layout(names, is_splatir="splatir_format" in said)
        if layout is not None:
            params |= read_materials(layout, names, lambda name: block(name)[:, 0])
    except PlyError:
        raise
    except ValueError as error:
        raise PlyError(f"{path}: {error}.") from error
    return GaussianModel(params, primitive)


def read_transfer(path: Path) -> LightTransfer | None:
    """Read how light reaches the splats of a PLY that `write_ply` wrote with a transfer.

    Args:
        path: The file.

    Returns:
        In the file's own frame; None if the file does not have it.

    Raises:
        FileNotFoundError: No such file.
        PlyError: No readable PLY, some of the properties only, or values that are not finite.
    """
    vertex, _ = _read_vertices(path)
    try:
        if not has_transfer({prop.name for prop in vertex.properties}):
            return None
    except ValueError as error:
        raise PlyError(f"{path}: {error}.") from error
    return transfer_from(lambda name: torch.from_numpy(_block(path, vertex, (name,)))[:, 0])


def _read_vertices(path: Path) -> tuple[PlyElement, list[str]]:
    """The `vertex` element and the header's comments, after checks that plyfile does not make."""
    if not path.is_file():
        raise FileNotFoundError(f"no PLY file {path}.")
    is_text = _check_header(path)
    try:
        with path.open("rb") as file:
            # plyfile reads 200k splats in a second from a file, which it maps, but in 26 s
            # from memory; and it never closes a file that it reads as text.
            stream = io.BytesIO(path.read_bytes()) if is_text else file
            document = PlyData.read(stream)
            rest = b"" if stream.closed else stream.read()
    except PlyElementParseError as error:
        raise PlyError(
            f"{path} is truncated or damaged: {error}. Copy it again; its header promises more "
            "than the file holds."
        ) from error
    except (PlyParseError, ValueError, UnicodeDecodeError, OverflowError) as error:
        raise PlyError(f"{path} is no valid PLY: {error}.") from error
    if rest.strip():
        raise PlyError(
            f"{path} holds {len(rest)} bytes more than its header promises "
            f"({document['vertex'].count} splats): the count or the properties are wrong."
        )
    return document["vertex"], [str(comment) for comment in document.comments]


def _check_header(path: Path) -> bool:
    """Refuse what would make plyfile read for long, run out of memory or fail obscurely.

    Returns:
        Whether the values are written as text.
    """
    with path.open("rb") as stream:
        start = stream.read(_MAX_HEADER_BYTES)
    if not re.match(rb"ply\r?\n", start):
        raise PlyError(f"{path} is not a PLY file: it starts with {start[:12]!r}, not 'ply'.")
    end = re.search(rb"^end_header\r?$", start, re.MULTILINE)
    if end is None:
        raise PlyError(f"{path} is no valid PLY: its header has no end, the file may be truncated.")
    elements = re.split(r"^element ", start[: end.start()].decode("latin-1"), flags=re.MULTILINE)
    header = next((text for text in elements[1:] if text.startswith("vertex ")), None)
    if header is None:
        raise PlyError(f"{path} holds no element 'vertex', so no splats.")
    lists = re.findall(r"^property list \S+ \S+ (\S+)", header, re.MULTILINE)
    if lists:
        raise PlyError(
            f"{path}: the properties {lists} of its vertices are lists; splats have single numbers."
        )
    count = re.match(r"vertex (\d+)\s", header)
    # Every value takes a byte or more, so this refuses absurd counts before memory is asked for.
    if count and int(count[1]) * header.count("\nproperty ") > path.stat().st_size:
        raise PlyError(
            f"{path} is truncated or damaged: its header promises {count[1]} splats, "
            f"but the file has {path.stat().st_size} bytes."
        )
    return re.search(rb"^format ascii", start[: end.start()], re.MULTILINE) is not None


def _primitive(path: Path, said: dict[str, str], names: set[str]) -> Primitive:
    version = said.get("splatir_format", "1")
    if not version.isdigit() or int(version) > FORMAT_VERSION:
        raise PlyError(
            f"{path} has splatir format {version}, this splatir reads up to {FORMAT_VERSION}. "
            "Update splatir to open it."
        )
    primitive = said.get("splatir_primitive", "ellipsoid" if "scale_2" in names else "surfel")
    if primitive == "ellipsoid" or primitive == "surfel":
        return primitive
    raise PlyError(f"{path} holds primitives '{primitive}'; known are ellipsoid and surfel.")


def _check_names(path: Path, names: set[str], num_scales: int) -> tuple[str, ...]:
    """Names of the f_rest properties, after checking that everything needed is there."""
    needed = [*_MEANS, *_SH0, "opacity", *_SCALES[:num_scales], *_QUATS]
    missing = [name for name in needed if name not in names]
    if missing:
        hint = "Is it a mesh or a point cloud?"
        if "packed_position" in names:
            hint = "It is a compressed PLY: convert it to a plain one, e.g. with splat-transform."
        raise PlyError(f"{path} is no splat PLY: it lacks the properties {missing}. {hint}")
    count = sum(re.fullmatch(r"f_rest_\d+", name) is not None for name in names)
    if count not in _REST_COUNTS:
        raise PlyError(
            f"{path} has {count} properties f_rest_*; degrees 0 to 4 have {list(_REST_COUNTS)}."
        )
    rest_names = _rest_names(count)
    missing = [name for name in rest_names if name not in names]
    if missing:
        raise PlyError(f"{path}: f_rest_* must be numbered 0 to {count - 1}, {missing} are absent.")
    return rest_names


def _block(
    path: Path, vertex: PlyElement, names: Sequence[str]
) -> Float[np.ndarray, "n properties"]:
    """Columns of the given properties as float32, all finite."""
    block = np.empty((vertex.count, len(names)), dtype=np.float32)
    for i, name in enumerate(names):
        assert not isinstance(vertex.ply_property(name), PlyListProperty)
        with np.errstate(over="ignore"):
            block[:, i] = vertex[name]
        bad = np.count_nonzero(~np.isfinite(block[:, i]))
        if bad:
            raise PlyError(
                f"{path}: property '{name}' is NaN or infinite for {bad} of {vertex.count} splats. "
                "Remove them, e.g. with splat-transform's --filter-nan."
            )
    return block
