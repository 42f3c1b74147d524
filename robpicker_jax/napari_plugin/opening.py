"""What is opened in napari: a run's tomograms with their picks, or any volume with any list, by the species of a model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robpicker_jax.datasets import TomogramFiles, dataset, tomograms_from
from robpicker_jax.models.shipped import find_model
from robpicker_jax.picking.agreement import voxel_size_of
from robpicker_jax.reviewing import ReviewList
from robpicker_jax.reviewing.reading import ReviewedTomogram, review_lists
from robpicker_jax.system.errors import InputError
from robpicker_jax.training.export import load_trained_model
from robpicker_jax.training.run_folder import read_config
from robpicker_jax.volumes import open_volume


@dataclass(frozen=True)
class Opened:
    """A tomogram that is reviewed in napari.

    Attributes:
        density: (z, y, x).
        given: its list.
        radii_vox: radius of class 1, 2, …, in voxels of the density.
    """

    density: np.ndarray
    given: ReviewList
    radii_vox: Sequence[float]


def tomograms_of_run(source: Path) -> dict[str, TomogramFiles]:
    """The tomograms of the data set that a run was trained on, by name; test tomograms first.

    Args:
        source: a run's folder. A model's file or the name of a shipped model has none.

    Raises:
        InputError: not a run's folder, or one whose data set is not there any more.
    """
    source = find_model(source)
    if source.is_file():
        return {}
    config = read_config(source)
    own = source / "data"
    folder = own if own.is_dir() else Path(config.data.dir) if config.data.dir else None
    if folder is None or not folder.exists():
        raise InputError(
            "the data set of this run is not there", where=folder or source, fix="choose a volume yourself"
        )
    splits = dataset(folder, config.data)
    order = ("test", *(split for split in splits if split != "test"))
    return {files.name: files for split in order for files in splits[split]}


def open_for_review(source: Path, tomogram: TomogramFiles | Path, picks: Path | None = None) -> Opened:
    """A tomogram and its list, with the species of a model.

    Args:
        source: a run's folder, a model's file, or the name of a model that ships with the package.
        tomogram: one of `tomograms_of_run`, or a volume. A volume of the run's data set is called as it is there.
        picks: a list, a folder of lists, or an audit's `audit.csv`; None: the run's own picks.

    Raises:
        InputError: whatever is wrong with one of them.
    """
    card = load_trained_model(source).card
    files = tomogram if isinstance(tomogram, TomogramFiles) else _named(source, tomogram)
    trained = card.voxel_size_angstrom
    with open_volume(files.volume_path) as reader:
        size = voxel_size_of(reader, trained, trained)
        density, shape = reader.read(), reader.shape_zyx
    reviewed = ReviewedTomogram(files.name, size, shape)
    (given,) = review_lists(_own_picks(source) if picks is None else picks, [reviewed], card.class_names)
    factor = 1.0 if size is None or trained is None else trained / size
    return Opened(density, given, [species.radius_vox * factor for species in card.data.species])


def _named(source: Path, volume: Path) -> TomogramFiles:
    """A volume under the name that the run's data set gives it, else under that of its file.

    copick calls the volumes of all runs alike, and lists are called after the run.
    """
    with suppress(InputError):  # the data set has been moved away, and the volume is called after its file
        for files in tomograms_of_run(source).values():
            if files.volume_path.resolve() == volume.resolve():
                return files
    found = tomograms_from([volume], annotations=False)
    if len(found) > 1:
        raise InputError(f"a folder of {len(found)} volumes", where=volume, fix="choose one of them")
    return found[0]


def _own_picks(source: Path) -> Path:
    """The folder of a run's picks.

    Raises:
        InputError: a model's file, which has none.
    """
    folder = find_model(source)
    if folder.is_file():
        raise InputError(
            "a model's file has no picks of its own", where=source, fix="choose a list or a folder of lists"
        )
    return folder / "picks"
