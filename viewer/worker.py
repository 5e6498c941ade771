"""How do pictures keep up with a camera that moves faster than they are made?"""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Request = TypeVar("Request")

# A camera that has not moved for so long stands still.
_SETTLE_SECONDS = 0.15


class LatestWorker(Generic[Request]):
    """A thread that answers the newest request and drops those that came before it.

    Each request is answered coarsely at once, and finely when none has followed for a moment.
    A fault of an answer is handed to `on_error`; the thread goes on.
    """

    def __init__(
        self,
        answer: Callable[[Request, bool], None],
        on_error: Callable[[Exception], None],
        settle_seconds: float = _SETTLE_SECONDS,
    ) -> None:
        """Start the thread.

        Args:
            answer: Called with a request and whether it is to be fine.
            on_error: Called with what `answer` raised.
            settle_seconds: From the newest request to the fine answer.
        """
        self._answer, self._on_error, self._settle = answer, on_error, settle_seconds
        self._pending: Request | None = None
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True, name="viewer-render")
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Ask for an answer in place of any that has not begun.

        Args:
            request: The newest.
        """
        with self._changed:
            self._pending = request
            self._changed.notify_all()

    def close(self) -> None:
        """Stop after the answer that is being made."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def join(self, timeout: float) -> bool:
        """Wait for the thread's end.

        Args:
            timeout: Seconds.

        Returns:
            Whether it has ended.
        """
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._pending is not None)
                if self._is_closed:
                    return
                request, self._pending = self._pending, None
            assert request is not None
            if self._try(request, is_fine=False) and self._is_settled():
                self._try(request, is_fine=True)

    def _is_settled(self) -> bool:
        with self._changed:
            return not self._changed.wait_for(
                lambda: self._is_closed or self._pending is not None, self._settle
            )

    def _try(self, request: Request, is_fine: bool) -> bool:
        try:
            self._answer(request, is_fine)
        # Whatever goes wrong in one picture, the next may be right: the page has to stay.
        except Exception as error:
            self._on_error(error)
            return False
        return True
