"""How right are the cameras of a COLMAP model, by its own sparse points?"""

from pathlib import Path

import pytest

from splatir.data.dataset import DataSettings
from splatir.data.recognise import read_dataset
from tests.captures import project, small_scene, write_colmap

SCENE = small_scene()


def add_tracks(root: Path, offset: float) -> None:
    """Say in a written text model that all photos show all points, so many pixels to the right."""
    images, points = root / "sparse/0/images.txt", root / "sparse/0/points3D.txt"
    lines = images.read_text().splitlines()
    for index, camera in enumerate(SCENE.cameras):
        pixels, _ = project(camera, SCENE.points)
        seen = [f"{x + offset!r} {y!r} {i + 1}" for i, (x, y) in enumerate(pixels.tolist())]
        lines[2 * index + 2] = " ".join(seen)
    images.write_text("\n".join(lines) + "\n")
    header, *rows = points.read_text().splitlines()
    tracks = [
        " ".join(f"{image + 1} {i}" for image in range(len(SCENE.cameras)))
        for i in range(len(rows))
    ]
    rows = [f"{row} {track}" for row, track in zip(rows, tracks, strict=True)]
    points.write_text("\n".join([header, *rows]) + "\n")


@pytest.mark.parametrize("offset", [0.0, 0.25, 3.0])
def test_error_of_cameras_by_their_own_points(offset: float, tmp_path: Path) -> None:
    """The file says 0.5 pixels whatever the cameras are."""
    write_colmap(tmp_path, SCENE)
    add_tracks(tmp_path, offset)
    assert read_dataset(tmp_path).reprojection_error == pytest.approx(offset, abs=1e-5)
    half = read_dataset(tmp_path, DataSettings(downscale=2.0))
    assert half.reprojection_error == pytest.approx(0.5 * offset, abs=1e-5)


def test_points_without_tracks_say_nothing_of_cameras(tmp_path: Path) -> None:
    write_colmap(tmp_path, SCENE)
    assert read_dataset(tmp_path).reprojection_error is None
