"""EM motive lists of TOM, AV3 and their kin: a 20 × n table of float32 in an EM file.

Rows, counted from 1: 1 score, 4 particle, 5 tomogram, 8 to 10 position, 11 to 13 shift, 17 phi, 18 psi, 19 theta, 20
class. x = position + shift. The first voxel is 0, as the field's converters take it; `first_voxel=1` reads lists that
count as MATLAB does. EM header: 512 bytes, machine code in byte 0 (6: PC), data type in byte 3 (5: float32), sizes in
bytes 4 to 15.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from robpicker_jax.annotations import columns, numbering
from robpicker_jax.annotations.format import BINNING, FIRST_VOXEL, FIRST_VOXEL_IS_0, VOXELS_NOT_PIXELS, Format, StandIn
from robpicker_jax.annotations.geometry import euler_from_matrix, matrix_from_euler
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import atomic_path

_HEADER = 512
_ROWS = 20
_WHOLE_NUMBERS = 1 << 24  # up to here float32 holds every whole number
_BIG_ENDIAN = {0, 3, 5}  # OS-9, SGI, Mac
_TYPES = {1: "i1", 2: "i2", 4: "i4", 5: "f4", 9: "f8"}
_KEPT = {2: "motl_2", 3: "motl_3", 4: "motl_4", 6: "motl_6", 7: "motl_7", 14: "motl_14", 15: "motl_15", 16: "motl_16"}


def read(
    path: Path, *, binning: float = 1.0, first_voxel: int = 0, tomogram_names: str | Path | None = None
) -> Particles:
    """Read an EM motive list.

    Args:
        path: the file.
        binning: the list's voxels per voxel of the tomogram.
        first_voxel: how the list counts the first voxel, 0 or 1.
        tomogram_names: file that says which number is which tomogram; by default the one beside the list.

    Raises:
        InputError: not an EM file, truncated, not 20 rows, or numbers that are not finite.
    """
    columns.check_positive(binning=binning)
    content = path.read_bytes()
    if len(content) < _HEADER:
        raise InputError(f"not an EM file: {len(content)} bytes, less than a header", where=path)
    order: Literal["<", ">"] = ">" if content[0] in _BIG_ENDIAN else "<"
    if content[3] not in _TYPES:
        raise InputError(f"not an EM motive list: data type {content[3]}", where=path)
    dtype = np.dtype(_TYPES[content[3]]).newbyteorder(order)
    rows, n, sections = (int(size) for size in np.frombuffer(content, np.dtype("i4").newbyteorder(order), 3, 4))
    if rows != _ROWS or n < 0 or sections != 1:
        raise InputError(f"not a motive list: {rows} x {n} x {sections} numbers, not {_ROWS} x n x 1", where=path)
    wanted = _HEADER + rows * n * dtype.itemsize
    if len(content) < wanted:
        raise InputError(f"truncated: {len(content)} bytes, but the header announces {wanted}", where=path)
    with np.errstate(invalid="ignore"):  # damaged numbers are refused below
        table = np.frombuffer(content, dtype, rows * n, _HEADER).reshape(n, rows).astype(np.float64)
    if not n:
        return Particles.empty()
    bad = np.argwhere(~np.isfinite(table[:, 7:13]))
    if len(bad):
        raise InputError(f"particle {bad[0, 0] + 1}: row {bad[0, 1] + 8} is not a finite number", where=path)
    table[~np.isfinite(table)] = np.nan
    labels = np.maximum(table[:, 19], 0).tolist()
    return Particles(
        (table[:, 7:10] + table[:, 10:13] - first_voxel) / binning,
        columns.optional_labels(labels, "row 20", path, lambda i: f"particle {i + 1}"),
        rotations=matrix_from_euler(table[:, 16:19], "deepfinder"),
        scores=table[:, 0],
        tomograms=numbering.named(columns.number_names(table[:, 4]), path, tomogram_names),
        extra={name: table[:, row - 1] for row, name in _KEPT.items()},
    )


def write(path: Path, particles: Particles, *, binning: float = 1.0, first_voxel: int = 0) -> None:
    """Write an EM motive list, float32; tomograms without a number for a name are numbered in order of appearance."""
    columns.check_positive(binning=binning)
    n = len(particles)
    table = np.zeros((n, _ROWS), "<f4")
    table[:, 3] = np.arange(1, n + 1)
    for row, name in _KEPT.items():
        if name in particles.extra and particles.extra[name].dtype.kind in "iuf":
            table[:, row - 1] = columns.known_or_zero(particles.extra[name])
    table[:, 0] = 0 if particles.scores is None else columns.known_or_zero(particles.scores)
    table[:, 4] = columns.tomogram_numbers(particles.tomograms, n, largest=_WHOLE_NUMBERS)
    table[:, 7:10] = particles.positions_vox * binning + first_voxel
    if particles.rotations is not None:
        table[:, 16:19] = columns.known_or_zero(euler_from_matrix(particles.rotations, "deepfinder"))
    table[:, 19] = particles.labels
    header = bytearray(_HEADER)
    header[0], header[3] = 6, 5
    header[4:16] = np.array([_ROWS, n, 1], "<i4").tobytes()
    with atomic_path(path) as temporary:
        temporary.write_bytes(bytes(header) + table.tobytes())


FORMAT = Format(
    name="em",
    title="EM motive list (TOM, AV3)",
    suffixes=(".em",),
    read=read,
    write=write,
    keeps=frozenset({"labels", "rotations", "scores"}),
    single_precision=True,
    numbered=True,
    largest_label=_WHOLE_NUMBERS,
    options={"binning": BINNING, "first_voxel": FIRST_VOXEL, "tomogram_names": numbering.TOMOGRAM_NAMES},
    assumptions=(VOXELS_NOT_PIXELS, FIRST_VOXEL_IS_0),
    stands_in=(StandIn("rotations", "0 0 0"), StandIn("scores", "0")),
)
