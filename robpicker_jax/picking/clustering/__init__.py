"""Clusterings: class map → clusters of voxels, one for each particle; chosen by `picking.clustering`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.picking.clustering.clusters import Clusters
from robpicker_jax.picking.clustering.components import components
from robpicker_jax.picking.clustering.dbscan import ball_offsets, dbscan, dbscan_classes, dbscan_grid
from robpicker_jax.picking.clustering.dbscan_reference import dbscan_reference
from robpicker_jax.picking.clustering.mean_shift import mean_shift
from robpicker_jax.system.registry import checked_options, look_up

__all__ = [
    "CLUSTERINGS",
    "Clustering",
    "Clusters",
    "ball_offsets",
    "build_clustering",
    "components",
    "dbscan",
    "dbscan_classes",
    "dbscan_grid",
    "dbscan_reference",
    "mean_shift",
]


@runtime_checkable
class Clustering(Protocol):
    """Groups the voxels of each class of a class map into clusters, one for each particle.

    A clustering is a function. Its keyword-only arguments are its options (`picking.clustering_options`), each with a
    default. It is deterministic, leaves its arguments as they are, and clusters each class on its own. Libraries that
    give a volume of cluster numbers fit through `Clusters.from_labels`.

    To add one: write the function and put it into `CLUSTERINGS` under a name. `picking.clustering` then takes that
    name, in a configuration file and on the command line. This works from outside the package too.
    """

    def __call__(
        self,
        class_map: NDArray[np.integer],
        probability: NDArray[np.floating] | None,
        class_labels: Sequence[int],
        /,
    ) -> list[Clusters]:
        """Cluster a class map.

        Args:
            class_map: integers (z, y, x), the most probable class of each voxel; 0 is background.
            probability: float (z, y, x), the probability of that class; None where a class map comes without.
            class_labels: the classes to cluster, each at least 1.

        Returns:
            One `Clusters` for each entry of `class_labels`. Voxels in no cluster belong to no pick.

        Raises:
            InputError: an option that cannot be used.
        """
        ...


CLUSTERINGS: dict[str, Clustering] = {
    "dbscan": dbscan,
    "components": components,
    "mean_shift": mean_shift,
    "dbscan_reference": dbscan_reference,
}
"""The clusterings by name."""


def build_clustering(name: str, options: Mapping[str, Any]) -> Clustering:
    """The clustering of that name, its options bound.

    Args:
        name: a key of `CLUSTERINGS` (`picking.clustering`).
        options: its keyword arguments (`picking.clustering_options`).

    Raises:
        InputError: an unknown name, or an option that the clustering does not have; the error lists the known ones.
    """
    clustering = look_up(CLUSTERINGS, name, key="picking.clustering")
    return partial(clustering, **checked_options(clustering, options, key="picking.clustering_options"))
