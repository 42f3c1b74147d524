"""The maps that are stored beside a tomogram: its mask of the sample and its label map."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robpicker_jax.datasets.discovery import TomogramFiles
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import open_volume, read_map, read_mask


def load_mask(files: TomogramFiles, shape_zyx: tuple[int, int, int]) -> np.ndarray | None:
    """Read a tomogram's mask as bool (z, y, x), True where it is not 0; None where the tomogram has none.

    A mask that excludes nothing, or holds more than two values, is noted.

    Raises:
        InputError: its size is not the tomogram's.
    """
    path = files.mask_path
    if path is None:
        return None
    with open_volume(path) as reader:
        _check_same_shape(reader.shape_zyx, shape_zyx, "mask", path)
        return read_mask(reader)


def load_target(files: TomogramFiles, n_species: int, shape_zyx: tuple[int, int, int]) -> np.ndarray:
    """Read a stored label map as uint8 (z, y, x).

    Raises:
        InputError: there is none, its size is not the tomogram's, or it holds other values than 0 … n_species.
    """
    path = files.target_path
    if path is None:
        raise InputError(
            "tomogram without a label map", where=files.volume_path, fix=f"put {files.name}_target.mrc beside it"
        )
    with open_volume(path) as reader:
        _check_same_shape(reader.shape_zyx, shape_zyx, "label map", path)
        stored = read_map(reader)
    labels: np.ndarray = np.rint(stored)
    if (labels != stored).any() or labels.min() < 0 or labels.max() > n_species:
        raise InputError(
            f"label map holds values from {stored.min():g} to {stored.max():g}, not whole numbers 0 to {n_species}",
            where=path,
            fix="add the species to data.species or make the map again",
        )
    return labels.astype(np.uint8)


def _check_same_shape(shape: tuple[int, int, int], expected: tuple[int, int, int], what: str, path: Path) -> None:
    if shape != tuple(expected):
        raise InputError(f"{what} of {shape} voxels (z y x), tomogram of {tuple(expected)}", where=path)
