"""Grid DBSCAN against scikit-learn's: time, speed-up, memory, and that the partition is the same.

Cases are label maps as a network makes them (ragged balls of radius 6) and 2 % salt noise, in a (200, 512, 512) volume;
the scaling cases show time and memory against the number of labelled voxels and against the volume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks._common import Row, main, peak_memory_mib, row, seconds

NAME = "clustering"
SHREC = (200, 512, 512)
LARGE = (512, 1024, 1024)


def ragged_balls(shape: tuple[int, int, int], n_voxels: int, radius: int = 6, seed: int = 0) -> np.ndarray:
    """Mask bool (z, y, x) of balls at random places with about `n_voxels` voxels, one in twenty missing."""
    rng = np.random.default_rng(seed)
    axis = np.arange(-radius, radius + 1)
    ball = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis**2 <= radius**2
    mask = np.zeros(shape, dtype=bool)
    for _ in range(round(n_voxels / (0.95 * ball.sum()))):
        box = tuple(slice(c - radius, c + radius + 1) for c in rng.integers(radius, np.array(shape) - radius))
        mask[box] |= ball & (rng.random(ball.shape) < 0.95)
    return mask


def salt(shape: tuple[int, int, int], n_voxels: int, seed: int = 0) -> np.ndarray:
    """Mask bool (z, y, x) of `n_voxels` voxels at random places."""
    mask = np.zeros(int(np.prod(shape)), dtype=bool)
    mask[np.random.default_rng(seed).choice(mask.size, n_voxels, replace=False)] = True
    return mask.reshape(shape)


def run(quick: bool) -> Iterator[Row]:
    """Rows of all cases."""
    million = 1_000_000
    settings = [(1.0, 5)] if quick else [(1.0, 5), (1.8, 9), (2.0, 9), (3.0, 9)]
    balls = ragged_balls(SHREC, million)
    for radius, neighbours in settings:
        yield from against_sklearn(f"balls, radius {radius:g}, at least {neighbours}", balls, radius, neighbours)
    if not quick:
        yield from against_sklearn("salt, radius 1, at least 5", salt(SHREC, million), 1.0, 5)
    sizes = [(SHREC, 100_000), (SHREC, million)]
    sizes += [] if quick else [(SHREC, 5 * million), (LARGE, 100_000), (LARGE, million), (LARGE, 10 * million)]
    for shape, n_voxels in sizes:
        yield from scaling(shape, n_voxels)


def against_sklearn(case: str, mask: np.ndarray, radius: float, neighbours: int) -> Iterator[Row]:
    """Both on one mask, in one run; scikit-learn gets the voxel coordinates ready made."""
    from sklearn.cluster import DBSCAN

    from robpicker_jax.picking.clustering import dbscan_grid

    points = np.argwhere(mask)

    def sklearn() -> np.ndarray:
        labels: np.ndarray = DBSCAN(eps=radius, min_samples=neighbours).fit_predict(points)
        return labels

    def record(metric: str, value: Any, unit: str) -> Row:
        why = "peak memory is read from /proc"
        return row(NAME, case, metric, value, unit, why=why, labelled_voxels=len(points), shape_zyx=mask.shape)

    ours_s = seconds(lambda: dbscan_grid(mask, radius, neighbours))
    labels, ours_mib = peak_memory_mib(lambda: dbscan_grid(mask, radius, neighbours))
    times: list[float] = []

    def timed() -> np.ndarray:
        found: list[np.ndarray] = []
        times.append(seconds(lambda: found.append(sklearn()), repeats=1, warmup=0))
        return found[0]

    expected, sklearn_mib = peak_memory_mib(timed)
    same = np.array_equal(np.where(expected < 0, -1, expected + 1), labels[mask])
    yield record("labelled voxels", len(points), "")
    yield record("clusters", int(expected.max()) + 1, "")
    yield record("same labels as scikit-learn", int(same), "1 = yes")
    yield record("grid DBSCAN", ours_s, "s")
    yield record("scikit-learn", times[0], "s")
    yield record("speed-up", times[0] / ours_s, "x")
    yield record("grid DBSCAN, peak memory", ours_mib, "MiB")
    yield record("scikit-learn, peak memory", sklearn_mib, "MiB")


def scaling(shape: tuple[int, int, int], n_voxels: int) -> Iterator[Row]:
    """Clusters alone, without a dense label volume, as picking uses them."""
    from robpicker_jax.picking.clustering import dbscan_classes

    class_map = ragged_balls(shape, n_voxels).view(np.uint8)
    count = int(np.count_nonzero(class_map))
    case = f"clusters of {count:,} voxels in {shape}"
    call: Callable[[], object] = lambda: dbscan_classes(class_map, (1,))  # noqa: E731
    time_s = seconds(call, repeats=2)
    _, peak = peak_memory_mib(call)
    yield row(NAME, case, "time", time_s, "s")
    yield row(NAME, case, "time per labelled voxel", time_s / count * 1e9, "ns")
    why = "peak memory is read from /proc"
    yield row(NAME, case, "peak memory", peak, "MiB", why=why)
    yield row(NAME, case, "bytes per labelled voxel", None if peak is None else peak * 2**20 / count, "B", why=why)


if __name__ == "__main__":
    main(NAME, run)
