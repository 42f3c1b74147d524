"""Reading and writing tomograms, density maps and masks: arrays (z, y, x), voxel sizes in Å."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.errors import InputError
from robpicker_jax.volumes.mrc import open_mrc, write_mrc
from robpicker_jax.volumes.volume import Volume, VolumeReader, check_finite

__all__ = [
    "VOLUME_SUFFIXES",
    "Volume",
    "VolumeReader",
    "check_finite",
    "is_volume",
    "open_volume",
    "read_volume",
    "volume_stem",
    "write_mrc",
]

_MRC = (".mrc", ".mrcs", ".rec", ".map", ".st", ".ccp4")
_COMPRESSED = tuple(suffix + pack for suffix in _MRC for pack in (".gz", ".bz2"))

VOLUME_SUFFIXES = _MRC + _COMPRESSED
"""Suffixes of the files that `open_volume` reads."""


def is_volume(path: str | os.PathLike[str]) -> bool:
    """Whether the file's suffix is that of a volume."""
    return Path(path).name.lower().endswith(VOLUME_SUFFIXES)


def volume_stem(path: str | os.PathLike[str]) -> str:
    """The file's name without the suffix of its volume format: the tomogram's name."""
    name = Path(path).name
    for suffix in sorted(VOLUME_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def open_volume(path: str | os.PathLike[str]) -> VolumeReader:
    """Open a volume file for reading part by part, memory-mapped where the format allows.

    Raises:
        InputError: no such file, unknown suffix, or a file that is damaged, truncated or no volume.
    """
    path = Path(path)
    if not path.exists():
        raise InputError("no such file", where=path)
    if not is_volume(path):
        raise InputError("no volume format has this suffix", where=path, mend=f"known: {' '.join(VOLUME_SUFFIXES)}")
    try:
        return open_mrc(path)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=path) from None


def read_volume(path: str | os.PathLike[str], *, dtype: Any = np.float32) -> Volume:
    """Read a whole volume.

    Args:
        path: the file.
        dtype: type of the voxels; None keeps the stored type.

    Raises:
        InputError: as `open_volume`, and for voxels that are NaN or infinite.
    """
    with open_volume(path) as reader:
        return Volume(reader.read(dtype=dtype), reader.path, reader.voxel_size_zyx_angstrom)
