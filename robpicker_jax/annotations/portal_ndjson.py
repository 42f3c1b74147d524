"""The cryoET Data Portal's points: one JSON object a line (`.ndjson`).

`location` holds x, y, z in voxels, the centre of the first voxel at 0. `xyz_rotation_matrix`, of an `orientedPoint`, maps
the reference frame to the tomogram's; a `point` has none. `instance_id`, of an `instancePoint`, is kept. What the points
are and which tomogram they are of stands in the metadata beside the file, not in it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import columns, text_table
from robpicker_jax.annotations.format import Format
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import write_text

_TYPES = ("point", "orientedPoint", "instancePoint")


def read(path: Path) -> Particles:
    """Read points of the cryoET Data Portal.

    Raises:
        InputError: a line that is no JSON, of another type, without x, y, z, or with a matrix that is no rotation.
    """
    lines = [(i, line) for i, line in enumerate(text_table.read_lines(path), start=1) if line.strip()]
    if not lines:
        return Particles.empty()
    points = [_point(line, i, path) for i, line in lines]

    def row(index: int) -> str:
        return f"line {lines[index][0]}"

    locations = [point["location"] if isinstance(point.get("location"), dict) else {} for point in points]
    positions = [columns.floats([place.get(axis, "") for place in locations], axis, path, row) for axis in "xyz"]
    rotations = np.array([_rotation(point, row(index), path) for index, point in enumerate(points)])
    extra = {}
    if any("instance_id" in point for point in points):
        extra["instance_id"] = columns.typed([str(point.get("instance_id", 0)) for point in points])
    return Particles(
        np.stack(positions, axis=1),
        np.zeros(len(points), np.int32),
        rotations=None if np.isnan(rotations).all() else rotations,
        extra=extra,
    )


def _point(line: str, number: int, path: Path) -> dict[str, Any]:
    try:
        point = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"line {number}: not readable as JSON ({error})", where=path) from None
    if not isinstance(point, dict) or point.get("type", "point") not in _TYPES:
        raise InputError(f"line {number}: no point ({', '.join(_TYPES)})", where=path)
    return point


def _rotation(point: dict[str, Any], row: str, path: Path) -> np.ndarray:
    given = point.get("xyz_rotation_matrix")
    if given is None:
        return np.full((3, 3), np.nan)
    try:
        matrix = np.array(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        matrix = np.zeros(())
    if matrix.shape != (3, 3) or not np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-3) or np.linalg.det(matrix) < 0:
        raise InputError(f"{row}: xyz_rotation_matrix is not a 3 x 3 rotation", where=path)
    return matrix


def write(path: Path, particles: Particles) -> None:
    """Write oriented points where the orientation is known, plain points where it is not."""
    lines = []
    for i, position in enumerate(particles.positions_vox):
        point: dict[str, Any] = {"type": "point", "location": dict(zip("xyz", map(float, position), strict=True))}
        if particles.rotations is not None and np.isfinite(particles.rotations[i]).all():
            point |= {"type": "orientedPoint", "xyz_rotation_matrix": particles.rotations[i].tolist()}
        lines.append(json.dumps(point) + "\n")
    write_text(path, "".join(lines))


FORMAT = Format(
    name="ndjson",
    title="cryoET Data Portal points",
    suffixes=(".ndjson",),
    read=read,
    write=write,
    keeps=frozenset({"rotations"}),
)
