"""Which Gaussian does a ray hit first? Answered by Embree, through embreex, in threads."""

from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from splatir.native.library import num_threads
from splatir.transport.occluder import Occluder

# What a ray reports that hits nothing.
FREE = -1
# Rays handed to a thread at once, at most and at least.
_MAX_CHUNK, _MIN_CHUNK = 1 << 17, 1 << 10
# A ray goes on behind what lets it through by this part of the distance that may be let through.
_STEP = 1e-4
# Polygons that one ray may pass through; after that it counts as free.
_MAX_PASSES = 32


@runtime_checkable
class RayTracer(Protocol):
    """Traces rays against an occluder."""

    def first_hits(
        self,
        origins: Float[Tensor, "r 3"],
        directions: Float[Tensor, "r 3"],
        back_reach: Float[Tensor, " r"],
        reach: Float[Tensor, " r"] | None = None,
    ) -> Int[Tensor, " r"]:
        """The Gaussian that each ray hits first, or `FREE`.

        Args:
            origins: World frame.
            directions: Unit.
            back_reach: Backs of polygons nearer than this let the ray through, scene units.
            reach: Hits beyond this distance do not count, scene units; none by default.
        """
        ...


class EmbreeTracer:
    """Rays against triangles by Embree; CPU, the same hits for any number of threads."""

    def __init__(self, occluder: Occluder) -> None:
        """Build the acceleration structure.

        Args:
            occluder: Copied to the CPU.

        Raises:
            ImportError: embreex is not installed.
        """
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        self._owners = occluder.owners.cpu().numpy()
        # About the middle of the scene, float32 resolves its splats wherever it lies.
        self._middle = middle_of(occluder).cpu().numpy()
        self._centres = occluder.centres.float().cpu().numpy() - self._middle
        self._normals = occluder.normals.float().cpu().numpy()
        self._scene = EmbreeScene()
        self._is_empty = len(self._owners) == 0
        if not self._is_empty:
            vertices = _array(occluder.vertices) - self._middle
            faces = np.ascontiguousarray(occluder.faces.to(torch.int32).cpu().numpy())
            self._mesh = TriangleMesh(self._scene, vertices, faces)
            # The structure is built by the first ray; threads must find it ready.
            self._scene.run(vertices[:1], np.array([[0.0, 0.0, 1.0]], dtype=np.float32))

    def first_hits(
        self,
        origins: Float[Tensor, "r 3"],
        directions: Float[Tensor, "r 3"],
        back_reach: Float[Tensor, " r"],
        reach: Float[Tensor, " r"] | None = None,
    ) -> Int[Tensor, " r"]:
        """See `RayTracer.first_hits`."""
        count = len(origins)
        hits = np.full(count, FREE, dtype=np.int32)
        starts, towards = _array(origins) - self._middle, _array(directions)
        backs = _array(back_reach)
        far = np.full(count, np.inf, dtype=np.float32) if reach is None else _array(reach)

        threads = num_threads()
        chunk = min(max(-(-count // threads), _MIN_CHUNK), _MAX_CHUNK)

        def trace(start: int) -> None:
            part = slice(start, start + chunk)
            hits[part] = self._trace(starts[part], towards[part], backs[part], far[part])

        if not self._is_empty:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(trace, range(0, count, chunk)))
        return torch.from_numpy(hits).to(origins.device)

    def _trace(
        self, origins: np.ndarray, directions: np.ndarray, back_reach: np.ndarray, far: np.ndarray
    ) -> np.ndarray:
        """Hits of some rays; those that meet a near back start again behind it."""
        hits = np.full(len(origins), FREE, dtype=np.int32)
        waiting = np.arange(len(origins))
        starts, travelled = origins, np.zeros(len(origins), dtype=np.float32)
        for _ in range(_MAX_PASSES):
            faces = self._scene.run(starts, directions[waiting])
            met = np.flatnonzero(faces >= 0)
            owners, which = self._owners[faces[met]], waiting[met]
            normals, towards = self._normals[owners], directions[which]
            steepness = (normals * towards).sum(-1)
            distance = (normals * (self._centres[owners] - origins[which])).sum(-1)
            distance = distance / np.where(steepness == 0.0, 1e-9, steepness)
            distance = np.maximum(distance, travelled[met])
            passes = (steepness > 0.0) & (distance < back_reach[which])
            counts = ~passes & (distance < far[which])
            hits[which[counts]] = owners[counts]
            if not passes.any():
                break
            waiting = which[passes]
            travelled = distance[passes] + _STEP * back_reach[waiting]
            starts = origins[waiting] + travelled[:, None] * directions[waiting]
        return hits


def middle_of(occluder: Occluder) -> Float[Tensor, " 3"]:
    """Mean of the Gaussians' centres, float32; 0 where there are none.

    Args:
        occluder: Of any Gaussians.
    """
    return occluder.centres.double().sum(0).div(max(len(occluder.centres), 1)).float()


def _array(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().float().cpu().numpy())
