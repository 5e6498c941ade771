"""Operations whose gradient stays finite where their value is defined by convention."""

from jaxtyping import Float
from torch import Tensor

# Square of the length below which a vector has no direction.
_MIN_SQUARED = 1e-20


def safe_normalise(vectors: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
    """Unit vectors; those shorter than 1e-10 become 0, with zero gradient."""
    squared = vectors.square().sum(-1, keepdim=True)
    is_degenerate = squared <= _MIN_SQUARED
    unit = vectors * squared.masked_fill(is_degenerate, 1.0).rsqrt()
    return unit.masked_fill(is_degenerate, 0.0)
