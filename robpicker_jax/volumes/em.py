"""Volumes in the EM format (TOM, PyTom, Dynamo, STOPGAP): a header of 512 bytes, then the voxels, x fastest.

Byte 0 of the header names the machine, by which the byte order is known, byte 3 the type of the voxels; three 32-bit
integers from byte 4 are the size in x, y, z. No field for the voxel size is used alike by the programs that write these
files, so it counts as unknown. A motive list is an EM file too, of a single plane.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes.volume import ArrayReader, VolumeReader

_HEADER = 512
_BIG_ENDIAN = {0, 3, 4, 5}  # OS-9, Convex, SGI, Sun
_TYPES = {1: "i1", 2: "i2", 4: "i4", 5: "f4", 9: "f8"}


def is_em_volume(path: Path) -> bool:
    """Whether the header of an EM file announces more than one plane; False for what is no EM file."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER)
    except OSError:
        return False
    return len(header) == _HEADER and header[3] in _TYPES and min(_shape_zyx(header)) > 0 and _shape_zyx(header)[0] > 1


def open_em(path: Path) -> VolumeReader:
    """Open an EM volume, memory-mapped.

    Raises:
        InputError: no EM file, another type of voxels, or fewer bytes than its header announces.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(_HEADER)
    if len(header) < _HEADER or header[3] not in _TYPES:
        what = f"voxels of type {header[3]}" if len(header) == _HEADER else f"{size} bytes, less than a header"
        raise InputError(f"not a readable EM volume: {what}", where=path)
    shape = _shape_zyx(header)
    dtype = np.dtype(_TYPES[header[3]]).newbyteorder(">" if header[0] in _BIG_ENDIAN else "<")
    if min(shape) < 1:
        raise InputError(f"not an EM volume: {shape[2]} x {shape[1]} x {shape[0]} voxels (x y z)", where=path)
    wanted = _HEADER + shape[0] * shape[1] * shape[2] * dtype.itemsize
    if size < wanted:
        raise InputError(f"truncated: {size} bytes, but the header announces {wanted}", where=path)
    return ArrayReader(path, np.memmap(path, dtype, "r", _HEADER, shape), None)


def _shape_zyx(header: bytes) -> tuple[int, int, int]:
    order = ">" if header[0] in _BIG_ENDIAN else "<"
    x, y, z = (int(n) for n in np.frombuffer(header, np.dtype(f"{order}i4"), 3, 4))
    return z, y, x
