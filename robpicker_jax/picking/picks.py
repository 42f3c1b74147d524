"""Class map → picks: the voxels of each class are clustered, and a pick lies at each cluster's centre of gravity.

Or from the probabilities of all classes, by a method that needs no class map (`score_maps`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.annotations.bounds import nearest_voxel
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.config import PickingConfig
from robpicker_jax.picking.clustering import Clusters, build_clustering
from robpicker_jax.picking.score_maps import build_score_map_method
from robpicker_jax.system.errors import InputError

__all__ = ["particles_from_class_map", "particles_from_score_maps", "remove_close_picks", "within_volume"]


def particles_from_class_map(
    class_map: NDArray[np.integer],
    probabilities: NDArray[np.floating] | None,
    n_classes: int,
    picking: PickingConfig,
    *,
    min_cluster_vox: Sequence[int | None] | None = None,
    min_score: Sequence[float | None] | None = None,
    mask: NDArray[np.bool_] | None = None,
    edge_vox: float = 0.0,
    class_names: Sequence[str] | None = None,
) -> Particles:
    """Picks of a class map.

    Each class is clustered on its own (`picking.clustering`); voxels in no cluster belong to no pick. A pick lies at the
    unweighted centre of gravity of its cluster. Its score is the mean, over the cluster's voxels, of the probability
    that the network gave to the pick's class, thus in [0, 1].

    Args:
        class_map: integers (z, y, x), the most probable class of each voxel; 0 is background.
        probabilities: float (z, y, x), the probability of that class, or None: the picks then have no score.
        n_classes: number of classes, background included; class_map holds 0 … n_classes - 1.
        picking: the clustering with its options, and the default limits.
        min_cluster_vox: smallest cluster kept, voxels, for class 1, 2, …; None: `picking.min_cluster_vox`, or all.
        min_score: smallest score kept, for class 1, 2, …; None: `picking.min_score`.
        mask: bool (z, y, x), True where picks are kept; a pick whose centre voxel is False is dropped.
        edge_vox: smallest distance of a pick from the outermost voxels' centres, voxels.
        class_names: name of class 1, 2, …, written into the picks.

    Returns:
        The picks by falling score; equal scores, and picks without, by class and by the number of their
        cluster (DBSCAN numbers clusters by their first core voxel in (z, y, x) order).

    Raises:
        InputError: shapes that do not agree, an unknown class or clustering, probabilities that are not finite, a score limit
            without probabilities.
    """
    labels = range(1, n_classes)
    if class_map.ndim != 3:
        raise InputError(f"a class map has three dimensions, got shape {class_map.shape}")
    for name, array in (("probabilities", probabilities), ("mask", mask)):
        if array is not None and array.shape != class_map.shape:
            raise InputError(f"{name} of shape {array.shape} for a class map of shape {class_map.shape} (z, y, x)")
    if class_map.size and not 0 <= int(class_map.min()) <= int(class_map.max()) < n_classes:
        raise InputError(f"the class map holds {class_map.min()} … {class_map.max()}, classes are 0 … {n_classes - 1}")
    sizes_kept = _per_class("min_cluster_vox", min_cluster_vox, picking.min_cluster_vox or 1, n_classes)
    scores_kept = _per_class("min_score", min_score, picking.min_score, n_classes)
    if probabilities is None and max(scores_kept, default=0.0) > 0:
        raise InputError("a smallest score needs probabilities, and there are none", fix="set picking.min_score: 0")
    if class_names is not None and len(class_names) != n_classes - 1:
        raise InputError(f"{len(class_names)} class names for {n_classes - 1} classes")

    parts = []
    clustered = build_clustering(picking.clustering, picking.clustering_options)(class_map, probabilities, labels)
    for label, clusters, least_vox, least_score in zip(labels, clustered, sizes_kept, scores_kept, strict=True):
        sizes, centres, scores = _moments(clusters, probabilities)
        keep = sizes >= least_vox
        if scores is not None:
            keep &= scores >= least_score
        count = int(keep.sum())
        parts.append(
            Particles(
                positions_vox=centres[keep],
                labels=np.full(count, label, dtype=np.int32),
                scores=None if scores is None else scores[keep],
                cluster_sizes=sizes[keep],
                class_names=None if class_names is None else np.full(count, class_names[label - 1]),
            )
        )
    # An empty list keeps its columns.
    picks = Particles.concatenate(parts) if any(map(len, parts)) else (parts or [Particles.empty()])[0]
    return _by_score(picks.select(within_volume(picks, class_map.shape, mask=mask, edge_vox=edge_vox)))


def particles_from_score_maps(
    scores: NDArray[np.floating],
    radii_vox: Sequence[float],
    picking: PickingConfig,
    *,
    min_cluster_vox: Sequence[int | None] | None = None,
    min_score: Sequence[float | None] | None = None,
    mask: NDArray[np.bool_] | None = None,
    edge_vox: float = 0.0,
    class_names: Sequence[str] | None = None,
) -> Particles:
    """Picks of maps of class probabilities, by the method that `picking.clustering` names.

    Args:
        scores: float (z, y, x, c), the probabilities of class 0 (background) to c - 1.
        radii_vox: radius of class 1, 2, …, voxels.
        picking: the method with its options, and the default limits.
        min_cluster_vox: smallest particle kept, for class 1, 2, …, where the method gives them sizes; None as in
            `particles_from_class_map`.
        min_score, edge_vox, class_names: as in `particles_from_class_map`.
        mask: bool (z, y, x), True where picks are kept; methods with regions of their own do with it what they say.

    Returns:
        The picks by falling score; equal scores by class and in the method's order.

    Raises:
        InputError: shapes or numbers that do not agree, an unknown method or option.
    """
    n_classes = scores.shape[-1]
    if scores.ndim != 4 or (mask is not None and mask.shape != scores.shape[:3]):
        raise InputError(f"probabilities of shape {scores.shape} are not (z, y, x, classes) of the mask's shape")
    if len(radii_vox) != n_classes - 1:
        raise InputError(f"{len(radii_vox)} radii for {n_classes - 1} classes")
    region = None if mask is None else np.asarray(mask, dtype=bool)
    picks = build_score_map_method(picking.clustering, picking.clustering_options)(scores, radii_vox, region)
    sizes_kept = _per_class("min_cluster_vox", min_cluster_vox, picking.min_cluster_vox or 1, n_classes)
    scores_kept = _per_class("min_score", min_score, picking.min_score, n_classes)
    keep = np.ones(len(picks), dtype=bool)
    if picks.cluster_sizes is not None:
        keep &= picks.cluster_sizes >= np.array(sizes_kept)[picks.labels - 1]
    if picks.scores is not None:
        keep &= picks.scores >= np.array(scores_kept)[picks.labels - 1]
    by_centre = picking.clustering_options.get("region", "centre") == "centre"
    keep &= within_volume(picks, scores.shape[:3], mask=region if by_centre else None, edge_vox=edge_vox)
    picks = picks.select(keep)
    if class_names is not None:
        picks = picks.with_(class_names=np.asarray(class_names, np.str_)[picks.labels - 1])
    return _by_score(picks)


def _by_score(picks: Particles) -> Particles:
    """The picks by falling score; those of equal scores, and picks without, in their order."""
    return picks if picks.scores is None else picks.select(np.argsort(-picks.scores, kind="stable"))


def within_volume(
    particles: Particles,
    shape_zyx: Sequence[int],
    *,
    mask: NDArray[np.bool_] | None = None,
    edge_vox: float = 0.0,
) -> NDArray[np.bool_]:
    """Which particles lie in the volume, at least `edge_vox` from its outermost voxels' centres, and in the mask.

    Args:
        particles: n particles.
        shape_zyx: shape of the volume.
        mask: bool (z, y, x), looked up at the voxel nearest to each position.
        edge_vox: distance from the outermost voxels' centres, voxels; 0 still lets the outer half voxels in.

    Returns:
        bool (n,).
    """
    positions = particles.positions_vox[:, ::-1]
    last = np.asarray(shape_zyx, dtype=np.float64) - 1
    least = edge_vox if edge_vox > 0 else -0.5
    inside: NDArray[np.bool_] = np.all((positions >= least) & (positions <= last - least), axis=1)
    if mask is not None:
        nearest = np.clip(nearest_voxel(positions), 0, np.asarray(shape_zyx) - 1)
        inside &= np.asarray(mask, dtype=bool)[tuple(nearest.T)]
    return inside


def remove_close_picks(picks: Particles, min_distance_vox: float | Sequence[float]) -> NDArray[np.bool_]:
    """Which picks to keep so that no two, of whatever class, are closer than a distance (non-maximum suppression).

    Picks are taken by falling score (without scores: falling cluster size); one closer to a pick already taken than
    the smallest distance is dropped. Ties go to the earlier pick.

    Args:
        picks: n picks.
        min_distance_vox: smallest distance, voxels; or one for each of class 1, 2, …, of which two picks keep the mean.

    Returns:
        bool (n,).
    """
    from scipy.spatial import cKDTree

    keep = np.ones(len(picks), dtype=bool)
    if len(picks) < 2:
        return keep
    by_class = np.asarray(min_distance_vox, dtype=np.float64)
    least = np.full(len(picks), by_class) if by_class.ndim == 0 else by_class[picks.labels - 1]
    if least.max() <= 0:
        return keep
    merit = picks.scores if picks.scores is not None else picks.cluster_sizes
    order = np.arange(len(picks)) if merit is None else np.argsort(-np.nan_to_num(merit, nan=-np.inf), kind="stable")
    rank_of = np.empty(len(picks), dtype=np.intp)
    rank_of[order] = np.arange(len(picks))
    close = cKDTree(picks.positions_vox).query_pairs(least.max(), output_type="ndarray")
    apart = np.linalg.norm(picks.positions_vox[close[:, 0]] - picks.positions_vox[close[:, 1]], axis=1)
    close = rank_of[close[apart < least[close].mean(axis=1)]]
    # Pairs by (better, worse), in the order in which the better one is decided.
    close = np.sort(close, axis=1)
    for better, worse in close[np.lexsort((close[:, 1], close[:, 0]))]:
        if keep[order[better]]:
            keep[order[worse]] = False
    return keep


def _moments(
    clusters: Clusters, probabilities: NDArray[np.floating] | None
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64] | None]:
    """Voxel counts (n,), centres of gravity (n, 3) in x, y, z, and mean probabilities (n,) of clusters."""
    _, ny, nx = clusters.shape_zyx
    count = clusters.count
    sizes = np.zeros(count, dtype=np.int64)
    sums = np.zeros((4, count))
    flat = None if probabilities is None else probabilities.reshape(-1)
    for indices, numbers in clusters.voxels():
        lines, x = np.divmod(indices, nx)
        z, y = np.divmod(lines, ny)
        sizes += np.bincount(numbers, minlength=count)
        for total, weights in zip(sums[:3], (x, y, z), strict=True):
            total += np.bincount(numbers, weights=weights, minlength=count)
        if flat is not None:
            sums[3] += np.bincount(numbers, weights=flat[indices], minlength=count)
    sums /= np.maximum(sizes, 1)
    if flat is None:
        return sizes, sums[:3].T, None
    if not np.isfinite(sums[3]).all():
        raise InputError("the probabilities are not all finite", fix="segment the tomogram again")
    return sizes, sums[:3].T, sums[3]


def _per_class(name: str, values: Sequence[float | None] | None, default: float, n_classes: int) -> list[float]:
    if values is None:
        return [default] * (n_classes - 1)
    if len(values) != n_classes - 1:
        raise InputError(f"{len(values)} values of {name} for {n_classes - 1} classes")
    return [default if value is None else value for value in values]
