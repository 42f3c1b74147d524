"""Connected components of the voxels of each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.picking.clustering.clusters import Clusters
from robpicker_jax.picking.clustering.dbscan import dbscan_classes
from robpicker_jax.system.errors import InputError


def components(
    class_map: NDArray[np.integer],
    probability: NDArray[np.floating] | None,
    class_labels: Sequence[int],
    *,
    connectivity: int = 1,
    min_probability: float = 0.0,
) -> list[Clusters]:
    """The clustering `components`: voxels of one class that touch are one cluster; no voxel is noise.

    The partition is that of `scipy.ndimage.label` with `generate_binary_structure(3, connectivity)`. It is computed as
    DBSCAN in which every voxel is a core voxel: neighbours share a face (distance 1), an edge (√2) or a corner (√3),
    and the radius lies between the distances that count and those that do not. This takes memory by runs of voxels
    instead of a volume of labels.

    Args:
        class_map: integers (z, y, x), 0 background.
        probability: float (z, y, x), the probability of each voxel's class, or None.
        class_labels: the classes to cluster, each at least 1.
        connectivity: 1 joins voxels that share a face, 2 also those that share an edge, 3 also a corner.
        min_probability: voxels whose class is less probable belong to no cluster.

    Raises:
        InputError: a connectivity other than 1, 2 or 3; min_probability outside [0, 1], or positive where there are
            no probabilities.
    """
    if connectivity not in (1, 2, 3):
        raise InputError(f"must be 1, 2 or 3, got {connectivity}", where="picking.clustering_options.connectivity")
    where = "picking.clustering_options.min_probability"
    if not 0 <= min_probability <= 1:
        raise InputError(f"must lie between 0 and 1, got {min_probability}", where=where)
    if min_probability > 0:
        if probability is None:
            raise InputError("needs probabilities, and there are none", where=where, fix="set it to 0")
        class_map = np.where(probability >= min_probability, class_map, 0).astype(class_map.dtype)
    return dbscan_classes(class_map, class_labels, float(np.sqrt(connectivity + 0.5)), 1)
