"""Masks of the sample, for evaluation: what lies outside them is neither missed nor false."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.annotations import Particles
from robpicker_jax.annotations.bounds import inside
from robpicker_jax.annotations.names import NameRule
from robpicker_jax.config import DataConfig
from robpicker_jax.datasets.configured import one_split
from robpicker_jax.datasets.discovery import split_folder
from robpicker_jax.datasets.pairing import DEFAULT_RULE
from robpicker_jax.datasets.stored_maps import load_mask
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import is_volume, open_volume, read_mask, volume_stem


def masks_beside(
    truth: str | Path, *, split: str = "test", data: DataConfig | None = None
) -> dict[str, NDArray[np.bool_]]:
    """The masks `{name}_mask.mrc` that a data set, or a folder of volumes, keeps beside its tomograms.

    Args:
        truth: the folder; for a file there are none.
        split: which split of a data set.
        data: a configuration's section, by which the data set that it names is divided.

    Returns:
        bool (z, y, x) by tomogram, for those that have one.

    Raises:
        InputError: a mask of another size than its tomogram.
    """
    truth = Path(truth)
    if not truth.is_dir():
        return {}
    found = {}
    for tomogram in one_split(truth, split, data, annotations=False):
        if tomogram.mask_path is None:
            continue
        with open_volume(tomogram.volume_path) as reader:
            mask = load_mask(tomogram, reader.shape_zyx)
        if mask is not None:
            found[tomogram.name] = mask
    return found


def read_masks(
    path: str | Path, truth: Mapping[str, Particles], *, split: str = "test", rule: NameRule = DEFAULT_RULE
) -> dict[str, NDArray[np.bool_]]:
    """Read the masks of the truth's tomograms from a folder, or the one mask of a single tomogram from a file.

    Args:
        path: a volume; or a folder of `{name}_mask.mrc` (other volume formats too) or, if none is called so, of
            `{name}.mrc`; or a data set, of which one split is taken.
        truth: true particles by tomogram.
        split: which split of a data set.
        rule: which names mean the same tomogram.

    Returns:
        bool (z, y, x) by the truth's name of the tomogram, True where the mask is not 0. Tomograms without a mask are
        absent.

    Raises:
        InputError: nothing there, no mask of any of the tomograms, several of one, or a mask that is smaller than the
            tomogram whose particles it is for.
    """
    path = Path(path)
    if not path.exists():
        raise InputError("no such file or folder", where=path)
    if is_volume(path):
        if len(truth) != 1:
            raise InputError(
                f"one mask for {len(truth)} tomograms", where=path, fix="give a folder with {name}_mask.mrc for each"
            )
        return {name: _read(path, particles) for name, particles in truth.items()}
    if not path.is_dir():
        raise InputError("no volume format has this suffix", where=path, fix="give a mask as MRC, or a folder of masks")
    volumes = [file for file in sorted(split_folder(path, split).iterdir()) if is_volume(file)]
    marked = [file for file in volumes if volume_stem(file).endswith("_mask")]
    stems = {file: volume_stem(file).removesuffix("_mask") for file in marked or volumes}
    found = {}
    for name, particles in truth.items():
        matching = rule.matching(name, stems.values())
        mine = [file for file, stem in stems.items() if stem in matching]
        if len(mine) > 1:
            raise InputError(f"several masks of tomogram {name}: {mine[0].name}, {mine[1].name}", where=path)
        if mine:
            found[name] = _read(mine[0], particles)
    if not found:
        names = ", ".join(list(truth)[:3])
        raise InputError(f"no mask of the truth's tomograms ({names})", where=path, fix="name them {name}_mask.mrc")
    return found


def _read(path: Path, particles: Particles) -> NDArray[np.bool_]:
    with open_volume(path) as reader:
        out = len(particles) - np.count_nonzero(inside(particles.positions_vox, reader.shape_zyx))
        if out:
            depth, height, width = reader.shape_zyx
            raise InputError(
                f"{out} of {len(particles)} true particles lie outside this volume of {width} x {height} x {depth} "
                "voxels (x y z)",
                where=path,
                fix="give the mask of the tomogram, at the tomogram's binning",
            )
        return read_mask(reader)
