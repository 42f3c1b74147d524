"""Clusterings: class map → clusters of voxels, one for each particle; chosen by `picking.clustering`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.picking.clustering.clusters import Clusters
from robpicker_jax.picking.clustering.components import components
from robpicker_jax.picking.clustering.dbscan import ball_offsets, dbscan, dbscan_classes, dbscan_grid
from robpicker_jax.system.errors import InputError

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
]


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


CLUSTERINGS: dict[str, Clustering] = {"dbscan": dbscan, "components": components}
"""The clusterings by name."""


def build_clustering(name: str, options: Mapping[str, Any]) -> Clustering:
    """The clustering of that name, its options bound.

    Args:
        name: a key of `CLUSTERINGS` (`picking.clustering`).
        options: its keyword arguments (`picking.clustering_options`).

    Raises:
        InputError: an unknown name, or an option that the clustering does not have; the error lists the known ones.
    """
    if name not in CLUSTERINGS:
        raise InputError(
            f"no clustering is called {name!r}", where="picking.clustering", fix=f"one of {', '.join(CLUSTERINGS)}"
        )
    clustering = CLUSTERINGS[name]
    parameters = inspect.signature(clustering).parameters.values()
    known = {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    for option, value in options.items():
        where = f"picking.clustering_options.{option}"
        if option not in known and not takes_any:
            raise InputError(f"{name} has no such option", where=where, fix=f"known: {', '.join(known) or 'none'}")
        if _is_number(known.get(option)) and not _is_number(value):
            raise InputError(f"must be a number, got {value!r}", where=where)
    return partial(clustering, **options)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
