"""Warp, WarpTools and M particle STAR files: RELION's columns, tomograms named by their `.tomostar`.

Unlike RELION 4, Warp counts `rlnCoordinate?` in pixels of the exported images: their edge is in `rlnPixelSize`,
`rlnImagePixelSize` or the optics table's `rlnImagePixelSize`. Files for WarpTools' `--input_star` have no such column;
their pixel size is an argument there (`--coords_angpix`) and here (`pixel_size_angstrom`; by default the voxel size).
Where RELION 5 refined such particles, coordinates are centred Å, read by RELION's rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from robpicker_jax.annotations import columns, relion_star, star
from robpicker_jax.annotations.format import ALL_COLUMNS, Format
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.annotations.relion_tables import TOMOSTAR


def read(
    path: Path,
    *,
    voxel_size_angstrom: float | None = None,
    shape_zyx: tuple[int, int, int] | None = None,
    class_labels: Mapping[str, int] | None = None,
    tomograms: str | Path | None = None,
    centre: str = "N/2",
    pixel_size_angstrom: float | None = None,
    binning: float | None = None,
    block: str | None = None,
    class_column: str | None = None,
) -> Particles:
    """Read Warp's or M's particles; arguments and errors as `relion_star.read`. `.tomostar` is taken off the names."""
    columns.check_positive(pixel_size_angstrom=pixel_size_angstrom, binning=binning)
    tables = star.read_tables(path)
    table = star.find_table(tables, [" ".join(relion_star.PIXELS)], block, path)
    if table is None or not star.has(table, relion_star.PIXELS) or not len(next(iter(table.values()))):
        return relion_star.read(
            path,
            voxel_size_angstrom=voxel_size_angstrom,
            shape_zyx=shape_zyx,
            class_labels=class_labels,
            tomograms=tomograms,
            centre=centre,
            pixel_size_angstrom=pixel_size_angstrom,
            binning=binning,
            block=block,
            class_column=class_column,
        )
    pixel: np.ndarray | float | None = pixel_size_angstrom or relion_star.stated_pixel_size(
        tables, table, relion_star.IMAGE_PIXEL, path
    )
    rotations, sub = relion_star.orientations(table, path)
    shift = relion_star.origin_angstrom(table, sub, path)
    positions = relion_star.from_pixels(table, shift, sub, pixel, binning, voxel_size_angstrom, path)
    names = relion_star.tomogram_names(table)
    return relion_star.record(table, positions, rotations, names, class_labels, class_column, path)


def write(path: Path, particles: Particles, *, voxel_size_angstrom: float | None = None, binning: float = 1.0) -> None:
    """Write what WarpTools' `ts_export_particles --input_star` opens.

    Args:
        path: the file.
        particles: what to write.
        voxel_size_angstrom: with it `rlnPixelSize` states the pixel size; give WarpTools the same `--coords_angpix`.
        binning: pixels of the coordinates per voxel.
    """
    columns.check_positive(binning=binning)
    table = dict(zip(relion_star.PIXELS, (particles.positions_vox * binning).T, strict=True))
    rest = relion_star.common_columns(particles)
    names = rest.pop("rlnTomoName", None)
    if names is not None:
        table["rlnMicrographName"] = np.array([f"{name.removesuffix(TOMOSTAR)}{TOMOSTAR}" for name in names.tolist()])
    if voxel_size_angstrom is not None:
        table["rlnPixelSize"] = np.full(len(particles), voxel_size_angstrom / binning)
    star.write_tables(path, {"": table | {name: values for name, values in rest.items() if name not in table}})


FORMAT = Format(
    name="warp",
    title="Warp, WarpTools and M particles",
    suffixes=(".star",),
    read=read,
    write=write,
    keeps=ALL_COLUMNS,
    options=relion_star.READING_OPTIONS,
    assumptions=relion_star.ASSUMPTIONS,
    recognises=lambda start: TOMOSTAR.encode() in start,
    keeps_column=relion_star.keeps_column,
)
