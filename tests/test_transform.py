import math

import pytest
import torch
from torch import Tensor

from splatir.maths.frames import invert_similarity, similarity, transform_points
from splatir.maths.rotations import rotation_from_quat
from splatir.maths.spherical_harmonics import evaluate_sh
from splatir.scene.gaussians import GaussianModel, Primitive
from splatir.scene.transform import transform_model


def random_model(
    num_gaussians: int = 12, degree: int = 3, primitive: Primitive = "ellipsoid"
) -> GaussianModel:
    g = torch.Generator().manual_seed(7)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    n = num_gaussians
    return GaussianModel(
        {
            "means": randn(n, 3),
            "quats": 2 * randn(n, 4),
            "scales": randn(n, 3) - 2,
            "opacities": randn(n),
            "sh0": randn(n, 1, 3),
            "shN": randn(n, (degree + 1) ** 2 - 1, 3),
            "albedo": randn(n, 3),
            "roughness": randn(n),
            "metallic": randn(n),
        },
        primitive,
    )


def random_similarity() -> tuple[float, Tensor, Tensor]:
    R = rotation_from_quat(torch.tensor([0.3, -0.8, 0.1, 0.5], dtype=torch.float64))
    scale = 2.5
    return scale, R, similarity(scale, R, torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))


def covariances(model: GaussianModel) -> Tensor:
    half = rotation_from_quat(model.params["quats"]) * model.scales[:, None, :]
    return half @ half.mT


def test_centres_and_covariances_follow_the_similarity() -> None:
    model = random_model()
    scale, R, S = random_similarity()
    moved = transform_model(model, S)
    torch.testing.assert_close(moved.means, scale * model.means @ R.mT + S[:3, 3])
    torch.testing.assert_close(covariances(moved), scale**2 * R @ covariances(model) @ R.mT)


def test_colour_towards_the_mapped_direction_is_unchanged() -> None:
    model = random_model()
    _, _, S = random_similarity()
    moved = transform_model(model, S)
    eye = torch.tensor([[4.0, 5.0, 6.0]], dtype=torch.float64)
    before = evaluate_sh(model.sh, model.means - eye, 3)
    after = evaluate_sh(moved.sh, moved.means - transform_points(S, eye), 3)
    torch.testing.assert_close(after, before)


def test_parameters_without_a_frame_and_the_input_model_are_kept() -> None:
    model = random_model(primitive="surfel")
    copies = {key: value.detach().clone() for key, value in model.params.items()}
    moved = transform_model(model, random_similarity()[2])
    for key in ("opacities", "albedo", "roughness", "metallic"):
        assert torch.equal(moved.params[key], model.params[key])
    assert all(torch.equal(model.params[key], copies[key]) for key in copies)
    assert moved.primitive == "surfel"
    assert moved.params["means"].requires_grad


def test_there_and_back_is_the_identity_in_float32() -> None:
    model = GaussianModel({k: v.float() for k, v in random_model().params.items()}, "ellipsoid")
    _, _, S = random_similarity()
    back = transform_model(transform_model(model, S), invert_similarity(S))
    for key, value in model.params.items():
        assert back.params[key].dtype == torch.float32
        sign = -1 if key == "quats" and (back.params[key] * value).sum() < 0 else 1
        torch.testing.assert_close(sign * back.params[key], value, rtol=1e-5, atol=1e-5)


def test_no_gaussians_are_transformed_without_error() -> None:
    moved = transform_model(random_model(0, degree=0), random_similarity()[2])
    assert moved.num_gaussians == 0


def test_matrices_that_are_no_similarity_are_refused() -> None:
    model = random_model(2)
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0]))
    stretched = torch.diag(torch.tensor([1.0, 2.0, 1.0, 1.0]))
    projective = torch.eye(4)
    projective[3, 0] = 0.1
    broken = torch.eye(4)
    broken[0, 3] = math.nan
    for S in (mirror, stretched, projective, broken, torch.zeros(4, 4)):
        with pytest.raises(ValueError, match="expected a similarity"):
            transform_model(model, S)
