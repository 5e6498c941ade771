"""What does Mitsuba 3 see on the ground about a box under a lamp?

The ground is a square in z = 0, the box a cube that stands on its middle, both of one Lambertian
colour.
"""

import mitsuba as mi
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.mitsuba_sphere import batch_of_rays

mi.set_variant("scalar_rgb")

# Height from which rays look straight down.
_ABOVE = 3.0


def ground_radiance(
    positions: Float[Tensor, "p 3"],
    lamp: tuple[float, float, float],
    albedo: float,
    sizes: tuple[float, float],
    num_bounces: int,
    num_samples: int,
) -> Float[Tensor, "p 3"]:
    """Radiance of points of the ground, seen from above, by Mitsuba's path integrator.

    Args:
        positions: On the ground, not under the box.
        lamp: Place of a point light of intensity 1.
        albedo: Of ground and box.
        sizes: Half the sides of the ground and of the box.
        num_bounces: Surfaces between lamp and eye: 1 is direct light.
        num_samples: Paths per point.
    """
    ground, box = sizes
    origins = positions + torch.tensor([0.0, 0.0, _ABOVE])
    towards = torch.tensor([0.0, 0.0, -1.0]).expand_as(positions)
    matt = {"type": "diffuse", "reflectance": {"type": "rgb", "value": [albedo] * 3}}
    lifted = mi.ScalarTransform4f().translate([0.0, 0.0, box])
    scene = mi.load_dict(
        {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": num_bounces + 1},
            "lamp": {
                "type": "point",
                "position": list(lamp),
                "intensity": {"type": "rgb", "value": [1.0] * 3},
            },
            "ground": {
                "type": "rectangle",
                "to_world": mi.ScalarTransform4f().scale([ground, ground, 1.0]),
                "material": matt,
            },
            "box": {
                "type": "cube",
                "to_world": lifted @ mi.ScalarTransform4f().scale([box, box, box]),
                "material": matt,
            },
            "sensor": batch_of_rays(origins, towards, num_samples),
        }
    )
    picture = mi.render(scene, spp=num_samples, seed=mi.UInt32(0))
    return torch.from_numpy(np.array(picture)[0].copy())
