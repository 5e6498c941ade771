"""Split-sum shading in the native library, as a differentiable function."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from splatir.native.library import NativeLibrary, can_run, num_threads
from splatir.native.library import library as default_library
from splatir.shade.brdf import Masking
from splatir.shade.lobe_energy import split_sum_table
from splatir.shade.prefilter import ROUGHNESS_LEVELS, PrefilteredLight
from splatir.shade.surface import Shading, SurfacePoints


def can_shade_natively(points: SurfacePoints, light: PrefilteredLight) -> bool:
    """Whether `shade_natively` takes these: float32 on the CPU, no gradient to the views."""
    tensors = (*_materials(points), points.normals, points.views, light.specular, light.irradiance)
    return not points.views.requires_grad and can_run(*tensors)


def shade_natively(
    points: SurfacePoints,
    light: PrefilteredLight,
    library: NativeLibrary | None = None,
    masking: Masking = "separable",
) -> Shading:
    """`shade.split_sum.shade_torch` in one pass over the points, and one for the gradients.

    Differentiable in materials, normals and light. Gradients to the light need memory for at most
    eight copies of its maps.

    Args:
        points: float32 on the CPU; views are constants.
        light: As well.
        library: Build of the kernels; the best one by default.
        masking: Smith variant of the specular lobe.

    Raises:
        MemoryError: Memory for the gradients to the light does not suffice.
    """
    views, table = points.views.detach().contiguous(), split_sum_table(points.normals, masking)
    constants = _Constants(views, table, library or default_library())
    diffuse, specular = _SplitSum.apply(
        *_materials(points), points.normals, light.specular, light.irradiance, constants
    )
    return Shading(diffuse, specular)


def _materials(points: SurfacePoints) -> tuple[Tensor, Tensor, Tensor]:
    return points.albedo, points.roughness, points.metallic


@dataclass(frozen=True)
class _Constants:
    views: Float[Tensor, "p 3"]
    table: Float[Tensor, "nodes nodes 2"]
    library: NativeLibrary

    def call(self, name: str, inputs: tuple[Tensor, ...], *others: Tensor | None) -> int:
        """Call a kernel with what both have in common, then its own arrays."""
        albedo, roughness, metallic, normals, specular, irradiance = inputs
        levels = torch.tensor(ROUGHNESS_LEVELS)
        return self.library.call(
            name,
            *(num_threads(), len(normals), normals, self.views, albedo, roughness, metallic),
            *(*specular.shape[:3], *irradiance.shape[:2], levels, specular, irradiance),
            *(len(self.table), self.table, *others),
        )


class _SplitSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        albedo: Tensor,
        roughness: Tensor,
        metallic: Tensor,
        normals: Tensor,
        specular: Tensor,
        irradiance: Tensor,
        constants: _Constants,
    ) -> tuple[Tensor, Tensor]:
        given = (albedo, roughness, metallic, normals, specular, irradiance)
        inputs = tuple(tensor.contiguous() for tensor in given)
        outputs = torch.empty_like(inputs[0]), torch.empty_like(inputs[0])
        constants.call("splatir_split_sum", inputs, *outputs)
        ctx.save_for_backward(*inputs)
        ctx.constants = constants
        return outputs

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, v_diffuse: Tensor, v_specular: Tensor
    ) -> tuple[Tensor | None, ...]:
        inputs: tuple[Tensor, ...] = ctx.saved_tensors
        *_, normals, specular, irradiance = inputs
        v_materials = [torch.empty_like(tensor) for tensor in inputs[:3]]
        v_normals = torch.empty_like(normals) if ctx.needs_input_grad[3] else None
        sizes = [image.numel() for image in (specular, irradiance)]
        wants_light = any(ctx.needs_input_grad[4:6])
        v_texels = specular.new_empty(sum(sizes)) if wants_light else None
        done = ctx.constants.call(
            "splatir_split_sum_backward",
            inputs,
            *(v_diffuse.contiguous(), v_specular.contiguous()),
            *(v_normals, *v_materials, v_texels),
        )
        if not done:
            raise MemoryError(f"not enough memory for the gradients to {sum(sizes)} texel values.")
        v_maps: list[Tensor | None] = [None, None]
        if v_texels is not None:
            v_maps = [
                v.view_as(image)
                for v, image in zip(v_texels.split(sizes), (specular, irradiance), strict=True)
            ]
        return *v_materials, v_normals, *v_maps, None
