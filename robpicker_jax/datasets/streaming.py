"""Tomograms that are read and normalised piece by piece, the next one made ready while the present one is in use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np

from robpicker_jax.config.schema import DataConfig
from robpicker_jax.datasets.discovery import Tomogram
from robpicker_jax.datasets.loading import agreed_voxel_size, load_mask
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import VolumeReader, open_volume
from robpicker_jax.volumes.normalisation import Scaling, scaling


@dataclass(frozen=True, eq=False)
class StreamedTomogram:
    """An open tomogram whose voxels are normalised as they are read; the same densities as `loading.load_tomogram`'s.

    Attributes:
        tomogram: the files.
        reader: the volume.
        scaling: its normalisation.
        negative: whether densities are multiplied by −1.
        voxel_size_angstrom: edge of a voxel in Å, None where neither file nor configuration says.
        mask: bool (z, y, x), where the sample is; None means everywhere.
    """

    tomogram: Tomogram
    reader: VolumeReader
    scaling: Scaling
    negative: bool
    voxel_size_angstrom: float | None
    mask: np.ndarray | None = None

    @property
    def name(self) -> str:
        """As in `Tomogram`."""
        return self.tomogram.name

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Size in voxels."""
        return self.reader.shape_zyx

    def read(self, region: tuple[slice, slice, slice]) -> np.ndarray:
        """Normalised densities of a box, float32."""
        return self.scaling.apply(_densities(self.reader, region, self.negative))

    def release(self) -> None:
        """Let go of what the operating system keeps in memory of earlier reads."""
        self.reader.release()

    def close(self) -> None:
        """Let go of the file."""
        self.reader.close()


def stream_tomogram(tomogram: Tomogram, data: DataConfig) -> StreamedTomogram:
    """Open a tomogram and find its normalisation, which reads it twice, by slabs; its annotations are left alone.

    Raises:
        InputError: whatever is wrong with its files.
    """
    voxel_size = agreed_voxel_size([tomogram], data.voxel_size_angstrom)
    with ExitStack() as stack:
        reader = stack.enter_context(open_volume(tomogram.volume_path))

        def planes(first: int, last: int) -> np.ndarray:
            reader.release()
            return _densities(reader, (slice(first, last), slice(None), slice(None)), data.invert_contrast)

        try:
            mask = load_mask(tomogram, reader.shape_zyx)
            found = scaling(planes, reader.shape_zyx, data.normalise, mask=mask)
        except InputError as error:
            raise InputError(error.what, where=error.where or tomogram.volume_path, fix=error.fix) from None
        reader.release()
        stack.pop_all()
    return StreamedTomogram(tomogram, reader, found, data.invert_contrast, voxel_size, mask)


def stream_tomograms(tomograms: Sequence[Tomogram], data: DataConfig) -> Iterator[StreamedTomogram]:
    """Yield tomograms one by one, each open until the next is asked for, which is then ready already.

    Raises:
        InputError: whatever is wrong with a tomogram's files, when its turn comes.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="statistics") as pool:
        following = [pool.submit(stream_tomogram, tomogram, data) for tomogram in tomograms[:1]]
        try:
            for number in range(len(tomograms)):
                with closing(following.pop().result()) as present:
                    following.extend(
                        pool.submit(stream_tomogram, tomogram, data) for tomogram in tomograms[number + 1 : number + 2]
                    )
                    yield present
        finally:
            for future in following:
                if not future.cancel() and future.exception() is None:
                    future.result().close()


def _densities(reader: VolumeReader, region: tuple[slice, slice, slice], negative: bool) -> np.ndarray:
    # Voxels that are not finite were refused, with their place, when the normalisation was found.
    data = reader.read(region, check=False)
    return np.negative(data, out=data) if negative else data
