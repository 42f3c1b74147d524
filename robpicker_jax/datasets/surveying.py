"""One pass over a data set at the start: every volume's header read once, every particle list parsed once.

What the pass found is kept for whoever opens a tomogram later: the volume stays open, its particles stay parsed.
"""

from __future__ import annotations

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
from robpicker_jax.volumes import Scaling, VolumeReader, open_volume


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
    """

    splits: Mapping[str, Sequence[TomogramFiles]]
    data: DataConfig
    voxel_size_angstrom: float | None
    particles: Mapping[TomogramFiles, Particles]
    readers: dict[TomogramFiles, VolumeReader]
    shapes_zyx: Mapping[TomogramFiles, tuple[int, int, int]]

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


def survey(dataset: Mapping[str, Sequence[TomogramFiles]], data: DataConfig, patch_size: int) -> Survey:
    """Check all that can be wrong with a data set's headers and lists, before hours of training; no voxel is read.

    Args:
        dataset: tomograms by split, as `discover` finds them.
        data: species, voxel size and how lists are read.
        patch_size: edge of the patches that the volumes of train and meta must hold, in voxels.

    Raises:
        InputError: the first fault found; train or meta without tomograms is one.
    """
    _check_not_empty(dataset, data)
    check_options(data.annotation_options)
    tomograms = [files for split in SPLITS for files in dataset.get(split, ())]
    readers: dict[TomogramFiles, VolumeReader] = {}
    particles: dict[TomogramFiles, Particles] = {}
    try:
        for files in tomograms:
            readers[files] = open_volume(files.volume_path)
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
    return Survey(dataset, data, common, particles, readers, shapes)


def _check_not_empty(dataset: Mapping[str, Sequence[TomogramFiles]], data: DataConfig) -> None:
    for split, fix in (
        ("train", "add tomograms to it"),
        ("meta", "meta/ needs at least one carefully annotated tomogram"),
    ):
        if not dataset.get(split):
            raise InputError(f"no tomogram in {split}/", where=data.dir or "", fix=fix)
