"""Which limit drops a candidate: the first that it fails, in the order in which the limits apply."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.picking.picks import remove_close_picks, within_volume

REASONS = {
    "size": "its cluster has fewer voxels than picking.min_cluster_vox",
    "score": "its score is lower than picking.min_score or min_scores",
    "edge": "it lies nearer to the volume's edge than picking.edge_vox",
    "mask": "it lies outside the mask of the sample",
    "distance": "a better pick lies nearer than picking.min_distance_vox",
    "count": "picking.max_picks better ones are kept",
}
"""The limits in the order in which they apply, and what failing one means."""


def rejected_by(
    candidates: Particles,
    shape_zyx: Sequence[int],
    *,
    min_cluster_vox: Sequence[int],
    min_score: Sequence[float],
    edge_vox: float = 0.0,
    mask: NDArray[np.bool_] | None = None,
    min_distance_vox: Sequence[float] = (),
    max_picks: int | None = None,
) -> np.ndarray:
    """The limit that drops each candidate.

    Args:
        candidates: n candidates by falling score.
        shape_zyx: shape of the volume.
        min_cluster_vox, min_score: smallest cluster, voxels, and smallest score of class 1, 2, …
        edge_vox: smallest distance from the outermost voxels' centres, voxels.
        mask: bool (z, y, x), True where picks are kept.
        min_distance_vox: of class 1, 2, …; two picks keep the mean of theirs. Only those that are left are too close.
        max_picks: most that are kept.

    Returns:
        str (n,): a key of `REASONS`; "" for those that are kept.
    """
    found = np.full(len(candidates), "", dtype=f"<U{max(map(len, REASONS))}")

    def drop(reason: str, failing: NDArray[np.bool_]) -> None:
        found[(found == "") & failing] = reason

    of_class = candidates.labels - 1
    if candidates.cluster_sizes is not None:
        drop("size", candidates.cluster_sizes < np.asarray(min_cluster_vox)[of_class])
    if candidates.scores is not None:
        drop("score", ~(candidates.scores >= np.asarray(min_score)[of_class]))
    drop("edge", ~within_volume(candidates, shape_zyx, edge_vox=edge_vox))
    if mask is not None:
        drop("mask", ~within_volume(candidates, shape_zyx, mask=mask))
    left = np.flatnonzero(found == "")
    if len(min_distance_vox):
        found[left[~remove_close_picks(candidates.select(left), min_distance_vox)]] = "distance"
    if max_picks is not None:
        found[np.flatnonzero(found == "")[max_picks:]] = "count"
    return found
