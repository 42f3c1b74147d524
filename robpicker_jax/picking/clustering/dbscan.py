"""DBSCAN on the voxel grid: the partition of scikit-learn's, from integer offsets instead of a tree.

On a grid the neighbourhood of a point is a fixed set of integer offsets (the ball), so neighbour counts are look-ups,
and core voxels that follow one another along x are always in one cluster. Only such *runs* of core voxels are kept and
joined; memory grows with the runs and border voxels, not with the volume.

Source: Ester, Kriegel, Sander, Xu, "A density-based algorithm for discovering clusters", KDD 1996. Where a border voxel
reaches several clusters it goes to the one whose first core voxel comes first in (z, y, x) order, as in scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.picking.clustering.clusters import Clusters
from robpicker_jax.system.errors import InputError

_SLAB_VOXELS = 1 << 22  # voxels scanned at once; bounds the working memory of dense maps


def ball_offsets(radius_vox: float) -> NDArray[np.int64]:
    """Integer offsets (dz, dy, dx) with dz² + dy² + dx² ≤ radius², the origin included; int64 (k, 3)."""
    reach = int(np.floor(radius_vox))
    axis = np.arange(-reach, reach + 1, dtype=np.int64)
    grid: NDArray[np.int64] = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    inside: NDArray[np.int64] = grid[(grid**2).sum(axis=1) <= radius_vox * radius_vox]
    return inside


def dbscan(
    class_map: NDArray[np.integer],
    probability: NDArray[np.floating] | None,
    class_labels: Sequence[int],
    *,
    radius_vox: float = 1.0,
    min_neighbours: int = 5,
) -> list[Clusters]:
    """The clustering `dbscan`: DBSCAN of the voxels of each class; their probabilities are not looked at.

    Args:
        class_map: integers (z, y, x), 0 background.
        probability: of each voxel's class; unused.
        class_labels: the classes to cluster, each at least 1.
        radius_vox: neighbourhood radius in voxels, the radius itself included.
        min_neighbours: voxels of one class within the radius, itself counted, that make a voxel a core voxel.

    Raises:
        InputError: radius not positive, min_neighbours below 1.
    """
    return dbscan_classes(class_map, class_labels, radius_vox, min_neighbours)


def dbscan_grid(mask: NDArray[np.bool_], radius_vox: float = 1.0, min_neighbours: int = 5) -> NDArray[np.int32]:
    """Label the voxels of a mask as `sklearn.cluster.DBSCAN(radius_vox, min_samples=min_neighbours)` would.

    Args:
        mask: bool (z, y, x), the voxels to cluster.
        radius_vox: neighbourhood radius in voxels, the radius itself included.
        min_neighbours: labelled voxels within the radius, itself counted, that make a voxel a core voxel.

    Returns:
        int32 (z, y, x): 0 outside the mask, -1 noise, else 1 + scikit-learn's cluster number of the points
        `np.argwhere(mask)`.

    Raises:
        InputError: mask not three-dimensional, radius not positive, min_neighbours below 1.
    """
    mask = np.ascontiguousarray(mask, dtype=bool)
    clusters = dbscan_classes(mask.view(np.uint8), (1,), radius_vox, min_neighbours)[0]
    labels = np.zeros(mask.shape, dtype=np.int32)  # pages without labelled voxels are never touched
    flat = labels.reshape(-1)
    flat[np.flatnonzero(mask)] = -1
    for indices, numbers in clusters.voxels():
        flat[indices] = numbers + 1
    return labels


def dbscan_classes(
    class_map: NDArray[np.integer], class_labels: Sequence[int], radius_vox: float = 1.0, min_neighbours: int = 5
) -> list[Clusters]:
    """Cluster each class of a class map on its own, in one pass over the map.

    Args:
        class_map: integers (z, y, x), 0 background.
        class_labels: the classes to cluster, each ≥ 1.
        radius_vox, min_neighbours: as in `dbscan_grid`.

    Returns:
        One `Clusters` for each entry of `class_labels`.

    Raises:
        InputError: map not three-dimensional, radius not positive, min_neighbours below 1.
    """
    check_dbscan(class_map, radius_vox, min_neighbours)
    grid = _Grid(class_map.shape, ball_offsets(radius_vox))
    flat = np.ascontiguousarray(class_map).reshape(-1)
    parts: list[list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]] = [[] for _ in class_labels]
    plane = max(1, class_map.shape[1] * class_map.shape[2])
    step = max(1, _SLAB_VOXELS // plane) * plane
    for begin in range(0, flat.size, step):
        indices = np.flatnonzero(flat[begin : begin + step] != 0)
        if indices.size == 0:
            continue
        indices += begin
        values = flat[indices]
        core = grid.core(flat, indices, values, min_neighbours)
        for part, label in zip(parts, class_labels, strict=True):
            chosen = values == label
            core_keys = grid.keys(indices[chosen & core])
            part.append((*grid.runs(core_keys), grid.keys(indices[chosen & ~core])))
    return [_join(grid, part) for part in parts]


def check_dbscan(class_map: NDArray[np.integer], radius_vox: float, min_neighbours: int) -> None:
    """Refuse what DBSCAN cannot take.

    Raises:
        InputError: map not three-dimensional, radius not positive, min_neighbours below 1.
    """
    if class_map.ndim != 3:
        raise InputError(f"a class map has three dimensions, got shape {class_map.shape}")
    if not (np.isfinite(radius_vox) and radius_vox > 0):
        raise InputError(f"must be a positive number, got {radius_vox}", where="radius_vox")
    if min_neighbours < 1:
        raise InputError(f"must be at least 1, got {min_neighbours}", where="min_neighbours")


class _Grid:
    """Neighbourhood arithmetic on padded keys.

    A key is a flat index into a volume padded by the ball's reach after each row and each plane, so that key + offset
    never lands on a voxel of another row or plane, and a neighbour outside the volume is no key of any voxel.
    """

    def __init__(self, shape_zyx: tuple[int, ...], offsets: NDArray[np.int64]) -> None:
        self.shape = (int(shape_zyx[0]), int(shape_zyx[1]), int(shape_zyx[2]))
        self.reach = int(offsets.max(initial=0))
        self.offsets = offsets
        self.row = self.shape[2] + self.reach
        self.plane = (self.shape[1] + self.reach) * self.row
        # The ball as rows: all dx with |dx| ≤ half_width for each (dz, dy).
        rows = offsets[offsets[:, 2] >= 0]
        order = np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))
        rows = rows[order]
        last = np.append(np.any(rows[1:, :2] != rows[:-1, :2], axis=1), True)
        self.rows = [(int(dz * self.plane + dy * self.row), int(width)) for dz, dy, width in rows[last]]

    def keys(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Padded keys of flat indices."""
        lines = indices // self.shape[2]
        planes = lines // self.shape[1]
        return indices + lines * self.reach + planes * (self.reach * self.row)

    def indices(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Flat indices of padded keys."""
        planes = keys // self.plane
        lines = (keys - planes * self.plane) // self.row + planes * self.shape[1]
        return keys - lines * self.reach - planes * (self.reach * self.row)

    def core(
        self, flat: NDArray[np.integer], indices: NDArray[np.int64], values: NDArray[np.integer], least: int
    ) -> NDArray[np.bool_]:
        """Which voxels have at least `least` voxels of their class within the ball, themselves counted."""
        lines, x = np.divmod(indices, self.shape[2])
        z, y = np.divmod(lines, self.shape[1])
        inside = np.ones(indices.size, dtype=bool)
        for along, size in zip((z, y, x), self.shape, strict=True):
            inside &= (along >= self.reach) & (along < size - self.reach)
        core = np.zeros(indices.size, dtype=bool)
        # Voxels near the volume's faces, whose neighbours may lie outside, are few; the others need no look at that.
        inner, edge = np.flatnonzero(inside), np.flatnonzero(~inside)
        core[inner] = self._reach_count(flat, indices[inner], values[inner], least)
        edge_zyx = np.stack((z[edge], y[edge], x[edge]), axis=1)
        core[edge] = self._reach_count(flat, indices[edge], values[edge], least, edge_zyx)
        return core

    def _reach_count(
        self,
        flat: NDArray[np.integer],
        indices: NDArray[np.int64],
        values: NDArray[np.integer],
        least: int,
        zyx: NDArray[np.int64] | None = None,
    ) -> NDArray[np.bool_]:
        reached = np.full(indices.size, least <= 1)
        pending = np.flatnonzero(~reached)
        indices, values = indices[pending], values[pending]
        zyx = None if zyx is None else zyx[pending]
        counts = np.ones(pending.size, dtype=np.int32)
        squared = (self.offsets**2).sum(axis=1)
        # Near offsets come first: inside a blob a few of them suffice, and only few voxels need the rest of a large ball.
        for number, offset in enumerate(self.offsets[np.argsort(squared, kind="stable")][1:], start=1):
            if pending.size == 0:
                break
            step = (offset[0] * self.shape[1] + offset[1]) * self.shape[2] + offset[2]
            if zyx is None:
                counts += flat[indices + step] == values
            else:
                moved = zyx + offset
                at = np.flatnonzero(np.all((moved >= 0) & (moved < self.shape), axis=1))
                counts[at] += flat[indices[at] + step] == values[at]
            if number % 6 == 0:
                reached[pending[counts >= least]] = True
                left = np.flatnonzero(counts < least)
                pending, indices, values, counts = pending[left], indices[left], values[left], counts[left]
                zyx = None if zyx is None else zyx[left]
        reached[pending[counts >= least]] = True
        return reached

    def runs(self, keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and last keys of the runs of consecutive keys; single voxels where the ball is its centre alone."""
        if keys.size == 0 or self.reach == 0:
            return keys, keys
        breaks = np.flatnonzero(np.diff(keys) != 1)
        return keys[np.append(0, breaks + 1)], keys[np.append(breaks, keys.size - 1)]


def _join(grid: _Grid, parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]) -> Clusters:
    """Join core runs into clusters and give border voxels to them."""
    empty = np.empty(0, dtype=np.int64)
    firsts, lasts, others = (np.concatenate([empty, *(part[column] for part in parts)]) for column in range(3))
    count, run_labels = _connected_runs(grid, firsts, lasts)
    border_labels = _lowest_neighbour(grid, firsts, lasts, run_labels, others)
    border = border_labels >= 0
    starts = grid.indices(firsts)
    return Clusters(
        shape_zyx=grid.shape,
        count=count,
        run_starts=starts,
        run_stops=starts + (lasts - firsts + 1),
        run_labels=run_labels,
        border_voxels=grid.indices(others[border]),
        border_labels=border_labels[border],
        noise_count=int(others.size - border.sum()),
    )


def _connected_runs(grid: _Grid, firsts: NDArray[np.int64], lasts: NDArray[np.int64]) -> tuple[int, NDArray[np.int32]]:
    """Connected components of runs, two being joined when a voxel of one is in the ball of a voxel of the other."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if firsts.size == 0:
        return 0, np.empty(0, dtype=np.int32)
    # Runs of one row no further apart than the reach are joined at once; such chains are numbered in run order.
    gaps = firsts[1:] - lasts[:-1]
    chain = np.append(0, np.cumsum((gaps > grid.reach) | (grid.reach == 0)))
    left, right = [], []
    for shift, width in grid.rows:
        if shift <= 0:  # the ball is symmetric: half of the rows joins all
            continue
        low = np.searchsorted(lasts, firsts + (shift - width), side="left")
        high = np.searchsorted(firsts, lasts + (shift + width), side="right") - 1
        touching = np.flatnonzero(high >= low)
        begin, number = chain[low[touching]], chain[high[touching]] - chain[low[touching]] + 1
        source = np.repeat(chain[touching], number)
        target = np.arange(source.size) + np.repeat(begin - (np.cumsum(number) - number), number)
        new = np.append(True, (np.diff(source) != 0) | (np.diff(target) != 0))[: source.size]
        left.append(source[new])
        right.append(target[new])
    rows = np.concatenate([np.empty(0, np.int64), *left])
    columns = np.concatenate([np.empty(0, np.int64), *right])
    graph = coo_array((np.ones(rows.size, dtype=np.int8), (rows, columns)), shape=(chain[-1] + 1, chain[-1] + 1))
    count, labels = connected_components(graph, directed=False)
    # Number the clusters by their first chain, whatever order the graph routine chose.
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(count, dtype=np.int32)
    rank[np.argsort(first)] = np.arange(count, dtype=np.int32)
    return int(count), rank[inverse][chain]


def _lowest_neighbour(
    grid: _Grid,
    firsts: NDArray[np.int64],
    lasts: NDArray[np.int64],
    run_labels: NDArray[np.int32],
    keys: NDArray[np.int64],
) -> NDArray[np.int32]:
    """Smallest cluster number among the core voxels in the ball of each key; -1 where there is none."""
    nothing = np.iinfo(np.int32).max
    lowest = np.full(keys.size, nothing, dtype=np.int32)
    if firsts.size and keys.size:
        for shift, width in grid.rows:
            low = np.searchsorted(lasts, keys + (shift - width), side="left")
            high = np.searchsorted(firsts, keys + (shift + width), side="right")
            touching = np.flatnonzero(high > low)
            while touching.size:
                lowest[touching] = np.minimum(lowest[touching], run_labels[low[touching]])
                low[touching] += 1
                touching = touching[high[touching] > low[touching]]
    lowest[lowest == nothing] = -1
    return lowest
