"""napari's points as CSV: `index,axis-0,axis-1,axis-2` and properties; the axes are z, y, x in voxels from 0."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from robpicker_jax.annotations import columns, csv_table, text_table
from robpicker_jax.annotations.format import ALL_COLUMNS, Format
from robpicker_jax.annotations.particles import Particles

_AXES = ("axis-2", "axis-1", "axis-0")  # x, y, z


def read(path: Path, *, class_labels: Mapping[str, int] | None = None) -> Particles:
    """Read points.

    Args:
        path: the file.
        class_labels: label of each class name.

    Raises:
        InputError: columns are missing, or a cell is no number.
    """
    particles = csv_table.read(path, class_labels=class_labels)
    return particles.with_(extra={name: values for name, values in particles.extra.items() if name != "index"})


def write(path: Path, particles: Particles) -> None:
    """Write points; class, score and further columns become properties, by which napari can colour them."""
    table: dict[str, list[str]] = {"index": [str(i) for i in range(len(particles))]}
    for axis in reversed(range(3)):
        table[_AXES[axis]] = [columns.number(value) for value in particles.positions_vox[:, axis]]
    rest = csv_table.table_of(particles)
    table |= {name: cells for name, cells in rest.items() if name not in ("x_vox", "y_vox", "z_vox", "index")}
    rows = [[cells[i] for cells in table.values()] for i in range(len(particles))]
    text_table.write(path, rows, header=list(table), delimiter=",")


FORMAT = Format(
    name="napari",
    title="napari points, z y x",
    suffixes=(".csv",),
    read=read,
    write=write,
    keeps=ALL_COLUMNS,
    recognises=lambda start: b"axis-0" in start.split(b"\n", 1)[0],
    keeps_column=lambda name: name != "index",
)
