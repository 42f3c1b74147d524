"""Which pick hits which true particle: candidate pairs by rule, then an assignment."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.annotations.bounds import nearest_voxel
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.evaluation.rules import Counting
from robpicker_jax.system.errors import InputError

_DENSE_CELLS = 1 << 22  # largest distance matrix solved as a dense one
_CROWD = 1 << 20  # pairs of a class that are all taken: a thousand picks that all may hit a thousand particles
_LARGE_GROUP = 4096  # picks of a connected group from which on the smallest sum of distances would take too long
_NEAREST = 16  # candidates of each pick, and of each particle, that are taken in a crowd


@dataclass(frozen=True)
class Pairs:
    """Candidate hits: pick `picks[k]` may count for true particle `truths[k]`, which lies `distances[k]` voxels away.

    Attributes:
        picks, truths: int64 (k,), indices into the two lists.
        distances: float64 (k,), voxels.
    """

    picks: NDArray[np.int64]
    truths: NDArray[np.int64]
    distances: NDArray[np.float64]

    def where(self, keep: NDArray[np.bool_] | NDArray[np.integer]) -> Pairs:
        """The pairs that a mask (k,) or indices select."""
        return Pairs(self.picks[keep], self.truths[keep], self.distances[keep])


def pairs_within(truth: Particles, picks: Particles, limits_vox: NDArray[np.float64]) -> Pairs:
    """Pairs of one class no further apart than that class's limit, the limit included.

    In a crowd such as no sample holds (a thousand particles within one limit of each other), each pick and each particle
    takes part with its nearest candidates alone: all pairs would take time and memory that grow as the square.

    Args:
        truth, picks: with labels 1 … c.
        limits_vox: float64 (c,), limit of class 1, 2, …, voxels.
    """
    from scipy.spatial import cKDTree

    found = [Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for index, limit in enumerate(limits_vox):
        true_index = np.flatnonzero(truth.labels == index + 1)
        pick_index = np.flatnonzero(picks.labels == index + 1)
        if true_index.size == 0 or pick_index.size == 0:
            continue
        picked, true = picks.positions_vox[pick_index], truth.positions_vox[true_index]
        tree, other = cKDTree(picked), cKDTree(true)
        if tree.count_neighbors(other, limit) > max(_CROWD, _NEAREST * (len(picked) + len(true))):
            near = _nearest_pairs(picked, true, float(limit))
            found.append(Pairs(pick_index[near.picks], true_index[near.truths], near.distances))
            continue
        within = tree.sparse_distance_matrix(other, limit, output_type="ndarray")
        found.append(Pairs(pick_index[within["i"]], true_index[within["j"]], within["v"]))
    return Pairs(
        np.concatenate([pairs.picks for pairs in found]),
        np.concatenate([pairs.truths for pairs in found]),
        np.concatenate([pairs.distances for pairs in found]),
    )


def _nearest_pairs(picked: NDArray[np.float64], true: NDArray[np.float64], limit: float) -> Pairs:
    """Each pick with its nearest true particles within a limit, and each true particle with its nearest picks.

    Where many lie at one place, nothing tells near from far. So that not all choose the same ones, neighbours are looked
    for after tiny displacements, and each pick is also paired with true particles of about its own rank along the axes.
    Distances, and whether they lie within the limit, are those of the positions as they are.
    """
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(0)
    moved = [positions + 1e-3 * limit * rng.uniform(-1, 1, positions.shape) for positions in (picked, true)]
    trees = [cKDTree(positions) for positions in moved]
    pairs = []
    for mine, others in ((0, 1), (1, 0)):
        k = min(_NEAREST, len(moved[others]))
        neighbours = trees[others].query(moved[mine], k=k)[1].reshape(-1, k)
        columns = [np.repeat(np.arange(len(moved[mine])), k), neighbours.ravel()]
        pairs.append(np.stack(columns if mine == 0 else columns[::-1]))
    orders = [np.lexsort(np.rint(positions / max(limit, 1e-9)).T) for positions in moved]
    rank = np.arange(max(map(len, orders)))
    pairs.append(np.stack([order[rank * len(order) // len(rank)] for order in orders]))
    picks, truths = np.unique(np.concatenate(pairs, axis=1), axis=1)
    distances = np.sqrt(((picked[picks] - true[truths]) ** 2).sum(axis=1))
    return Pairs(picks, truths, distances).where(distances <= limit)


def pairs_in_instances(truth: Particles, picks: Particles, instance_map: NDArray[np.integer], where: str = "") -> Pairs:
    """Pairs of a pick and the true particle of its class in whose label the pick's voxel lies.

    Args:
        truth, picks: with labels from 1.
        instance_map: integers (z, y, x), 0 or 1 + index of the true particle that owns the voxel
            (`labels.instance_labels`).
        where: name of the tomogram, for messages.

    Raises:
        InputError: a map of other than three dimensions, or with more particles than `truth`.
    """
    if instance_map.ndim != 3:
        raise InputError(f"an instance map has three dimensions, got shape {instance_map.shape}", where=where)
    voxels = nearest_voxel(picks.positions_vox[:, ::-1])
    inside = np.flatnonzero(np.all((voxels >= 0) & (voxels < instance_map.shape), axis=1))
    owners = np.full(len(picks), -1, dtype=np.int64)
    owners[inside] = instance_map[tuple(voxels[inside].T)].astype(np.int64) - 1
    if owners.max(initial=-1) >= len(truth):
        raise InputError(
            f"the instance map names particle {owners.max() + 1}, the truth has {len(truth)}",
            where=where,
            fix="make the instance map from the same list",
        )
    hits = np.flatnonzero(owners >= 0)
    hits = hits[truth.labels[owners[hits]] == picks.labels[hits]]
    apart = picks.positions_vox[hits] - truth.positions_vox[owners[hits]]
    return Pairs(hits.astype(np.int64), owners[hits], np.sqrt((apart**2).sum(axis=1)))


def assign_one_to_one(pairs: Pairs, n_picks: int) -> NDArray[np.int64]:
    """The optimal one-to-one assignment: most matches first, then the smallest sum of distances.

    The pairs fall into small independent groups (connected components), each solved as a linear assignment problem. In a group
    of more than 4,096 picks, as only crowds have, there are as many matches, but their distances need not be the smallest:
    the time of that would grow as the square.

    Returns:
        int64 (n_picks,), index of the matched true particle, -1 for none.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    matches = np.full(n_picks, -1, dtype=np.int64)
    if pairs.picks.size == 0:
        return matches
    size = n_picks + int(pairs.truths.max()) + 1
    graph = coo_array((np.ones(pairs.picks.size), (pairs.picks, n_picks + pairs.truths)), shape=(size, size))
    group = connected_components(graph, directed=False)[1][pairs.picks]
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    stops = np.append(starts[1:], order.size)
    single = order[starts[stops - starts == 1]]
    matches[pairs.picks[single]] = pairs.truths[single]
    for start, stop in zip(starts, stops, strict=True):
        if stop - start > 1:
            _solve(pairs.where(order[start:stop]), matches)
    return matches


def _solve(pairs: Pairs, matches: NDArray[np.int64]) -> None:
    """Solve one connected group of pairs and write the result into `matches`."""
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import coo_array, csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching, min_weight_full_bipartite_matching

    picks, rows = np.unique(pairs.picks, return_inverse=True)
    truths, columns = np.unique(pairs.truths, return_inverse=True)
    if picks.size > _LARGE_GROUP:
        order = np.lexsort((pairs.distances, rows))  # of each pick, near particles are tried first
        ends = np.append(0, np.cumsum(np.bincount(rows)))
        graph = csr_array((np.ones(order.size), columns[order], ends), shape=(picks.size, truths.size))
        column = maximum_bipartite_matching(graph, perm_type="column")
        matches[picks[column >= 0]] = truths[column[column >= 0]]
        return
    # No sum of distances over a matching reaches this, so that one match more always pays.
    unmatched = (pairs.distances.max() + 1.0) * (min(picks.size, truths.size) + 1)
    if picks.size * truths.size <= _DENSE_CELLS:
        cost = np.full((picks.size, truths.size), unmatched)
        cost[rows, columns] = pairs.distances
        row, column = linear_sum_assignment(cost)
        chosen = cost[row, column] < unmatched
        row, column = row[chosen], column[chosen]
    else:
        # Each pick gets a column of its own that stands for "unmatched". In a sparse graph a weight of 0 means that there
        # is no edge, so 1 is added to all weights.
        own = np.arange(picks.size)
        weights = np.concatenate([pairs.distances + 1.0, np.full(picks.size, unmatched + 1.0)])
        where = (np.concatenate([rows, own]), np.concatenate([columns, truths.size + own]))
        graph = coo_array((weights, where), shape=(picks.size, truths.size + picks.size))
        row, column = min_weight_full_bipartite_matching(graph.tocsr())
        chosen = column < truths.size
        row, column = row[chosen], column[chosen]
    matches[picks[row]] = truths[column]


def nearest_hits(pairs: Pairs, n_picks: int) -> NDArray[np.int64]:
    """For each pick its nearest candidate, however many picks share it: int64 (n_picks,), -1 for none."""
    matches = np.full(n_picks, -1, dtype=np.int64)
    order = np.argsort(-pairs.distances, kind="stable")
    matches[pairs.picks[order]] = pairs.truths[order]
    return matches


def greedy_matches(pairs: Pairs, ranked_picks: NDArray[np.int64], n_picks: int) -> NDArray[np.int64]:
    """DeePiCt's matching: picks by falling score, each takes the nearest true particle that is still free.

    Args:
        pairs: candidate pairs, of one class each.
        ranked_picks: int64 (m,), picks, best first.
        n_picks: number of all picks.

    Returns:
        int64 (n_picks,), index of the matched true particle, -1 for none.
    """
    order = np.lexsort((pairs.truths, pairs.distances))
    candidates: dict[int, list[int]] = {}
    for pick, true in zip(pairs.picks[order].tolist(), pairs.truths[order].tolist(), strict=True):
        candidates.setdefault(pick, []).append(true)
    matches = np.full(n_picks, -1, dtype=np.int64)
    taken: set[int] = set()
    for pick in ranked_picks.tolist():
        for true in candidates.get(pick, ()):
            if true not in taken:
                taken.add(true)
                matches[pick] = true
                break
    return matches


def gains_by_rank(
    pairs: Pairs, ranked_picks: NDArray[np.int64], counting: Counting = "one_to_one"
) -> NDArray[np.int64]:
    """How many true positives each pick adds when picks are let in one after another, best first.

    Args:
        pairs: candidate pairs.
        ranked_picks: int64 (m,), picks, best first; pairs of other picks are left out.
        counting: what a true positive is.

    Returns:
        int64 (m,), in rank order.
    """
    if counting == "one_to_one":
        return _augmenting_gains(pairs, ranked_picks)
    if counting == "greedy":
        n_picks = int(max(ranked_picks.max(initial=-1), pairs.picks.max(initial=-1))) + 1
        return (greedy_matches(pairs, ranked_picks, n_picks)[ranked_picks] >= 0).astype(np.int64)
    if counting in ("single", "first"):
        raise ValueError(f"what a pick adds is not defined under counting {counting!r}")
    rank_of = np.full(max(ranked_picks.max(initial=-1), pairs.picks.max(initial=-1)) + 1, -1, dtype=np.int64)
    rank_of[ranked_picks] = np.arange(ranked_picks.size)
    ranks = rank_of[pairs.picks]
    ranks, truths = ranks[ranks >= 0], pairs.truths[ranks >= 0]
    if counting == "picks":
        return np.isin(np.arange(ranked_picks.size), ranks).astype(np.int64)
    order = np.argsort(ranks, kind="stable")
    first = np.unique(truths[order], return_index=True)[1]
    return np.bincount(ranks[order][first], minlength=ranked_picks.size).astype(np.int64)


def _augmenting_gains(pairs: Pairs, ranked_picks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Gains of one-to-one matching: 0 or 1 for each pick.

    The running sum is the size of the largest one-to-one matching of the picks let in so far: the number of true
    positives at each score threshold. A pick adds one when an augmenting path starts at it (Berge 1957); the true
    particles a failed search has seen can never be freed and are left out from then on.
    """
    candidates: dict[int, list[int]] = {}
    for pick, true in zip(pairs.picks.tolist(), pairs.truths.tolist(), strict=True):
        candidates.setdefault(pick, []).append(true)
    owner: dict[int, int] = {}
    exhausted: set[int] = set()
    gains = np.zeros(len(ranked_picks), dtype=np.int64)
    for rank, pick in enumerate(ranked_picks.tolist()):
        reached_from: dict[int, int] = {}
        held: dict[int, int] = {}  # pick on the search tree → the true particle it holds now
        queue = deque([pick])
        free = None
        while queue and free is None:
            current = queue.popleft()
            for true in candidates.get(current, ()):
                if true in exhausted or true in reached_from:
                    continue
                reached_from[true] = current
                if true not in owner:
                    free = true
                    break
                held[owner[true]] = true
                queue.append(owner[true])
        if free is None:
            exhausted.update(reached_from)
            continue
        gains[rank] = 1
        while True:
            current = reached_from[free]
            owner[free] = current
            if current == pick:
                break
            free = held[current]
    return gains
