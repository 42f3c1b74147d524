"""Weighted sums of overlapping predictions, kept on the device, and only where a later tile still adds to them.

Two buffers hold sums of probabilities, class first so that the last axis is long on every backend: `row`, one row of
tiles (its layer's planes, `tile` lines, all x), and `carry`, the planes that a layer shares with the next one. A line
of a row that no later row reaches is finished at once: divided by its total weight, reduced to the best class and its
probability, and fetched. Buffers are donated, so each is updated in place.

Tiles are added one by one in the plan's order. Sums therefore do not depend on how tiles were batched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from robpicker_jax.picking.inference.tiles import Row, Tile, TilePlan, window

_FETCHES_UNDER_WAY = 2


OnScores = Callable[[int, int, np.ndarray], None]
"""Takes finished class probabilities: first plane z, first line y, and (planes, lines, x, classes) float32.

The blocks cover the tomogram once, and come in no promised order.
"""


@dataclass(frozen=True)
class Segmentation:
    """A segmented tomogram.

    Attributes:
        classes: (z, y, x) uint8, the class of highest averaged probability.
        probability: (z, y, x) float16, that probability.
        scores: (z, y, x, classes) float32 averaged probabilities, or None when they were not asked for.
    """

    classes: np.ndarray
    probability: np.ndarray
    scores: np.ndarray | None = None


class Accumulator:
    """Takes predictions of tiles in the plan's order; `result` is whole once all were added.

    Args:
        plan: the tiles.
        n_classes: classes, background included.
        blend: weights of a tile's voxels, see `tiles.window`.
        keep_scores: keep all averaged class probabilities.
        on_scores: called with the averaged class probabilities of each block as it is finished; they are not kept.
        device: where the sums are kept.
    """

    def __init__(
        self,
        plan: TilePlan,
        n_classes: int,
        blend: str,
        *,
        keep_scores: bool = False,
        on_scores: OnScores | None = None,
        device: Any = None,
    ) -> None:
        tile = plan.tile
        _, y, x = plan.padded
        self._plan, self._device, self._on_scores = plan, device, on_scores
        self._rows = plan.rows()
        weights = window(tile, blend)
        self._totals = plan.total_weights(weights)
        self._totals[0] = np.pad(self._totals[0], (0, plan.height), constant_values=1)
        cube = weights[:, None, None] * weights[:, None] * weights
        self._weights = None if blend == "average" else self._put(cube)
        self._row = self._put(np.zeros((n_classes, plan.height, tile, x), np.float32))
        self._carry = self._put(np.zeros((n_classes, plan.carried, y, x), np.float32))
        self._fetches: deque[tuple[Row, tuple[jax.Array, ...]]] = deque()
        shape = plan.shape_zyx
        self.result = Segmentation(
            np.zeros(shape, np.uint8),
            np.zeros(shape, np.float16),
            np.zeros((*shape, n_classes), np.float32) if keep_scores else None,
        )

    def add(self, tiles: Sequence[Tile], predicted: Any) -> None:
        """Add the predictions (≥ n, tile, tile, tile, classes) of the next n tiles."""
        predicted = self._put(predicted)
        offsets = np.zeros((len(predicted), 2), np.int32)
        offsets[: len(tiles)] = [(tile.z - self._rows[tile.row].z, tile.x) for tile in tiles]
        first = 0
        for number, members in groupby(tiles, key=lambda tile: tile.row):
            count = len(list(members))
            # The loop's length is static: powers of two keep the number of programs small.
            length = min(1 << (count - 1).bit_length(), len(predicted))
            self._row = _add(self._row, predicted, offsets, first, count, self._weights, length)
            first += count
            last_x = tiles[first - 1].x == self._plan.starts[2][-1]
            if last_x and tiles[first - 1].z == self._layer_end(number):
                self._finish(self._rows[number])

    def finish(self) -> Segmentation:
        """Wait for what is still being computed, and give the result."""
        while self._fetches:
            self._fetch()
        return self.result

    def _layer_end(self, row: int) -> int:
        return self._plan.layers[row // len(self._plan.starts[1])][-1]

    def _finish(self, row: Row) -> None:
        z, y, _ = self._totals
        totals = z[row.z : row.z + self._plan.height], y[row.y : row.y + self._plan.tile], self._totals[2]
        keep_scores = self.result.scores is not None or self._on_scores is not None
        bounds = np.array([row.y, row.lines, row.planes], np.int32)
        self._row, self._carry, finished = _finish(self._row, self._carry, bounds, totals, keep_scores)
        self._fetches.append((row, finished))
        if len(self._fetches) > _FETCHES_UNDER_WAY:
            self._fetch()

    def _fetch(self) -> None:
        row, (classes, probability, *scores) = self._fetches.popleft()
        depth, height, width = self.result.classes.shape
        planes, lines = min(row.planes, depth - row.z), min(row.lines, height - row.y)
        into = slice(row.z, row.z + planes), slice(row.y, row.y + lines)
        self.result.classes[into] = np.asarray(classes)[:planes, :lines, :width]
        self.result.probability[into] = np.asarray(probability)[:planes, :lines, :width]
        if not scores:
            return
        block = np.moveaxis(np.asarray(scores[0]), 0, -1)[:planes, :lines, :width]
        if self.result.scores is not None:
            self.result.scores[into] = block
        if self._on_scores is not None and block.size:
            self._on_scores(row.z, row.y, block)

    def _put(self, array: Any) -> jax.Array:
        put: jax.Array = jax.device_put(array, self._device)
        return put


@partial(jax.jit, static_argnames="length", donate_argnums=0)
def _add(
    row: jax.Array,
    predicted: jax.Array,
    offsets: jax.Array,
    first: jax.Array,
    count: jax.Array,
    weights: jax.Array | None,
    length: int,
) -> jax.Array:
    """Add `count` ≤ `length` tiles of a batch, from number `first` on, to their row."""
    tile = predicted.shape[1]

    def add(step: jax.Array, row: jax.Array) -> jax.Array:
        number = jnp.minimum(first + step, len(predicted) - 1)
        values = jnp.moveaxis(predicted[number], -1, 0).astype(row.dtype)
        if weights is not None:
            values = values * weights[None]
        z, x = offsets[number]
        corner = _corner(0, z, 0, x)
        before = lax.dynamic_slice(row, corner, (row.shape[0], tile, tile, tile))
        return lax.dynamic_update_slice(row, before + jnp.where(step < count, values, 0), corner)

    added: jax.Array = lax.fori_loop(0, length, add, row)
    return added


@partial(jax.jit, static_argnames="keep_scores", donate_argnums=(0, 1))
def _finish(
    row: jax.Array,
    carry: jax.Array,
    bounds: jax.Array,
    totals: tuple[jax.Array, jax.Array, jax.Array],
    keep_scores: bool,
) -> tuple[jax.Array, jax.Array, tuple[jax.Array, ...]]:
    """Means, classes and probabilities of a row's final lines; the row moved on, the carry brought up to date.

    What comes out is as large as the row whatever is final in it, so that one program serves all rows.
    """
    n_classes, height, tile, width = row.shape
    y, lines, planes = bounds
    carried = carry.shape[1]
    total = row
    if carried:
        before = lax.dynamic_slice(carry, _corner(0, 0, y, 0), (n_classes, carried, tile, width))
        total = row + jnp.pad(before, ((0, 0), (0, height - carried), (0, 0), (0, 0)))
        kept = lax.dynamic_slice(total, _corner(0, planes, 0, 0), before.shape)
        done = jnp.arange(tile)[None, None, :, None] < lines
        carry = lax.dynamic_update_slice(carry, jnp.where(done, kept, before), _corner(0, 0, y, 0))
    z_total, y_total, x_total = totals
    weight = z_total[:, None, None] * (y_total[None, :, None] * x_total[None, None, :])
    best, classes = total[0], jnp.zeros(total.shape[1:], jnp.uint8)
    for label in range(1, n_classes):  # the first of equals wins, as in argmax
        classes = jnp.where(total[label] > best, jnp.uint8(label), classes)
        best = jnp.maximum(total[label], best)
    finished = [classes, (best / weight).astype(jnp.float16)]
    if keep_scores:
        finished.append(total / weight[None])
    doubled = jnp.pad(row, ((0, 0), (0, 0), (0, tile), (0, 0)))
    row = lax.dynamic_slice(doubled, _corner(0, 0, lines, 0), row.shape)
    return row, carry, tuple(finished)


def _corner(*indices: Any) -> tuple[jax.Array, ...]:
    """Where a slice begins. All indices have one type, whether or not JAX takes Python's numbers as 64-bit ones."""
    return tuple(jnp.asarray(index, jnp.int32) for index in indices)
