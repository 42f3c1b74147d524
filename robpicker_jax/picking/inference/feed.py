"""Batches of tiles, read and cut in background threads while the device computes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from robpicker_jax.picking.inference.reader import Reader
from robpicker_jax.picking.inference.tiles import Tile

_MOST_THREADS = 8


def reading_threads() -> int:
    """Threads that read tiles: half of the processors, at most eight."""
    return min(_MOST_THREADS, max(1, (os.cpu_count() or 1) // 2))


def batches_under_way() -> int:
    """Batches that wait to be predicted, or are being read, at any time."""
    return reading_threads() + 1


def batches(
    reader: Reader, tiles: Sequence[Tile], tile: int, batch_size: int, to_devices: Callable[[np.ndarray], Any]
) -> Iterator[tuple[Sequence[Tile], Any]]:
    """Yield (tiles, batch (batch_size, tile, tile, tile, 1) float32 as `to_devices` puts it on the devices).

    The last batch is filled up with zeros. Errors of the reading threads are raised here.
    """

    def read(chunk: Sequence[Tile]) -> Any:
        batch = np.zeros((batch_size, tile, tile, tile, 1), np.float32)
        for number, corner in enumerate(chunk):
            batch[number, ..., 0] = read_tile(reader, corner, tile)
        reader.release()
        return to_devices(batch)

    chunks = [tiles[start : start + batch_size] for start in range(0, len(tiles), batch_size)]
    waiting: deque[tuple[Sequence[Tile], Future[Any]]] = deque()
    pool = ThreadPoolExecutor(reading_threads(), thread_name_prefix="tiles")
    try:
        for chunk in chunks:
            waiting.append((chunk, pool.submit(read, chunk)))
            if len(waiting) >= batches_under_way():
                first, batch = waiting.popleft()
                yield first, batch.result()
        while waiting:
            first, batch = waiting.popleft()
            yield first, batch.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def read_tile(reader: Reader, corner: Tile, tile: int) -> np.ndarray:
    """One tile (z, y, x), mirrored at the far side of every axis that is shorter than a tile."""
    starts = corner.z, corner.y, corner.x
    z, y, x = (slice(start, min(start + tile, size)) for start, size in zip(starts, reader.shape_zyx, strict=True))
    data = reader.read((z, y, x))
    missing = [tile - size for size in data.shape]
    return np.pad(data, [(0, count) for count in missing], mode="symmetric") if any(missing) else data
