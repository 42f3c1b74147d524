"""Tomogram → class map, by overlapping tiles averaged where they overlap, streamed through the device.

Neither the density nor the class scores are held whole: tiles are read as they are needed, and scores are kept only
where a later tile still adds to them (`accumulation`). What grows with the tomogram is the class map and its
probability, 3 bytes a voxel; `memory` states the bound.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from robpicker_jax.picking.inference.accumulation import Accumulator, OnScores, Segmentation
from robpicker_jax.picking.inference.feed import batches
from robpicker_jax.picking.inference.reader import ArrayReader, Reader
from robpicker_jax.picking.inference.tiles import plan_tiles
from robpicker_jax.system.errors import InputError

PREDICTIONS_UNDER_WAY = 2
"""Batches that may be queued on the device while the host goes on."""

_MOST_CLASSES = 256


def segment(
    tomogram: Reader | np.ndarray,
    predict: Callable[[Any], Any],
    n_classes: int,
    *,
    tile: int,
    overlap_vox: int,
    batch_size: int,
    blend: str = "average",
    keep_scores: bool = False,
    on_scores: OnScores | None = None,
    on_tiles: Callable[[int], None] | None = None,
    to_devices: Callable[[np.ndarray], Any] = jax.device_put,
    device: Any = None,
) -> Segmentation:
    """Segment a tomogram.

    Args:
        tomogram: normalised densities, in memory or behind a reader.
        predict: tiles (batch_size, tile, tile, tile, 1) float32 → probabilities (batch_size, tile, tile, tile, c), on
            whatever device. Always called with a full batch, so that it is compiled once.
        n_classes: c, background included.
        tile: edge of the cubic tiles, voxels.
        overlap_vox: overlap of neighbouring tiles, voxels.
        batch_size: tiles a call.
        blend: "average", every tile counts the same wherever it covers a voxel; "gaussian", see `tiles.window`.
        keep_scores: also return all averaged class probabilities (z · y · x · c floats).
        on_scores: called with the averaged class probabilities of each block of voxels as it is finished, for what
            needs all of them once and need not hold them.
        on_tiles: called with the number of tiles just finished (progress).
        to_devices: puts a batch on the devices that `predict` runs on; called in the reading threads.
        device: where the sums are kept; JAX's default device when None.

    Raises:
        InputError: an overlap that leaves no stride, more than 256 classes, an unknown blend.
    """
    if n_classes > _MOST_CLASSES:
        raise InputError(f"{n_classes} classes, but a class map holds at most {_MOST_CLASSES}")
    reader = ArrayReader(tomogram) if isinstance(tomogram, np.ndarray) else tomogram
    plan = plan_tiles(reader.shape_zyx, tile, overlap_vox)
    accumulator = Accumulator(
        plan, n_classes, blend, keep_scores=keep_scores, on_scores=on_scores, device=device or jax.devices()[0]
    )
    under_way: deque[tuple[int, Any]] = deque()

    def wait() -> None:
        count, predicted = under_way.popleft()
        jax.block_until_ready(predicted)
        if on_tiles is not None:
            on_tiles(count)

    for chunk, batch in batches(reader, plan.tiles(), tile, batch_size, to_devices):
        predicted = predict(batch)
        accumulator.add(chunk, predicted)
        under_way.append((len(chunk), predicted))
        if len(under_way) > PREDICTIONS_UNDER_WAY:
            wait()
    while under_way:
        wait()
    return accumulator.finish()
