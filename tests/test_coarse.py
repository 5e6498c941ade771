"""Reduced photos: block means weighted by alpha, and a camera that fits what remains."""

import torch

from splatir.data.images import Photo
from splatir.scene.camera import Camera
from splatir.train.coarse import reduced_photo

K = torch.tensor([[50.0, 0.0, 4.5], [0.0, 60.0, 3.5], [0.0, 0.0, 1.0]])
CAMERA = Camera(K, torch.eye(4), 9, 7)


def test_blocks_are_averaged_and_the_camera_sees_the_same_rays() -> None:
    rgb = torch.rand(7, 9, 3)
    camera, photo = reduced_photo(CAMERA, Photo(rgb, None, "srgb", 8), 2)
    assert (camera.width, camera.height) == (4, 3)
    assert photo.alpha is None
    expected = rgb[:6, :8].reshape(3, 2, 4, 2, 3).mean(dim=(1, 3))
    torch.testing.assert_close(photo.rgb, expected)
    # The middle of pixel (1, 2) is the corner that its four old pixels share.
    old, new = torch.tensor([5.0, 3.0, 1.0]), torch.tensor([2.5, 1.5, 1.0])
    torch.testing.assert_close(camera.K.inverse() @ new, K.inverse() @ old)


def test_colour_of_what_is_not_covered_does_not_leak_in() -> None:
    rgb = torch.zeros(2, 2, 3)
    rgb[0, 0] = 0.8
    alpha = torch.zeros(2, 2, 1)
    alpha[0, 0] = 1.0
    camera = Camera(K, torch.eye(4), 4, 4)
    big = [torch.nn.functional.pad(x, (0, 0, 0, 2, 0, 2)) for x in (rgb, alpha)]
    _, photo = reduced_photo(camera, Photo(big[0], big[1], "srgb", 8), 2)
    assert photo.alpha is not None
    torch.testing.assert_close(photo.alpha[..., 0], torch.tensor([[0.25, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(photo.rgb[0, 0], torch.full((3,), 0.8))


def test_a_picture_too_small_to_shrink_stays() -> None:
    photo = Photo(torch.rand(7, 9, 3), None, "srgb", 8)
    assert reduced_photo(CAMERA, photo, 4) == (CAMERA, photo)
    assert reduced_photo(CAMERA, photo, 1) == (CAMERA, photo)
