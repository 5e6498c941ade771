"""Which properties of a splat PLY say how light reaches each splat?

They are splatir's own, docs/files.md has their meaning; other programs read over them.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.scene.light_transfer import LightTransfer

# Written in the header of a file that has them, as a key and its value.
TRANSFER_COMMENT = ("splatir_transfer", "shadow sh3 bounce sh2")
SHADOW_NAMES = tuple(f"shadow_{i}" for i in range(16))
# All of red first, then green, then blue, as `f_rest` has it.
BOUNCE_NAMES = tuple(f"bounce_{i}" for i in range(27))


def transfer_columns(transfer: LightTransfer) -> dict[str, Float[Tensor, " n"]]:
    """Properties by name, in the file's order.

    Args:
        transfer: In the file's frame.
    """
    bounced = transfer.bounced.transpose(1, 2).flatten(1)
    values = torch.cat([transfer.visible, bounced], dim=1).detach().cpu()
    return dict(zip((*SHADOW_NAMES, *BOUNCE_NAMES), values.unbind(-1), strict=True))


def has_transfer(names: set[str]) -> bool:
    """Whether a file has them all.

    Args:
        names: All properties.

    Raises:
        ValueError: It has some only.
    """
    wanted = {*SHADOW_NAMES, *BOUNCE_NAMES}
    missing = wanted - names
    if missing and wanted & names:
        raise ValueError(
            f"it has {len(wanted & names)} of the {len(wanted)} properties shadow_* and bounce_*, "
            f"but lacks {sorted(missing)[:4]}"
        )
    return not missing


def transfer_from(column: Callable[[str], Float[Tensor, " n"]]) -> LightTransfer:
    """Put the properties together; in the file's frame.

    Args:
        column: Values of a property.
    """
    visible = torch.stack([column(name) for name in SHADOW_NAMES], dim=-1)
    bounced = torch.stack([column(name) for name in BOUNCE_NAMES], dim=-1)
    return LightTransfer(visible, bounced.unflatten(1, (3, 9)).transpose(1, 2).contiguous())
