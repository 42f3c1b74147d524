"""SHREC's particle locations: `name z y x angle angle angle` in each line, voxels counted from 1.

The angles are those of a Z-X-Z rotation in the order in which it is applied, that is TOM's phi, theta, psi.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from robpicker_jax.annotations import columns, text_table
from robpicker_jax.annotations.format import FIRST_VOXEL, Assumption, Format, StandIn
from robpicker_jax.annotations.geometry import euler_from_matrix, matrix_from_euler
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.system.errors import InputError


def read(path: Path, *, class_labels: Mapping[str, int] | None = None, first_voxel: int = 1) -> Particles:
    """Read SHREC particle locations.

    Args:
        path: the file.
        class_labels: label of each name (PDB code).
        first_voxel: how the file counts the first voxel.

    Raises:
        InputError: other than seven columns, or a cell that is no number.
    """
    table = text_table.read(path)
    if not table.rows:
        return Particles.empty()
    if table.width != 7:
        raise InputError(f"{table.width} columns, not the seven of `name z y x angle angle angle`", where=path)
    names = np.array(table.column(0))
    positions = np.stack([table.floats(index, name) for index, name in ((3, "x"), (2, "y"), (1, "z"))], axis=1)
    angles = np.stack([table.optional_floats(index, "angle") for index in (4, 6, 5)], axis=1)  # phi, psi, theta
    return Particles(
        positions - first_voxel,
        np.array([(class_labels or {}).get(name, 0) for name in names.tolist()]),
        rotations=matrix_from_euler(angles, "deepfinder"),
        class_names=names,
    )


def write(path: Path, particles: Particles, *, first_voxel: int = 1) -> None:
    """Write SHREC particle locations; particles without a class name get their label, unknown angles are 0."""
    n = len(particles)
    names = particles.labels.astype(str) if particles.class_names is None else particles.class_names
    angles = np.zeros((n, 3)) if particles.rotations is None else euler_from_matrix(particles.rotations, "deepfinder")
    rows = [
        [
            "_".join(str(names[i]).split()) or str(particles.labels[i]),
            *(columns.number(value + first_voxel) for value in particles.positions_vox[i, ::-1]),
            *(columns.number(round(float(value), 6)) for value in columns.known_or_zero(angles[i, [0, 2, 1]])),
        ]
        for i in range(n)
    ]
    text_table.write(path, rows, delimiter=" ")


FORMAT = Format(
    name="shrec",
    title="SHREC particle locations",
    suffixes=(".txt",),
    read=read,
    write=write,
    keeps=frozenset({"rotations", "class_names"}),
    options={"first_voxel": FIRST_VOXEL},
    assumptions=(
        Assumption("first_voxel", 1, 0, "the first voxel is taken to count 1", otherwise="first_voxel=0 for 0"),
    ),
    recognises=lambda start: text_table.first_row_width(start) == 7,
    stands_in=(StandIn("rotations", "0 0 0"),),
)
