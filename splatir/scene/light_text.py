"""Which light does a word such as `sun:45,30,3,3,3` of the command line mean?"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from splatir.maths.frames import similarity_scale, transform_points
from splatir.scene.edits import parse_numbers
from splatir.scene.lights import DirectionalLight, PointLight

_FORMS = "point:x,y,z,r,g,b or sun:azimuth,elevation,r,g,b"


def parse_light(
    word: str, S_world_input: Float[Tensor, "4 4"], R_world_sky: Float[Tensor, "3 3"]
) -> PointLight | DirectionalLight:
    """A light of the command line, in the world frame.

    `point:x,y,z,r,g,b` shines from a place in the input frame; r, g, b is the irradiance at
    distance 1 there. `sun:azimuth,elevation,r,g,b` comes from a direction of the sky in degrees:
    azimuth from +X towards +Y, elevation above the xy plane; r, g, b is the irradiance of a surface
    that faces it.

    Args:
        word: As above.
        S_world_input: Similarity from the input frame to the world.
        R_world_sky: Rotation from the frame of the sky, in which environment maps are given too.

    Raises:
        ValueError: Another kind, a wrong count of numbers, or negative colours.
    """
    kind, _, text = word.partition(":")
    counts = {"point": 6, "sun": 5}
    if kind not in counts:
        raise ValueError(f"--light takes {_FORMS}, got '{word}'.")
    numbers = parse_numbers(f"--light {kind}", text, counts[kind])
    colour = torch.tensor(numbers[-3:], dtype=torch.float64)
    if float(colour.min()) < 0.0:
        raise ValueError(f"--light {kind}: r,g,b must not be negative, got '{text}'.")
    if kind == "point":
        S = S_world_input.double()
        position = transform_points(S, torch.tensor(numbers[:3], dtype=torch.float64))
        # Irradiance falls with the square of distance, which the world measures in other units.
        return PointLight(position.float(), (colour * similarity_scale(S) ** 2).float())
    azimuth, elevation = math.radians(numbers[0]), math.radians(numbers[1])
    direction = torch.tensor(
        [
            math.cos(elevation) * math.cos(azimuth),
            math.cos(elevation) * math.sin(azimuth),
            math.sin(elevation),
        ],
        dtype=torch.float64,
    )
    return DirectionalLight((R_world_sky.double() @ direction).float(), colour.float())
