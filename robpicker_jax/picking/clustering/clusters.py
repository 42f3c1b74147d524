"""The record of clusters that every clustering returns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.system.errors import InputError


@dataclass(frozen=True)
class Clusters:
    """Clusters of one class of a map, as runs of core voxels and single border voxels.

    Attributes:
        shape_zyx: shape of the map.
        count: number of clusters; they are numbered 0 … count-1 by their first core voxel in (z, y, x) order.
        run_starts, run_stops: int64 (m,), flat indices of the core runs, ends excluded.
        run_labels: int32 (m,), cluster of each run.
        border_voxels: int64 (b,), flat indices of the border voxels (not core, within the radius of a core voxel).
        border_labels: int32 (b,), cluster of each border voxel.
        noise_count: number of noise voxels.
    """

    shape_zyx: tuple[int, int, int]
    count: int
    run_starts: NDArray[np.int64]
    run_stops: NDArray[np.int64]
    run_labels: NDArray[np.int32]
    border_voxels: NDArray[np.int64]
    border_labels: NDArray[np.int32]
    noise_count: int

    @property
    def voxel_count(self) -> int:
        """Number of clustered voxels, core and border."""
        return int((self.run_stops - self.run_starts).sum()) + self.border_voxels.size

    def voxels(self, chunk: int = 1 << 21) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
        """Yield (flat indices, cluster numbers) of all clustered voxels, about `chunk` voxels at a time."""
        lengths = self.run_stops - self.run_starts
        ends = np.cumsum(lengths)
        first = 0
        while first < lengths.size:
            done = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(ends, done + chunk, side="right")))
            part = slice(first, last)
            # Each run's start, minus the number of voxels before the run, plus a running count.
            shift = self.run_starts[part] - (ends[part] - lengths[part] - done)
            indices = np.repeat(shift, lengths[part])
            indices += np.arange(indices.size)
            yield indices, np.repeat(self.run_labels[part], lengths[part])
            first = last
        for begin in range(0, self.border_voxels.size, chunk):
            yield self.border_voxels[begin : begin + chunk], self.border_labels[begin : begin + chunk]

    @classmethod
    def from_labels(cls, labels: NDArray[np.integer]) -> Clusters:
        """Clusters from a volume of cluster numbers, as `scipy.ndimage.label` and most libraries give them.

        Args:
            labels: integers (z, y, x): 0 or less where there is no cluster, else 1 + the cluster's number. A number
                that no voxel has is an empty cluster, which becomes no pick.

        Raises:
            InputError: labels not three-dimensional.
        """
        if labels.ndim != 3:
            raise InputError(f"cluster labels have three dimensions, got shape {labels.shape}")
        flat = np.ascontiguousarray(labels).reshape(-1)
        voxels = np.flatnonzero(flat > 0)
        numbers = (flat[voxels] - 1).astype(np.int32)
        # A run is a stretch of voxels that follow one another in memory and are of one cluster.
        new = np.append(True, (np.diff(voxels) != 1) | (np.diff(numbers) != 0))[: voxels.size]
        starts = np.flatnonzero(new)
        lengths = np.diff(np.append(starts, voxels.size))
        return cls(
            shape_zyx=(labels.shape[0], labels.shape[1], labels.shape[2]),
            count=int(numbers.max(initial=-1)) + 1,
            run_starts=voxels[starts],
            run_stops=voxels[starts] + lengths,
            run_labels=numbers[starts],
            border_voxels=np.empty(0, np.int64),
            border_labels=np.empty(0, np.int32),
            noise_count=0,
        )
