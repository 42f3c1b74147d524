"""Masks and label maps as files hold them: whole numbers of which 0 is the background.

IMOD stores bytes as signed ones less 128, and adds 128 when it reads them. For densities this is an offset that
normalisation takes away; of a mask it makes −128 and −127 (or 127) of 0 and 1, none of which is 0. A map of signed bytes
whose smallest value is −128, or that is negative everywhere, is therefore read with 128 added.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from robpicker_jax.system.notes import note
from robpicker_jax.volumes.volume import VolumeReader, slabs

_IMOD_ZERO = -128


def read_map(reader: VolumeReader) -> np.ndarray:
    """The whole numbers of a label map or a species' mask, (z, y, x), with 0 as the background.

    Raises:
        InputError: voxels that are NaN or infinite.
    """
    stored = reader.read(dtype=None)
    zero = _zero(stored.dtype, float(stored.min()), float(stored.max()))
    return stored - np.int16(zero) if zero else stored


def read_mask(reader: VolumeReader) -> np.ndarray:
    """A mask as bool (z, y, x), True where it is not 0; what looks odd about it is said in notes.

    Raises:
        InputError: voxels that are NaN or infinite.
    """
    values: list[float] = []  # the first three that occur
    least, most = np.inf, -np.inf
    for first, last in slabs(reader.shape_zyx):
        part = reader.read((slice(first, last), slice(None), slice(None)), dtype=None)
        least, most = min(least, float(part.min())), max(most, float(part.max()))
        while len(values) < 3 and len(new := part[~np.isin(part, np.array(values))]):
            values.append(float(new.flat[0]))
        reader.release()
    zero = _zero(reader.dtype, least, most)
    mask = np.empty(reader.shape_zyx, bool)
    for first, last in slabs(reader.shape_zyx):
        mask[first:last] = reader.read((slice(first, last), slice(None), slice(None)), dtype=None, check=False) != zero
        reader.release()
    if mask.all():
        note(
            f"the mask excludes nothing: its values are {least - zero:g} to {most - zero:g}, none is 0",
            where=reader.path,
        )
    elif len(values) > 2:
        note(
            f"the mask holds more than two values, {least - zero:g} to {most - zero:g}; all but 0 count as inside",
            where=reader.path,
        )
    return mask


def _zero(dtype: np.dtype[Any], least: float, most: float) -> int:
    """The stored value of the background."""
    return _IMOD_ZERO if dtype == np.int8 and (least == _IMOD_ZERO or most < 0) else 0
