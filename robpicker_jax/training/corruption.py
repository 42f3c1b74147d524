"""Corrupted copies of clean label maps, drawn anew at every step on the device: what label correction learns to repair.

Real annotations miss particles, hold false ones, are displaced and confuse species. Here the same is done to the clean
labels of the meta patches, particle by particle, so that the correction has a target: the label before it was
corrupted. Everything is a pure function of (label, key): all evaluations of one step see the same corruption.

A particle is a connected component of voxels of one class (neighbours share a face), so touching particles of one
species are corrupted together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, PRNGKeyArray, UInt32

from robpicker_jax.config import CorruptionConfig, Species
from robpicker_jax.system.errors import InputError


class CorruptionRates(NamedTuple):
    """Rates by class, from `train.corruption`.

    Attributes:
        missing: (c,) share of particles of each class that is erased.
        swapped: (c, c) probability that a particle of a class (row) is labelled as each class.
        false_picks: probability of each of the false picks that a patch may get.
        false_classes: (c,) probability that a false pick gets each class.
        false_on_contrast: share of false picks that lie where the contrast is highest.
        radii_vox: (c,) radius of the ball that a false pick of each class is.
        shifted, untouched: as in the configuration.
        shift_zyx_vox: (3,) standard deviation of the displacement along z, y and x.
    """

    missing: np.ndarray
    swapped: np.ndarray
    false_picks: float
    false_classes: np.ndarray
    false_on_contrast: float
    radii_vox: np.ndarray
    shifted: float
    shift_zyx_vox: np.ndarray
    untouched: float


def corruption_rates(config: CorruptionConfig, species: Sequence[Species]) -> CorruptionRates:
    """The rates of a configuration, class by class.

    Raises:
        InputError: a species that does not exist.
    """
    names = [entry.name for entry in species]
    n_classes = len(names) + 1

    def index(key: str, name: str) -> int:
        if name not in names:
            raise InputError(f"no species is named {name!r}", where=f"train.corruption.{key}", fix=", ".join(names))
        return names.index(name) + 1

    def by_class(key: str, value: float | Mapping[str, float], others: float) -> np.ndarray:
        found = np.full(n_classes, value if not isinstance(value, Mapping) else others, np.float32)
        if isinstance(value, Mapping):
            for name, rate in value.items():
                found[index(key, name)] = rate
        return found

    swap = by_class("swap", config.swap, 0.0)
    swapped = np.eye(n_classes, dtype=np.float32)
    for label in range(1, n_classes):
        to = config.swap_to.get(names[label - 1])
        row = np.zeros(n_classes, np.float32)
        if to is None:
            row[1:] = 1 / len(names)
        else:
            row[index("swap_to", to)] = 1
        swapped[label] = (1 - swap[label]) * swapped[label] + swap[label] * row
    stated = {} if config.false_classes is None else config.false_classes
    false = by_class("false_classes", stated if stated else 1.0, 0.0)
    false[0] = 0
    if not false.sum():
        raise InputError("all species are 0", where="train.corruption.false_classes", fix="give one a larger number")
    return CorruptionRates(
        missing=by_class("missing", config.missing, 0.0),
        swapped=swapped,
        false_picks=config.false_picks,
        false_classes=false / false.sum(),
        false_on_contrast=config.false_on_contrast,
        radii_vox=np.array([0.0, *(entry.radius_vox for entry in species)], np.float32),
        shifted=config.shifted,
        shift_zyx_vox=np.array(
            [config.shift_vox if config.shift_z_vox is None else config.shift_z_vox, *[config.shift_vox] * 2],
            np.float32,
        ),
        untouched=config.untouched,
    )


_FALSE_PICKS = 2  # a patch gets at most so many


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
    label: Integer[Array, "n z y x"],
    density: Float[Array, "n z y x 1"],
    key: PRNGKeyArray | UInt32[Array, 2],
    rates: CorruptionRates,
) -> Integer[Array, "n z y x"]:
    """A corrupted copy of clean label maps.

    Of the particles of each patch a share `missing` is erased, a share gets another class by `swapped`, and a share
    `shifted` moves by one displacement, drawn for the patch from a Gaussian of `shift_zyx_vox`. Copies of a
    share `false_picks` appear elsewhere in the patch: anywhere, or on the spot of the highest contrast that is no
    particle, where template matching finds its false picks. In a share `untouched` of the patches nothing happens, so
    that the correction sees right labels too.

    Args:
        label: clean class labels, 0 background.
        density: of the same patches.
        key: of this step's corruption.
        rates: shares by class and the spread of displacements.

    Returns:
        Class labels of the same type.
    """
    n, shape = label.shape[0], label.shape[1:]
    size = math.prod(shape)
    component = components(label)
    keys = jax.random.split(key, 8)

    def of_particle(draws: Array) -> Array:
        """What was drawn for the particle that a voxel belongs to, from one draw a voxel (n, size)."""
        return jnp.take_along_axis(draws, component.reshape(n, size), axis=1).reshape(label.shape)

    def uniform(stream: int) -> Array:
        return of_particle(jax.random.uniform(keys[stream], (n, size)))

    def drawn_class(stream: int, cumulative: Array) -> Array:
        """A class for each particle; `cumulative` (..., c) sums up its probabilities."""
        drawn = jnp.sum(uniform(stream)[..., None] >= cumulative, axis=-1)
        return jnp.minimum(drawn, cumulative.shape[-1] - 1).astype(label.dtype)

    is_particle = label > 0
    classes = drawn_class(1, jnp.cumsum(jnp.asarray(rates.swapped), axis=-1)[label])
    kept = is_particle & (uniform(0) >= jnp.asarray(rates.missing)[label])
    moving = kept & (uniform(3) < rates.shifted)
    displacement = jnp.rint(rates.shift_zyx_vox[None] * jax.random.normal(keys[4], (n, 3))).astype(jnp.int32)
    moved = _rolled(jnp.where(moving, classes, 0), displacement)
    corrupted = _false_picks(label, density[..., 0], keys[5], rates)
    corrupted = jnp.where(kept & ~moving, classes, corrupted)
    corrupted = jnp.where(moved > 0, moved, corrupted)
    whole = jax.random.uniform(jax.random.fold_in(key, 8), (n, 1, 1, 1)) < rates.untouched
    return jnp.where(whole, label, corrupted).astype(label.dtype)


def _false_picks(label: Array, density: Array, key: Array, rates: CorruptionRates) -> Array:
    """Balls of the sizes and classes of false picks, each on a spot of high contrast without a label or anywhere.

    Contrast has the sign of particles against background in the batch; a spot is the voxel with the largest mean over
    five voxels along each axis among those without a label. The second pick takes the next spot beyond the first.
    """
    if not rates.false_picks:
        return jnp.zeros_like(label)
    n, shape = label.shape[0], label.shape[1:]
    grids = jnp.stack(jnp.meshgrid(*(jnp.arange(edge) for edge in shape), indexing="ij"), -1)
    particles = label > 0
    inside = jnp.sum(jnp.where(particles, density, 0)) / jnp.maximum(jnp.sum(particles), 1)
    outside = jnp.sum(jnp.where(particles, 0, density)) / jnp.maximum(jnp.sum(~particles), 1)
    contrast = density * jnp.where(inside < outside, -1.0, 1.0)
    for axis in (1, 2, 3):
        window = [1] * 4
        window[axis] = 5
        contrast = jax.lax.reduce_window(contrast, 0.0, jax.lax.add, window, [1] * 4, "SAME")
    contrast = jnp.where(particles, -jnp.inf, contrast)
    found = jnp.zeros_like(label)
    for pick_key in jax.random.split(key, _FALSE_PICKS):
        here, where, what, on = jax.random.split(pick_key, 4)
        spot = grids.reshape(-1, 3)[jnp.argmax(contrast.reshape(n, -1), axis=1)]
        anywhere = jax.random.randint(where, (n, 3), 0, jnp.array(shape)[None])
        bright = jax.random.uniform(on, (n, 1)) < rates.false_on_contrast
        centre = jnp.where(bright, spot, anywhere)
        classes = jax.random.choice(what, len(rates.false_classes), (n,), p=jnp.asarray(rates.false_classes))
        given = jax.random.uniform(here, (n,)) < rates.false_picks
        radius = jnp.where(given, jnp.asarray(rates.radii_vox)[classes], -1.0)[:, None, None, None]
        squared = jnp.sum(jnp.square(grids[None] - centre[:, None, None, None, :]), -1)
        ball = (squared <= jnp.square(radius)) & (radius > 0)
        found = jnp.where(ball, classes[:, None, None, None].astype(label.dtype), found)
        near = jnp.sum(jnp.square(grids[None] - spot[:, None, None, None, :]), -1) <= jnp.square(rates.radii_vox.max())
        contrast = jnp.where(near, -jnp.inf, contrast)
    return found


def _rolled(maps: Integer[Array, "n z y x"], shifts: Integer[Array, "n 3"]) -> Integer[Array, "n z y x"]:
    """Each map turned around its patch's edges by its own displacement."""
    return jax.vmap(lambda one, shift: jnp.roll(one, shift, axis=(0, 1, 2)))(maps, shifts)
