"""One pass over a data set at the start: every volume's header read once, every particle list parsed once.

What the pass found is kept for whoever opens a tomogram later: the volume stays open, its particles stay parsed.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robpicker_jax.annotations import Particles
from robpicker_jax.annotations.options import check_options
from robpicker_jax.config import DataConfig
from robpicker_jax.datasets.discovery import SPLITS, TomogramFiles
from robpicker_jax.datasets.headers import agreed_voxel_size, check_patch_fits
from robpicker_jax.datasets.particle_lists import load_particles, needs_particles
from robpicker_jax.datasets.tomogram import Mode, OpenedTomogram, with_voxels
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import allow_many_open_files
from robpicker_jax.volumes import Scaling, VolumeReader, open_volume

_STEPS = 1000


@dataclass(frozen=True, eq=False)
class Survey:
    """A data set whose headers and particle lists were read and checked.

    Attributes:
        splits: tomograms by split.
        data: the configuration by which they were read.
        voxel_size_angstrom: of all tomograms; None where it is not known.
        particles: particles of each tomogram that has a list.
        readers: the volumes that are open; `open` takes a tomogram's out and hands it on.
        shapes_zyx: size of each tomogram in voxels.
        fingerprints: what tells each volume from others, from a plane of its voxels; None where that says nothing.
    """

    splits: Mapping[str, Sequence[TomogramFiles]]
    data: DataConfig
    voxel_size_angstrom: float | None
    particles: Mapping[TomogramFiles, Particles]
    readers: dict[TomogramFiles, VolumeReader]
    shapes_zyx: Mapping[TomogramFiles, tuple[int, int, int]]
    fingerprints: Mapping[TomogramFiles, str | None]

    def open(
        self,
        files: TomogramFiles,
        *,
        mode: Mode = "memory",
        into: np.ndarray | None = None,
        scaling: Scaling | None = None,
    ) -> OpenedTomogram:
        """Open one of the tomograms, as `open_tomogram` does, without reading its header or its list again.

        Raises:
            InputError: a mask or voxels that cannot be used.
        """
        reader = self.readers.pop(files, None) or open_volume(files.volume_path)
        voxel_size = agreed_voxel_size([reader], self.data.voxel_size_angstrom) or self.voxel_size_angstrom
        particles = None if mode == "streamed" else self.particles.get(files)
        try:
            return with_voxels(files, self.data, reader, voxel_size, particles, mode=mode, into=into, scaling=scaling)
        except BaseException:
            reader.close()
            raise

    def close(self) -> None:
        """Let go of the volumes that were not opened; whoever opened a tomogram closes it."""
        while self.readers:
            self.readers.popitem()[1].close()


def survey(
    dataset: Mapping[str, Sequence[TomogramFiles]], data: DataConfig, patch_size: int, *, needs_meta: bool = True
) -> Survey:
    """Check all that can be wrong with a data set's headers and lists, before hours of training, reading one plane of voxels.

    Args:
        dataset: tomograms by split, as `discover` finds them.
        data: species, voxel size and how lists are read.
        patch_size: edge of the patches that the volumes of train and meta must hold, in voxels.
        needs_meta: whether the training uses meta tomograms.

    Raises:
        InputError: the first fault found; train or, where they are needed, meta without tomograms is one.
    """
    _check_not_empty(dataset, data, needs_meta)
    allow_many_open_files()
    check_options(data.annotation_options)
    tomograms = [files for split in SPLITS for files in dataset.get(split, ())]
    readers: dict[TomogramFiles, VolumeReader] = {}
    particles: dict[TomogramFiles, Particles] = {}
    fingerprints: dict[TomogramFiles, str | None] = {}
    try:
        for files in tomograms:
            readers[files] = open_volume(files.volume_path)
            fingerprints[files] = fingerprint(readers[files])
        common = agreed_voxel_size(readers.values(), data.voxel_size_angstrom)
        for files, reader in readers.items():
            if files.split in ("train", "meta"):  # of the others no patch is cut; inference continues thin volumes
                check_patch_fits(reader.shape_zyx, patch_size, files.volume_path)
            if needs_particles(files, data.species):
                voxel_size = agreed_voxel_size([reader], data.voxel_size_angstrom) or common
                particles[files] = load_particles(files, data, reader.shape_zyx, voxel_size, reader.origin_angstrom)
    except BaseException:
        for reader in readers.values():
            reader.close()
        raise
    shapes = {files: reader.shape_zyx for files, reader in readers.items()}
    return Survey(dataset, data, common, particles, readers, shapes, fingerprints)


def fingerprint(reader: VolumeReader) -> str | None:
    """Hash of a volume's shape and middle plane; None where the plane is empty or cannot be read, which others say.

    Values are rounded to a thousandth of the plane's range, so that one volume stored in two number types stays the same.
    """
    middle = reader.shape_zyx[0] // 2
    try:
        plane = reader.read((slice(middle, middle + 1), slice(None), slice(None)), check=False)
    except (ValueError, OSError, EOFError, MemoryError, zlib.error):
        return None
    low, high = float(plane.min()), float(plane.max())
    if not high > low or not np.isfinite(high - low):
        return None
    steps = np.rint((plane - low) / (high - low) * _STEPS).astype(np.int32)
    return hashlib.sha256(np.array(reader.shape_zyx, np.int64).tobytes() + steps.tobytes()).hexdigest()


def _check_not_empty(dataset: Mapping[str, Sequence[TomogramFiles]], data: DataConfig, needs_meta: bool) -> None:
    for split, fix in (
        ("train", "add tomograms to it"),
        ("meta", "meta/ needs at least one carefully annotated tomogram; train.variant: supervised needs none"),
    ):
        if not dataset.get(split) and (split != "meta" or needs_meta):
            raise InputError(f"no tomogram in {split}/", where=data.dir or "", fix=fix)
