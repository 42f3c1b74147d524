"""Dynamo tables (`.tbl`): 35 or more numbers a row; x = column 24 + column 4, angles tdrot tilt narot (columns 7 to 9).

Format: https://www.dynamo-em.org/w/index.php?title=Table. The first voxel is 0, as the field's converters take it;
`first_voxel=1` reads tables that count as MATLAB does. Columns 10, 20 and 22 are score, tomogram and class; the others
are kept as `dynamo_1` …
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robpicker_jax.annotations import columns, numbering, text_table
from robpicker_jax.annotations.format import BINNING, FIRST_VOXEL, FIRST_VOXEL_IS_0, VOXELS_NOT_PIXELS, Format, StandIn
from robpicker_jax.annotations.geometry import euler_from_matrix, matrix_from_euler
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.system.errors import InputError

_WIDTH = 35
_SHIFT, _ANGLES, _SCORE, _TOMOGRAM, _CLASS, _POSITION = (4, 5, 6), (7, 8, 9), 10, 20, 22, (24, 25, 26)
_USED = {*_SHIFT, *_ANGLES, _SCORE, _TOMOGRAM, _CLASS, *_POSITION}


def read(
    path: Path, *, binning: float = 1.0, first_voxel: int = 0, tomogram_names: str | Path | None = None
) -> Particles:
    """Read a Dynamo table.

    Args:
        path: the file.
        binning: the table's voxels per voxel of the tomogram.
        first_voxel: how the table counts the first voxel, 0 or 1.
        tomogram_names: file that says which number is which tomogram; by default the one beside the list.

    Raises:
        InputError: fewer than 26 columns, complex numbers, or a malformed cell.
    """
    columns.check_positive(binning=binning)
    table = text_table.read(path)
    if not table.rows:
        return Particles.empty()
    if table.width < max(_POSITION):
        raise InputError(f"{table.width} columns: not a Dynamo table, which has {_WIDTH}", where=path)

    def stack(numbers: tuple[int, ...]) -> np.ndarray:
        return np.stack([table.floats(number - 1, f"column {number}") for number in numbers], axis=1)

    def optional(number: int) -> np.ndarray:
        return table.optional_floats(number - 1, f"column {number}")

    return Particles(
        (stack(_POSITION) + stack(_SHIFT) - first_voxel) / binning,
        columns.optional_labels(np.maximum(optional(_CLASS), 0).tolist(), f"column {_CLASS}", path, table.row),
        rotations=matrix_from_euler(np.stack([optional(number) for number in _ANGLES], axis=1), "dynamo"),
        scores=optional(_SCORE),
        tomograms=numbering.named(columns.number_names(optional(_TOMOGRAM)), path, tomogram_names),
        extra={f"dynamo_{i + 1}": columns.typed(table.column(i)) for i in range(table.width) if i + 1 not in _USED},
    )


def write(path: Path, particles: Particles, *, binning: float = 1.0, first_voxel: int = 0) -> None:
    """Write a Dynamo table; tomograms without a number for a name are numbered in order of appearance."""
    columns.check_positive(binning=binning)
    n = len(particles)
    table = np.zeros((n, _WIDTH))
    table[:, 0] = np.arange(1, n + 1)  # tag
    table[:, 1] = 1  # aligned
    table[:, 12] = 1  # Fourier sampling: single tilt
    table[:, 13:17] = (-60, 60, -60, 60)  # its limits in y and x, Dynamo's own defaults
    for name, values in particles.extra.items():
        number = name.removeprefix("dynamo_")
        if name != number and number.isdigit() and 1 <= int(number) <= _WIDTH and values.dtype.kind in "iuf":
            table[:, int(number) - 1] = columns.known_or_zero(values)
    if particles.rotations is not None:
        table[:, 6:9] = columns.known_or_zero(euler_from_matrix(particles.rotations, "dynamo"))
    if particles.scores is not None:
        table[:, _SCORE - 1] = columns.known_or_zero(particles.scores)
    table[:, _TOMOGRAM - 1] = columns.tomogram_numbers(particles.tomograms, n)
    table[:, _CLASS - 1] = particles.labels
    table[:, 23:26] = particles.positions_vox * binning + first_voxel
    text_table.write(path, [[columns.number(round(float(v), 6)) for v in row] for row in table], delimiter=" ")


FORMAT = Format(
    name="dynamo",
    title="Dynamo table",
    suffixes=(".tbl",),
    read=read,
    write=write,
    keeps=frozenset({"labels", "rotations", "scores"}),
    numbered=True,
    options={"binning": BINNING, "first_voxel": FIRST_VOXEL, "tomogram_names": numbering.TOMOGRAM_NAMES},
    assumptions=(VOXELS_NOT_PIXELS, FIRST_VOXEL_IS_0),
    stands_in=(StandIn("rotations", "0 0 0"), StandIn("scores", "0")),
)
