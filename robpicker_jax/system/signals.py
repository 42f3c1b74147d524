"""A clean stop: SIGINT and SIGTERM as a request that a loop looks at when it is ready to."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_current: list[list[int]] = []


def stop_requested() -> bool:
    """Whether a signal has come since the innermost `stop_requests` began; long work looks at it between its parts."""
    return bool(_current and _current[-1])


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """A list that becomes non-empty on the first SIGINT or SIGTERM; a second signal raises KeyboardInterrupt at once.

    Outside of the main thread, where Python lets nobody handle signals, the list stays empty.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    try:
        former = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread
        yield received
        return
    _current.append(received)
    try:
        yield received
    finally:
        _current.pop()
        for number, handler in former.items():
            signal.signal(number, handler)
