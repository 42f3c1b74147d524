"""M's particle list of a species: `wrpCoordinateX` or, of several time points, `wrpCoordinateX1`, … in Å.

The first time point is taken. Angles `wrpAngleRot1` … are RELION's, tomograms are `wrpSourceName` (`.tomostar`). M writes
these files itself, with hashes of its sources, and makes a species from a RELION or Warp list; they are only read here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robpicker_jax.annotations import columns, star
from robpicker_jax.annotations.format import Format
from robpicker_jax.annotations.geometry import matrix_from_euler
from robpicker_jax.annotations.names import TOMOSTAR
from robpicker_jax.annotations.particles import Particles

_SETS = ("1", "")


def read(path: Path, *, voxel_size_angstrom: float | None = None) -> Particles:
    """Read the particles of a species.

    Args:
        path: the STAR file.
        voxel_size_angstrom: voxel size of the tomogram.

    Raises:
        InputError: no such columns, no voxel size, or a malformed column.
    """
    tables = star.read_tables(path)
    wanted = [[f"wrpCoordinate{axis}{number}" for axis in "XYZ"] for number in _SETS]
    table = star.find_table(tables, [" ".join(names) for names in wanted], None, path) or {}
    names = next((names for names in wanted if star.has(table, names)), wanted[0])
    positions = star.numbers(table, names, path)
    if not len(positions):
        return Particles.empty()
    voxel_size = columns.required_voxel_size(voxel_size_angstrom, "M", path)
    angles = [f"wrpAngle{angle}{names[0].removeprefix('wrpCoordinateX')}" for angle in ("Rot", "Tilt", "Psi")]
    sources = table.get("wrpSourceName")
    used = {*names, *angles, "wrpSourceName"}
    return Particles(
        positions / voxel_size,
        np.zeros(len(positions), np.int32),
        rotations=matrix_from_euler(star.numbers(table, angles, path), "relion") if star.has(table, angles) else None,
        tomograms=None if sources is None else [str(name).removesuffix(TOMOSTAR) for name in sources.tolist()],
        extra={name: values for name, values in table.items() if name not in used},
    )


FORMAT = Format(
    name="m_species",
    title="M species particles, Å",
    suffixes=(".star",),
    read=read,
    recognises=lambda start: b"_wrpCoordinateX" in start,
)
