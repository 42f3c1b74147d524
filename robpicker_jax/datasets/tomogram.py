"""Opening a tomogram: its voxels, normalised, with its mask and its particles.

Voxels are read, inverted and normalised by one rule whether they are held in memory or read box by box, so every mode
gives the same densities, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from robpicker_jax.annotations import Particles
from robpicker_jax.config import DataConfig
from robpicker_jax.datasets.discovery import TomogramFiles
from robpicker_jax.datasets.headers import agreed_voxel_size
from robpicker_jax.datasets.particle_lists import load_particles, needs_particles
from robpicker_jax.datasets.stored_maps import load_mask
from robpicker_jax.system.errors import InputError, located
from robpicker_jax.volumes import NO_ORIGIN, Origin, Scaling, VolumeReader, normalisation, open_volume
from robpicker_jax.volumes.rescaling import RescaledReader
from robpicker_jax.volumes.volume import Slices, slabs

_CHECKED_PLANES = 8
_LARGEST_MEAN = 2.0
_STD_RANGE = 10.0

Mode = Literal["memory", "mapped", "streamed"]
"""Where voxels are while a tomogram is open.

"memory": all are read at once, and the file is closed. "mapped": they stay in the file and each box is read when it is
asked for; for training on more than memory holds. "streamed": as "mapped", but the particle list is left alone; for
inference, which needs none.
"""


@dataclass(frozen=True, eq=False)
class OpenedTomogram:
    """An open tomogram; three slices index its normalised densities, whether they are in memory or in the file.

    It closes itself at the end of a `with` block. Several threads may read at once.

    Attributes:
        files: where it came from.
        shape_zyx: size in voxels.
        voxel_size_angstrom: edge of a voxel in Å, None where neither files nor configuration say.
        particles: its annotations, None where there are none or where they were not read.
        mask: bool (z, y, x), where the sample is; None means everywhere.
        scaling: its normalisation.
        origin_angstrom: where viewers place the first voxel, x y z in Å.
        inverted: whether densities were multiplied by −1 before they were normalised.
        density: all densities, float32 (z, y, x), normalised; None where they stay in the file.
        reader: the volume's file; None where all densities are in memory.
    """

    ndim: ClassVar[int] = 3
    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.float32)

    files: TomogramFiles
    shape_zyx: tuple[int, int, int]
    voxel_size_angstrom: float | None
    particles: Particles | None
    mask: np.ndarray | None
    scaling: Scaling
    inverted: bool
    density: np.ndarray | None = None
    reader: VolumeReader | None = None
    origin_angstrom: Origin = NO_ORIGIN

    @property
    def name(self) -> str:
        """The volume's file name without suffix."""
        return self.files.name

    @property
    def shape(self) -> tuple[int, int, int]:
        """Size in voxels, under the name that arrays give it."""
        return self.shape_zyx

    def read(self, region: Slices) -> np.ndarray:
        """Normalised densities (z, y, x) of a box, float32; of a tomogram in memory, a view that is not to be changed.

        Raises:
            ValueError: the tomogram is closed.
        """
        if self.density is not None:
            return self.density[region]
        assert self.reader is not None
        return self.scaling.apply(_densities(self.reader, region, self.inverted))

    def __getitem__(self, region: Slices) -> np.ndarray:
        return self.read(region)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False and self.density is None:
            raise ValueError("the densities of a tomogram in a file are always copied")
        whole = self.read((slice(None),) * 3)
        if copy and self.density is not None:
            whole = whole.copy()
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def release(self) -> None:
        """Let go of what the operating system keeps in memory of earlier reads; later reads work as before."""
        if self.reader is not None:
            self.reader.release()

    def close(self) -> None:
        """Let go of the file; densities in memory stay."""
        if self.reader is not None:
            self.reader.close()

    def __enter__(self) -> OpenedTomogram:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_tomogram(
    files: TomogramFiles,
    data: DataConfig,
    *,
    mode: Mode = "memory",
    into: np.ndarray | None = None,
    scaling: Scaling | None = None,
    reader: VolumeReader | None = None,
) -> OpenedTomogram:
    """Open a tomogram: its header, its mask, its particles, and its normalisation.

    Args:
        files: the tomogram.
        data: contrast, normalisation, voxel size, species and how lists are read.
        mode: where its voxels are while it is open; see `Mode`.
        into: float32 (z, y, x), which receives the densities in mode "memory"; a new array by default.
        scaling: its normalisation, where it is known; else it is found, which takes two passes over the voxels.
        reader: its volume, where that is open already; the tomogram takes it over, and closes it.

    Raises:
        InputError: whatever is wrong with its files; in train and meta also that there are no annotations.
    """
    reader = reader or open_volume(files.volume_path)
    try:
        voxel_size = agreed_voxel_size([reader], data.voxel_size_angstrom)
        particles = None
        if mode != "streamed" and needs_particles(files, data.species):
            particles = load_particles(files, data, reader.shape_zyx, voxel_size, reader.origin_angstrom)
        return with_voxels(files, data, reader, voxel_size, particles, mode=mode, into=into, scaling=scaling)
    except BaseException:
        reader.close()
        raise


def with_voxels(
    files: TomogramFiles,
    data: DataConfig,
    reader: VolumeReader,
    voxel_size_angstrom: float | None,
    particles: Particles | None,
    *,
    mode: Mode,
    into: np.ndarray | None,
    scaling: Scaling | None,
) -> OpenedTomogram:
    """Add mask, normalisation and voxels to a volume that is open, and to particles that were read already.

    Raises:
        InputError: a mask or voxels that cannot be used. The reader is left to the caller to close then.
    """
    shape, density = reader.shape_zyx, None
    with located(files.volume_path):
        mask = _mask(files, reader)
        if mode == "memory":
            density = np.empty(shape, np.float32) if into is None else into
            for first, last in slabs(shape):
                density[first:last] = _densities(reader, _planes(first, last), data.invert_contrast)
                reader.release()
            reader.close()
        found = scaling if scaling is not None and _is_plausible(scaling, density, reader, data, mask) else None
        found = found or _found_scaling(density, reader, data, mask)
    return OpenedTomogram(
        files=files,
        shape_zyx=shape,
        voxel_size_angstrom=voxel_size_angstrom,
        particles=particles,
        mask=mask,
        scaling=found,
        inverted=data.invert_contrast,
        density=None if density is None else found.apply(density),
        reader=reader if density is None else None,
        origin_angstrom=reader.origin_angstrom,
    )


def _volume(files: TomogramFiles) -> VolumeReader:
    return open_volume(files.volume_path)


def stream_tomograms(
    tomograms: Sequence[TomogramFiles],
    data: DataConfig,
    opening: Callable[[TomogramFiles], VolumeReader] = _volume,
    *,
    on_bad: Callable[[TomogramFiles, InputError], None] | None = None,
) -> Iterator[OpenedTomogram]:
    """Yield streamed tomograms one by one; while one is in use, the next one's normalisation is found.

    Each is closed when the next one is asked for.

    Args:
        tomograms: the tomograms.
        data: contrast, normalisation and voxel size.
        opening: opens a tomogram's volume when its turn comes, for instance resampled; default: as it is in the file.
        on_bad: called with a tomogram that cannot be used and the reason, and the next one follows; without it, the
            reason is raised.

    Raises:
        InputError: whatever is wrong with a tomogram's files, when its turn comes.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="statistics") as pool:
        following: list[Future[OpenedTomogram]] = []

        def opened(files: TomogramFiles) -> OpenedTomogram:
            return open_tomogram(files, data, mode="streamed", reader=opening(files))

        def begin(number: int) -> None:
            if number < len(tomograms):
                following.append(pool.submit(opened, tomograms[number]))

        begin(0)
        try:
            for number in range(len(tomograms)):
                try:
                    found = following.pop().result()
                except InputError as error:
                    if on_bad is None:
                        raise
                    begin(number + 1)
                    on_bad(tomograms[number], error)
                    continue
                with closing(found) as present:
                    begin(number + 1)
                    yield present
        finally:
            for future in following:
                if not future.cancel() and future.exception() is None:
                    future.result().close()


def _mask(files: TomogramFiles, reader: VolumeReader) -> np.ndarray | None:
    """The mask on the reader's grid."""
    if not isinstance(reader, RescaledReader):
        return load_mask(files, reader.shape_zyx)
    mask = load_mask(files, reader.source.shape_zyx)
    return None if mask is None else reader.onto_grid(mask)


def _found_scaling(
    density: np.ndarray | None, reader: VolumeReader, data: DataConfig, mask: np.ndarray | None
) -> Scaling:
    """The normalisation, from the densities in memory or from the file; refuses voxels that are not finite."""

    def planes(first: int, last: int) -> np.ndarray:
        if density is not None:
            return density[first:last]
        reader.release()
        return _densities(reader, _planes(first, last), data.invert_contrast)

    found = normalisation.scaling(planes, reader.shape_zyx, data.normalise, mask=mask)
    reader.release()
    return found


def _is_plausible(
    scaling: Scaling, density: np.ndarray | None, reader: VolumeReader, data: DataConfig, mask: np.ndarray | None
) -> bool:
    """Whether a scaling that was found earlier brings some planes to about the common scale.

    It does not where the voxels have changed without a trace in sizes, times and samples. The bounds are wide, since a
    few planes are not the whole; where they are not met, the scaling is found again, which costs no more than time.
    """
    if data.normalise != "zscore":
        return True
    values = []
    for z in sorted({int(z) for z in np.linspace(0, reader.shape_zyx[0] - 1, _CHECKED_PLANES)}):
        plane = _densities(reader, _planes(z, z + 1), data.invert_contrast) if density is None else density[z : z + 1]
        values.append(plane[mask[z : z + 1]] if mask is not None else plane.ravel())
    scaled = scaling.apply(np.concatenate(values))
    reader.release()
    return len(scaled) == 0 or bool(abs(scaled.mean()) < _LARGEST_MEAN and 1 / _STD_RANGE < scaled.std() < _STD_RANGE)


def _planes(first: int, last: int) -> Slices:
    return slice(first, last), slice(None), slice(None)


def _densities(reader: VolumeReader, region: Slices, inverted: bool) -> np.ndarray:
    """Densities of a box before normalisation, float32; whether they are finite is seen when that is found."""
    data = reader.read(region, check=False)
    return np.negative(data, out=data) if inverted else data
