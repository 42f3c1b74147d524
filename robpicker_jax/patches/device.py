"""Patches cut and turned on the device, from tomograms that lie there.

The places and turns of a batch are the host's draws (`BatchSource.plan`), so that a batch is the same function of
(seed, step) wherever it is cut; what goes to the device for each patch is a few numbers. Turns that move voxels onto
voxels give the host's patches bit for bit; rotations by interpolation give them to rounding (densities to about 1e-5
of their range; a label differs only where a voxel falls halfway between two, within that rounding).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robpicker_jax.config.schema import PatchConfig
from robpicker_jax.patches.sampling import PatchPlan

Array = jax.Array | np.ndarray


class Places(NamedTuple):
    """Places and turns of n patches; leaves may have further leading axes.

    Attributes:
        tomogram: int32 (n,), index of the tomogram.
        corner_zyx: int32 (n, 3), first voxel.
        reverse_zyx: bool (n, 3), `Turn.reverse_zyx`.
        quarter_turns_z: int32 (n,), `Turn.quarter_turns_z`.
        rotation: float32 (n, 3, 3), on vectors x, y, z; (n, 0, 0) where none is drawn.
    """

    tomogram: Array
    corner_zyx: Array
    reverse_zyx: Array
    quarter_turns_z: Array
    rotation: Array

    @classmethod
    def of(cls, plans: Sequence[PatchPlan]) -> Places:
        """Of the plans of a batch."""
        rotations = [np.zeros((0, 0)) if plan.rotation is None else plan.rotation for plan in plans]
        return cls(
            np.array([plan.tomogram for plan in plans], np.int32),
            np.array([plan.corner_zyx for plan in plans], np.int32),
            np.array([plan.turn.reverse_zyx for plan in plans], bool),
            np.array([plan.turn.quarter_turns_z for plan in plans], np.int32),
            np.array(rotations, np.float32),
        )


class Stack(NamedTuple):
    """Tomograms of one set as one array, each in the corner of its place.

    Attributes:
        density: float32 (t, Z, Y, X), Z, Y, X being the largest edges.
        labels: uint8, of the same shape; None where labels are drawn from coordinates.
        shape_zyx: int32 (t, 3), size of each tomogram.
    """

    density: Array
    labels: Array | None
    shape_zyx: Array


def cut(volumes: Array, shapes: Array, places: Places, config: PatchConfig, *, nearest: bool = False) -> jax.Array:
    """Patches of a stack of volumes, turned; to be called inside `jit`.

    Args:
        volumes: (t, Z, Y, X).
        shapes: int32 (t, 3), size of each volume in it.
        places: of n patches.
        config: size of the patches, and which turns are ever drawn.
        nearest: rotations take the nearest voxel (labels) rather than interpolate (densities).

    Returns:
        (n, size, size, size), of the type of `volumes`.
    """
    volumes, size = jnp.asarray(volumes), config.size

    def one(place: Places) -> jax.Array:
        if config.rotate_any:
            patch = _rotated(volumes, jnp.asarray(shapes)[place.tomogram], place, size, nearest)
        else:
            z, y, x = place.corner_zyx
            patch = jax.lax.dynamic_slice(volumes, (place.tomogram, z, y, x), (1, size, size, size))[0]
        if config.rotate_180 or config.flip:
            for axis in range(3):
                patch = jnp.where(place.reverse_zyx[axis], jnp.flip(patch, axis), patch)
        if config.rotate_z90:
            turned = [jnp.rot90(patch, k, axes=(2, 1)) for k in range(4)]
            patch = jax.lax.select_n(place.quarter_turns_z, *turned)
        return patch

    return jax.vmap(one)(jax.tree.map(jnp.asarray, places))


def _rotated(volumes: jax.Array, shape: jax.Array, place: Places, size: int, nearest: bool) -> jax.Array:
    """The patch rotated about its centre, continued by reflection, as `augmentation.rotated_patch`.

    Coordinates are split into whole voxels and a rest near the patch's centre, so that float32 loses nothing that
    matters however large the volume is.
    """
    half = (size - 1) / 2
    back = place.rotation.T[::-1, ::-1]
    line = jnp.arange(size, dtype=jnp.float32) - half
    grid = jnp.stack(jnp.meshgrid(line, line, line, indexing="ij")).reshape(3, -1)
    away = jnp.matmul(back, grid, precision="highest") + half  # from the patch's first voxel
    if nearest:
        return _take(volumes, place, shape, jnp.floor(away + 0.5).astype(jnp.int32)).reshape((size,) * 3)
    low = jnp.floor(away)
    rest = away - low
    total = jnp.zeros(size**3, volumes.dtype)
    for corner in np.ndindex(2, 2, 2):
        offset = jnp.array(corner, jnp.int32)[:, None]
        weight = jnp.prod(jnp.where(offset == 1, rest, 1 - rest), axis=0)
        total += weight * _take(volumes, place, shape, low.astype(jnp.int32) + offset)
    return total.reshape((size,) * 3)


def _take(volumes: jax.Array, place: Places, shape: jax.Array, index: jax.Array) -> jax.Array:
    """Voxels (m,) of a tomogram at (3, m) from a patch's corner; beyond the border, reflected about its last voxel."""
    last = (jnp.asarray(shape) - 1)[:, None]
    there = jnp.abs(index + jnp.asarray(place.corner_zyx)[:, None])
    there = jnp.clip(jnp.where(there > last, 2 * last - there, there), 0, last)
    return volumes[place.tomogram, there[0], there[1], there[2]]
