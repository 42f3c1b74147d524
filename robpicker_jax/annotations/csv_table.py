"""CSV and TSV tables with a header, as spreadsheets, CZII's challenge and copick have them.

The coordinate columns' names say their unit: `x_vox`, `x_angstrom`, `x_nm`; words such as `center_` may stand before
them. Bare `x y z` are Å where the table is CZII's,
copick's or RobPicker's (columns `particle_type` or `run_name`), and voxels elsewhere unless `unit` says otherwise. A
table without header has columns x y z, or z y x by `axes="zyx"`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from robpicker_jax.annotations import columns, text_table
from robpicker_jax.annotations.format import ALL_COLUMNS, AXES, ORDER_XYZ, Assumption, Format
from robpicker_jax.annotations.geometry import euler_from_matrix, matrix_from_euler
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.system.errors import InputError

_UNITS = {
    "voxel": ("vox", "voxel", "voxels", "px", "pixel", "pixels"),
    "angstrom": ("angstrom", "angst", "ang", "a", "å"),
    "nanometre": ("nm", "nanometre", "nanometer"),
}
_ANGSTROM_PER = {"angstrom": 1.0, "nanometre": 10.0}
_PREFIXES = ("", "center_", "centre_", "centroid_", "coord_", "coordinate_", "position_", "pos_")
_NAPARI = ("axis-2", "axis-1", "axis-0")
_TOMOGRAM = ("tomogram", "tomo_name", "tomo_idx", "tomo_id", "experiment", "run_name", "run", "rlntomoname")
_LABEL = ("class_label", "label", "class_id", "class")
_NAME = ("class_name", "particle_type", "particle", "species", "name", "object", "class")
_SCORE = ("score", "conf", "confidence", "probability")
_ANGLES = ("phi", "psi", "the")
_ANGSTROM_TABLES = {"particle_type", "run_name"}


def read(
    path: Path,
    *,
    voxel_size_angstrom: float | None = None,
    class_labels: Mapping[str, int] | None = None,
    unit: str | None = None,
    axes: str = "xyz",
) -> Particles:
    """Read a CSV or TSV table.

    Args:
        path: the file.
        voxel_size_angstrom: voxel size, needed for coordinates in Å.
        class_labels: label of each class name.
        unit: "voxel", "angstrom" or "nanometre": unit of bare x y z columns.
        axes: order of the columns of a table without header.

    Raises:
        InputError: no coordinate columns, Å without a voxel size, or a malformed cell.
    """
    if unit not in (None, *_UNITS):
        raise InputError(f"unit is {unit!r}", fix=f"one of {', '.join(_UNITS)}")
    table = text_table.read(path, header=True)
    if table.header is None:
        return _without_header(table, unit, axes, voxel_size_angstrom)
    header = [name.strip().strip('"').lower() for name in table.header]
    indices, stated = _coordinate_columns(header, path)
    if not table.rows:
        return Particles.empty()
    unit = stated or unit or ("angstrom" if _ANGSTROM_TABLES & set(header) else "voxel")
    positions = np.stack([table.floats(index, table.header[index]) for index in indices], axis=1)
    used = set(indices)

    def find(names: tuple[str, ...], *, whole: bool = False) -> int | None:
        for name in names:
            index = header.index(name) if name in header else None
            if index is None or index in used or (whole and not _whole_numbers(table.column(index))):
                continue
            used.add(index)
            return index
        return None

    label, tomogram = find(_LABEL, whole=True), find(_TOMOGRAM)
    name, score, size = find(_NAME), find(_SCORE), find(("cluster_size",))
    class_names = None if name is None else np.array(table.column(name))
    if label is None and name is not None and not class_labels and _whole_numbers(table.column(name)):
        label = name
    labels = np.zeros(len(positions), np.int64)
    if label is not None:
        labels = table.optional_labels(label, table.header[label])
    if class_names is not None:
        labels = columns.labels_by_name(labels, class_names.tolist(), class_labels)
    rotations = None
    if all(angle in header for angle in _ANGLES):
        used |= {header.index(angle) for angle in _ANGLES}
        cells = [table.optional_floats(header.index(angle), angle) for angle in _ANGLES]
        rotations = matrix_from_euler(np.stack(cells, axis=1), "deepfinder")
    scores = None if score is None else table.optional_floats(score, header[score])
    return Particles(
        _to_voxels(positions, unit, voxel_size_angstrom, path),
        labels,
        rotations=rotations,
        scores=scores,
        cluster_sizes=None if size is None else table.optional_labels(size, "cluster_size"),
        class_names=class_names,
        tomograms=None if tomogram is None else np.array(table.column(tomogram)),
        extra={
            table.header[i]: columns.typed([cell or None for cell in table.column(i)])
            for i in range(len(header))
            if i not in used and not (header[i] == "id" and "particle_type" in header)
        },
    )


def _without_header(table: text_table.TextTable, unit: str | None, axes: str, voxel_size: float | None) -> Particles:
    if not table.rows:
        raise InputError("the file is empty", where=table.path)
    if sorted(axes) != ["x", "y", "z"]:
        raise InputError(f"axes is {axes!r}, not a permutation of xyz")
    if table.width != 3:
        raise InputError(
            f"{table.width} columns without a header", where=table.path, fix="add a header with x, y, z and the others"
        )
    positions = np.stack([table.floats(axes.index(axis), axis) for axis in "xyz"], axis=1)
    return Particles(_to_voxels(positions, unit or "voxel", voxel_size, table.path), np.zeros(len(positions), np.int32))


def _coordinate_columns(header: list[str], path: Path) -> tuple[list[int], str | None]:
    for prefix in _PREFIXES:
        for unit, endings in _UNITS.items():
            for ending in endings:
                for pattern in ("{}_{}", "{}({})", "{} ({})", "{} [{}]", "{}[{}]"):
                    names = [prefix + pattern.format(axis, ending) for axis in "xyz"]
                    if all(name in header for name in names):
                        return [header.index(name) for name in names], unit
        if all(prefix + axis in header for axis in "xyz"):
            return [header.index(prefix + axis) for axis in "xyz"], None
    if all(name in header for name in _NAPARI):
        return [header.index(name) for name in _NAPARI], "voxel"
    raise InputError(f"no columns x, y, z in the header ({', '.join(header)[:100]})", where=path)


def _to_voxels(positions: np.ndarray, unit: str, voxel_size: float | None, path: Path) -> np.ndarray:
    if unit == "voxel":
        return positions
    return positions * _ANGSTROM_PER[unit] / columns.required_voxel_size(voxel_size, "the table", path)


def _whole_numbers(cells: Sequence[str]) -> bool:
    """Whether a column holds whole numbers, apart from cells that are missing."""
    given = [cell for cell in cells if not columns.is_missing(cell)]
    return bool(given) and all(_whole(cell) for cell in given)


def _whole(cell: str) -> bool:
    try:
        return columns.parsed(cell).is_integer()
    except (ValueError, OverflowError):
        return False


def table_of(particles: Particles) -> dict[str, list[str]]:
    """The particles as columns of text, by name, positions in voxels; columns that the particles lack are left out."""
    table: dict[str, list[str]] = {}
    if particles.tomograms is not None:
        table["tomogram"] = particles.tomograms.tolist()
    table["class_label"] = [str(label) for label in particles.labels]
    if particles.class_names is not None:
        table["class_name"] = particles.class_names.tolist()
    for k, axis in enumerate("xyz"):
        table[f"{axis}_vox"] = [columns.number(value) for value in particles.positions_vox[:, k]]
    if particles.rotations is not None:
        angles = euler_from_matrix(particles.rotations, "deepfinder")
        for k, name in enumerate(_ANGLES):
            table[name] = ["" if np.isnan(a) else columns.number(round(float(a), 6)) for a in angles[:, k]]
    if particles.scores is not None:
        table["score"] = [columns.cell(value) for value in particles.scores]
    if particles.cluster_sizes is not None:
        table["cluster_size"] = [str(value) for value in particles.cluster_sizes]
    taken = {name.lower() for name in table} | {"x", "y", "z", *_TOMOGRAM, *_LABEL, *_NAME, *_SCORE, *_ANGSTROM_TABLES}
    for name, values in particles.extra.items():
        if name.lower() not in taken:
            table[name] = [columns.cell(value) for value in values]
    return table


def cells_in_angstrom(particles: Particles, voxel_size_angstrom: float) -> list[tuple[str, str, list[str]]]:
    """Tomogram, class and x, y, z in Å of each particle, as text; a class without a name is its label."""
    names = particles.labels.astype(str) if particles.class_names is None else particles.class_names
    tomograms = [""] * len(particles) if particles.tomograms is None else particles.tomograms.tolist()
    positions = particles.positions_vox * voxel_size_angstrom
    return [
        (tomogram, str(name), [columns.number(value) for value in position])
        for tomogram, name, position in zip(tomograms, names, positions, strict=True)
    ]


def write(path: Path, particles: Particles) -> None:
    """Write a table in voxels; a suffix `.tsv` separates by tabs."""
    table = table_of(particles)
    rows = [[table[name][i] for name in table] for i in range(len(particles))]
    text_table.write(path, rows, header=list(table), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")


OPTIONS = {"unit": "unit of bare x y z columns: voxel, angstrom or nanometre", "axes": AXES}

ASSUMPTIONS = (
    Assumption("unit", "voxel", "angstrom", "coordinates are taken as voxels", otherwise="unit=angstrom for Å"),
    Assumption("unit", "angstrom", "voxel", "coordinates are taken as Å", otherwise="unit=voxel for voxels"),
    ORDER_XYZ,
)

FORMAT = Format(
    name="csv",
    title="CSV or TSV table",
    suffixes=(".csv", ".tsv"),
    read=read,
    write=write,
    keeps=ALL_COLUMNS,
    options=OPTIONS,
    assumptions=ASSUMPTIONS,
)
