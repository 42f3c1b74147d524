"""The volume formats, recognised by suffix, and opening a file of any of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes.em import is_em_volume, open_em
from robpicker_jax.volumes.hdf import open_hdf
from robpicker_jax.volumes.mrc import open_mrc
from robpicker_jax.volumes.ome_zarr import open_zarr
from robpicker_jax.volumes.tiff import open_tiff
from robpicker_jax.volumes.volume import Volume, VolumeReader

_MRC = (".mrc", ".mrcs", ".rec", ".map", ".st", ".ali", ".preali", ".ccp4")
_COMPRESSED = tuple(suffix + pack for suffix in _MRC for pack in (".gz", ".bz2"))
_TIFF = (".tif", ".tiff")
_ZARR = (".zarr",)
_EM = (".em",)
_HDF = (".hdf", ".h5", ".hdf5")

VOLUME_SUFFIXES = _MRC + _COMPRESSED + _TIFF + _ZARR + _EM + _HDF
"""Suffixes of the files that `open_volume` reads."""


def is_volume(path: str | os.PathLike[str]) -> bool:
    """Whether the file's suffix is that of a volume; of an EM file, which may be a motive list, its header decides."""
    name = Path(path).name.lower()
    return is_em_volume(Path(path)) if name.endswith(_EM) else name.endswith(VOLUME_SUFFIXES)


def volume_stem(path: str | os.PathLike[str]) -> str:
    """The file's name without the suffix of its volume format: the tomogram's name."""
    name = Path(path).name
    for suffix in sorted(VOLUME_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def open_volume(path: str | os.PathLike[str], *, level: int | None = None) -> VolumeReader:
    """Open a volume file for reading part by part, memory-mapped or chunk by chunk where the format allows.

    Args:
        path: the file, or the folder of an OME-Zarr image or of one of its levels.
        level: level of an OME-Zarr image; the first, finest one by default.

    Raises:
        InputError: no such file, unknown suffix, or a file that is damaged, truncated or no volume.
    """
    path = Path(path)
    if not path.exists():
        raise InputError("no such file", where=path)
    in_zarr = path.name.lower().endswith(_ZARR) or (path.is_dir() and path.parent.name.lower().endswith(_ZARR))
    if not path.name.lower().endswith(VOLUME_SUFFIXES) and not in_zarr:
        raise InputError("no volume format has this suffix", where=path, fix=f"known: {' '.join(VOLUME_SUFFIXES)}")
    if level is not None and not in_zarr:
        raise InputError("only OME-Zarr images have levels", where=path)
    try:
        if in_zarr:
            return open_zarr(path, level)
        for suffixes, open_ in ((_TIFF, open_tiff), (_EM, open_em), (_HDF, open_hdf)):
            if path.name.lower().endswith(suffixes):
                return open_(path)
        return open_mrc(path)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=path) from None


def read_volume(path: str | os.PathLike[str], *, dtype: Any = np.float32, level: int | None = None) -> Volume:
    """Read a whole volume.

    Args:
        path: the file.
        dtype: type of the voxels; None keeps the stored type.
        level: level of an OME-Zarr image.

    Raises:
        InputError: as `open_volume`, and for voxels that are NaN or infinite.
    """
    with open_volume(path, level=level) as reader:
        return Volume(reader.read(dtype=dtype), reader.path, reader.voxel_size_zyx_angstrom, reader.origin_angstrom)
