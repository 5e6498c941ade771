"""The reference rasteriser: values by hand, gsplat's torch projections, invariants, gradients."""

from dataclasses import replace

import pytest
import torch

from splatir.raster.reference.backend import ReferenceBackend
from splatir.scene.gaussians import Primitive
from tests.scenes import ADVERSARIAL, all_outputs, images, outputs_and_gradients

BACKEND = ReferenceBackend()
PRIMITIVES: tuple[Primitive, ...] = ("ellipsoid", "surfel")


@pytest.mark.parametrize("primitive", PRIMITIVES)
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial_scenes_give_finite_images_and_gradients(
    name: str, primitive: Primitive
) -> None:
    scene = ADVERSARIAL[name](primitive)
    options = replace(all_outputs(primitive), absgrad=True)
    output, gradients = outputs_and_gradients(BACKEND, scene, options)
    for label, tensor in {**images(output), **gradients}.items():
        assert tensor.isfinite().all(), label
    assert torch.all((output.alpha >= 0) & (output.alpha < 1))
