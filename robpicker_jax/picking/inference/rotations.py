"""Test-time rotations: a tile is predicted in several orientations and the probabilities, turned back, are averaged.

The tilt axis is y and the beam z, as in training (augmentation `rotate_180`): the missing wedge lies about z in the x-z
plane. The half-turns about x, y and z map it on itself and keep handedness. Quarter-turns about z turn it, so that
`8` is for networks trained on turned wedges (augmentation `rotate_z90`) or for tomograms without one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from robpicker_jax.system.errors import InputError

_Z, _Y, _X = 1, 2, 3  # axes of a batch (n, z, y, x, c)
_HALF_TURNS: dict[str, tuple[int, ...]] = {"": (), "y": (_Z, _X), "x": (_Z, _Y), "z": (_Y, _X)}

# Each rotation: a half-turn, then so many quarter-turns about z.
ROTATIONS: dict[int, tuple[tuple[str, int], ...]] = {
    1: (("", 0),),
    2: (("", 0), ("y", 0)),
    4: (("", 0), ("y", 0), ("x", 0), ("z", 0)),
    8: (("", 0), ("y", 0), ("x", 0), ("z", 0), ("", 1), ("", 3), ("y", 1), ("y", 3)),
}
"""The groups of rotations: 2 about the tilt axis y, 4 all half-turns, 8 quarter-turns about z as well."""

PREDICTIONS_MORE = 2
"""Predictions of a batch that are in memory at most, beside the average of them."""


def turned(batch: Any, half_turn: str, quarter_turns: int) -> Any:
    """A batch (n, z, y, x, c) turned: a half-turn about an axis ("" for none), then quarter-turns about z."""
    batch = jnp.flip(batch, _HALF_TURNS[half_turn]) if half_turn else batch
    return jnp.rot90(batch, quarter_turns, (_Y, _X)) if quarter_turns else batch


def turned_back(batch: Any, half_turn: str, quarter_turns: int) -> Any:
    """The inverse of `turned`."""
    batch = jnp.rot90(batch, -quarter_turns, (_Y, _X)) if quarter_turns else batch
    return jnp.flip(batch, _HALF_TURNS[half_turn]) if half_turn else batch


def over_rotations(predict: Callable[[Any], Any], rotations: int) -> Callable[[Any], Any]:
    """`predict` (tiles → probabilities) averaged over a group of rotations; as many forward passes.

    Beside the average, two predictions of a batch are in memory at most (`PREDICTIONS_MORE`).

    Raises:
        InputError: no such group.
    """
    if rotations not in ROTATIONS:
        raise InputError(f"no group of {rotations} rotations", fix=f"one of {', '.join(map(str, ROTATIONS))}")
    if rotations == 1:
        return predict

    def averaged(tiles: Any) -> Any:
        total = predict(tiles)
        for rotation in ROTATIONS[rotations][1:]:
            predicted = predict(_turned(tiles, *rotation))
            # Waiting here keeps one prediction queued on the device, and never more.
            jax.block_until_ready(total)
            total = _added(total, predicted, *rotation)
        return _scaled(total, 1 / rotations)

    return averaged


_turned = jax.jit(turned, static_argnums=(1, 2))
_scaled = jax.jit(jnp.multiply, donate_argnums=0)


@functools.partial(jax.jit, static_argnums=(2, 3), donate_argnums=0)
def _added(total: jax.Array, predicted: jax.Array, half_turn: str, quarter_turns: int) -> jax.Array:
    added: jax.Array = total + turned_back(predicted, half_turn, quarter_turns)
    return added
