"""STOPGAP motive lists (`data_stopgap_motivelist`): x = orig + shift, angles phi psi the in TOM's ZXZ convention.

The first voxel is 0, as the field's converters take it; `first_voxel=1` reads lists that count as MATLAB does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from robpicker_jax.annotations import columns, numbering, star
from robpicker_jax.annotations.format import BINNING, FIRST_VOXEL, FIRST_VOXEL_IS_0, VOXELS_NOT_PIXELS, Format, StandIn
from robpicker_jax.annotations.geometry import euler_from_matrix, matrix_from_euler
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.system.errors import InputError

_ORIGIN = ("orig_x", "orig_y", "orig_z")
_SHIFT = ("x_shift", "y_shift", "z_shift")
_ANGLES = ("phi", "psi", "the")
_HALVES = "rlnRandomSubset"


def read(
    path: Path,
    *,
    binning: float = 1.0,
    first_voxel: int = 0,
    tomogram_names: str | Path | None = None,
    class_labels: Mapping[str, int] | None = None,
) -> Particles:
    """Read a STOPGAP motive list.

    Args:
        path: the STAR file.
        binning: the list's voxels per voxel of the tomogram.
        first_voxel: how the list counts the first voxel, 0 or 1.
        tomogram_names: file that says which number is which tomogram; by default the one beside the list.
        class_labels: not used: STOPGAP's classes are numbers.

    Raises:
        InputError: not a motive list, or a malformed column.
    """
    columns.check_positive(binning=binning)
    tables = star.read_tables(path)
    table = star.find_table(tables, [" ".join(_ORIGIN)], None, path)
    if table is None:
        raise InputError("no motive list (orig_x, orig_y, orig_z …) in it", where=path)
    if not len(table["orig_x"]):
        return Particles.empty()

    def row(i: int) -> str:
        return f"row {i + 1}"

    positions = star.numbers(table, _ORIGIN, path) - first_voxel
    if star.has(table, _SHIFT):
        positions = positions + star.numbers(table, _SHIFT, path)
    rotations = (
        matrix_from_euler(star.optional_numbers(table, _ANGLES, path), "deepfinder")
        if star.has(table, _ANGLES)
        else None
    )
    labels = np.zeros(len(positions), np.int64)
    if "class" in table:
        labels = columns.optional_labels(table["class"].tolist(), "class", path, row)
    numbers = star.optional_numbers(table, ["tomo_num"], path) if "tomo_num" in table else None
    used = {*_ORIGIN, *_SHIFT, *_ANGLES, "class", "score", "tomo_num"}
    return Particles(
        positions / binning,
        labels,
        rotations=rotations,
        scores=star.optional_numbers(table, ["score"], path)[:, 0] if "score" in table else None,
        tomograms=None
        if numbers is None
        else numbering.named(columns.number_names(numbers[:, 0]), path, tomogram_names),
        extra={name: values for name, values in table.items() if name not in used},
    )


def write(path: Path, particles: Particles, *, binning: float = 1.0, first_voxel: int = 0) -> None:
    """Write a STOPGAP motive list; tomograms without a number in their name are numbered in order of appearance.

    Whole voxels go to `orig_?`, the rest to `?_shift`, as STOPGAP expects. Half sets are RELION's (`rlnRandomSubset`)
    where particles have them, else they alternate.
    """
    columns.check_positive(binning=binning)
    n = len(particles)
    positions = particles.positions_vox * binning + first_voxel
    whole = np.rint(positions)
    angles = np.zeros((n, 3)) if particles.rotations is None else euler_from_matrix(particles.rotations, "deepfinder")
    numbers = columns.tomogram_numbers(particles.tomograms, n)
    halves = particles.extra.get(_HALVES)
    second = np.arange(n) % 2 == 1 if halves is None else np.char.strip(np.asarray(halves, str)) == "2"
    table = {
        "motl_idx": np.arange(1, n + 1),
        "tomo_num": numbers,
        "object": np.ones(n, np.int64),
        "subtomo_num": np.arange(1, n + 1),
        "halfset": np.where(second, "B", "A"),
        **{name: whole[:, k].astype(np.int64) for k, name in enumerate(_ORIGIN)},
        "score": np.zeros(n) if particles.scores is None else columns.known_or_zero(particles.scores),
        **{name: positions[:, k] - whole[:, k] for k, name in enumerate(_SHIFT)},
        **{name: columns.known_or_zero(angles[:, k]) for k, name in enumerate(_ANGLES)},
        "class": particles.labels,
    }
    star.write_tables(path, {"stopgap_motivelist": table})


FORMAT = Format(
    name="stopgap",
    title="STOPGAP motive list",
    suffixes=(".star",),
    read=read,
    write=write,
    keeps=frozenset({"labels", "rotations", "scores"}),
    numbered=True,
    options={"binning": BINNING, "first_voxel": FIRST_VOXEL, "tomogram_names": numbering.TOMOGRAM_NAMES},
    assumptions=(VOXELS_NOT_PIXELS, FIRST_VOXEL_IS_0),
    renames={_HALVES: "halfset"},
    recognises=lambda start: b"stopgap_motivelist" in start or b"_motl_idx" in start,
    stands_in=(StandIn("rotations", "0 0 0"), StandIn("scores", "0")),
)
