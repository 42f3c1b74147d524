"""DeepFinder's text list: `class_label z y x` in each line, voxels from 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robpicker_jax.annotations import columns, text_table
from robpicker_jax.annotations.format import Format
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.system.errors import InputError


def read(path: Path) -> Particles:
    """Read a DeepFinder text list.

    Raises:
        InputError: other than four columns, or a cell that is no number.
    """
    table = text_table.read(path)
    if not table.rows:
        return Particles.empty()
    if table.width != 4:
        raise InputError(
            f"{table.width} columns, not the four of `class_label z y x`", where=path, fix="name the format"
        )
    positions = np.stack([table.floats(index, name) for index, name in ((3, "x"), (2, "y"), (1, "z"))], axis=1)
    return Particles(positions, table.integers(0, "class_label"))


def write(path: Path, particles: Particles) -> None:
    """Write a DeepFinder text list."""
    rows = [
        [str(label), *(columns.number(value) for value in position[::-1])]
        for label, position in zip(particles.labels, particles.positions_vox, strict=True)
    ]
    text_table.write(path, rows, delimiter=" ")


FORMAT = Format(
    name="txt",
    title="DeepFinder text list, label z y x",
    suffixes=(".txt",),
    read=read,
    write=write,
    keeps=frozenset({"labels"}),
    stem_endings=("_objl",),
)
