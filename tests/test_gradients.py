import pytest
import torch

from tests.gradients import assert_grads_agree


def test_missing_small_gradients_are_caught() -> None:
    g = torch.full((100,), 1e-6)
    zeroed = g.clone()
    zeroed[:30] = 0.0
    torch.testing.assert_close(zeroed, g, atol=1e-5, rtol=1e-3)
    with pytest.raises(AssertionError, match="relative L2"):
        assert_grads_agree({"means": zeroed}, {"means": g})


def test_a_zero_reference_is_refused() -> None:
    with pytest.raises(AssertionError, match="checks nothing"):
        assert_grads_agree({"means": torch.zeros(3)}, {"means": torch.zeros(3)})
