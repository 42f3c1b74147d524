"""`.coords` files: TomoTwin's `x y z` and DeepETPicker's `class x y z`, white space between, voxels from 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robpicker_jax.annotations import columns, text_table
from robpicker_jax.annotations.format import AXES, ORDER_XYZ, Format
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.system.errors import InputError


def read(path: Path, *, axes: str = "xyz") -> Particles:
    """Read a `.coords` file; three columns are TomoTwin's, four DeepETPicker's.

    Args:
        path: the file.
        axes: order of the coordinate columns: a permutation of "xyz" (MiLoPYP writes "xzy").

    Raises:
        InputError: another number of columns, or a cell that is no number.
    """
    if sorted(axes) != ["x", "y", "z"]:
        raise InputError(f"axes is {axes!r}, not a permutation of xyz")
    table = text_table.read(path, header=True)
    if not table.rows:
        return Particles.empty()
    if table.width not in (3, 4):
        raise InputError(f"{table.width} columns, not three (x y z) or four (class x y z)", where=path)
    first = table.width - 3
    positions = np.stack([table.floats(first + axes.index(axis), axis) for axis in "xyz"], axis=1)
    return Particles(positions, table.integers(0, "class") if first else np.zeros(len(positions), np.int32))


def write(path: Path, particles: Particles, *, axes: str = "xyz") -> None:
    """Write TomoTwin's `x y z`."""
    write_rows(path, particles, axes, labels=False)


def write_rows(path: Path, particles: Particles, axes: str, labels: bool) -> None:
    """Write the coordinates in the order of `axes`, with the class first if `labels`."""
    if sorted(axes) != ["x", "y", "z"]:
        raise InputError(f"axes is {axes!r}, not a permutation of xyz")
    order = ["xyz".index(axis) for axis in axes]
    rows = [
        [*([str(label)] if labels else []), *(columns.number(position[k]) for k in order)]
        for label, position in zip(particles.labels, particles.positions_vox, strict=True)
    ]
    text_table.write(path, rows, delimiter=" " if not labels else "\t")


FORMAT = Format(
    name="coords",
    title="TomoTwin coordinates, x y z",
    suffixes=(".coords",),
    read=read,
    write=write,
    options={"axes": AXES},
    assumptions=(ORDER_XYZ,),
)
