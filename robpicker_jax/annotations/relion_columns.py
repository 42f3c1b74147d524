"""The columns of particle tables that RELION, Warp and M share: what they mean, and how they are written.

`annotations.relion_star` has the equations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import columns, star
from robpicker_jax.annotations.format import StandIn
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
DEFINITE_PIXELS = ("rlnTomoTiltSeriesPixelSize", "rlnPixelSize")
"""Columns that speak of the pixels of the coordinates, and of nothing else."""

PIXEL_SIZES = (
    "rlnTomoTiltSeriesPixelSize",
    "rlnMicrographOriginalPixelSize",
    "rlnMicrographPixelSize",
    "rlnImagePixelSize",
    "rlnPixelSize",
    "rlnDetectorPixelSize",
    "rlnMagnification",
)
"""Columns that state the pixels of coordinates, which a list that is written anew counts differently."""

_RESERVED = {
    "rlnOpticsGroup",
    "rlnMicrographName",
    *_SCORES,
    *_ORIGIN_PIXELS,
    *_ORIGIN_ANGSTROM,
    *_SUB_ANGLES,
    *PIXEL_SIZES,
}
_TOMOGRAMS = ("rlnTomoName", "rlnMicrographName")
_NAMES = ("rlnParticleName",)
# No RELION columns; RELION keeps columns that it does not know.
_CLUSTER_SIZE = "rpkClusterSize"
_ORIENTED = "rpkOrientationKnown"  # 0 where the angles stand in for an orientation that is not known

STANDS_IN = (StandIn("rotations", f"0 0 0 (with {_ORIENTED} 0)", always=False),)


def tomogram_names(table: star.Table) -> np.ndarray | None:
    """The tomogram column, as text."""
    return next((table[name].astype(str) for name in _TOMOGRAMS if name in table), None)


def orientations(table: star.Table, path: Path) -> tuple[np.ndarray | None, np.ndarray | None]:
    """R of each particle and A_sub, each None where the file has no such columns."""

    def matrices(names: Sequence[str]) -> np.ndarray | None:
        if not star.has(table, names):
            return None
        return matrix_from_euler(star.optional_numbers(table, names, path), "relion")

    own, sub = matrices(ANGLES), matrices(_SUB_ANGLES)
    rotations = sub @ own if sub is not None and own is not None else own if own is not None else sub
    if rotations is not None and _ORIENTED in table:
        rotations[star.numbers(table, [_ORIENTED], path)[:, 0] == 0] = np.nan
    return rotations, sub


def origin_angstrom(table: star.Table, sub: np.ndarray | None, path: Path) -> np.ndarray | None:
    """A_sub o of each particle in Å, None where the file has no `rlnOrigin?Angst`."""
    if not star.has(table, _ORIGIN_ANGSTROM):
        return None
    return _rotated(star.numbers(table, _ORIGIN_ANGSTROM, path), sub, path)


def _rotated(origin: np.ndarray, sub: np.ndarray | None, path: Path) -> np.ndarray:
    """A_sub o of each particle; where A_sub is unknown, o must be 0."""
    if sub is None:
        return origin
    unknown = np.isnan(sub).any(axis=(1, 2))
    for i in np.flatnonzero(unknown & origin.any(axis=1))[:1]:
        raise InputError(f"row {i + 1}: the origin is shifted, but {_SUB_ANGLES[0]} … are unknown", where=path)
    rotated: np.ndarray = np.einsum("nij,nj->ni", np.where(unknown[:, None, None], np.eye(3), sub), origin)
    return rotated


def pixel_origins(table: star.Table, sub: np.ndarray | None, path: Path) -> np.ndarray | float:
    """A_sub o of each particle in pixels, 0 where the file has no `rlnOrigin?`."""
    if not star.has(table, _ORIGIN_PIXELS):
        return 0.0
    return _rotated(star.numbers(table, _ORIGIN_PIXELS, path), sub, path)


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
        labels = columns.labels_by_name(labels, class_names.tolist(), class_labels)
    elif chosen is not None:
        labels = columns.optional_labels(table[chosen].tolist(), chosen, path, row)
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
        _ORIENTED,
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
        cluster_sizes=None if sizes is None else columns.optional_labels(sizes.tolist(), _CLUSTER_SIZE, path, row),
        scores=None if scores is None else star.optional_numbers(table, [scores], path)[:, 0],
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


def restates_optics(name: str, particles: Particles, voxel_size_angstrom: float | None) -> str | None:
    """What a list with `optics_table` states anew: the pixels of its coordinates, and that all are of the first group.

    Other columns of pixel sizes may speak of other pixels, such as those of the detector, and count as lost.
    """
    if voxel_size_angstrom is None:
        return None
    if name == "rlnOpticsGroup":
        return name if (particles.extra[name].astype(str) == "1").all() else None
    return "rlnTomoTiltSeriesPixelSize" if name in DEFINITE_PIXELS else None


def keeps_column(name: str) -> bool:
    """Whether an extra column of this name is written: one that RELION defines anew for these particles is not."""
    return name not in _RESERVED and name.replace("_", "").isalnum()


def common_columns(particles: Particles) -> dict[str, Any]:
    """The columns of RELION that do not depend on how coordinates are counted, extra columns last."""
    table: dict[str, Any] = {}
    if particles.tomograms is not None:
        table["rlnTomoName"] = particles.tomograms
    if particles.rotations is not None:
        angles = euler_from_matrix(particles.rotations, "relion")
        oriented = np.isfinite(angles).all(axis=1)
        table |= dict(zip(ANGLES, columns.known_or_zero(angles).T, strict=True))
        if not oriented.all():
            table[_ORIENTED] = oriented.astype(np.int64)
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
