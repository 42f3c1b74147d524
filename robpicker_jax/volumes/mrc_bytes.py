"""Whether the bytes of an MRC file (mode 0) are signed, which many headers leave open or have wrong.

MRC2014 says signed. IMOD says it in a flag. Programs older than MRC2014 wrote unsigned bytes, which shows in a maximum
that does not fit a signed byte, if the header's statistics were filled in. Where these are unset, or contradict the
voxels, the voxels decide: read with the wrong sign, every step across 127 becomes one of 255 grey values, so the reading
in which neighbouring voxels differ less is taken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.system.notes import note

IMOD_STAMP = 1146047817
PLANES = 8  # sections that are looked at
_EDGE = 1024  # rows and columns of them, from the middle
_SIGNED, _UNSIGNED = np.dtype("i1"), np.dtype("u1")
_RANGES = {_SIGNED: "-128 to 127", _UNSIGNED: "0 to 255"}


def planes_to_look_at(sections: int) -> list[int]:
    """Numbers of the sections that decide, evenly spaced."""
    n = min(sections, PLANES)
    return sorted({int((i + 0.5) * sections / n) for i in range(n)})


def middle(plane: np.ndarray) -> np.ndarray:
    """The middle of a section (rows, columns), of at most `_EDGE` rows and columns."""
    first = [max(0, (size - _EDGE) // 2) for size in plane.shape]
    return plane[first[0] : first[0] + _EDGE, first[1] : first[1] + _EDGE]


def byte_type(header: np.void, planes: list[np.ndarray], path: Path) -> np.dtype[Any]:
    """The type of mode-0 voxels, int8 or uint8; a note says what was taken where the header does not say it.

    Args:
        header: the file's header.
        planes: uint8 (rows, columns) sections of it.
        path: the file, for the note.
    """
    order = header.dtype["mode"].byteorder
    stamp, flags = np.frombuffer(header["extra2"].tobytes(), np.dtype("i4").newbyteorder(order), 2, offset=40)
    if int(stamp) == IMOD_STAMP:
        return _SIGNED if int(flags) & 1 else _UNSIGNED
    low, high = float(header["dmin"]), float(header["dmax"])
    known = bool(np.isfinite([low, high]).all() and low <= high and (low, high) != (0, 0))
    said = _UNSIGNED if low >= 0 and 127 < high <= 255 else _SIGNED
    if known and _fits(planes, said, low, high):
        return said
    signed, unsigned = (_roughness(planes, dtype) for dtype in (_SIGNED, _UNSIGNED))
    taken = _SIGNED if signed <= unsigned else _UNSIGNED
    if signed != unsigned:
        why = "contradict the voxels" if known else "are unset"
        note(
            f"the header's statistics {why}; its bytes are read as {_RANGES[taken]}, as which neighbouring voxels differ less",
            where=path,
        )
    return taken


def _fits(planes: list[np.ndarray], dtype: np.dtype[Any], low: float, high: float) -> bool:
    """Whether the voxels, so read, lie within the header's statistics, apart from rounding."""
    return all(plane.view(dtype).min() >= low - 1 and plane.view(dtype).max() <= high + 1 for plane in planes)


def _roughness(planes: list[np.ndarray], dtype: np.dtype[Any]) -> int:
    """Sum of the differences between neighbouring voxels of each section, read as this type."""
    values = [plane.view(dtype).astype(np.int16) for plane in planes]
    return sum(int(np.abs(np.diff(value, axis=axis)).sum(dtype=np.int64)) for value in values for axis in (0, 1))
