"""Planted annotation errors: missing picks, false picks, displaced picks and swapped classes, with a full record.

Works on any particle list with class labels, simulated or real, to study how a method copes with noisy labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy

from robpicker_jax.annotations.geometry import random_rotations
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.config import LabelNoiseConfig
from robpicker_jax.system.errors import InputError

_DISTANCES = (1.0, 0.75, 0.5)  # in units of the sum of the radii: in a crowd, false picks must come closer
_DRAWS = 20_000


def add_label_noise(
    particles: Particles,
    n_classes: int,
    shape_zyx: Sequence[int],
    config: LabelNoiseConfig,
    *,
    key: Sequence[int] = (),
    radii_vox: Sequence[float] | None = None,
) -> tuple[Particles, dict[str, Any]]:
    """Plant errors into a particle list.

    Every kind of error has its own random stream, so that changing one rate leaves the others' choices alone, and a
    higher rate hits the same particles and more. Shares are met exactly, up to rounding:

    - `missing`: that share of the particles is dropped;
    - `swap`: that share of the remaining ones gets another class, drawn uniformly;
    - `jitter_vox`: each remaining one is displaced by a Gaussian of that standard deviation along each axis, and kept
      inside the volume;
    - `false_picks`: that share of the original number is added at random positions away from all true particles, with
      classes drawn uniformly and, where the list has orientations, random ones.

    Args:
        particles: the true particles, labels 1 to `n_classes`.
        n_classes: number of particle classes, background not counted.
        shape_zyx: the tomogram, voxels.
        config: rates and seed.
        key: further numbers that select the random streams, such as the tomogram's index.
        radii_vox: radius of each class (default 2.5 voxels). A false pick keeps the sum of the two radii from every
            true particle or, where there is no room, three quarters or half of it.

    Returns:
        The noisy list, remaining particles in their order and then the false ones; and a record for JSON: `kept`,
        `dropped`, `moved` and `swapped` name particles by their index in the true list, `added` in the noisy one.

    Raises:
        InputError: a label outside 1 to `n_classes`, swaps with a single class, no room for false picks.
    """
    n = len(particles)
    if n and (particles.labels.min() < 1 or particles.labels.max() > n_classes):
        raise InputError(f"class labels must lie between 1 and {n_classes} to plant label noise")
    if config.swap > 0 and n_classes < 2:
        raise InputError("there is one class only", where="label_noise.swap", fix="set it to 0")
    missing_rng, swap_rng, jitter_rng, false_rng = (
        np.random.default_rng(child)
        for child in np.random.SeedSequence(config.seed, spawn_key=tuple(int(k) for k in key)).spawn(4)
    )
    record: dict[str, Any] = {
        "rates": {
            "missing": config.missing,
            "false_picks": config.false_picks,
            "jitter_vox": config.jitter_vox,
            "swap": config.swap,
        },
        "seed": config.seed,
        "key": [int(k) for k in key],
        "true_particles": n,
    }
    dropped = np.sort(missing_rng.permutation(n)[: _share(config.missing, n)])
    kept = np.setdiff1d(np.arange(n), dropped)
    record["kept"] = kept.tolist()
    record["dropped"] = [_describe(particles, index) for index in dropped]
    labels, record["swapped"] = _swap(particles, kept, n_classes, config.swap, swap_rng)
    positions, record["moved"] = _move(particles, kept, shape_zyx, config.jitter_vox, jitter_rng)
    remaining = particles.select(kept).with_(labels=labels[kept], positions_vox=positions[kept])
    if particles.class_names is not None:
        names = _names(particles, n_classes)
        changed = labels[kept] != particles.labels[kept]
        remaining = remaining.with_(class_names=np.where(changed, names[labels[kept] - 1], particles.class_names[kept]))
    added = _false_picks(particles, n_classes, shape_zyx, _share(config.false_picks, n), radii_vox, false_rng)
    noisy = Particles.concatenate([remaining, added]) if len(added) else remaining
    record["added"] = [_describe(noisy, index) for index in range(len(remaining), len(noisy))]
    return noisy, record


def _share(rate: float, n: int) -> int:
    return int(np.floor(rate * n + 0.5))


def _describe(particles: Particles, index: int | np.integer) -> dict[str, Any]:
    return {
        "index": int(index),
        "label": int(particles.labels[index]),
        "position_xyz": particles.positions_vox[index].tolist(),
    }


def _swap(
    particles: Particles, kept: np.ndarray, n_classes: int, rate: float, rng: np.random.Generator
) -> tuple[np.ndarray, list[dict[str, int]]]:
    n = len(particles)
    labels = particles.labels.copy()
    order = rng.permutation(n)
    steps = rng.integers(1, max(2, n_classes), n)  # how many classes further, around the circle
    chosen = np.sort(order[np.isin(order, kept)][: _share(rate, len(kept))])
    labels[chosen] = (labels[chosen] - 1 + steps[chosen]) % n_classes + 1
    return labels, [
        {"index": int(i), "from_label": int(particles.labels[i]), "to_label": int(labels[i])} for i in chosen
    ]


def _move(
    particles: Particles, kept: np.ndarray, shape_zyx: Sequence[int], sigma: float, rng: np.random.Generator
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    positions = particles.positions_vox.copy()
    if sigma == 0:
        return positions, []
    steps = rng.standard_normal(positions.shape) * sigma
    last = np.array(tuple(shape_zyx)[::-1]) - 1
    positions = np.clip(positions + steps, np.minimum(0, positions), np.maximum(last, positions))
    return positions, [
        {"index": int(i), "from_xyz": particles.positions_vox[i].tolist(), "to_xyz": positions[i].tolist()}
        for i in kept
    ]


def _names(particles: Particles, n_classes: int) -> np.ndarray:
    """The name of each class, as the list has it; "" for a class without a particle."""
    names = [""] * n_classes
    if particles.class_names is not None:
        for label, name in zip(particles.labels, particles.class_names, strict=True):
            names[label - 1] = names[label - 1] or str(name)
    return np.array(names)


def _false_picks(
    particles: Particles,
    n_classes: int,
    shape_zyx: Sequence[int],
    count: int,
    radii_vox: Sequence[float] | None,
    rng: np.random.Generator,
) -> Particles:
    if count == 0:
        return Particles.empty()
    n = len(particles)
    radii = np.full(n_classes, 2.5) if radii_vox is None else np.asarray(radii_vox, float)
    labels = rng.integers(1, n_classes + 1, count).astype(np.int32)
    last = np.array(tuple(shape_zyx)[::-1]) - 1
    candidates = rng.uniform(0, last, (_DRAWS, 3))
    present = np.unique(particles.labels)
    trees = [scipy.spatial.cKDTree(particles.positions_vox[particles.labels == label]) for label in present]
    nearest = [tree.query(candidates)[0] for tree in trees]
    used = np.zeros(_DRAWS, bool)
    positions = np.empty((count, 3))
    for label in np.unique(labels):
        clearance = np.full(_DRAWS, np.inf)  # distance over the sum of the radii, the smallest of all true particles
        for other, distance in zip(present, nearest, strict=True):
            clearance = np.minimum(clearance, distance / (radii[label - 1] + radii[other - 1]))
        rows = np.flatnonzero(labels == label)
        for closest in _DISTANCES:
            free = np.flatnonzero((clearance >= closest) & ~used)
            if len(free) >= len(rows):
                break
        else:
            raise InputError(
                f"no room for {count} false picks away from {n} true particles",
                where="label_noise.false_picks",
                fix="lower it, or the copies of the species",
            )
        positions[rows] = candidates[free[: len(rows)]]
        used[free[: len(rows)]] = True
    return Particles(
        positions,
        labels,
        rotations=None if particles.rotations is None else random_rotations(count, rng),
        class_names=None if particles.class_names is None else _names(particles, n_classes)[labels - 1],
        tomograms=None if particles.tomograms is None else np.repeat(particles.tomograms[:1], count),
    )
