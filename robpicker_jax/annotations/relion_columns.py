"""The columns of particle tables that RELION, Warp and M share: what they mean, and how they are written.

`annotations.relion_star` has the equations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import columns, star
from robpicker_jax.annotations.geometry import euler_from_matrix, matrix_from_euler
from robpicker_jax.annotations.names import TOMOSTAR
from robpicker_jax.annotations.particles import Particles
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
    """Voxel positions of `rlnCoordinate?`, origins subtracted; the docstring of `relion_star` has the formula."""
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
