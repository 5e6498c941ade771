"""How unevenly do normals turn from pixel to pixel?"""

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.known_gradient import with_gradient
from splatir.native.library import NativeLibrary, can_run, num_threads
from splatir.native.library import library as default_library

# Below this length a second difference counts by its square: noise of that size is none.
_SOFT = 1e-3
# Jump of depth, in widths of a pixel there, that lets normals jump too.
_JUMP = 3.0
_MIN_DEPTH = 1e-9


def bending(
    normals: Float[Tensor, "height width 3"],
    alpha: Float[Tensor, "height width 1"],
    depth: Float[Tensor, "height width 1"],
    focal: float,
) -> Float[Tensor, ""]:
    """Sum over rows and columns of the lengths of second differences, per pixel of the frame.

    What changes evenly, as the normals of a round surface nearly do, costs nothing; noise, steps
    and ridges do. (First differences, the total variation, would rather have steps than slopes.)
    Where one surface hides another, and less so at a crease, normals may jump: there inverse depth,
    which is linear on a plane, does not go on as it came. Differentiable in the normals only.
    Native, and differentiable once, for float32 on the CPU where the library is built, else torch.

    Args:
        normals: Buffer.
        alpha: Three neighbours count by the smallest coverage among them.
        depth: Camera z, scene units; 0 where nothing is covered.
        focal: Focal length, pixels.

    Raises:
        ValueError: The buffers differ in size or are empty.
    """
    if can_run(normals, alpha, depth):
        return bending_native(normals, alpha, depth, focal)
    return bending_torch(normals, alpha, depth, focal)


def bending_torch(
    normals: Float[Tensor, "height width 3"],
    alpha: Float[Tensor, "height width 1"],
    depth: Float[Tensor, "height width 1"],
    focal: float,
) -> Float[Tensor, ""]:
    """`bending` in plain torch: any device and floating dtype, the reference."""
    _check_sizes(normals, alpha, depth)
    total = normals.new_zeros(())
    depth = depth.detach()[..., 0].clamp_min(_MIN_DEPTH)
    nearness, cover = depth.reciprocal(), alpha.detach()[..., 0]
    for axis in (0, 1):
        if normals.shape[axis] < 3:
            continue
        jump = focal * _triples(depth, axis)[1] * _second_difference(nearness, axis).abs()
        weight = torch.stack(_triples(cover, axis)).amin(0) * (-jump / _JUMP).exp()
        squared = _second_difference(normals, axis).square().sum(-1)
        total = total + (weight * ((squared + _SOFT**2).sqrt() - _SOFT)).sum()
    return total / alpha.numel()


def bending_native(
    normals: Float[Tensor, "height width 3"],
    alpha: Float[Tensor, "height width 1"],
    depth: Float[Tensor, "height width 1"],
    focal: float,
    library: NativeLibrary | None = None,
) -> Float[Tensor, ""]:
    """`bending` in the native library, value and gradient in one pass.

    Args:
        normals: float32 on the CPU, like the other buffers.
        alpha: As there.
        depth: As there.
        focal: As there.
        library: Build of the kernels; the best one by default.

    Raises:
        ValueError: As there.
        MemoryError: Scratch memory (some rows per thread) does not suffice.
    """
    _check_sizes(normals, alpha, depth)
    buffers = [buffer.detach().contiguous() for buffer in (normals, alpha, depth)]
    value, gradient = torch.empty(1, dtype=torch.float64), torch.empty_like(buffers[0])
    height, width, _ = normals.shape
    done = (library or default_library()).call(
        "splatir_bending",
        *(num_threads(), height, width, *buffers),
        *(float(focal), _JUMP, _SOFT, _MIN_DEPTH, value, gradient),
    )
    if not done:
        raise MemoryError(f"not enough memory for the bending of {width} x {height} normals.")
    return with_gradient(normals, value[0].float(), gradient)


def _check_sizes(normals: Tensor, alpha: Tensor, depth: Tensor) -> None:
    size = tuple(normals.shape[:2])
    shapes = [tuple(buffer.shape) for buffer in (normals, alpha, depth)]
    if shapes != [(*size, 3), (*size, 1), (*size, 1)] or normals.numel() == 0:
        raise ValueError(
            "normals, alpha and depth must have one size, with 3, 1 and 1 channels, and not be "
            f"empty, got {shapes}."
        )


def _triples(image: Tensor, axis: int) -> list[Tensor]:
    """Each pixel's predecessor, itself and its successor, where it has both."""
    return [image.narrow(axis, start, image.shape[axis] - 2) for start in range(3)]


def _second_difference(image: Tensor, axis: int) -> Tensor:
    before, here, after = _triples(image, axis)
    return before - 2.0 * here + after
