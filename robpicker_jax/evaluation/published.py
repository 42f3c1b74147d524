"""How other groups' scorers count, where that is no choice among pairs of one class: DeepFinder's and SHREC 2019's.

Sources: what `utils/eval.py` of DeepFinder and the SHREC 2019 evaluation script compute (Gubins et al., "SHREC'19 track:
classification in cryo-electron tomograms", 2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.annotations.bounds import nearest_voxel
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.evaluation.matching import Pairs


@dataclass(frozen=True)
class ClassCounts:
    """A scorer's own counts in one tomogram.

    Attributes:
        counts: int64 (c, 4): true, what counts as picked, true positives, found, for class 1, 2, ….
        matches: int64 (picks,), index of the true particle that each pick was matched with, -1 for none.
        located: true particles found whatever their class; 0 where the scorer does not tell.
        located_twice: those of them that more than one pick found.
        hits: picks that found a particle.
        distance_sum_vox: sum of their distances from it, voxels.
    """

    counts: NDArray[np.int64]
    matches: NDArray[np.int64]
    located: int = 0
    located_twice: int = 0
    hits: int = 0
    distance_sum_vox: float = 0.0


def single_counts(truth: Particles, picks: Particles, pairs: Pairs, n_classes: int) -> ClassCounts:
    """DeepFinder's counts: a true particle is found if exactly one pick, of whatever class, lies within the tolerance.

    One with several picks near it is missed, and these picks are false unless they are the only one near another particle.
    A pick that is the only one near several particles counts with each of them. What counts as picked of a class are the
    particles that were found as this class, and the picks of the class that are the only one near no particle.

    Args:
        truth, picks: of one tomogram, labels from 1.
        pairs: all pairs within the tolerance, of whatever classes.
        n_classes: species.
    """
    near = np.bincount(pairs.truths, minlength=len(truth))
    alone = near[pairs.truths] == 1
    true_index, pick_index = pairs.truths[alone], pairs.picks[alone]
    as_class = picks.labels[pick_index]
    right = as_class == truth.labels[true_index]
    unused = np.ones(len(picks), dtype=bool)
    unused[pick_index] = False
    matches = np.full(len(picks), -1, dtype=np.int64)
    order = np.argsort(-pairs.distances[alone], kind="stable")  # of several, the nearest stays
    order = order[right[order]]
    matches[pick_index[order]] = true_index[order]
    hits = _by_class(truth.labels[true_index[right]], n_classes)
    picked = _by_class(as_class, n_classes) + _by_class(picks.labels[unused], n_classes)
    return ClassCounts(np.stack([_by_class(truth.labels, n_classes), picked, hits, hits], axis=1), matches)


def first_counts(truth: Particles, picks: Particles, owners: NDArray[np.int64], n_classes: int) -> ClassCounts:
    """SHREC 2019's counts: each true particle has the class of the first pick, in the list's order, inside its label.

    What counts as picked of a class are the true particles that got it: picks on no particle lower the precision of the
    localisation, not that of any class.

    Args:
        truth, picks: of one tomogram, labels from 1.
        owners: int64 (picks,), true particle in whose label each pick lies, of whatever class; -1 for none.
        n_classes: species.
    """
    inside = np.flatnonzero(owners >= 0)
    found, first = np.unique(owners[inside], return_index=True)
    first_picks = inside[first]
    as_class = picks.labels[first_picks]
    right = as_class == truth.labels[found]
    matches = np.full(len(picks), -1, dtype=np.int64)
    matches[first_picks[right]] = found[right]
    hits = _by_class(truth.labels[found[right]], n_classes)
    counts = np.stack([_by_class(truth.labels, n_classes), _by_class(as_class, n_classes), hits, hits], axis=1)
    # The scorer works on whole voxels.
    apart = nearest_voxel(picks.positions_vox[inside]) - nearest_voxel(truth.positions_vox[owners[inside]])
    times = np.bincount(owners[inside], minlength=1)
    distance = float(np.sqrt((apart**2).sum(axis=1)).sum())
    return ClassCounts(counts, matches, found.size, int((times > 1).sum()), inside.size, distance)


def owners_by_distance(truth: Particles, picks: Particles, limits_vox: NDArray[np.float64]) -> NDArray[np.int64]:
    """The true particle in whose sphere each pick lies, of several the nearest: int64 (picks,), -1 for none."""
    from scipy.spatial import cKDTree

    owners = np.full(len(picks), -1, dtype=np.int64)
    if len(truth) and len(picks):
        near = cKDTree(picks.positions_vox).sparse_distance_matrix(
            cKDTree(truth.positions_vox), limits_vox.max(), output_type="ndarray"
        )
        near = near[near["v"] <= limits_vox[truth.labels[near["j"]] - 1]]
        near = near[np.lexsort((near["j"], near["v"]))[::-1]]
        owners[near["i"]] = near["j"]
    return owners


def owners_in_map(picks: Particles, instance_map: NDArray[np.integer]) -> NDArray[np.int64]:
    """The true particle that owns each pick's voxel: int64 (picks,), -1 for none; picks outside take the nearest voxel."""
    last = np.array(instance_map.shape) - 1
    voxels = np.clip(nearest_voxel(picks.positions_vox[:, ::-1]), 0, last)
    owners: NDArray[np.int64] = instance_map[tuple(voxels.T)].astype(np.int64) - 1
    return owners


def pairs_of_any_class(truth: Particles, picks: Particles, limit_vox: float) -> Pairs:
    """All pairs no further apart than a limit, the limit included, of whatever classes."""
    from scipy.spatial import cKDTree

    if not (len(truth) and len(picks)):
        return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    near = cKDTree(picks.positions_vox).sparse_distance_matrix(
        cKDTree(truth.positions_vox), limit_vox, output_type="ndarray"
    )
    return Pairs(near["i"].astype(np.int64), near["j"].astype(np.int64), near["v"])


def _by_class(labels: NDArray[np.integer], n_classes: int) -> NDArray[np.int64]:
    return np.bincount(labels, minlength=n_classes + 1)[1:]
