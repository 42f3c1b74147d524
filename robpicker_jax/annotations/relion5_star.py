"""RELION 5 particle STAR files: `rlnCenteredCoordinate?Angst`, in Å from the tomogram's centre."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from robpicker_jax.annotations import columns, relion_columns, relion_star, star
from robpicker_jax.annotations.format import ALL_COLUMNS, Format
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.annotations.relion_columns import (
    CENTRED,
    common_columns,
    keeps_column,
    optics_table,
    restates_optics,
)
from robpicker_jax.annotations.relion_tables import read_tomograms
from robpicker_jax.system.errors import InputError


def write(
    path: Path,
    particles: Particles,
    *,
    voxel_size_angstrom: float | None = None,
    shape_zyx: tuple[int, int, int] | None = None,
    tomograms: str | Path | None = None,
    pixel_size_angstrom: float | None = None,
    binning: float | None = None,
    shapes_zyx: Mapping[str, tuple[int, int, int]] | None = None,
) -> None:
    """Write what RELION 5 imports: centred coordinates c = x v − N p / 2, in Å, with N p the tomogram's edge.

    Args:
        path: the file.
        particles: what to write.
        voxel_size_angstrom: voxel size v of the tomogram.
        shape_zyx: size of the tomogram in voxels, where all particles are of one size of tomogram.
        tomograms: RELION's tomograms table, which says N, p and the name of each tomogram; goes before `shape_zyx`.
        pixel_size_angstrom: edge of the tilt-series pixels, stated in the optics table; by default the table's, else v.
        binning: tilt-series pixels per voxel, where the tomograms have another voxel size than the table says.
        shapes_zyx: size of each tomogram by its name, voxels, where there are several.

    Raises:
        InputError: voxel size or tomogram size is not given, a tomogram is not in the table, or the table contradicts
            a size that is given.
    """
    voxel_size = columns.required_voxel_size(voxel_size_angstrom, "RELION 5", path)
    columns.check_positive(pixel_size_angstrom=pixel_size_angstrom, binning=binning)
    pixel, listed = pixel_size_angstrom or voxel_size / (binning or 1.0), None
    if tomograms is not None and particles.tomograms is not None:
        table = read_tomograms(Path(tomograms))
        rows = table.rows(particles.tomograms)
        listed = [table.names[row] for row in rows]
        table.voxel_sizes(rows, voxel_size, binning)
        corner = table.size_pixels[rows] / 2 * table.pixel_size_angstrom[rows, None]
        for row in rows if pixel_size_angstrom else ():
            stated = float(table.pixel_size_angstrom[row])
            fix = "leave pixel_size_angstrom out"
            columns.agree("a pixel size of", pixel, stated, table.path, fix, says=f"for {table.names[row]} the table")
        pixel = float(table.pixel_size_angstrom[rows[0] if len(rows) else 0])
    elif shapes_zyx is not None and particles.tomograms is not None:
        names = particles.tomograms.tolist()
        missing = [name for name in names if name not in shapes_zyx]
        if missing:
            raise InputError(f"the size of tomogram {missing[0]!r} is not given", where=path)
        sizes = np.array([shapes_zyx[name][::-1] for name in names], np.float64).reshape(-1, 3)
        corner = sizes * voxel_size / 2
    elif shape_zyx is not None:
        corner = np.array(shape_zyx[::-1]) * voxel_size / 2
    else:
        raise InputError(
            "RELION 5 measures coordinates from the tomogram's centre",
            where=path,
            fix="give RELION's tomograms table or the volume's size",
        )
    positions = particles.positions_vox * voxel_size - corner
    written = dict(zip(CENTRED, positions.T, strict=True)) | common_columns(particles)
    if listed is not None:
        written["rlnTomoName"] = listed
    written["rlnOpticsGroup"] = np.ones(len(particles), np.int64)
    star.write_tables(path, {"optics": optics_table(pixel), "particles": written})


FORMAT = Format(
    name="relion5",
    title="RELION 5 particles, centred Å",
    suffixes=(".star",),
    read=relion_star.read,
    write=write,
    keeps=ALL_COLUMNS,
    unit="angstrom",
    # Nothing recognises a file as this format: `star`, the default of the suffix, reads it in the same way.
    options=relion_star.READING_OPTIONS,
    assumptions=relion_star.ASSUMPTIONS,
    stands_in=relion_columns.STANDS_IN,
    keeps_column=keeps_column,
    restates=restates_optics,
)
