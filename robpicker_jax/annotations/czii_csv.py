"""CZII's submission table: `id,experiment,particle_type,x,y,z`, in Å, and `conf` after them as RobPicker writes it."""

from __future__ import annotations

from pathlib import Path

from robpicker_jax.annotations import columns, csv_table, text_table
from robpicker_jax.annotations.format import Format
from robpicker_jax.annotations.particles import Particles


def write(path: Path, particles: Particles, *, voxel_size_angstrom: float | None = None) -> None:
    """Write CZII's table; a particle without a class name gets its label as `particle_type`.

    Raises:
        InputError: the voxel size is not given.
    """
    voxel_size = columns.required_voxel_size(voxel_size_angstrom, "CZII", path)
    header = ["id", "experiment", "particle_type", "x", "y", "z"]
    cells = csv_table.cells_in_angstrom(particles, voxel_size)
    rows = [[str(i), tomogram, name, *xyz] for i, (tomogram, name, xyz) in enumerate(cells)]
    if particles.scores is not None:
        header.append("conf")
        rows = [[*row, columns.cell(score)] for row, score in zip(rows, particles.scores, strict=True)]
    text_table.write(path, rows, header=header, delimiter=",")


FORMAT = Format(
    name="czii",
    title="CZII submission table, Å",
    suffixes=(".csv",),
    read=csv_table.read,
    write=write,
    keeps=frozenset({"scores", "class_names", "tomograms"}),
    unit="angstrom",
    options=csv_table.OPTIONS,
    assumptions=csv_table.ASSUMPTIONS,
)
