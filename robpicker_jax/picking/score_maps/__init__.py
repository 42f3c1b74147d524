"""From the probabilities of all classes to particles, without a class map between; chosen by `picking.clustering`.

A class map keeps the most probable class of each voxel alone. Networks that are trained to mark points, or whose classes do
not exclude each other, need the probabilities of every class: a particle's may be the highest around it and still be lower than
the background's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.config import PickingConfig
from robpicker_jax.picking.clustering import CLUSTERINGS, build_clustering
from robpicker_jax.picking.score_maps.peaks import local_maxima, oks_nms
from robpicker_jax.picking.score_maps.thresholded import threshold_components
from robpicker_jax.system.registry import checked_options, look_up

__all__ = [
    "SCORE_MAP_METHODS",
    "ScoreMapMethod",
    "build_score_map_method",
    "check_picking",
    "local_maxima",
    "oks_nms",
    "threshold_components",
    "uses_score_maps",
]


@runtime_checkable
class ScoreMapMethod(Protocol):
    """Finds particles in the maps of class probabilities.

    A method is a function. Its keyword-only arguments are its options (`picking.clustering_options`), each with a default.
    It is deterministic and leaves its arguments as they are. To add one, put it into `SCORE_MAP_METHODS` under a name that
    no clustering has; `picking.clustering` then takes that name.
    """

    def __call__(
        self, scores: NDArray[np.floating], radii_vox: Sequence[float], mask: NDArray[np.bool_] | None, /
    ) -> Particles:
        """Find the particles.

        Args:
            scores: float (z, y, x, c), the probabilities of class 0 (background) to c - 1.
            radii_vox: radius of class 1 … c - 1, voxels.
            mask: bool (z, y, x), where the sample is; None: everywhere.

        Returns:
            Positions, labels, scores and, where particles have one, sizes in voxels; in any order.

        Raises:
            InputError: an option that cannot be used.
        """
        ...


SCORE_MAP_METHODS: dict[str, ScoreMapMethod] = {
    "local_maxima": local_maxima,
    "oks_nms": oks_nms,
    "threshold_components": threshold_components,
}
"""The methods by name."""


def uses_score_maps(name: str) -> bool:
    """Whether `picking.clustering` names a method that needs the probabilities of all classes."""
    return name in SCORE_MAP_METHODS


def build_score_map_method(name: str, options: Mapping[str, Any]) -> ScoreMapMethod:
    """The method of that name, its options bound.

    Args:
        name: a key of `SCORE_MAP_METHODS` (`picking.clustering`).
        options: its keyword arguments (`picking.clustering_options`).

    Raises:
        InputError: an unknown name, or an option that the method does not have; the error lists the known ones.
    """
    method = look_up(SCORE_MAP_METHODS, name, key="picking.clustering")
    return partial(method, **checked_options(method, options, key="picking.clustering_options"))


def check_picking(picking: PickingConfig) -> None:
    """Refuse a way of picking that there is not.

    Raises:
        InputError: an unknown name or option; the error lists the known ones.
    """
    if uses_score_maps(picking.clustering):
        build_score_map_method(picking.clustering, picking.clustering_options)
    else:
        look_up(CLUSTERINGS | dict.fromkeys(SCORE_MAP_METHODS), picking.clustering, key="picking.clustering")
        build_clustering(picking.clustering, picking.clustering_options)
