"""Volumes in HDF5 files: EMAN2's `.hdf` (`MDF/images/0/image`), and others that hold one array of three axes.

The axes are z, y, x, as h5py gives them. EMAN2 keeps the voxel size in Å as `EMAN.apix_x` …; elsewhere it is unknown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import one_line
from robpicker_jax.volumes.volume import Slices, VolumeReader


class _HdfReader(VolumeReader):
    """Reads boxes of an HDF5 array."""

    def __init__(self, path: Path, file: Any, array: Any, sizes: tuple[float, float, float] | None) -> None:
        z, y, x = array.shape
        super().__init__(path, (int(z), int(y), int(x)), np.dtype(array.dtype), sizes)
        self._file, self._array = file, array

    def _stored(self, slices: Slices) -> np.ndarray:
        if not self._file:
            raise ValueError(f"{self.path} is closed")
        try:
            return np.asarray(self._array[slices])
        except Exception as error:  # the library meets damage with many kinds of error
            raise _damaged(self.path, error) from None

    def close(self) -> None:
        self._file.close()


def open_hdf(path: Path) -> VolumeReader:
    """Open the volume of an HDF5 file, box by box.

    Raises:
        InputError: h5py is not installed, no HDF5 file, or not exactly one array of three axes in it.
    """
    try:
        import h5py
    except ImportError:
        fix = "pip install 'robpicker-jax[hdf]', or save the volume as MRC"
        raise InputError("HDF5 needs the package h5py", where=path, fix=fix) from None
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise _damaged(path, error) from None
    try:
        found: list[Any] = []

        def visit(_: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.ndim == 3 and item.dtype.kind in "biuf" and min(item.shape) > 0:
                found.append(item)

        file.visititems(visit)
        if len(found) != 1:
            names = ", ".join(str(item.name) for item in found[:4]) or "none"
            fix = "save the volume alone, or as MRC"
            raise InputError(f"{len(found)} arrays of three axes ({names}), not one volume", where=path, fix=fix)
        return _HdfReader(path, file, found[0], _voxel_size(found[0].parent.attrs))
    except InputError:
        file.close()
        raise
    except Exception as error:  # the library meets damage with many kinds of error
        file.close()
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"not readable as HDF5 ({one_line(error)})", where=path)


def _voxel_size(attributes: Any) -> tuple[float, float, float] | None:
    """EMAN2's voxel size (z, y, x); None where it is absent, or 1, which EMAN2 writes where it is not known."""
    try:
        sizes = [float(np.asarray(attributes[f"EMAN.apix_{axis}"]).item()) for axis in "zyx"]
    except (KeyError, ValueError, TypeError):
        return None
    z, y, x = sizes
    return (z, y, x) if all(0 < size < np.inf for size in sizes) and sizes != [1.0, 1.0, 1.0] else None
