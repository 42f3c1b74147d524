"""scikit-learn's DBSCAN of the voxels of each class: slow, and what `dbscan` is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.picking.clustering.clusters import Clusters
from robpicker_jax.picking.clustering.dbscan import check_dbscan


def dbscan_reference(
    class_map: NDArray[np.integer],
    probability: NDArray[np.floating] | None,
    class_labels: Sequence[int],
    *,
    radius_vox: float = 1.0,
    min_neighbours: int = 5,
) -> list[Clusters]:
    """The clustering `dbscan_reference`: `sklearn.cluster.DBSCAN` of the voxels' coordinates, the picks of which `dbscan` has.

    It takes tens of times as long, and memory for the neighbours of every voxel.

    Args:
        class_map: integers (z, y, x), 0 background.
        probability: of each voxel's class; unused.
        class_labels: the classes to cluster, each at least 1.
        radius_vox: neighbourhood radius in voxels (`eps`), the radius itself included.
        min_neighbours: voxels of one class within the radius, itself counted, that make a core voxel (`min_samples`).

    Raises:
        InputError: map not three-dimensional, radius not positive, min_neighbours below 1.
    """
    from sklearn.cluster import DBSCAN

    check_dbscan(class_map, radius_vox, min_neighbours)
    found = []
    for label in class_labels:
        points = np.argwhere(class_map == label)
        numbers = np.full(len(points), -1)
        if len(points):
            numbers = DBSCAN(eps=radius_vox, min_samples=min_neighbours).fit_predict(points)
        labels = np.zeros(class_map.shape, np.int32)
        labels[tuple(points.T)] = numbers + 1
        found.append(replace(Clusters.from_labels(labels), noise_count=int((numbers < 0).sum())))
    return found
