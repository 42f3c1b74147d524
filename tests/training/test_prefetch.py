"""The thread that prepares batches ahead: order, depth, exceptions, its end."""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Iterator

import pytest

from robpicker_jax.patches import prefetch
from robpicker_jax.system.errors import InputError
from tests.patches.patch_cases import same, source

pytestmark = pytest.mark.fast


def test_prefetched_batches_are_the_batches_in_order() -> None:
    data = source()
    with prefetch(lambda: data.batches(range(3, 9)), depth=2) as batches:
        received = list(batches)
    assert len(received) == 6
    for step, (train, meta) in zip(range(3, 9), received, strict=True):
        assert same(train, data.train_batch(step))
        assert same(meta, data.meta_batch(step))


def test_it_runs_ahead_by_its_depth_and_no_more() -> None:
    depth, asked, made = 3, 0, 0
    ahead: list[int] = []
    news = threading.Condition()

    def numbers() -> Iterator[int]:
        nonlocal made
        for k in range(100):
            with news:
                made += 1
                ahead.append(made - asked)
                news.notify()
            yield k

    def filled() -> bool:
        return made - asked >= depth + 1

    with prefetch(numbers, depth=depth) as items:
        for k in range(20):
            with news:
                asked += 1
            assert next(items) == k
            with news:  # `depth` items wait in the queue, and one is in the thread's hand
                assert news.wait_for(filled, timeout=60)
    assert max(ahead) == depth + 1


def test_exceptions_reach_the_consumer_after_the_items_before_them() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise InputError("broken", where="here")

    items = prefetch(failing)
    assert next(items) == 1
    with pytest.raises(InputError, match="here: broken"):
        next(items)
    assert list(items) == []


def prefetch_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "patch-prefetch"}


def test_threads_end_when_closed_exhausted_or_forgotten() -> None:
    before = prefetch_threads()
    items = prefetch(lambda: itertools.count(), depth=1)
    assert next(items) == 0
    items.close()
    assert list(items) == []
    assert list(prefetch(lambda: range(3))) == [0, 1, 2]
    forgotten = prefetch(lambda: itertools.count(), depth=1)
    next(forgotten)
    del forgotten
    gc.collect()
    for thread in prefetch_threads() - before:
        thread.join(timeout=60)
    assert prefetch_threads() <= before


def test_depth_must_be_positive() -> None:
    with pytest.raises(ValueError, match="depth"):
        prefetch(lambda: range(3), depth=0)
