"""The table of the published RobPicker, `predictions.csv`: `x,y,z,particle_type,conf,experiment`, in Å."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robpicker_jax.annotations import columns, csv_table, text_table
from robpicker_jax.annotations.format import Format, StandIn
from robpicker_jax.annotations.particles import Particles


def write(path: Path, particles: Particles, *, voxel_size_angstrom: float | None = None) -> None:
    """Write the table; a particle without a class name gets its label as `particle_type`, one without a score 1.

    Raises:
        InputError: the voxel size is not given.
    """
    voxel_size = columns.required_voxel_size(voxel_size_angstrom, "RobPicker", path)
    scores = np.full(len(particles), np.nan) if particles.scores is None else particles.scores
    cells = csv_table.cells_in_angstrom(particles, voxel_size)
    rows = [
        [*xyz, name, columns.number(score) if np.isfinite(score) else "1", tomogram]
        for (tomogram, name, xyz), score in zip(cells, scores, strict=True)
    ]
    header = ["x", "y", "z", "particle_type", "conf", "experiment"]
    text_table.write(path, rows, header=header, delimiter=",")


FORMAT = Format(
    name="robpicker",
    title="table of the published RobPicker, Å",
    suffixes=(".csv",),
    read=csv_table.read,
    write=write,
    keeps=frozenset({"scores", "class_names", "tomograms"}),
    unit="angstrom",
    options=csv_table.OPTIONS,
    assumptions=csv_table.ASSUMPTIONS,
    stands_in=(StandIn("scores", "1"),),
)
