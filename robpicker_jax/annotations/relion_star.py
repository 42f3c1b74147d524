"""RELION particle STAR files, versions 3 to 5.

Positions, in voxels with the centre of voxel 0 at 0.0, come from

- RELION 5: `rlnCenteredCoordinate?Angst` c, in Å from the tomogram's centre: x = (c + N p / 2 − A_sub o) / v, with N
  the tomogram's size in tilt-series pixels (tomograms table), p their edge, o the `rlnOrigin?Angst`, v the voxel size.
  N/2 is what RELION 5 adds (ParticleSet::getParticleCoordDecenteredPixel); `centre="N/2-1"` is the rule of programs
  that take pixel N/2 − 1 for the centre.
- RELION 3 to 4: `rlnCoordinate?` X in pixels: x = (X − A_sub o / p) / b. RELION 4 counts tilt-series pixels and states
  p (`rlnTomoTiltSeriesPixelSize`), so that b = v / p once the voxel size is given. Where the file does not state p,
  the coordinates are taken as voxels unless `pixel_size_angstrom` or `binning` says otherwise. Origins are in Å
  (`rlnOrigin?Angst`) since 3.1, in pixels (`rlnOrigin?`) before.

Orientations are R = A_sub A, both A(rot, tilt, psi) as in `annotations.geometry`; A_sub (`rlnTomoSubtomogramRot` …)
is the identity where the file has none (ParticleSet::getMatrix3x3, getPosition).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import columns, star
from robpicker_jax.annotations.format import ALL_COLUMNS, BINNING, VOXELS_NOT_PIXELS, Assumption, Format
from robpicker_jax.annotations.geometry import euler_from_matrix, matrix_from_euler
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.annotations.relion_tables import TOMOSTAR, TomogramTable, optimisation_set, read_tomograms
from robpicker_jax.system.errors import InputError

CENTRED = ("rlnCenteredCoordinateXAngst", "rlnCenteredCoordinateYAngst", "rlnCenteredCoordinateZAngst")
PIXELS = ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ")
ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_SUB_ANGLES = ("rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi")
_ORIGIN_ANGSTROM = ("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst")
_ORIGIN_PIXELS = ("rlnOriginX", "rlnOriginY", "rlnOriginZ")
_SCORES = ("rlnAutopickFigureOfMerit", "rlnLCCmax")
_RESERVED = {"rlnOpticsGroup", "rlnMicrographName", *_SCORES, *_ORIGIN_PIXELS, *_ORIGIN_ANGSTROM, *_SUB_ANGLES}
_TOMOGRAMS = ("rlnTomoName", "rlnMicrographName")
_NAMES = ("rlnParticleName",)
_CLUSTER_SIZE = "rpkClusterSize"  # no RELION column; RELION keeps columns that it does not know
_CENTRES = {"N/2": 0.0, "N/2-1": 1.0}
_TILT_SERIES_PIXEL = ("rlnTomoTiltSeriesPixelSize", "rlnMicrographOriginalPixelSize")
IMAGE_PIXEL = ("rlnPixelSize", "rlnImagePixelSize")  # Warp's


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
    table = star.find_table(tables, [" ".join(CENTRED), " ".join(PIXELS)], block, path)
    named = None if table is not None else optimisation_set(tables, path)
    if named is not None:
        path, beside = named
        tomograms = tomograms or beside
        tables = star.read_tables(path)
        table = star.find_table(tables, [" ".join(CENTRED), " ".join(PIXELS)], block, path)
    if table is None:
        table = _without_positions(tables, path)
    n = len(next(iter(table.values()), ()))
    if n == 0:
        return Particles.empty()
    names = tomogram_names(table)
    rotations, sub = orientations(table, path)
    shift = origin_angstrom(table, sub, path)
    if star.has(table, CENTRED):
        reference = read_tomograms(Path(tomograms)) if tomograms is not None else None
        centred = star.numbers(table, CENTRED, path) - (0 if shift is None else shift)
        positions = _from_centred(centred, names, reference, centre, voxel_size_angstrom, shape_zyx, path)
    else:
        pixel = pixel_size_angstrom or stated_pixel_size(tables, table, _pixel_columns(names, table), path)
        positions = from_pixels(table, shift, sub, pixel, binning, voxel_size_angstrom, path)
    return record(table, positions, rotations, names, class_labels, class_column, path)


def _without_positions(tables: Mapping[str, star.Table], path: Path) -> star.Table:
    """The refusal of a file without positions, which says what it is instead; an empty particle loop passes."""
    for table in tables.values():
        if "rlnTomoSizeX" in table:
            raise InputError("a table of tomograms, not of particles", where=path, fix="give the particles file")
        if "rlnCoordinateX" in table and not len(table["rlnCoordinateX"]):
            return {}
    wanted = "rlnCoordinateX/Y/Z or rlnCenteredCoordinateX/Y/ZAngst"
    raise InputError(f"no block has the columns {wanted}: no particles in it", where=path)


def tomogram_names(table: star.Table) -> np.ndarray | None:
    """The tomogram column, as text."""
    return next((table[name].astype(str) for name in _TOMOGRAMS if name in table), None)


def orientations(table: star.Table, path: Path) -> tuple[np.ndarray | None, np.ndarray | None]:
    """R of each particle and A_sub, each None where the file has no such columns."""
    own = matrix_from_euler(star.numbers(table, ANGLES, path), "relion") if star.has(table, ANGLES) else None
    sub = matrix_from_euler(star.numbers(table, _SUB_ANGLES, path), "relion") if star.has(table, _SUB_ANGLES) else None
    if sub is None or own is None:
        return (own if own is not None else sub), sub
    return sub @ own, sub


def origin_angstrom(table: star.Table, sub: np.ndarray | None, path: Path) -> np.ndarray | None:
    """A_sub o of each particle in Å, None where the file has no `rlnOrigin?Angst`."""
    if not star.has(table, _ORIGIN_ANGSTROM):
        return None
    origin = star.numbers(table, _ORIGIN_ANGSTROM, path)
    return origin if sub is None else np.einsum("nij,nj->ni", sub, origin)


def _from_centred(
    centred: np.ndarray,
    names: np.ndarray | None,
    table: TomogramTable | None,
    centre: str,
    voxel_size: float | None,
    shape_zyx: tuple[int, int, int] | None,
    path: Path,
) -> np.ndarray:
    if centre not in _CENTRES:
        raise InputError(f"unknown centre rule {centre!r}", fix=f"one of {', '.join(_CENTRES)}")
    if table is not None and names is not None:
        rows = table.rows(names)
        pixel = table.pixel_size_angstrom[rows, None]
        corner = (table.size_pixels[rows] / 2 - _CENTRES[centre]) * pixel
        voxel = np.full((len(rows), 1), voxel_size) if voxel_size else pixel * table.binning[rows, None]
        if not np.isfinite(voxel).all():
            raise InputError(
                "the tomograms table has no rlnTomoTomogramBinning", where=table.path, fix="give the voxel size"
            )
        return (centred + corner) / voxel
    if shape_zyx is not None and voxel_size:
        size = np.array(shape_zyx[::-1], dtype=np.float64)
        return centred / voxel_size + size / 2 - _CENTRES[centre]
    raise InputError(
        "coordinates are measured from each tomogram's centre, and its size is not in this file",
        where=path,
        fix="give RELION's tomograms table (tomograms=…/tomograms.star), or the volume's size and voxel size",
    )


def _pixel_columns(names: np.ndarray | None, table: star.Table) -> tuple[str, ...]:
    """Columns that state the pixels of `rlnCoordinate?`: Warp's where tomograms are `.tomostar`, else RELION's."""
    if names is not None and any(name.endswith(TOMOSTAR) for name in names.tolist()):
        return IMAGE_PIXEL
    # Without rlnTomoName the list may be RELION 3's, which counts pixels of whatever tomogram was picked.
    return _TILT_SERIES_PIXEL if "rlnTomoName" in table else _TILT_SERIES_PIXEL[:1]


def stated_pixel_size(
    tables: Mapping[str, star.Table], table: star.Table, wanted: Sequence[str], path: Path
) -> np.ndarray | None:
    """Edge of the pixels of each particle's coordinates (n, 1), None where no column of `wanted` states it."""
    for name in wanted:
        if name in table:
            return star.numbers(table, [name], path)
        if name in tables.get("optics", {}):
            return by_optics_group(tables["optics"], table, name, path)
    return None


def by_optics_group(optics: star.Table, table: star.Table, name: str, path: Path) -> np.ndarray:
    """A number of the optics table for each particle, (n, 1).

    Raises:
        InputError: a particle's optics group is not in the table.
    """
    values = star.numbers(optics, [name], path)
    n = len(next(iter(table.values())))
    if len(values) == 1:
        return np.repeat(values, n, axis=0)
    groups = star.numbers(optics, ["rlnOpticsGroup"], path)[:, 0]
    row_of = {group: row for row, group in enumerate(groups.tolist())}
    wanted = star.numbers(table, ["rlnOpticsGroup"], path)[:, 0].tolist()
    for i, group in enumerate(wanted):
        if group not in row_of:
            raise InputError(f"row {i + 1}: optics group {group:g} is not in the optics table", where=path)
    return values[[row_of[group] for group in wanted]]


def from_pixels(
    table: star.Table,
    shift_angstrom: np.ndarray | None,
    sub: np.ndarray | None,
    pixel: np.ndarray | float | None,
    binning: float | None,
    voxel_size: float | None,
    path: Path,
) -> np.ndarray:
    """Voxel positions of `rlnCoordinate?`, origins subtracted; the module's docstring has the formula."""
    coordinates = star.numbers(table, PIXELS, path)
    if pixel is None and voxel_size:
        pixel = voxel_size / (binning or 1.0)
    if shift_angstrom is not None and shift_angstrom.any():
        if pixel is None:
            raise InputError(
                "origins are in Å and the size of the coordinates' pixels is not in this file",
                where=path,
                fix="give pixel_size_angstrom, or the voxel size",
            )
        coordinates = coordinates - shift_angstrom / pixel
    elif shift_angstrom is None and star.has(table, _ORIGIN_PIXELS):
        origin = star.numbers(table, _ORIGIN_PIXELS, path)
        coordinates = coordinates - (origin if sub is None else np.einsum("nij,nj->ni", sub, origin))
    if binning is not None:
        return coordinates / binning
    return coordinates * pixel / voxel_size if pixel is not None and voxel_size else coordinates


def record(
    table: star.Table,
    positions: np.ndarray,
    rotations: np.ndarray | None,
    names: np.ndarray | None,
    class_labels: Mapping[str, int] | None,
    class_column: str | None,
    path: Path,
) -> Particles:
    """The particles of a RELION-like table, with its further columns kept."""

    def row(i: int) -> str:
        return f"row {i + 1}"

    n = len(positions)
    if class_column is not None and class_column not in table:
        raise InputError(f"column {class_column} is missing", where=path, fix=f"its columns: {', '.join(table)}")
    species = next((name for name in _NAMES if name in table), None)
    chosen = (
        class_column or (species if class_labels else None) or ("rlnClassNumber" if "rlnClassNumber" in table else None)
    )
    class_names = None if species is None else table[species].astype(str)
    labels = np.zeros(n, np.int64)
    if chosen is not None and (chosen in _NAMES or table[chosen].dtype.kind == "U"):
        class_names = table[chosen].astype(str)
        labels = np.array([(class_labels or {}).get(name, 0) for name in class_names])
    elif chosen is not None:
        labels = columns.integers(table[chosen].tolist(), chosen, path, row)
    scores = next((name for name in _SCORES if name in table), None)
    used = {
        *CENTRED,
        *PIXELS,
        *ANGLES,
        *_SUB_ANGLES,
        *_ORIGIN_ANGSTROM,
        *_ORIGIN_PIXELS,
        _TOMOGRAMS[0],
        _CLUSTER_SIZE,
        species,
        chosen,
        scores,
    }
    if "rlnTomoName" not in table:
        used.add("rlnMicrographName")
    sizes = table.get(_CLUSTER_SIZE)
    return Particles(
        positions,
        labels,
        rotations=rotations,
        cluster_sizes=None if sizes is None else columns.integers(sizes.tolist(), _CLUSTER_SIZE, path, row),
        scores=None
        if scores is None
        else columns.optional_floats(table[scores].astype(str).tolist(), scores, path, row),
        class_names=class_names,
        tomograms=None
        if names is None
        else np.array([name.removesuffix(TOMOSTAR) for name in names.tolist()], np.str_),
        extra={name: values for name, values in table.items() if name not in used},
    )


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


def optics_table(pixel_size_angstrom: float) -> dict[str, Any]:
    """One optics group that states the tilt-series pixel size."""
    return {
        "rlnOpticsGroup": [1],
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnTomoTiltSeriesPixelSize": [float(pixel_size_angstrom)],
    }


def keeps_column(name: str) -> bool:
    """Whether an extra column of this name is written: one that RELION defines anew for these particles is not."""
    return name not in _RESERVED and name.replace("_", "").isalnum()


def common_columns(particles: Particles) -> dict[str, Any]:
    """The columns of RELION that do not depend on how coordinates are counted, extra columns last."""
    table: dict[str, Any] = {}
    if particles.tomograms is not None:
        table["rlnTomoName"] = particles.tomograms
    if particles.rotations is not None:
        table |= dict(zip(ANGLES, euler_from_matrix(particles.rotations, "relion").T, strict=True))
    table["rlnClassNumber"] = particles.labels
    if particles.class_names is not None:
        table["rlnParticleName"] = particles.class_names
    if particles.scores is not None:
        table["rlnAutopickFigureOfMerit"] = particles.scores
    if particles.cluster_sizes is not None:
        table[_CLUSTER_SIZE] = particles.cluster_sizes
    for name, values in particles.extra.items():
        if name not in table and keeps_column(name):
            table[name] = values
    return table


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
    keeps_column=keeps_column,
)
