"""How do decoded photographs stay at hand, in compact form and within a memory budget?"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from splatir.data.dataset import View
from splatir.data.images import Photo, load_photo
from splatir.data.maps import SurfaceMaps


@runtime_checkable
class PhotoSource(Protocol):
    """Photos of a list of views, by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, view_index: int) -> Photo:
        """Pixels of a view."""
        ...

    def prefetch(self, view_index: int) -> None:
        """Start to decode a view that is needed soon; errors wait until it is asked for."""
        ...


class PhotoCache:
    """Photos of a list of views, decoded in background threads and kept while memory allows.

    A photo is stored in the bits of its file: samples of 8- and 16-bit files as such (exact if the
    photo was neither resized nor undistorted, otherwise rounded to the nearest of 255 or 65,535
    steps), floats as half where that loses nothing and as float32 otherwise, maps as
    `SurfaceMaps.packed` says. The first and every later access give the same values. Beyond the
    budget the least recently used photos go; a photo that alone exceeds the budget is never kept.
    Photos being decoded do not count.

    Safe to use from several threads. Use as a context manager, or call `close`.
    """

    def __init__(
        self,
        views: Sequence[View],
        memory_budget_bytes: int,
        load: Callable[[View], Photo] = load_photo,
        num_threads: int = 2,
    ) -> None:
        """Start with nothing decoded.

        Args:
            views: The views, by index.
            memory_budget_bytes: Most bytes of pixels to keep.
            load: How to load one view's pixels; must give the same pixels every time.
            num_threads: Background threads; they start when needed.
        """
        if memory_budget_bytes < 0:
            raise ValueError(f"memory budget must not be negative, got {memory_budget_bytes}.")
        self._views = tuple(views)
        self._budget = memory_budget_bytes
        self._load = load
        self._stored: OrderedDict[int, _CompactPhoto] = OrderedDict()
        self._pending: dict[int, Future[_CompactPhoto]] = {}
        self._lock = threading.Lock()
        self._memory_bytes = 0
        self._num_decoded = 0
        self._closed = False
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="photo")

    @property
    def memory_bytes(self) -> int:
        """Bytes of pixels kept at the moment."""
        return self._memory_bytes

    @property
    def num_decoded(self) -> int:
        """How many times a file was decoded so far."""
        return self._num_decoded

    def __len__(self) -> int:
        return len(self._views)

    def __getitem__(self, view_index: int) -> Photo:
        """Pixels of a view, waiting for its decoding if need be.

        Raises:
            IndexError: No such view.
            ValueError: The view's files are broken, as `load_photo` says; or the cache is closed.
        """
        found = self._find_or_start(view_index)
        return (found.result() if isinstance(found, Future) else found).expanded()

    def prefetch(self, view_index: int) -> None:
        """Start to decode a view that is needed soon; errors wait until it is asked for."""
        self._find_or_start(view_index)

    def close(self) -> None:
        """Forget all photos and end the threads; waits for what is being decoded."""
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            self._stored.clear()
            self._pending.clear()
            self._memory_bytes = 0

    def __enter__(self) -> "PhotoCache":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _find_or_start(self, view_index: int) -> "_CompactPhoto | Future[_CompactPhoto]":
        if not 0 <= view_index < len(self._views):
            raise IndexError(f"view {view_index} of {len(self._views)}.")
        with self._lock:
            if self._closed:
                raise ValueError("the photo cache is closed; open a new one.")
            if view_index in self._stored:
                self._stored.move_to_end(view_index)
                return self._stored[view_index]
            if view_index not in self._pending:
                self._pending[view_index] = self._pool.submit(self._decode, view_index)
            return self._pending[view_index]

    def _decode(self, view_index: int) -> "_CompactPhoto":
        """Decode in a background thread; a failure leaves nothing, so asking again tries again."""
        try:
            compact = _CompactPhoto.of(self._load(self._views[view_index]))
        except BaseException:
            with self._lock:
                self._num_decoded += 1
                self._pending.pop(view_index, None)
            raise
        with self._lock:
            self._num_decoded += 1
            self._pending.pop(view_index, None)
            if compact.memory_bytes <= self._budget and not self._closed:
                self._stored[view_index] = compact
                self._memory_bytes += compact.memory_bytes
                while self._memory_bytes > self._budget:
                    _, evicted = self._stored.popitem(last=False)
                    self._memory_bytes -= evicted.memory_bytes
        return compact


def compact_bytes(photo: Photo) -> int:
    """Bytes that a photo takes in a `PhotoCache`."""
    return _CompactPhoto.of(photo).memory_bytes


@dataclass(frozen=True)
class _CompactPhoto:
    """A photo whose tensors have the narrowest type that its source justifies."""

    rgb: Tensor
    alpha: Tensor | None
    encoding: Literal["srgb", "linear"]
    bits: Literal[8, 16, 32]
    maps: SurfaceMaps | None

    @staticmethod
    def of(photo: Photo) -> "_CompactPhoto":
        alpha = None if photo.alpha is None else _pack(photo.alpha, photo.bits)
        maps = None if photo.maps is None else photo.maps.packed()
        return _CompactPhoto(_pack(photo.rgb, photo.bits), alpha, photo.encoding, photo.bits, maps)

    def expanded(self) -> Photo:
        alpha = None if self.alpha is None else _unpack(self.alpha)
        maps = None if self.maps is None else self.maps.unpacked()
        return Photo(_unpack(self.rgb), alpha, self.encoding, self.bits, maps)

    @property
    def memory_bytes(self) -> int:
        tensors = [self.rgb] if self.alpha is None else [self.rgb, self.alpha]
        own = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return own + (0 if self.maps is None else self.maps.memory_bytes)


def _pack(values: Tensor, bits: int) -> Tensor:
    """Store in the file's own bits; half floats only where they lose nothing."""
    if bits == 8:
        return (values * 255.0).round().clamp(0, 255).to(torch.uint8)
    if bits == 16:
        # torch's uint16 lacks most operations; shifted into int16 nothing is lost.
        return ((values * 65535.0).round().clamp(0, 65535) - 32768.0).to(torch.int16)
    half = values.half()
    return half if torch.equal(half.float(), values) else values


def _unpack(packed: Tensor) -> Tensor:
    if packed.dtype == torch.uint8:
        return packed.float().div_(255.0)
    if packed.dtype == torch.int16:
        return packed.float().add_(32768.0).div_(65535.0)
    return packed.float()
