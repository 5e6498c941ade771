"""Is the scene painted in few colours?

Photos show the product of paint and light. A wall that is half in a warm sun and half under a blue
sky could as well be painted in two colours; what speaks against that is that both halves would have
needed their own paint. So the entropy of the colours of the whole scene is made small, as Barron
and Malik (Shape, Illumination, and Reflectance from Shading, 2015) do for one picture: shading and
tints that the light can explain leave the paint.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.known_gradient import with_gradient
from splatir.native.library import NativeLibrary, can_run, num_threads
from splatir.native.library import library as default_library
from splatir.render.gbuffer import GBuffer
from splatir.scene.gaussians import GaussianModel

# Colours of pixels that are compared in a step, and of Gaussians that they are compared with.
_NUM_PIXELS, _NUM_GAUSSIANS = 512, 1024
# Coverage from which a pixel shows a surface and nothing behind it.
_SOLID = 0.9
# Differences of log albedo that still count as the same paint (standard deviation), what is added
# to albedo before the logarithm, and the share of other paints that a colour of its own is taken
# for: what is like nothing else is drawn nowhere.
_WIDTH, _DARK, _ALONE = 0.1, 0.02, 1e-3
# Exponent beyond which nothing is alike any more, in float32 beside `_ALONE`.
_FARTHEST = 30.0


def paint_entropy(albedo: Float[Tensor, "p 3"], paints: Float[Tensor, "m 3"]) -> Float[Tensor, ""]:
    """Mean of -log(share of the paints that look like an albedo), by a Gaussian in log albedo.

    Differentiable in the albedo alone. Native, and differentiable once, for float32 on the CPU
    where the library is built, else torch.

    Args:
        albedo: Linear, 0 to 1; at least one.
        paints: Sample of the scene's albedo, likewise.
    """
    if can_run(albedo, paints):
        return paint_entropy_native(albedo, paints)
    return paint_entropy_torch(albedo, paints)


def paint_entropy_torch(
    albedo: Float[Tensor, "p 3"], paints: Float[Tensor, "m 3"]
) -> Float[Tensor, ""]:
    """`paint_entropy` in plain torch: any device and floating dtype, the reference."""
    logs, others = (albedo + _DARK).log(), (paints.detach() + _DARK).log()
    # |a|^2 + |b|^2 - 2 ab: a fifteenth of the time of all differences.
    squares = logs.square().sum(-1, keepdim=True) + others.square().sum(-1)
    squared = (squares - 2.0 * logs @ others.mT).clamp_min(0.0)
    # Exponentials that underflow take thirty times as long.
    alike = (-0.5 / _WIDTH**2 * squared).clamp_min(-_FARTHEST).exp().mean(-1)
    return -(alike + _ALONE).log().mean()


def paint_entropy_native(
    albedo: Float[Tensor, "p 3"],
    paints: Float[Tensor, "m 3"],
    library: NativeLibrary | None = None,
) -> Float[Tensor, ""]:
    """`paint_entropy` in the native library, value and gradient in one pass.

    Args:
        albedo: float32 on the CPU, like the paints.
        paints: As there.
        library: Build of the kernels; the best one by default.

    Raises:
        MemoryError: Scratch memory for a copy of the paints does not suffice.
    """
    logs, others = (albedo + _DARK).log(), (paints.detach() + _DARK).log().contiguous()
    given, value = logs.detach().contiguous(), torch.empty(1, dtype=torch.float64)
    gradient = torch.empty_like(given)
    done = (library or default_library()).call(
        "splatir_paint_entropy",
        *(num_threads(), len(given), len(others), given, others, _WIDTH, _ALONE, value, gradient),
    )
    if not done:
        raise MemoryError(f"not enough memory to compare with {len(others)} paints.")
    return with_gradient(logs, value[0].float(), gradient)


def scene_entropy(
    gbuffer: GBuffer, model: GaussianModel, generator: torch.Generator
) -> Float[Tensor, ""]:
    """`paint_entropy` of pixels of a view among Gaussians of the whole scene; 0 of an empty view.

    Differentiable in the G-buffer's albedo. Gaussians are drawn by their opaque areas. Metal is
    left out: it shows the tints of the light as they are.

    Args:
        gbuffer: Of a view.
        model: Gaussians with materials.
        generator: On the CPU.
    """
    is_painted = (gbuffer.alpha > _SOLID) & (gbuffer.metallic < 0.5)
    solid = is_painted.flatten().nonzero()[:, 0]
    if not len(solid) or not model.num_gaussians:
        return gbuffer.albedo.new_zeros(())
    drawn = torch.randint(len(solid), (_NUM_PIXELS,), generator=generator)
    pixels = gbuffer.albedo.flatten(0, 1).index_select(0, solid[drawn.to(solid.device)])
    with torch.no_grad():
        scales = model.gaussians.scales
        areas = model.opacities * scales.prod(-1) / scales.amin(-1).clamp_min(1e-12)
        areas = ((1.0 - model.material("metallic")) * areas).cpu()
        shares = areas.clamp_max(areas.quantile(0.99)).clamp_min(1e-12)
        who = torch.multinomial(shares, _NUM_GAUSSIANS, replacement=True, generator=generator)
        paints = model.material("albedo")[who.to(solid.device)]
    return paint_entropy(pixels, paints)
