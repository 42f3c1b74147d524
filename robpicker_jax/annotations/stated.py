"""What several places say of one tomogram, a flag, a header, a table: they agree, or the command is refused.

No place silently overrides another, because a wrong one of them changes every position.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from robpicker_jax.annotations import columns
from robpicker_jax.annotations.relion_tables import TomogramTable
from robpicker_jax.system.errors import InputError

_SHAPE_TOLERANCE_VOX = 1.0  # a size in unbinned pixels need not be a multiple of the binning


def agreed_length(stated: Iterable[tuple[str, float | None]]) -> float | None:
    """The voxel size in Å that several places state; None where none does.

    Args:
        stated: (place, voxel size), the place as a message names it; None: it does not say.

    Raises:
        InputError: two of them differ by more than 2 %.
    """
    known = [(place, size) for place, size in stated if size is not None]
    for place, size in known[1:]:
        if abs(size - known[0][1]) > columns.SAME_LENGTH * known[0][1]:
            raise InputError(
                f"{known[0][0]} says voxels of {known[0][1]:.4g} Å, but {place} says {size:.4g} Å",
                fix="correct the one that is wrong, or leave it out",
            )
    return known[0][1] if known else None


def agreed_shape(stated: Iterable[tuple[str, tuple[int, int, int] | None]]) -> tuple[int, int, int] | None:
    """The size of a tomogram in voxels (z, y, x) that several places state; None where none does.

    Raises:
        InputError: two of them differ.
    """
    known = [(place, shape) for place, shape in stated if shape is not None]
    for place, shape in known[1:]:
        if shape != known[0][1]:
            raise InputError(
                f"{known[0][0]} says {_text(known[0][1])} voxels (x y z), but {place} says {_text(shape)}",
                fix="correct the one that is wrong, or leave it out",
            )
    return known[0][1] if known else None


def check_table_shape(
    table: TomogramTable, tomograms: np.ndarray | None, place: str, shape_zyx: tuple[int, int, int]
) -> None:
    """Refuse a size in voxels that a table of tomograms contradicts; voxel sizes are compared where lists are read.

    Args:
        table: the table.
        tomograms: names of the particles' tomograms; None, or none that is in the table: all of its tomograms.
        place: where the size is stated, as a message names it.
        shape_zyx: the size.

    Raises:
        InputError: with both values and the tomogram.
    """
    named = [] if tomograms is None else [table.row(name) for name in dict.fromkeys(tomograms.tolist())]
    rows = [row for row in named if row is not None] or range(len(table.names))
    for row in rows:
        binning = float(table.binning[row])
        size: Sequence[float] = (table.size_pixels[row] / binning)[::-1].tolist()
        if (
            np.isfinite(binning)
            and max(abs(a - b) for a, b in zip(size, shape_zyx, strict=True)) > _SHAPE_TOLERANCE_VOX
        ):
            z, y, x = (round(edge) for edge in size)
            agreed_shape([(place, shape_zyx), (f"{table.path} (tomogram {table.names[row]})", (z, y, x))])


def _text(shape: tuple[int, int, int]) -> str:
    return " ".join(map(str, shape[::-1]))
