"""RELION particle STAR files, versions 3 to 5.

Positions, in voxels with the centre of voxel 0 at 0.0, come from

- RELION 5: `rlnCenteredCoordinate?Angst` c, in Å from the tomogram's centre: x = (c + N p / 2 − A_sub o) / v, with N
  the tomogram's size in tilt-series pixels (tomograms table), p their edge, o the `rlnOrigin?Angst`, v the voxel size.
  N/2 is what RELION 5 adds (ParticleSet::getParticleCoordDecenteredPixel); `centre="N/2-1"` is the rule of programs
  that take pixel N/2 − 1 for the centre.
- RELION 3 to 4: `rlnCoordinate?` X in pixels: x = (X − A_sub o / p) / b. RELION 4 counts tilt-series pixels and states
  p (`rlnTomoTiltSeriesPixelSize`), so that b = v / p once the voxel size is given; `annotations.relion_pixels` lists
  the other columns that state p. Where the file does not state it, the coordinates are taken as voxels unless
  `pixel_size_angstrom` or `binning` says otherwise. Origins are in Å (`rlnOrigin?Angst`) since 3.1, in pixels
  (`rlnOrigin?`) before.

Orientations are R = A_sub A, both A(rot, tilt, psi) as in `annotations.geometry`; A_sub (`rlnTomoSubtomogramRot` …)
is the identity where the file has none (ParticleSet::getMatrix3x3, getPosition).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import columns, star
from robpicker_jax.annotations.bounds import are_fractions
from robpicker_jax.annotations.format import ALL_COLUMNS, BINNING, VOXELS_NOT_PIXELS, Assumption, Format, Reader
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.annotations.relion_columns import (
    CENTRED,
    PIXELS,
    STANDS_IN,
    common_columns,
    keeps_column,
    optics_table,
    orientations,
    origin_angstrom,
    pixel_origins,
    record,
    restates_optics,
    tomogram_names,
)
from robpicker_jax.annotations.relion_pixels import from_pixels, shift_in_angstrom, stated_pixel
from robpicker_jax.annotations.relion_tables import TomogramTable, optimisation_set, read_tomograms
from robpicker_jax.system.errors import InputError

_POSITIONS = (" ".join(CENTRED), " ".join(PIXELS))
_CENTRES = {"N/2": 0.0, "N/2-1": 1.0}


def particle_reader(*, image_pixels: bool) -> Reader:
    """A reader of particle tables.

    Args:
        image_pixels: whether `rlnCoordinate?`, where a table has it, counts pixels of the exported images and goes
            before centred coordinates, as Warp's does; else RELION's rules decide.
    """

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
        """Read RELION particles, or the particles that a RELION optimisation set names.

        Args:
            path: the STAR file.
            voxel_size_angstrom: voxel size of the tomogram that the positions are wanted in.
            shape_zyx: that tomogram's size; stands in for the tomograms table where all particles are of one tomogram.
            class_labels: label of each name in the class column.
            tomograms: RELION's tomograms table, for centred coordinates.
            centre: "N/2" or "N/2-1": where the tomogram's centre is, in tilt-series pixels; in voxels of the tomogram where
                `shape_zyx` stands in for the table.
            pixel_size_angstrom: edge of the pixels that `rlnCoordinate?` counts.
            binning: pixels of `rlnCoordinate?` per voxel.
            block: the data block, where several hold particles.
            class_column: column that holds the class; by default `rlnParticleName` if `class_labels` are given and the file
                has it, else `rlnClassNumber`.

        Raises:
            InputError: not a particle STAR file, a tomograms table that is needed or lacks a tomogram, a length that the
                file leaves open, or a malformed column.
        """
        columns.check_positive(pixel_size_angstrom=pixel_size_angstrom, binning=binning)
        tables = star.read_tables(path)
        table = _table_in_pixels(tables, block, path) if image_pixels else None
        in_image_pixels = table is not None
        if table is None:
            table = star.find_table(tables, _POSITIONS, block, path)
            named = None if table is not None else optimisation_set(tables, path)
            if named is not None:
                path, beside = named
                tomograms = tomograms or beside
                tables = star.read_tables(path)
                table = star.find_table(tables, _POSITIONS, block, path)
        if table is None:
            table = _without_positions(tables, path)
        if not len(next(iter(table.values()), ())):
            return Particles.empty()
        names = tomogram_names(table)
        rotations, sub = orientations(table, path)
        shift = origin_angstrom(table, sub, path)
        reference = read_tomograms(Path(tomograms)) if tomograms is not None else None
        if not in_image_pixels and star.has(table, CENTRED):
            stated = stated_pixel(tables, table, names, path, image_pixels=False) if shift is None else None
            pixels = pixel_origins(table, sub, path) if shift is None else 0.0
            moved = shift_in_angstrom(pixels, pixel_size_angstrom, stated, path) if shift is None else shift
            centred = star.numbers(table, CENTRED, path) - moved
            positions = _from_centred(centred, names, reference, centre, voxel_size_angstrom, binning, shape_zyx, path)
        else:
            positions = from_pixels(
                table,
                shift,
                sub,
                stated_pixel(tables, table, names, path, image_pixels=in_image_pixels),
                path,
                pixel_size=pixel_size_angstrom,
                binning=binning,
                voxel_size=voxel_size_angstrom,
                size_xyz=_size_in_voxels(
                    names, reference, voxel_size_angstrom, shape_zyx, star.numbers(table, PIXELS, path)
                ),
            )
        return record(table, positions, rotations, names, class_labels, class_column, path)

    return read


read = particle_reader(image_pixels=False)


def _table_in_pixels(tables: Mapping[str, star.Table], block: str | None, path: Path) -> star.Table | None:
    """The table that has particles with `rlnCoordinate?`, if there is one."""
    table = star.find_table(tables, [" ".join(PIXELS)], block, path)
    return table if table is not None and star.has(table, PIXELS) and len(table[PIXELS[0]]) else None


def _without_positions(tables: Mapping[str, star.Table], path: Path) -> star.Table:
    """The refusal of a file without positions, which says what it is instead; an empty particle loop passes."""
    for table in tables.values():
        if "rlnTomoSizeX" in table:
            raise InputError("a table of tomograms, not of particles", where=path, fix="give the particles file")
        if "rlnCoordinateX" in table and not len(table["rlnCoordinateX"]):
            return {}
    wanted = "rlnCoordinateX/Y/Z or rlnCenteredCoordinateX/Y/ZAngst"
    raise InputError(f"no block has the columns {wanted}: no particles in it", where=path)


def _from_centred(
    centred: np.ndarray,
    names: np.ndarray | None,
    table: TomogramTable | None,
    centre: str,
    voxel_size: float | None,
    binning: float | None,
    shape_zyx: tuple[int, int, int] | None,
    path: Path,
) -> np.ndarray:
    if centre not in _CENTRES:
        raise InputError(f"unknown centre rule {centre!r}", fix=f"one of {', '.join(_CENTRES)}")
    if table is not None and names is not None:
        rows = table.rows(names)
        pixel = table.pixel_size_angstrom[rows, None]
        corner = (table.size_pixels[rows] / 2 - _CENTRES[centre]) * pixel
        return np.asarray((centred + corner) / table.voxel_sizes(rows, voxel_size, binning))
    if shape_zyx is not None and voxel_size:
        size = np.array(shape_zyx[::-1], dtype=np.float64)
        return centred / voxel_size + size / 2 - _CENTRES[centre]
    raise InputError(
        "coordinates are measured from each tomogram's centre, and its size is not in this file",
        where=path,
        fix="give RELION's tomograms table (tomograms=…/tomograms.star), or the volume's size and voxel size",
    )


def _size_in_voxels(
    names: np.ndarray | None,
    table: TomogramTable | None,
    voxel_size: float | None,
    shape_zyx: tuple[int, int, int] | None,
    coordinates: np.ndarray,
) -> np.ndarray | None:
    """Size x y z of the tomogram in voxels, for coordinates that are fractions of it; None where it is not known."""
    if not are_fractions(coordinates):
        return None
    if shape_zyx is not None:
        return np.array(shape_zyx[::-1], np.float64)
    if table is None or names is None:
        return None
    rows = table.rows(names)
    pixels_per_voxel = table.voxel_sizes(rows, voxel_size, None) / table.pixel_size_angstrom[rows, None]
    return np.asarray(table.size_pixels[rows] / pixels_per_voxel)


def write(
    path: Path,
    particles: Particles,
    *,
    voxel_size_angstrom: float | None = None,
    binning: float = 1.0,
) -> None:
    """Write RELION 4's form: `rlnTomoName`, `rlnCoordinateX/Y/Z` in pixels, angles, class, score.

    Args:
        path: the file.
        particles: what to write.
        voxel_size_angstrom: with it an optics table states the pixel size, so that the file says its own unit.
        binning: tilt-series pixels per voxel; RELION 4 wants unbinned pixels, pickers mostly read voxels (1).
    """
    tables: dict[str, Mapping[str, Any]] = {}
    if voxel_size_angstrom is not None:
        tables["optics"] = optics_table(voxel_size_angstrom / binning)
    positions = particles.positions_vox * binning
    table = dict(zip(PIXELS, positions.T, strict=True)) | common_columns(particles)
    if voxel_size_angstrom is not None:
        table["rlnOpticsGroup"] = np.ones(len(particles), np.int64)
    star.write_tables(path, tables | {"particles": table})


READING_OPTIONS = {
    "tomograms": "RELION's tomograms table, for centred coordinates",
    "centre": "centre that coordinates are measured from: N/2 (RELION 5) or N/2-1, in tilt-series pixels",
    "pixel_size_angstrom": "pixel size of the list's coordinates, where it does not state it",
    "binning": BINNING,
    "block": "data block of the particles",
    "class_column": "column of the class",
}

ASSUMPTIONS = (
    VOXELS_NOT_PIXELS,
    Assumption(
        "centre",
        "N/2",
        "N/2-1",
        "the centre is taken to be at N/2, as in RELION 5",
        otherwise="centre=N/2-1 for one pixel before it",
    ),
)

FORMAT = Format(
    name="star",
    title="RELION particles (reads 3 to 5, writes 4)",
    suffixes=(".star",),
    read=read,
    write=write,
    keeps=ALL_COLUMNS,
    options=READING_OPTIONS,
    assumptions=ASSUMPTIONS,
    stands_in=STANDS_IN,
    keeps_column=keeps_column,
    restates=restates_optics,
)
