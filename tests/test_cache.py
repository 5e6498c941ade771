"""Decoded photos: exact, decoded once, within memory, errors and threads where they belong."""

import threading
from pathlib import Path

import pytest
import torch

from splatir.data.cache import PhotoCache
from splatir.data.dataset import View
from splatir.data.images import Photo
from splatir.scene.camera import Camera

PIXELS = 8 * 6


def views(count: int) -> list[View]:
    camera = Camera(torch.eye(3), torch.eye(4), 8, 6)
    return [View(f"v{i}", camera, Path(f"{i}.png")) for i in range(count)]


def eight_bit(view: View) -> Photo:
    seed = torch.Generator().manual_seed(int(view.image_path.stem))
    samples = torch.randint(0, 256, (6, 8, 4), generator=seed).float() / 255.0
    return Photo(samples[..., :3], samples[..., 3:], "srgb", 8)


def test_photos_of_integer_files_come_back_bit_for_bit() -> None:
    sixteen = torch.arange(65536, dtype=torch.float32).reshape(128, 512, 1).expand(-1, -1, 3)
    photo = Photo(sixteen / 65535.0, None, "srgb", 16)
    with PhotoCache(views(2), 10**7, load=eight_bit) as cache:
        for index in range(2):
            loaded = eight_bit(views(2)[index])
            assert torch.equal(cache[index].rgb, loaded.rgb)
            alpha = cache[index].alpha
            assert alpha is not None and loaded.alpha is not None
            assert torch.equal(alpha, loaded.alpha)
    with PhotoCache(views(1), 10**7, load=lambda _: photo) as cache:
        assert torch.equal(cache[0].rgb, photo.rgb)
        assert cache.memory_bytes == 65536 * 3 * 2


@pytest.mark.parametrize(("value", "size"), [(0.5, 2), (1e6, 4), (0.1, 4)])
def test_float_photos_are_halved_only_where_nothing_is_lost(value: float, size: int) -> None:
    photo = Photo(torch.full((6, 8, 3), value), None, "linear", 32)
    with PhotoCache(views(1), 10**7, load=lambda _: photo) as cache:
        assert torch.equal(cache[0].rgb, photo.rgb)
        assert cache.memory_bytes == PIXELS * 3 * size


def test_everything_that_fits_is_decoded_once() -> None:
    with PhotoCache(views(5), PIXELS * 4 * 5, load=eight_bit) as cache:
        for index in range(5):
            cache.prefetch(index)
        for _ in range(3):
            for index in range(5):
                _ = cache[index]
        assert cache.num_decoded == 5
        assert cache.memory_bytes == PIXELS * 4 * 5


def test_memory_stays_within_the_budget_and_the_oldest_goes() -> None:
    with PhotoCache(views(4), PIXELS * 4 * 2 + 1, load=eight_bit) as cache:
        for index in (0, 1, 0, 2):  # 1 is the least recently used when 2 comes
            _ = cache[index]
            assert cache.memory_bytes <= PIXELS * 4 * 2 + 1
        decoded = cache.num_decoded
        _ = cache[0]
        assert cache.num_decoded == decoded
        _ = cache[1]
        assert cache.num_decoded == decoded + 1


def test_a_photo_above_the_budget_is_served_but_not_kept() -> None:
    with PhotoCache(views(1), 10, load=eight_bit) as cache:
        assert torch.equal(cache[0].rgb, eight_bit(views(1)[0]).rgb)
        assert cache.memory_bytes == 0


def test_results_do_not_depend_on_access_from_many_threads() -> None:
    results: dict[int, bool] = {}

    def reader(seed: int) -> None:
        order = torch.randperm(6, generator=torch.Generator().manual_seed(seed)).tolist()
        equal = [torch.equal(cache[i].rgb, eight_bit(views(6)[i]).rgb) for i in order * 3]
        results[seed] = all(equal)

    with PhotoCache(views(6), PIXELS * 4 * 2, load=eight_bit, num_threads=3) as cache:
        threads = [threading.Thread(target=reader, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert cache.memory_bytes <= PIXELS * 4 * 2
    assert results == dict.fromkeys(range(4), True)


def test_errors_reach_the_caller_and_are_tried_again() -> None:
    broken = True

    def load(view: View) -> Photo:
        if broken:
            raise ValueError("cannot read image 0.png")
        return eight_bit(view)

    with PhotoCache(views(1), 10**6, load=load) as cache:
        cache.prefetch(0)
        for _ in range(2):
            with pytest.raises(ValueError, match=r"0\.png"):
                _ = cache[0]
        broken = False
        assert cache[0].rgb.shape == (6, 8, 3)


def test_no_thread_outlives_the_cache() -> None:
    before = threading.active_count()
    cache = PhotoCache(views(6), 10**6, load=eight_bit)
    for index in range(6):
        cache.prefetch(index)
    cache.close()
    assert threading.active_count() == before
    with pytest.raises(ValueError, match="closed"):
        _ = cache[0]


@pytest.mark.parametrize("index", [-1, 2])
def test_unknown_views_are_refused(index: int) -> None:
    with PhotoCache(views(2), 10**6, load=eight_bit) as cache, pytest.raises(IndexError):
        _ = cache[index]
