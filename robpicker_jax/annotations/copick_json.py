"""copick picks: a JSON file per tomogram, object, user and session; a project folder holds many.

Locations are in Å, the centre of voxel 0 at 0; `transformation_` is the 4 × 4 matrix whose rotation maps the reference
frame to the tomogram's (its translation repeats the location or is zero, and is not read). A project is laid out as
`ExperimentRuns/{run}/Picks/{user}_{session}_{object}.json`. Schema: https://copick.github.io/copick/.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import columns
from robpicker_jax.annotations.format import Format
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import write_text


def read(
    path: Path,
    *,
    voxel_size_angstrom: float | None = None,
    class_labels: Mapping[str, int] | None = None,
) -> Particles:
    """Read a copick picks file, or all picks of a copick project or run folder.

    Args:
        path: the JSON file or the folder.
        voxel_size_angstrom: voxel size of the tomogram; by default the `voxel_spacing` that the file states.
        class_labels: label of each object name.

    Raises:
        InputError: not copick's schema, no voxel size, or a folder without picks.
    """
    if path.is_dir():
        files = sorted(path.glob("**/Picks/*.json")) or sorted(path.glob("*.json"))
        if not files:
            raise InputError("no copick picks (Picks/*.json) in this folder", where=path)
        return Particles.concatenate([_read(file, voxel_size_angstrom, class_labels or {}) for file in files])
    return _read(path, voxel_size_angstrom, class_labels or {})


def _read(path: Path, voxel_size: float | None, class_labels: Mapping[str, int]) -> Particles:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"not readable as JSON ({error})", where=path) from None
    points = content.get("points") if isinstance(content, dict) else None
    if not isinstance(points, list):
        raise InputError("not copick picks: no list of points", where=path)
    if content.get("unit", "angstrom") != "angstrom":
        raise InputError(f"unit is {content.get('unit')!r}, not 'angstrom'", where=path)
    if not points:
        return Particles.empty()
    spacing = voxel_size or content.get("voxel_spacing")
    if not isinstance(spacing, int | float) or not 0 < spacing < np.inf:
        raise InputError("copick's locations are in Å", where=path, fix="give the voxel size")
    locations = np.array([_location(point, i, path) for i, point in enumerate(points)])
    rotations = np.array([_rotation(point, i, path) for i, point in enumerate(points)])
    if not content.get("trust_orientation", True):
        rotations[:] = np.nan
    scores = np.array([_number(point.get("score")) for point in points])
    name = str(content.get("pickable_object_name") or "")
    run = content.get("run_name") or (path.parent.parent.name if path.parent.name == "Picks" else None)
    extra = {}
    if any(point.get("instance_id") for point in points):
        extra["instance_id"] = columns.typed([str(point.get("instance_id") or 0) for point in points])
    return Particles(
        locations / spacing,
        np.full(len(points), class_labels.get(name, 0)),
        rotations=None if np.isnan(rotations).all() else rotations,
        scores=None if np.isnan(scores).all() else scores,
        class_names=np.full(len(points), name) if name else None,
        tomograms=np.full(len(points), str(run)) if run else None,
        extra=extra,
    )


def _location(point: Any, i: int, path: Path) -> list[float]:
    location = point.get("location") if isinstance(point, dict) else None
    values = [_number(location.get(axis)) for axis in "xyz"] if isinstance(location, dict) else [np.nan]
    if not np.isfinite(values).all():
        raise InputError(f"point {i + 1}: no location with numbers x, y, z", where=path)
    return values


def _rotation(point: dict[str, Any], i: int, path: Path) -> np.ndarray:
    given = point.get("transformation_")
    if given is None:
        return np.full((3, 3), np.nan)
    try:
        matrix = np.array(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        matrix = np.zeros(())
    rotation = matrix[:3, :3] if matrix.shape == (4, 4) else np.zeros((3, 3))
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
        raise InputError(f"point {i + 1}: transformation_ is not a 4 x 4 matrix with a rotation in it", where=path)
    return rotation


def _number(value: Any) -> float:
    try:
        return float(value) if isinstance(value, int | float) else np.nan
    except OverflowError:
        return np.nan


def write(
    path: Path,
    particles: Particles,
    *,
    voxel_size_angstrom: float | None = None,
    user_id: str = "robpicker",
    session_id: str = "0",
) -> None:
    """Write copick picks: one file where `path` ends in `.json`, else a project folder, a file per run and object.

    Particles without a class name get `class{label}`; those without a tomogram go to run `tomogram`.

    Raises:
        InputError: the voxel size is not given, or a single file would hold several objects or runs.
    """
    voxel_size = columns.required_voxel_size(voxel_size_angstrom, "copick", path)
    n = len(particles)
    objects = (
        np.array([f"class{label}" for label in particles.labels])
        if particles.class_names is None
        else particles.class_names
    )
    runs = np.full(n, "") if particles.tomograms is None else particles.tomograms
    groups = dict.fromkeys(zip(objects.tolist(), runs.tolist(), strict=True)) or {("", ""): None}
    single = path.suffix.lower() == ".json"
    if single and len(groups) > 1:
        raise InputError(
            f"copick keeps one object of one run in a file, and there are {len(groups)}",
            where=path,
            fix="give a folder, which becomes a copick project",
        )
    for name, run in groups:
        chosen = particles.select((objects == name) & (runs == run))
        file = f"{_plain(user_id)}_{_plain(session_id)}_{_plain(name) or 'particle'}.json"
        target = path if single else path / "ExperimentRuns" / (_plain(run) or "tomogram") / "Picks" / file
        content = _content(chosen, name, run or None, voxel_size, user_id, session_id)
        write_text(target, json.dumps(content, indent=2) + "\n")


def _plain(name: str) -> str:
    """A name fit for copick's file names, which underscores and slashes divide."""
    return "".join(c if c.isalnum() or c in "-." else "-" for c in name).lstrip(".")


def _content(
    particles: Particles, name: str, run: str | None, voxel_size: float, user_id: str, session_id: str
) -> dict[str, Any]:
    rotations = particles.rotations
    known = np.zeros(len(particles), bool) if rotations is None else np.isfinite(rotations).all(axis=(1, 2))
    instances = particles.extra.get("instance_id")
    points = []
    for i, position in enumerate(particles.positions_vox * voxel_size):
        matrix = np.eye(4)
        if rotations is not None and known[i]:
            matrix[:3, :3] = rotations[i]
        score = 1.0 if particles.scores is None or np.isnan(particles.scores[i]) else float(particles.scores[i])
        points.append(
            {
                "location": dict(zip("xyz", map(float, position), strict=True)),
                "transformation_": matrix.tolist(),
                "instance_id": int(instances[i]) if instances is not None and instances.dtype.kind == "i" else 0,
                "score": score,
            }
        )
    return {
        "pickable_object_name": name,
        "user_id": user_id,
        "session_id": session_id,
        "run_name": run,
        "voxel_spacing": float(voxel_size),
        "unit": "angstrom",
        "points": points,
        "trust_orientation": bool(known.all() and len(known)),
    }


FORMAT = Format(
    name="copick",
    title="copick picks, Å",
    suffixes=(".json",),
    read=read,
    write=write,
    keeps=frozenset({"rotations", "scores", "class_names", "tomograms"}),
    unit="angstrom",
    is_folder=True,
    options={"user_id": "copick's user of the picks", "session_id": "copick's session of the picks"},
)
