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
from robpicker_jax.config import LabelNoiseConfig, Species
from robpicker_jax.simulation.noise_presets import NoiseRates, noise_rates
from robpicker_jax.system.errors import InputError

_DISTANCES = (1.0, 0.75, 0.5)  # in units of the sum of the radii: in a crowd, false picks must come closer
_DRAWS = 20_000


def add_label_noise(
    particles: Particles,
    species: Sequence[Species],
    shape_zyx: Sequence[int],
    config: LabelNoiseConfig,
    *,
    voxel_size_angstrom: float,
    key: Sequence[int] = (),
    spots_vox: np.ndarray | None = None,
) -> tuple[Particles, dict[str, Any]]:
    """Plant errors into a particle list.

    Every kind of error has its own random stream, so that changing one rate leaves the others' choices alone, and a
    higher rate hits the same particles and more. Shares are met exactly within each class, up to rounding:

    - `missing` (`crowded_missing` where a neighbour is near): that share of the particles is dropped;
    - `swap`: that share of the remaining ones gets another class, a look-alike's or any other, drawn uniformly;
    - `jitter_vox`, `jitter_z_vox`: each remaining one is displaced by a Gaussian of these standard deviations, and kept
      inside the volume;
    - `false_picks`: that share of the original number is added, with classes drawn by `false_classes` and, where the list has
      orientations, random ones: on spots of high contrast, between particles, or anywhere away from all particles.

    Args:
        particles: the true particles, labels from 1 in the order of `species`.
        species: every species, with its radius. A false pick away from particles keeps the sum of the two radii from
            every true particle or, where there is no room, three quarters or half of it.
        shape_zyx: the tomogram, voxels.
        config: preset, rates and seed; see `noise_rates`.
        voxel_size_angstrom: of the tomogram, for presets whose position errors are known in Å.
        key: further numbers that select the random streams, such as the tomogram's index.
        spots_vox: (n, 3) x y z, centres of what looks like a particle and is none (gold beads), for false picks.

    Returns:
        The noisy list, remaining particles in their order and then the false ones; and a record for JSON: `kept`,
        `dropped`, `moved` and `swapped` name particles by their index in the true list, `added` in the noisy one.

    Raises:
        InputError: a label without a species, an unknown preset or species, swaps with a single class, no room for
            false picks.
    """
    n, n_classes = len(particles), len(species)
    if n and (particles.labels.min() < 1 or particles.labels.max() > n_classes):
        raise InputError(f"class labels must lie between 1 and {n_classes} to plant label noise")
    rates = noise_rates(config, species, voxel_size_angstrom)
    missing_rng, swap_rng, jitter_rng, false_rng = (
        np.random.default_rng(child)
        for child in np.random.SeedSequence(config.seed, spawn_key=tuple(int(k) for k in key)).spawn(4)
    )
    radii = np.array([entry.radius_vox for entry in species], float)
    record: dict[str, Any] = {
        "preset": config.preset,
        "rates": rates.as_dict(),
        "seed": config.seed,
        "key": [int(k) for k in key],
        "true_particles": n,
    }
    dropped = _drop(particles, radii, rates, missing_rng)
    kept = np.setdiff1d(np.arange(n), dropped)
    record["kept"] = kept.tolist()
    record["dropped"] = [_describe(particles, index) for index in dropped]
    labels, record["swapped"] = _swap(particles, kept, rates, swap_rng)
    positions, record["moved"] = _move(particles, kept, shape_zyx, rates.jitter_vox, jitter_rng)
    remaining = particles.select(kept).with_(labels=labels[kept], positions_vox=positions[kept])
    if particles.class_names is not None:
        names = _names(particles, n_classes)
        changed = labels[kept] != particles.labels[kept]
        remaining = remaining.with_(class_names=np.where(changed, names[labels[kept] - 1], particles.class_names[kept]))
    added = _false_picks(particles, shape_zyx, rates, radii, spots_vox, false_rng)
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


def _crowded(particles: Particles, radii_vox: np.ndarray, diameters: float) -> np.ndarray:
    """Which particles have a neighbour of whatever class nearer than so many of their own diameters."""
    if len(particles) < 2:
        return np.zeros(len(particles), bool)
    distances, _ = scipy.spatial.cKDTree(particles.positions_vox).query(particles.positions_vox, k=2)
    return np.asarray(distances[:, 1] < diameters * 2 * radii_vox[particles.labels - 1])


def _drop(particles: Particles, radii_vox: np.ndarray, rates: NoiseRates, rng: np.random.Generator) -> np.ndarray:
    order = rng.permutation(len(particles))
    crowded = _crowded(particles, radii_vox, rates.crowded_diameters)
    dropped = []
    for label in range(1, len(radii_vox) + 1):
        members = order[particles.labels[order] == label]
        rate, crowded_rate = rates.missing[label - 1], rates.crowded_missing[label - 1]
        groups = [members] if rate == crowded_rate else [members[~crowded[members]], members[crowded[members]]]
        for group, share in zip(groups, (rate, crowded_rate), strict=False):
            dropped.append(group[: _share(share, len(group))])
    return np.sort(np.concatenate(dropped)) if dropped else np.zeros(0, int)


def _swap(
    particles: Particles, kept: np.ndarray, rates: NoiseRates, rng: np.random.Generator
) -> tuple[np.ndarray, list[dict[str, int]]]:
    n, n_classes = len(particles), len(rates.swap)
    labels = particles.labels.copy()
    order = rng.permutation(n)
    steps = rng.integers(1, max(2, n_classes), n)  # the new label is so many classes further, modulo their number
    order = order[np.isin(order, kept)]
    swapped = []
    for label in range(1, n_classes + 1):
        members = order[particles.labels[order] == label]
        chosen = members[: _share(rates.swap[label - 1], len(members))]
        to = rates.swap_to[label - 1]
        labels[chosen] = to if to else (label - 1 + steps[chosen]) % n_classes + 1
        swapped.append(chosen)
    return labels, [
        {"index": int(i), "from_label": int(particles.labels[i]), "to_label": int(labels[i])}
        for i in np.sort(np.concatenate(swapped))
    ]


def _move(
    particles: Particles,
    kept: np.ndarray,
    shape_zyx: Sequence[int],
    sigma_xyz: tuple[float, float, float],
    rng: np.random.Generator,
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    positions = particles.positions_vox.copy()
    if not any(sigma_xyz):
        return positions, []
    steps = rng.standard_normal(positions.shape) * np.array(sigma_xyz)
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
    shape_zyx: Sequence[int],
    rates: NoiseRates,
    radii_vox: np.ndarray,
    spots_vox: np.ndarray | None,
    rng: np.random.Generator,
) -> Particles:
    n, n_classes = len(particles), len(radii_vox)
    count = _share(rates.false_picks, n)
    if count == 0:
        return Particles.empty()
    labels = rng.choice(np.arange(1, n_classes + 1, dtype=np.int32), count, p=rates.false_classes)
    spots = np.zeros((0, 3)) if spots_vox is None else np.asarray(spots_vox, float)
    # Spots of high contrast are shared out first; what they cannot take lies anywhere.
    on_spots = min(_share(rates.false_on_contrast, count), len(spots))
    between = min(_share(rates.false_between, count), count - on_spots) if n else 0
    positions = np.concatenate(
        [
            spots[rng.permutation(len(spots))[:on_spots]],
            _between(particles, shape_zyx, radii_vox, between, rng),
            _away(particles, shape_zyx, radii_vox, labels[on_spots + between :], spots, rng),
        ]
    )
    return Particles(
        positions,
        labels,
        rotations=None if particles.rotations is None else random_rotations(count, rng),
        class_names=None if particles.class_names is None else _names(particles, n_classes)[labels - 1],
        tomograms=None if particles.tomograms is None else np.repeat(particles.tomograms[:1], count),
    )


def _between(
    particles: Particles, shape_zyx: Sequence[int], radii_vox: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Positions (count, 3) one to two radii from a particle's centre: on its rim, or in the gap to its neighbour."""
    chosen = rng.integers(0, max(1, len(particles)), count)
    directions = rng.standard_normal((count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    reach = radii_vox[particles.labels[chosen] - 1] * rng.uniform(1, 2, count) if count else np.zeros(0)
    last = np.array(tuple(shape_zyx)[::-1]) - 1
    return np.asarray(np.clip(particles.positions_vox[chosen] + directions * reach[:, None], 0, last))


def _away(
    particles: Particles,
    shape_zyx: Sequence[int],
    radii_vox: np.ndarray,
    labels: np.ndarray,
    spots_vox: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Positions (n, 3) for false picks of these labels, away from every true particle and from the spots."""
    last = np.array(tuple(shape_zyx)[::-1]) - 1
    candidates = rng.uniform(0, last, (_DRAWS, 3))
    present = np.unique(particles.labels)
    trees = [(scipy.spatial.cKDTree(particles.positions_vox[particles.labels == k]), radii_vox[k - 1]) for k in present]
    if len(spots_vox):
        trees.append((scipy.spatial.cKDTree(spots_vox), radii_vox.min()))
    nearest = [(tree.query(candidates)[0], radius) for tree, radius in trees]
    used = np.zeros(_DRAWS, bool)
    positions = np.empty((len(labels), 3))
    for label in np.unique(labels):
        clearance = np.full(_DRAWS, np.inf)  # distance over the sum of the radii, the smallest of all true particles
        for distance, radius in nearest:
            clearance = np.minimum(clearance, distance / (radii_vox[label - 1] + radius))
        rows = np.flatnonzero(labels == label)
        for closest in _DISTANCES:
            free = np.flatnonzero((clearance >= closest) & ~used)
            if len(free) >= len(rows):
                break
        else:
            raise InputError(
                f"no room for {len(labels)} false picks away from {len(particles)} true particles",
                where="label_noise.false_picks",
                fix="lower it, or the copies of the species",
            )
        positions[rows] = candidates[free[: len(rows)]]
        used[free[: len(rows)]] = True
    return positions
