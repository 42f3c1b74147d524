"""Warp, WarpTools and M particle STAR files: RELION's columns, tomograms named by their `.tomostar`.

Unlike RELION 4, Warp counts `rlnCoordinate?` in pixels of the exported images: their edge is in `rlnPixelSize`,
`rlnImagePixelSize` or the optics table's `rlnImagePixelSize`. Files for WarpTools' `--input_star` have no such column;
their pixel size is an argument there (`--coords_angpix`) and here (`pixel_size_angstrom`; by default the voxel size).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from robpicker_jax.annotations import columns, relion_star, star
from robpicker_jax.annotations.particles import Particles

keeps_column = relion_star.keeps_column
_IMAGE_PIXEL = ("rlnPixelSize", "rlnImagePixelSize")


def read(
    path: Path,
    *,
    voxel_size_angstrom: float | None = None,
    shape_zyx: tuple[int, int, int] | None = None,
    class_labels: Mapping[str, int] | None = None,
    pixel_size_angstrom: float | None = None,
    binning: float | None = None,
    block: str | None = None,
    class_column: str | None = None,
) -> Particles:
    """Read Warp's or M's particles; arguments and errors as `relion_star.read`. `.tomostar` is taken off the names."""
    columns.check_positive(pixel_size_angstrom=pixel_size_angstrom, binning=binning)
    tables = star.read_tables(path)
    table = star.find_table(tables, [" ".join(relion_star.PIXELS)], block, path)
    if table is None or not len(next(iter(table.values()))):
        return relion_star.read(
            path,
            voxel_size_angstrom=voxel_size_angstrom,
            shape_zyx=shape_zyx,
            class_labels=class_labels,
            block=block,
            class_column=class_column,
        )
    pixel: np.ndarray | float | None = pixel_size_angstrom or _image_pixel_size(tables, table, path)
    rotations, sub = relion_star.orientations(table, path)
    shift = relion_star.origin_angstrom(table, sub, path)
    positions = relion_star.from_pixels(table, shift, sub, pixel, binning, voxel_size_angstrom, path)
    names = relion_star.tomogram_names(table)
    if names is not None:
        names = np.array([name.removesuffix(".tomostar") for name in names.tolist()])
    return relion_star.record(table, positions, rotations, names, class_labels, class_column, path)


def _image_pixel_size(tables: Mapping[str, star.Table], table: star.Table, path: Path) -> np.ndarray | None:
    for name in _IMAGE_PIXEL:
        if name in table:
            return star.numbers(table, [name], path)
        if name in tables.get("optics", {}):
            return relion_star.by_optics_group(tables["optics"], table, name, path)
    return None


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
        table["rlnMicrographName"] = np.array([f"{name.removesuffix('.tomostar')}.tomostar" for name in names.tolist()])
    if voxel_size_angstrom is not None:
        table["rlnPixelSize"] = np.full(len(particles), voxel_size_angstrom / binning)
    star.write_tables(path, {"": table | {name: values for name, values in rest.items() if name not in table}})
