"""A thread that prepares items ahead of time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """An iterator whose items a background thread prepares, `depth` of them ahead; made by `prefetch`.

    Items come in the order of the iterable. An exception raised by the iterable is raised to the consumer, after the
    items before it. Leaving the `with` block, `close`, or dropping the last reference stops the thread.
    """

    def __init__(self, iterable_fn: Callable[[], Iterable[T]], depth: int) -> None:
        self._stop = threading.Event()
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth}")
        self._queue: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(depth)
        # The thread knows the queue and the event, not this object, so that an abandoned prefetcher can be collected.
        self._thread = threading.Thread(
            target=_produce, args=(iterable_fn, self._queue, self._stop), name="patch-prefetch", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        while True:
            if self._stop.is_set():
                raise StopIteration
            try:
                kind, value = self._queue.get(timeout=0.1)
                break
            except queue.Empty:  # look again: another thread may have closed this
                continue
        if kind == "item":
            return value  # type: ignore[return-value]
        self.close()
        if kind == "error":
            assert isinstance(value, BaseException)
            raise value
        raise StopIteration

    def close(self) -> None:
        """Stop the thread and wait for the item it is making; items already made are dropped."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Prefetcher[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self._stop.set()


def prefetch(iterable_fn: Callable[[], Iterable[T]], depth: int = 2) -> Prefetcher[T]:
    """Iterate over `iterable_fn()` in a background thread, `depth` items ahead.

    ```python
    with prefetch(lambda: source.batches(range(start, steps))) as batches:
        for train, meta in batches: ...
    ```
    """
    return Prefetcher(iterable_fn, depth)


def _produce(
    iterable_fn: Callable[[], Iterable[T]],
    items: queue.Queue[tuple[str, T | BaseException | None]],
    stop: threading.Event,
) -> None:
    def put(kind: str, value: T | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                items.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    try:
        for item in iterable_fn():
            if not put("item", item):
                return
        put("end", None)
    except BaseException as error:  # any exception is raised where the batches are consumed
        put("error", error)
