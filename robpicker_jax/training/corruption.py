"""Corrupted copies of clean label maps, drawn anew at every step on the device: what label correction learns to repair.

Real annotations miss particles, hold false ones, are displaced and confuse species. Here the same is done to the clean
labels of the meta patches, particle by particle, so that the correction has a target: the label before it was
corrupted. Everything is a pure function of (label, key): all evaluations of one step see the same corruption.

A particle is a connected component of voxels of one class (neighbours share a face), so touching particles of one
species are corrupted together.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Integer, PRNGKeyArray, UInt32

from robpicker_jax.config import CorruptionConfig


def components(label: Integer[Array, "n z y x"]) -> Integer[Array, "n z y x"]:
    """The connected component of each voxel of a label map, as the largest index of a voxel in it, within its patch.

    Each voxel starts with its own index and takes the largest of its neighbours of the same class; then the value of
    the voxel whose index it holds, which doubles the reach at every turn. Background forms components as well.

    Args:
        label: class labels; patches are independent.

    Returns:
        int32, equal within a component and different between components of one patch.
    """
    n = label.shape[0]
    size = math.prod(label.shape[1:])
    own = jnp.broadcast_to(jnp.arange(size, dtype=jnp.int32).reshape(1, *label.shape[1:]), label.shape)

    def spread(found: Array) -> Array:
        for axis in (1, 2, 3):
            for step in (1, -1):
                found = jnp.maximum(found, _from_neighbour(found, label, axis, step))
        flat = found.reshape(n, size)
        return jnp.maximum(flat, jnp.take_along_axis(flat, flat, axis=1)).reshape(found.shape)

    def unfinished(carry: tuple[Array, Array]) -> Array:
        before, after = carry
        return jnp.any(before != after)

    _, found = jax.lax.while_loop(unfinished, lambda carry: (carry[1], spread(carry[1])), (own, spread(own)))
    return found


def _from_neighbour(found: Array, label: Array, axis: int, step: int) -> Array:
    """What the neighbour along an axis holds, where it is of the same class; −1 elsewhere and beyond the patch."""
    size = label.shape[axis]
    here = [slice(None)] * label.ndim
    here[axis] = slice(1, None) if step > 0 else slice(0, size - 1)
    there = [slice(None)] * label.ndim
    there[axis] = slice(0, size - 1) if step > 0 else slice(1, None)
    values = jnp.where(label[tuple(here)] == label[tuple(there)], found[tuple(there)], -1)
    padding = [(0, 0)] * label.ndim
    padding[axis] = (1, 0) if step > 0 else (0, 1)
    return jnp.pad(values, padding, constant_values=-1)


def corrupt(
    label: Integer[Array, "n z y x"], key: PRNGKeyArray | UInt32[Array, 2], rates: CorruptionConfig, n_classes: int
) -> Integer[Array, "n z y x"]:
    """A corrupted copy of clean label maps.

    Of the particles of each patch a share `missing` is erased, a share `swap` gets another class, and a share `shifted`
    moves by one displacement, drawn for the patch from a Gaussian of `shift_vox` along each axis. Copies of a share
    `false_picks` appear elsewhere in the patch, with classes drawn at random. In a share `untouched` of the patches
    nothing happens, so that the correction sees right labels too.

    Args:
        label: clean class labels, 0 background.
        key: of this step's corruption.
        rates: shares and the spread of displacements.
        n_classes: classes, background included.

    Returns:
        Class labels of the same type.
    """
    n, shape = label.shape[0], label.shape[1:]
    size = math.prod(shape)
    component = components(label)
    keys = jax.random.split(key, 8)

    def chosen(stream: int, share: float) -> Bool[Array, "n z y x"]:
        """Whether the particle that a voxel belongs to is among a random share."""
        draws = jax.random.uniform(keys[stream], (n, size)) < share
        return jnp.take_along_axis(draws, component.reshape(n, size), axis=1).reshape(label.shape)

    def drawn_class(stream: int) -> Integer[Array, "n z y x"]:
        classes = jax.random.randint(keys[stream], (n, size), 1, max(n_classes, 2)).astype(label.dtype)
        return jnp.take_along_axis(classes, component.reshape(n, size), axis=1).reshape(label.shape)

    is_particle = label > 0
    classes = jnp.where(chosen(1, rates.swap), drawn_class(2), label)
    kept = is_particle & ~chosen(0, rates.missing)
    moving = kept & chosen(3, rates.shifted)
    displacement = jnp.rint(rates.shift_vox * jax.random.normal(keys[4], (n, 3))).astype(jnp.int32)
    far = jax.random.randint(keys[5], (n, 3), 0, jnp.broadcast_to(jnp.array(shape), (n, 3)))
    copied = is_particle & chosen(6, rates.false_picks)
    copies = _rolled(jnp.where(copied, drawn_class(7), 0), far)
    moved = _rolled(jnp.where(moving, classes, 0), displacement)
    corrupted = jnp.where(copies > 0, copies, 0)
    corrupted = jnp.where(kept & ~moving, classes, corrupted)
    corrupted = jnp.where(moved > 0, moved, corrupted)
    whole = jax.random.uniform(jax.random.fold_in(key, 8), (n, 1, 1, 1)) < rates.untouched
    return jnp.where(whole, label, corrupted).astype(label.dtype)


def _rolled(maps: Integer[Array, "n z y x"], shifts: Integer[Array, "n 3"]) -> Integer[Array, "n z y x"]:
    """Each map turned around its patch's edges by its own displacement."""
    return jax.vmap(lambda one, shift: jnp.roll(one, shift, axis=(0, 1, 2)))(maps, shifts)
