"""Are poses found from photographs alone, and is it said which photographs have none?"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from splatir.commands.main import main
from splatir.commands.sfm import describe
from splatir.data.photo_folder import find_photos, list_photos
from splatir.data.recognise import read_dataset
from splatir.data.sfm import SfmResult, reconstruct
from splatir.data.sfm_pairs import pairs_to_match
from splatir.data.sfm_work import SfmSettings
from splatir.scene.camera import Camera
from tests.faults import contents, the_error
from tests.photographs import corner_cameras, corner_photo, write_photographs

# Neither time nor order depends on how many processors there are.
QUICK = SfmSettings(max_size=256, threads=1)


def save(path: Path, photo: np.ndarray, orientation: int | None = None) -> None:
    image = Image.fromarray(photo)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x112] = orientation
    image.save(path, quality=95, exif=exif)


def spoil(folder: Path, names: list[str]) -> None:
    """One broken, one blurred, one unrelated and one photograph turned by its EXIF header."""
    cameras = corner_cameras(len(names))
    content = (folder / names[1]).read_bytes()
    (folder / names[1]).write_bytes(content[: len(content) // 2])
    blurred = Image.fromarray(corner_photo(cameras[3])).filter(ImageFilter.GaussianBlur(1.5))
    save(folder / names[3], np.asarray(blurred))
    save(folder / names[5], corner_photo(cameras[5]), orientation=6)
    save(folder / "unrelated.jpg", corner_photo(cameras[2], seed=99))


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], SfmResult]:
    """A capture with faults, its names, and what became of it."""
    root = tmp_path_factory.mktemp("spoilt")
    names = write_photographs(root / "images", 10)
    spoil(root / "images", names)
    photos = find_photos(root)
    assert photos is not None
    return root, names, reconstruct(photos, QUICK)


def test_poses_are_those_of_the_cameras(tmp_path: Path) -> None:
    write_photographs(tmp_path / "photos")
    photos = find_photos(tmp_path / "photos")
    assert photos is not None
    result = reconstruct(photos, QUICK, tmp_path / "capture")
    assert len(result.registered) == 8 and result.num_cameras == 1
    dataset = read_dataset(tmp_path / "capture")
    views = sorted([*dataset.train, *dataset.test], key=lambda view: view.name)
    found = [view.camera for view in views]
    assert float(found[0].K[0, 0]) == pytest.approx(380.0, rel=0.03)
    assert_same_up_to_a_similarity(found, corner_cameras(8))


def assert_same_up_to_a_similarity(found: list[Camera], true: list[Camera]) -> None:
    """Centres agree to 1 % of their spread after the best rotation, scale and shift."""
    a, b = (torch.stack([c.position_world.double() for c in cameras]) for cameras in (found, true))
    a, b = a - a.mean(0), b - b.mean(0)
    U, S, Vh = torch.linalg.svd(a.mT @ b)
    flip = torch.diag(torch.tensor([1.0, 1.0, torch.linalg.det(U @ Vh)], dtype=torch.float64))
    aligned = (S.diag() @ flip).trace() / (a**2).sum() * a @ U @ flip @ Vh
    assert float((aligned - b).norm(dim=-1).max()) < 0.01 * float(b.norm(dim=-1).max())


def test_broken_unrelated_and_blurred_photographs_are_told_apart(
    spoilt: tuple[Path, list[str], SfmResult],
) -> None:
    _, names, result = spoilt
    assert [name for name, _ in result.broken] == [names[1]]
    assert result.unregistered == ("unrelated.jpg",)
    assert result.blurred == (names[3],)
    assert result.turned == (names[5],)
    assert any(line.startswith("turned") and names[5] in line for line in describe(result))
    # The one with an EXIF rotation too, by the same camera as the others.
    assert set(result.registered) == set(names) - {names[1]}
    assert result.num_cameras == 1


def test_a_photograph_turned_by_exif_fits_the_pixels_that_are_read(
    spoilt: tuple[Path, list[str], SfmResult],
) -> None:
    root, names, _ = spoilt
    dataset = read_dataset(root)
    views = {view.image_path.name: view for view in [*dataset.train, *dataset.test]}
    assert views[names[5]].camera.width > views[names[5]].camera.height
    kept = [i for i in range(10) if i != 1]
    found = [views[names[i]].camera for i in kept]
    assert_same_up_to_a_similarity(found, [corner_cameras(10)[i] for i in kept])


def test_nothing_is_written_over(
    spoilt: tuple[Path, list[str], SfmResult], capsys: pytest.CaptureFixture[str]
) -> None:
    root, _, _ = spoilt
    before = contents(root)
    commands = {
        "already": [root],
        "holds a COLMAP model": [root / "images"],
        "lie in the output": [root, "--output", root / "images"],
    }
    for message, words in commands.items():
        assert main(["sfm", *map(str, words)]) == 1
        printed = capsys.readouterr()
        assert message in the_error(printed.err, printed.out)
    assert contents(root) == before


def test_photographs_of_different_things_end_in_one_line_that_says_what_to_do(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    camera = corner_cameras(2)[0]
    for i in range(4):
        save(tmp_path / f"{i}.jpg", corner_photo(camera, seed=i))
    assert main(["sfm", str(tmp_path), "--max-size", "256", "--threads", "1"]) == 1
    printed = capfd.readouterr()
    line = the_error(printed.err, printed.out)
    assert "of 4 photographs fit together" in line and "3.jpg" in line and "--min-regist" in line
    # COLMAP's own log stays away.
    assert ".cc:" not in printed.err + printed.out
    assert not (tmp_path / "sparse").exists()


def test_no_photographs_and_formats_that_cannot_be_read_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sfm", str(tmp_path)]) == 1
    assert "no photographs" in capsys.readouterr().err
    (tmp_path / "a.HEIC").write_bytes(b"x")
    assert main(["sfm", str(tmp_path)]) == 1
    assert "Convert them to JPEG" in capsys.readouterr().err
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    assert main(["sfm", str(tmp_path), "--threads", "1"]) == 1
    assert "1 readable photographs" in capsys.readouterr().err


def test_photographs_are_found_where_captures_have_them(tmp_path: Path) -> None:
    for name in ("images/b/2.jpg", "images/a.PNG", "images/a.dng", "images/c.nef", "masks/a.png",
                 "images/.hidden.png", "images/masks/a.png"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    photos = find_photos(tmp_path)
    assert photos is not None and photos.folder == tmp_path / "images"
    # The RAW file beside a developed picture is the same photograph.
    assert photos.names == ("a.PNG", "b/2.jpg", "c.nef")
    beside = find_photos(tmp_path / "images")
    assert beside is not None and beside.root == tmp_path.resolve()
    assert list_photos(tmp_path / "masks") == ("a.png",)


def test_of_many_photographs_those_that_look_alike_are_matched() -> None:
    """Two rounds about an object: photograph i and 100 + i show the same."""
    generator = np.random.default_rng(0)
    places = generator.integers(0, 255, (100, 30, 128)).astype(np.uint8)
    descriptors = [places[i % 100] for i in range(200)]
    pairs = set(pairs_to_match(descriptors))
    assert all((i, i + 1) in pairs for i in range(199))
    assert all((i, 100 + i) in pairs for i in range(100))
    assert len(pairs) < 200 * 40
    assert pairs_to_match(descriptors[:5]) == [(i, j) for i in range(5) for j in range(i + 1, 5)]


def test_training_on_photographs_alone_finds_poses_first_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photographs(tmp_path / "mug" / "images", 6)
    words = ["train", "--data", str(tmp_path / "mug"), "--output", str(tmp_path / "run"), "--steps",
             "2", "--stages", "radiance", "--max-size", "64", "--init.num-points", "40",
             "--eval-every", "0", "--device", "cpu", "--densify.strategy", "none"]  # fmt: skip
    assert main(words) == 0
    said = capsys.readouterr()
    assert "no camera poses" in said.err and "6 of 6 photographs" in said.err
    assert (tmp_path / "mug" / "sparse" / "0" / "cameras.bin").is_file()
    shutil.rmtree(tmp_path / "run")
    assert main(words) == 0
    assert "no camera poses" not in capsys.readouterr().err
