"""Tone curves: order, ends, and where they agree."""

import pytest
import torch

from splatir.maths.colour import srgb_from_linear
from splatir.render.tone import ToneCurve, composite_srgb, display_srgb

CURVES: list[ToneCurve] = ["srgb", "reinhard", "filmic"]


@pytest.mark.parametrize("curve", CURVES)
def test_brighter_light_is_never_shown_darker(curve: ToneCurve) -> None:
    grey = torch.logspace(-4, 3, 400, dtype=torch.float64)[:, None].expand(-1, 3)
    shown = display_srgb(grey, curve)
    assert (shown.diff(dim=0) >= 0).all()
    assert float(shown.min()) >= 0.0 and float(shown.max()) == pytest.approx(1.0)
    assert torch.allclose(shown[:, 0], shown[:, 2])


@pytest.mark.parametrize("curve", CURVES)
def test_black_negative_and_enormous_values_have_a_display_value(curve: ToneCurve) -> None:
    ends = torch.tensor([[0.0, 0.0, 0.0], [-5.0, -5.0, -5.0], [1e30, 1e30, 1e30]])
    expected = torch.tensor([[0.0] * 3, [0.0] * 3, [1.0] * 3])
    assert torch.allclose(display_srgb(ends, curve), expected)


@pytest.mark.parametrize("curve", CURVES)
def test_middle_grey_stays_about_middle_grey(curve: ToneCurve) -> None:
    grey = torch.full((1, 3), 0.18)
    assert torch.allclose(display_srgb(grey, curve), srgb_from_linear(grey), atol=0.05)


def test_reinhard_shows_its_white_point_as_white_and_keeps_hue() -> None:
    assert torch.allclose(display_srgb(torch.full((1, 3), 4.0), "reinhard"), torch.ones(1, 3))
    colour = torch.tensor([[0.4, 0.2, 0.1]])
    scale = (1 + 0.23528 / 16) / (1 + 0.23528)
    assert torch.allclose(display_srgb(colour, "reinhard"), srgb_from_linear(colour * scale))


def test_compositing_is_in_srgb() -> None:
    image, alpha = torch.full((2, 2, 3), 0.5), torch.full((2, 2, 1), 0.25)
    assert torch.allclose(composite_srgb(image, alpha, torch.ones(3)), torch.tensor(0.875))
