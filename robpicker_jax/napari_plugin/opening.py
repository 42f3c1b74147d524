"""What is opened in napari: a run's tomograms with their picks, or any volume with any list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robpicker_jax.datasets import dataset, tomograms_from
from robpicker_jax.datasets.headers import agreed_voxel_size
from robpicker_jax.reviewing import ReviewList
from robpicker_jax.reviewing.reading import ReviewedTomogram, review_lists
from robpicker_jax.system.errors import InputError
from robpicker_jax.training.run_folder import read_config
from robpicker_jax.volumes import open_volume


@dataclass(frozen=True)
class Opened:
    """A tomogram that is reviewed in napari.

    Attributes:
        density: (z, y, x).
        given: its list.
        radii_vox: radius of class 1, 2, …, voxels.
    """

    density: np.ndarray
    given: ReviewList
    radii_vox: Sequence[float]


def volumes_of_run(workdir: Path) -> dict[str, Path]:
    """The volumes that a run picked, or that its data set has, by name; test tomograms first.

    Raises:
        InputError: not a run's folder, or one whose data set is not there any more.
    """
    config = read_config(workdir)
    own = workdir / "data"
    folder = own if own.is_dir() else Path(config.data.dir) if config.data.dir else None
    if folder is None or not folder.exists():
        raise InputError(
            "the data set of this run is not there", where=folder or workdir, fix="choose a volume yourself"
        )
    splits = dataset(folder, config.data)
    order = ("test", *(split for split in splits if split != "test"))
    return {files.name: files.volume_path for split in order for files in splits[split]}


def open_for_review(workdir: Path, volume: Path, picks: Path | None = None) -> Opened:
    """A volume and its list, with the species of a run.

    Args:
        workdir: the run's folder.
        volume: the tomogram.
        picks: a list, a folder of lists, or an audit's `audit.csv`; None: the run's own picks.

    Raises:
        InputError: whatever is wrong with one of them.
    """
    data = read_config(workdir).data
    (files,) = tomograms_from([volume], annotations=False)
    with open_volume(files.volume_path) as reader:
        size = agreed_voxel_size([reader], data.voxel_size_angstrom)
        density, shape = reader.read(), reader.shape_zyx
    names = [species.name for species in data.species]
    (given,) = review_lists(picks or workdir / "picks", [ReviewedTomogram(files.name, size, shape)], names)
    return Opened(density, given, [species.radius_vox for species in data.species])
