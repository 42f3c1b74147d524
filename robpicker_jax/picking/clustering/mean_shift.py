"""Mean shift of all labelled voxels of a coarser class map: DeepFinder's way from class map to particles.

Source: Moebel et al., "Deep learning improves macromolecule identification in 3D cellular cryo-electron tomograms", Nature
Methods 18, 2021; mean shift is Comaniciu and Meer's (2002), by scikit-learn.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.picking.clustering.clusters import Clusters
from robpicker_jax.system.errors import InputError


def mean_shift(
    class_map: NDArray[np.integer],
    probability: NDArray[np.floating] | None,
    class_labels: Sequence[int],
    *,
    bandwidth_vox: float = 10.0,
    binning: int = 2,
) -> list[Clusters]:
    """The clustering `mean_shift`: flat-kernel mean shift of the voxels of all classes together, on a binned class map.

    All labelled voxels of the binned map are clustered whatever their class, and a cluster belongs to the class that most
    of its voxels have (of several, the lowest). So a particle whose voxels were given two classes stays one pick. A
    cluster holds all voxels of its bins, also those that are background before binning.

    The time grows with the square of the number of particles; `dbscan` is many times faster.

    Args:
        class_map: integers (z, y, x), 0 background.
        probability: float (z, y, x), the probability of each voxel's class: what its vote counts; None: each one alike.
        class_labels: the classes to give clusters of, each at least 1.
        bandwidth_vox: radius of the kernel, voxels before binning; about a particle's radius, one for all classes.
        binning: edge of the bins, voxels; a bin has the class with most votes (of several, the lowest).

    Raises:
        InputError: a bandwidth that is not positive, a binning below 1, a map of other than three dimensions.
    """
    where = "picking.clustering_options"
    if class_map.ndim != 3:
        raise InputError(f"a class map has three dimensions, got shape {class_map.shape}")
    if not (np.isfinite(bandwidth_vox) and bandwidth_vox > 0):
        raise InputError(f"must be a positive number, got {bandwidth_vox}", where=f"{where}.bandwidth_vox")
    if binning < 1:
        raise InputError(f"must be at least 1, got {binning}", where=f"{where}.binning")
    binned = binned_classes(class_map, probability, binning)
    points = np.argwhere(binned > 0)
    numbers = _cluster_numbers(points, bandwidth_vox / binning)
    votes = np.zeros((numbers.max(initial=-1) + 1, int(binned.max(initial=0)) + 1), np.int64)
    np.add.at(votes, (numbers, binned[tuple(points.T)]), 1)
    winners = votes.argmax(axis=1) if len(votes) else np.empty(0, np.int64)
    found = []
    for label in class_labels:
        own = np.flatnonzero(winners == label)
        new_numbers = np.zeros(len(votes), np.int32)
        new_numbers[own] = np.arange(1, own.size + 1)
        labels = np.zeros(binned.shape, np.int32)
        labels[tuple(points.T)] = new_numbers[numbers]
        found.append(Clusters.from_labels(_unbinned(labels, binning, class_map.shape)))
    return found


def binned_classes(
    class_map: NDArray[np.integer], probability: NDArray[np.floating] | None, binning: int
) -> NDArray[np.integer]:
    """The class with most votes in each bin, of several the lowest; bins at the far faces may be incomplete.

    Args:
        class_map: integers (z, y, x).
        probability: float (z, y, x), what each voxel's vote counts; None: 1.
        binning: edge of the bins, voxels.

    Returns:
        (⌈z / binning⌉, ⌈y / binning⌉, ⌈x / binning⌉), of the class map's type.
    """
    if binning == 1:
        return class_map
    starts = [np.arange(0, size, binning) for size in class_map.shape]
    best: NDArray[np.float64] | None = None
    classes = np.zeros([len(start) for start in starts], class_map.dtype)
    for label in range(int(class_map.max(initial=0)) + 1):
        votes = np.where(class_map == label, 1.0 if probability is None else probability, 0.0)
        for axis, start in enumerate(starts):
            votes = np.add.reduceat(votes, start, axis=axis)
        if best is None:
            best = votes
            continue
        wins = votes > best
        classes[wins] = label
        best = np.where(wins, votes, best)
    return classes


def _cluster_numbers(points: NDArray[np.int64], bandwidth: float) -> NDArray[np.int64]:
    """Number of the cluster of each point (n, 3)."""
    from sklearn.cluster import MeanShift

    if not len(points):
        return np.empty(0, np.int64)
    with warnings.catch_warnings():
        # Where each bin of the seeding holds one point, the points themselves are the seeds, which is as good.
        warnings.filterwarnings("ignore", message="Binning data failed")
        numbers: NDArray[np.int64] = MeanShift(bandwidth=bandwidth, bin_seeding=True).fit_predict(points)
    return numbers


def _unbinned(labels: NDArray[np.int32], binning: int, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Each bin's value at all of its voxels."""
    for axis, size in enumerate(shape):
        labels = np.repeat(labels, binning, axis=axis)[(slice(None),) * axis + (slice(size),)]
    return labels
