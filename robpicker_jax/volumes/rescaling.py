"""A volume read at another voxel size, box by box.

Voxel i of the new grid lies at j = i · new/old of the file's voxels: both count from the centre of their first voxel, so
positions in Å are the same on both. Densities are interpolated by Keys' cubic (R. Keys 1981, a = −1/2), axis by axis;
where voxels become larger, the kernel widens with them, so that fine detail is averaged and does not alias.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import sparse

from robpicker_jax.volumes.volume import Slices, VolumeReader

_REACH = 2.0  # of the cubic, in voxels of the coarser grid


class RescaledReader(VolumeReader):
    """A reader of a volume with other voxels than the file's; it closes the file's reader.

    Attributes:
        source: the file's reader.
        factor: voxels of the new grid in one voxel of the file, along each axis.

    Args:
        source: the file's reader.
        voxel_size_angstrom: edge of the new voxels.
        source_angstrom: edge of the file's.
    """

    def __init__(self, source: VolumeReader, voxel_size_angstrom: float, source_angstrom: float) -> None:
        self.source, self.factor = source, source_angstrom / voxel_size_angstrom
        # No voxel of the new grid lies beyond the centres of the file's outermost ones.
        z, y, x = (math.floor((size - 1) * self.factor + 1e-6) + 1 for size in source.shape_zyx)
        edges = (voxel_size_angstrom, voxel_size_angstrom, voxel_size_angstrom)
        super().__init__(source.path, (z, y, x), np.dtype(np.float32), edges, source.origin_angstrom)

    def onto_grid(self, stored: np.ndarray) -> np.ndarray:
        """A map of the file's grid, such as a mask, by the nearest voxel on the new grid."""
        return _nearest(stored, self.shape_zyx, 1 / self.factor)

    def onto_source(self, found: np.ndarray) -> np.ndarray:
        """A map of the new grid (z, y, x, …), such as a class map, by the nearest voxel on the file's grid."""
        return _nearest(found, self.source.shape_zyx, self.factor)

    @property
    def resident_bytes(self) -> int:
        return self.source.resident_bytes

    def _stored(self, slices: Slices) -> np.ndarray:
        spans = [range(*part.indices(size)) for part, size in zip(slices, self.shape_zyx, strict=True)]
        weights, parts = [], []
        for span, size in zip(spans, self.source.shape_zyx, strict=True):
            matrix, part = _interpolation(span, size, self.factor)
            weights.append(matrix)
            parts.append(part)
        data = self.source.read((parts[0], parts[1], parts[2]), check=False)
        for axis, matrix in enumerate(weights):
            moved = np.moveaxis(data, axis, 0)
            flat = matrix @ np.ascontiguousarray(moved).reshape(len(moved), -1)
            data = np.moveaxis(flat.reshape(matrix.shape[0], *moved.shape[1:]), 0, axis)
        return data

    def release(self) -> None:
        self.source.release()

    def close(self) -> None:
        self.source.close()


def _interpolation(span: range, size: int, factor: float) -> tuple[Any, slice]:
    """Sparse weights (new voxels, voxels of the file that they need), and which these are along an axis."""
    centres = np.asarray(span, np.float64) / factor
    widening = max(1.0, 1 / factor)
    reach = _REACH * widening
    if not len(centres):
        return sparse.csr_array((0, 1), dtype=np.float32), slice(0, 1)
    first = max(0, math.floor(centres.min() - reach))
    last = min(size - 1, math.ceil(centres.max() + reach))
    offsets = np.arange(math.floor(-reach), math.ceil(reach) + 2)
    columns = np.floor(centres).astype(np.int64)[:, None] + offsets[None]
    weights = _cubic((columns - centres[:, None]) / widening) * ((columns >= 0) & (columns < size))
    weights /= weights.sum(axis=1, keepdims=True)
    used = weights != 0
    rows = np.broadcast_to(np.arange(len(centres))[:, None], columns.shape)
    matrix = sparse.csr_array(
        (weights[used].astype(np.float32), (rows[used], columns[used] - first)), shape=(len(centres), last - first + 1)
    )
    return matrix, slice(first, last + 1)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic kernel of distances in voxels of the coarser grid."""
    x = np.abs(x)
    inner, outer = (1.5 * x - 2.5) * x**2 + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))


def _nearest(array: np.ndarray, shape_zyx: tuple[int, int, int], step: float) -> np.ndarray:
    """`array` at every `step` voxels, by the nearest voxel."""
    z, y, x = (
        np.minimum(np.floor(np.arange(new) * step + 0.5).astype(np.int64), old - 1)
        for new, old in zip(shape_zyx, array.shape[:3], strict=True)
    )
    result: np.ndarray = array[np.ix_(z, y, x)]
    return result
