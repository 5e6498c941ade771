"""Comparison of gradients from two implementations of the same function."""

import torch
from torch import Tensor


def assert_grads_agree(
    actual: dict[str, Tensor],
    expected: dict[str, Tensor],
    rel_l2: float = 1e-4,
    cosine: float = 0.99999,
) -> None:
    """Compare gradients as vectors, so that many small errors of one sign cannot hide."""
    assert actual.keys() == expected.keys()
    for name, want in expected.items():
        got, want = actual[name].double().flatten(), want.double().flatten()
        assert got.isfinite().all(), f"{name}: gradient has NaN or Inf"
        assert want.norm() > 0.0, f"{name}: reference gradient is zero, the test checks nothing"
        error = (got - want).norm() / want.norm()
        assert error <= rel_l2, f"{name}: relative L2 error {error:.2e} > {rel_l2:.0e}"
        angle = torch.nn.functional.cosine_similarity(got, want, dim=0)
        assert angle >= cosine, f"{name}: cosine {angle:.6f} < {cosine}"
