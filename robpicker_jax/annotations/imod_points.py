"""Point text of IMOD's `model2point` and `point2model`: lines of `x y z`, `contour x y z` or `object contour x y z`.

As in IMOD's models the centre of voxel 0 is (0.5, 0.5, 0), unless `half_pixel=False`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robpicker_jax.annotations import columns, text_table
from robpicker_jax.annotations.format import CENTRE_AT_HALF, HALF_PIXEL, Format
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.system.errors import InputError

_HALF = np.array([0.5, 0.5, 0.0])


def read(path: Path, *, half_pixel: bool = True) -> Particles:
    """Read IMOD point text; with five columns the object is the class.

    Args:
        path: the file.
        half_pixel: whether the centre of voxel 0 is at (0.5, 0.5, 0).

    Raises:
        InputError: other than three to five columns, or a cell that is no number.
    """
    table = text_table.read(path)
    if not table.rows:
        return Particles.empty()
    if table.width not in (3, 4, 5):
        raise InputError(f"{table.width} columns, not 3 to 5: no IMOD points", where=path)
    first = table.width - 3
    positions = np.stack([table.floats(first + k, axis) for k, axis in enumerate("xyz")], axis=1)
    labels = table.integers(0, "object") if first == 2 else np.zeros(len(positions), np.int64)
    extra = {"contour": table.integers(first - 1, "contour")} if first else {}
    return Particles(positions - (_HALF if half_pixel else 0), labels, extra=extra)


def write(path: Path, particles: Particles, *, half_pixel: bool = True) -> None:
    """Write `object contour x y z`, for `point2model -scat`; the object is the label, a contour for each object."""
    positions = particles.positions_vox + (_HALF if half_pixel else 0)
    rows = [
        [str(max(int(label), 1)), "1", *(columns.number(value) for value in position)]
        for label, position in zip(particles.labels, positions, strict=True)
    ]
    text_table.write(path, rows, delimiter=" ")


FORMAT = Format(
    name="imod_points",
    title="IMOD point text",
    suffixes=(".pts", ".txt"),
    read=read,
    write=write,
    keeps=frozenset({"labels"}),
    options={"half_pixel": HALF_PIXEL},
    assumptions=(CENTRE_AT_HALF,),
    # Four columns may be DeepFinder's `label z y x` just as well as `contour x y z`.
    recognises=lambda start: text_table.first_row_width(start) in (3, 5),
)
