"""Transport's sums over directions in the native library, two of them differentiable."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from splatir.native.library import NativeLibrary, can_run, num_threads
from splatir.native.library import library as default_library
from splatir.transport.bake import Visibility

# Directions that a kernel takes at once; arrays over directions are padded to a multiple of this.
_LANES = 16


def can_sum_natively(visibility: Visibility, *tensors: Tensor) -> bool:
    """Whether the sums below take these: float32 on the CPU, visibility a constant.

    Args:
        visibility: Of the Gaussians.
        tensors: Of floats, the other arguments.
    """
    cells = visibility.cells
    constants = (visibility.normals, cells.directions, cells.solid_angles)
    has_hits = visibility.hits.device.type == "cpu" and visibility.hits.dtype == torch.int32
    is_constant = not any(t.requires_grad for t in constants)
    return has_hits and is_constant and can_run(*constants, *tensors)


def irradiance_native(
    visibility: Visibility, light: Float[Tensor, "d 3"], library: NativeLibrary | None = None
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """`transport.sums.irradiance_torch`; differentiable in the light.

    Args:
        visibility: A constant, float32 on the CPU.
        light: As well.
        library: Build of the kernels; the best one by default.

    Raises:
        ValueError: Not one light per direction.
    """
    seen = _Seen.of(visibility, library)
    _require_length("light", light, seen.num_directions, "directions")
    return _Irradiance.apply(light, seen)


def bounced_irradiance_native(
    visibility: Visibility, radiosity: Float[Tensor, "n 3"], library: NativeLibrary | None = None
) -> Float[Tensor, "n 3"]:
    """`transport.sums.bounced_irradiance_torch`; differentiable in the radiosity.

    Gradients need memory for at most eight times four numbers per Gaussian.

    Args:
        visibility: A constant, float32 on the CPU.
        radiosity: As well.
        library: Build of the kernels; the best one by default.

    Raises:
        ValueError: Not one radiosity per Gaussian.
    """
    seen = _Seen.of(visibility, library)
    _require_length("radiosity", radiosity, seen.count, "Gaussians")
    return _BouncedIrradiance.apply(radiosity, seen)


@torch.no_grad()
def specular_sums_native(
    visibility: Visibility,
    who: Int[Tensor, " p"],
    views: Float[Tensor, "p 3"],
    alpha: Float[Tensor, " p"],
    light: Float[Tensor, "d 3"],
    radiosity: Float[Tensor, "n 3"],
    library: NativeLibrary | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The tensors of `transport.sums.SpecularSums` in order, as constants.

    Args:
        visibility: Of all Gaussians, float32 on the CPU, as all that follow.
        who: The Gaussians, by index.
        views: Unit directions towards the viewer.
        alpha: GGX width of each.
        light: Integral of the radiance over each cell.
        radiosity: Radiance that each Gaussian sends out.
        library: Build of the kernels; the best one by default.

    Raises:
        ValueError: Lengths that do not fit together.
        IndexError: `who` names Gaussians that do not exist.
    """
    seen = _Seen.of(visibility, library)
    _require_length("light", light, seen.num_directions, "directions")
    _require_length("radiosity", radiosity, seen.count, "Gaussians")
    if len(who) and not 0 <= int(who.min()) <= int(who.max()) < seen.count:
        raise IndexError(f"who must lie in 0..{seen.count - 1}, got {who.min()}..{who.max()}.")
    sums = [views.new_empty(len(who), channels, 2) for channels in (3, 3, 3, 1)]
    seen.call(
        "splatir_specular_sums",
        *(seen.solid_angles, _rows(light), _four(radiosity)),
        *(len(who), who.contiguous(), views.contiguous(), alpha.contiguous()),
        *sums,
    )
    sky, unoccluded, bounced, white = sums
    return sky, unoccluded, bounced, white


def _require_length(name: str, tensor: Tensor, count: int, what: str) -> None:
    if tensor.shape != (count, 3):
        raise ValueError(
            f"{name} must have shape [{count}, 3] for {count} {what}, got {list(tensor.shape)}."
        )


def _rows(values: Float[Tensor, "d c"]) -> Float[Tensor, "c padded"]:
    """Channels as rows, padded with zeros."""
    padding = -len(values) % _LANES
    return torch.nn.functional.pad(values.detach().mT, (0, padding)).contiguous()


def _four(values: Float[Tensor, "n 3"]) -> Float[Tensor, "n 4"]:
    return torch.nn.functional.pad(values.detach(), (0, 1)).contiguous()


@dataclass(frozen=True)
class _Seen:
    """A visibility as the kernels take it."""

    hits: Int[Tensor, "n d"]
    normals: Float[Tensor, "n 3"]
    directions: Float[Tensor, "3 padded"]
    solid_angles: Float[Tensor, "1 padded"]
    library: NativeLibrary

    @classmethod
    def of(cls, visibility: Visibility, library: NativeLibrary | None) -> "_Seen":
        cells = visibility.cells
        return cls(
            visibility.hits.contiguous(),
            visibility.normals.detach().contiguous(),
            _rows(cells.directions),
            _rows(cells.solid_angles[:, None]),
            library or default_library(),
        )

    @property
    def count(self) -> int:
        return self.hits.shape[0]

    @property
    def num_directions(self) -> int:
        return self.hits.shape[1]

    def call(self, name: str, *others: Tensor | int) -> int:
        """Call a kernel with what all have in common, then its own arguments."""
        seen = (*self.hits.shape, self.hits, self.normals, self.directions)
        return self.library.call(name, num_threads(), *seen, *others)


class _Irradiance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, light: Tensor, seen: _Seen) -> tuple[Tensor, Tensor]:
        visible, unoccluded = torch.empty_like(seen.normals), torch.empty_like(seen.normals)
        seen.call("splatir_irradiance", _rows(light), visible, unoccluded)
        ctx.seen = seen
        return visible, unoccluded

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, v_visible: Tensor, v_unoccluded: Tensor
    ) -> tuple[Tensor, None]:
        seen: _Seen = ctx.seen
        v_light = torch.empty_like(seen.directions)
        gradients = v_visible.contiguous(), v_unoccluded.contiguous()
        if not seen.call("splatir_irradiance_backward", *gradients, v_light):
            raise MemoryError("not enough memory for the gradients to the light of the cells.")
        return v_light[:, : seen.num_directions].mT, None


class _BouncedIrradiance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, radiosity: Tensor, seen: _Seen) -> Tensor:
        irradiance = torch.empty_like(seen.normals)
        arguments = seen.solid_angles, _four(radiosity), irradiance
        seen.call("splatir_bounced_irradiance", *arguments)
        ctx.seen = seen
        return irradiance

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, v_irradiance: Tensor
    ) -> tuple[Tensor, None]:
        seen: _Seen = ctx.seen
        v_radiosity = v_irradiance.new_empty(seen.count, 4)
        arguments = seen.solid_angles, v_irradiance.contiguous(), v_radiosity
        if not seen.call("splatir_bounced_irradiance_backward", *arguments):
            raise MemoryError(f"not enough memory for the gradients of {seen.count} Gaussians.")
        return v_radiosity[:, :3], None
