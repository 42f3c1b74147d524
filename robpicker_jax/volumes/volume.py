"""What every volume format gives: a whole volume in memory, or a reader of parts of it."""

from __future__ import annotations

import mmap
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from robpicker_jax.system.errors import InputError

Slices = tuple[slice, slice, slice]
Planes = Callable[[int, int], np.ndarray]
"""Reads the planes first … last − 1 of a volume."""

Origin = tuple[float, float, float]
"""Where the centre of the first voxel lies in the coordinates of viewers, x y z in Å."""

NO_ORIGIN: Origin = (0.0, 0.0, 0.0)

_ISOTROPY = 0.01  # largest relative difference of the three edges that still counts as a cube
_CHUNK_VOXELS = 1 << 22


@dataclass(frozen=True, eq=False)
class Volume:
    """A tomogram, density map or mask in memory.

    Attributes:
        data: (z, y, x) array.
        path: the file it came from.
        voxel_size_zyx_angstrom: the three edges of a voxel in Å, None where the file does not know them.
        origin_angstrom: where viewers place the first voxel, x y z in Å.
    """

    data: np.ndarray
    path: Path
    voxel_size_zyx_angstrom: tuple[float, float, float] | None = None
    origin_angstrom: Origin = NO_ORIGIN

    @property
    def voxel_size_angstrom(self) -> float | None:
        """Edge of the cubic voxels in Å, None where the file does not know it; InputError where they are no cubes."""
        return _cubic_edge(self.voxel_size_zyx_angstrom, self.path)


class VolumeReader(ABC):
    """An open volume file: shape and voxel size at once, voxels part by part.

    Attributes:
        path: the file.
        shape_zyx: its size in voxels.
        dtype: type of the stored voxels.
        voxel_size_zyx_angstrom: edges of a voxel in Å, None where the file does not know them.
        origin_angstrom: where viewers place the first voxel, x y z in Å.
    """

    def __init__(
        self,
        path: Path,
        shape_zyx: tuple[int, int, int],
        dtype: np.dtype[Any],
        voxel_size_zyx_angstrom: tuple[float, float, float] | None,
        origin_angstrom: Origin = NO_ORIGIN,
    ) -> None:
        self.path = path
        self.origin_angstrom = origin_angstrom
        self.shape_zyx = shape_zyx
        self.dtype = dtype
        self.voxel_size_zyx_angstrom = voxel_size_zyx_angstrom

    @property
    def voxel_size_angstrom(self) -> float | None:
        """Edge of the cubic voxels in Å; None where the file does not know it.

        Raises:
            InputError: when the file says that the voxels are not cubes.
        """
        return _cubic_edge(self.voxel_size_zyx_angstrom, self.path)

    @abstractmethod
    def _stored(self, slices: Slices) -> np.ndarray:
        """The voxels of a part, (z, y, x), in the stored type."""

    def read(self, slices: Slices | None = None, *, dtype: Any = np.float32, check: bool = True) -> np.ndarray:
        """Read a part of the volume, or all of it.

        Args:
            slices: z, y and x slices; none for the whole volume.
            dtype: type of the result; None keeps the stored type.
            check: refuse voxels that are NaN or infinite.

        Returns:
            A contiguous (z, y, x) array that does not depend on the file any more.

        Raises:
            InputError: voxels that are NaN or infinite.
        """
        z, y, x = slices if slices is not None else (slice(None),) * 3
        stored = self._stored((z, y, x))
        data = np.array(stored, dtype=stored.dtype.newbyteorder("=") if dtype is None else dtype, order="C")
        if check:
            check_finite(data, self.path)
        return data

    @property
    def resident_bytes(self) -> int:
        """Memory that stays taken once voxels were read: 0, or the whole volume where it can only be decoded whole."""
        return 0

    def release(self) -> None:  # noqa: B027 - most formats keep nothing
        """Let go of what the operating system keeps in memory of earlier reads; later reads work as before."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""

    def __enter__(self) -> VolumeReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class ArrayReader(VolumeReader):
    """A reader over an array that is in memory or memory-mapped."""

    def __init__(
        self,
        path: Path,
        array: np.ndarray,
        voxel_size_zyx_angstrom: tuple[float, float, float] | None,
        origin_angstrom: Origin = NO_ORIGIN,
    ) -> None:
        z, y, x = array.shape
        super().__init__(path, (z, y, x), array.dtype, voxel_size_zyx_angstrom, origin_angstrom)
        self._array: np.ndarray | None = array

    def _stored(self, slices: Slices) -> np.ndarray:
        if self._array is None:
            raise ValueError(f"{self.path} is closed")
        return self._array[slices]

    def release(self) -> None:
        # Pages of a mapped file count as this process's memory until they are released; the system's cache keeps them.
        mapped = getattr(self._array, "_mmap", None)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        self._array = None


def _cubic_edge(sizes: tuple[float, float, float] | None, path: Path) -> float | None:
    if sizes is None:
        return None
    if max(sizes) > (1 + _ISOTROPY) * min(sizes):
        z, y, x = sizes
        raise InputError(
            f"voxels are not cubes: {x:.4g} x {y:.4g} x {z:.4g} Å (x, y, z)",
            where=path,
            fix="correct the header or resample the volume",
        )
    return float(sizes[2])


class LazyReader(VolumeReader):
    """A reader over a file that can only be decoded whole: its voxels are decoded at the first read, and kept."""

    def __init__(
        self,
        path: Path,
        shape_zyx: tuple[int, int, int],
        dtype: np.dtype[Any],
        voxel_size_zyx_angstrom: tuple[float, float, float] | None,
        decode: Callable[[], np.ndarray],
        origin_angstrom: Origin = NO_ORIGIN,
    ) -> None:
        super().__init__(path, shape_zyx, dtype, voxel_size_zyx_angstrom, origin_angstrom)
        self._decode: Callable[[], np.ndarray] | None = decode
        self._array: np.ndarray | None = None
        self._decoding = threading.Lock()

    @property
    def resident_bytes(self) -> int:
        z, y, x = self.shape_zyx
        return z * y * x * self.dtype.itemsize

    def _stored(self, slices: Slices) -> np.ndarray:
        if self._decode is None:
            raise ValueError(f"{self.path} is closed")
        with self._decoding:  # threads that read at once wait for one of them to decode
            if self._array is None:
                self._array = self._decode()
        return self._array[slices]

    def close(self) -> None:
        self._decode = self._array = None


def check_finite(data: np.ndarray, path: Path | str) -> None:
    """Refuse NaN and infinite voxels, in slabs so that the check needs little memory.

    Raises:
        InputError: with the number of such voxels and the position of the first.
    """
    if data.dtype.kind in "fc" and data.size:
        check_finite_planes(lambda first, last: data[first:last], data.shape, path)


def check_finite_planes(read: Planes, shape_zyx: Sequence[int], path: Path | str) -> None:
    """`check_finite` of a volume that is read by planes.

    Raises:
        InputError: with the number of such voxels and the position of the first.
    """
    bad, first = 0, (0, 0, 0)
    for start, stop in slabs(shape_zyx):
        finite = np.isfinite(read(start, stop))
        if not finite.all():
            if not bad:
                z, y, x = (int(i) for i in np.argwhere(~finite)[0])
                first = (x, y, z + start)
            bad += int(finite.size - np.count_nonzero(finite))
    if bad:
        total = shape_zyx[0] * shape_zyx[1] * shape_zyx[2]
        raise InputError(
            f"{bad} of {total} voxels are NaN or infinite, the first at x y z = {first[0]} {first[1]} {first[2]}",
            where=path,
            fix="replace them, for instance by the mean of the volume",
        )


def slabs(shape_zyx: Sequence[int], voxels: int = _CHUNK_VOXELS) -> Iterator[tuple[int, int]]:
    """Yield (first plane, last plane + 1) of slabs of about so many voxels, at least a plane each."""
    depth, height, width = shape_zyx
    step = max(1, voxels // max(1, height * width))
    for start in range(0, depth, step):
        yield start, min(start + step, depth)
