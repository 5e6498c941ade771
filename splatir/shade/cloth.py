"""How does the diffuse lobe of cloth differ from Lambert's?

Fibres that stand up from a fabric catch light at grazing angles and hide what is between them from
above, as velvet does. Lobes measured on it fall with a power of the sine of the half vector
(Ashikhmin et al. 2000; Estevez and Kulla 2017); sines of both angles in its place keep the lobe
reciprocal and its integrals closed. With sheen s, relative to Lambert's albedo / pi:

    (1 - s) + 2 s sin^2(light) sin^2(view)

Under uniform light that is 1 - s cos^2(view): albedo is the colour at grazing angles, no surface
reflects more than it receives, and the mean over views is 1 - s / 2.
"""

from jaxtyping import Float
from torch import Tensor


def sheen_factor(
    n_dot_l: Float[Tensor, "*#batch"],
    n_dot_v: Float[Tensor, "*#batch"],
    sheen: Float[Tensor, "*#batch"],
) -> Float[Tensor, "*#batch"]:
    """Diffuse reflectance relative to Lambert's, 0 to 2.

    Args:
        n_dot_l: Cosine of normal and light direction, 0 to 1.
        n_dot_v: Cosine of normal and view direction, 0 to 1.
        sheen: 0 for Lambert, to 1.
    """
    sines = (1.0 - n_dot_l.square()) * (1.0 - n_dot_v.square())
    return (1.0 - sheen) + 2.0 * sheen * sines


def sheen_albedo(
    n_dot_v: Float[Tensor, "*#batch"], sheen: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*#batch"]:
    """Share of uniform light that the diffuse lobe of a white surface reflects, 0 to 1.

    Args:
        n_dot_v: Cosine of normal and view direction, 0 to 1.
        sheen: 0 for Lambert, to 1.
    """
    return 1.0 - sheen * n_dot_v.square()


def mean_sheen_albedo(sheen: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The same over all views, weighted by their cosine, 0.5 to 1.

    Args:
        sheen: 0 for Lambert, to 1.
    """
    return 1.0 - 0.5 * sheen
