"""How much does a buffer vary where the photo does not?"""

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.known_gradient import with_gradient
from splatir.native.library import NativeLibrary, can_run, num_threads
from splatir.native.library import library as default_library


def edge_aware_variation(
    values: Float[Tensor, "height width channels"],
    photo: Float[Tensor, "height width 3"],
    alpha: Float[Tensor, "height width 1"],
    sharpness: Float[Tensor, "height width 1"],
) -> Float[Tensor, ""]:
    """Mean over the frame of |difference of neighbours| exp(-sharpness |difference of photo|).

    Differentiable in the values only, once. Native for float32 on the CPU where the library is
    built, else torch.

    Args:
        values: Buffer that should be smooth; channels are averaged.
        photo: Where it has edges, so may the buffer; channels are averaged.
        alpha: Neighbours count by the smaller coverage of the two.
        sharpness: How small a difference of display values already counts as an edge; the smaller
            of two neighbours counts.

    Raises:
        ValueError: The images differ in size or are empty.
    """
    if can_run(values, photo, alpha, sharpness):
        return edge_aware_variation_native(values, photo, alpha, sharpness)
    return edge_aware_variation_torch(values, photo, alpha, sharpness)


def edge_aware_variation_torch(
    values: Float[Tensor, "height width channels"],
    photo: Float[Tensor, "height width 3"],
    alpha: Float[Tensor, "height width 1"],
    sharpness: Float[Tensor, "height width 1"],
) -> Float[Tensor, ""]:
    """`edge_aware_variation` in plain torch: any device and floating dtype, the reference."""
    _check_sizes(values, photo, alpha, sharpness)
    images = [image.detach() for image in (values, photo, alpha, sharpness)]
    total, gradient = values.new_zeros(()), torch.zeros_like(images[0])
    for axis in (0, 1):
        size = values.shape[axis]
        ahead, behind = (
            [image.narrow(axis, start, size - 1) for image in images] for start in (1, 0)
        )
        edge = (ahead[1] - behind[1]).abs().mean(-1, keepdim=True)
        weight = (-edge * torch.minimum(ahead[3], behind[3])).exp()
        weight = weight * torch.minimum(ahead[2], behind[2])
        difference = ahead[0] - behind[0]
        slope = difference.sign() * weight
        gradient.narrow(axis, 1, size - 1).add_(slope)
        gradient.narrow(axis, 0, size - 1).sub_(slope)
        total = total + (difference * slope).sum()
    return with_gradient(values, total / values.numel(), gradient / values.numel())


def edge_aware_variation_native(
    values: Float[Tensor, "height width channels"],
    photo: Float[Tensor, "height width 3"],
    alpha: Float[Tensor, "height width 1"],
    sharpness: Float[Tensor, "height width 1"],
    library: NativeLibrary | None = None,
) -> Float[Tensor, ""]:
    """`edge_aware_variation` in the native library, value and gradient in one pass.

    Args:
        values: float32 on the CPU, like the other images.
        photo: As there.
        alpha: As there.
        sharpness: As there.
        library: Build of the kernels; the best one by default.

    Raises:
        ValueError: As there.
        MemoryError: Scratch memory (some rows per thread) does not suffice.
    """
    _check_sizes(values, photo, alpha, sharpness)
    images = [image.detach().contiguous() for image in (values, photo, alpha, sharpness)]
    value, gradient = torch.empty(1, dtype=torch.float64), torch.empty_like(images[0])
    library = library or default_library()
    sizes = (num_threads(), *values.shape)
    if not library.call("splatir_edge_aware", *sizes, *images, value, gradient):
        raise MemoryError(f"not enough memory for the variation of {tuple(values.shape)} values.")
    return with_gradient(values, value[0].float(), gradient)


def _check_sizes(values: Tensor, photo: Tensor, alpha: Tensor, sharpness: Tensor) -> None:
    size = tuple(values.shape[:2])
    shapes = [tuple(image.shape) for image in (photo, alpha, sharpness)]
    if shapes != [(*size, 3), (*size, 1), (*size, 1)] or values.numel() == 0:
        raise ValueError(
            "photo, alpha and sharpness must have the size of values, which are not empty, got "
            f"{shapes} for {tuple(values.shape)}."
        )
