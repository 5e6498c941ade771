"""What files keep of baked transport: see `scene.light_transfer`."""

import math

import torch

from splatir.maths.spherical_harmonics import evaluate_basis, num_coefficients
from splatir.scene.light_transfer import (
    BOUNCED_DEGREE,
    VISIBLE_DEGREE,
    LightTransfer,
    cosine_transfer,
)
from splatir.transport.lit import NUM_BOUNCES
from splatir.transport.materials import SurfaceMaterials
from splatir.transport.scene import SceneTransport
from splatir.transport.sums import bounced_irradiance, irradiance


@torch.no_grad()
def light_transfer(scene: SceneTransport, materials: SurfaceMaterials) -> LightTransfer:
    """Project visibility on harmonics, and send each harmonic from Gaussian to Gaussian.

    What occluders take away is summed over the directions of the bake and subtracted from the
    closed form of an open sky, which makes unoccluded Gaussians exact.

    Args:
        scene: What Gaussians see of each other.
        materials: Of the Gaussians.
    """
    visibility = scene.visibility
    cells = visibility.cells
    basis = evaluate_basis(cells.directions, VISIBLE_DEGREE) * cells.solid_angles[:, None]
    lost = []
    for start in range(0, basis.shape[1], 3):
        # The sums take three channels.
        part = basis[:, start : start + 3]
        padded = torch.nn.functional.pad(part, (0, 3 - part.shape[1])).contiguous()
        seen, whole = irradiance(visibility, padded)
        lost.append((whole - seen)[:, : part.shape[1]])
    visible = cosine_transfer(visibility.normals, VISIBLE_DEGREE) - torch.cat(lost, dim=1)
    sent_per_irradiance = materials.total_albedo() / math.pi
    bounced = []
    for direct in visible[:, : num_coefficients(BOUNCED_DEGREE)].unbind(-1):
        direct = direct[:, None].expand(-1, 3)
        indirect = torch.zeros_like(direct)
        for _ in range(NUM_BOUNCES):
            indirect = bounced_irradiance(visibility, sent_per_irradiance * (direct + indirect))
        bounced.append(indirect)
    return LightTransfer(visible, torch.stack(bounced, dim=1))
