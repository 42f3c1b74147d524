"""copick picks: a JSON file per tomogram, object, user and session; a project folder holds many.

Locations are in Å, the centre of voxel 0 at 0; `transformation_` is the 4 × 4 matrix whose rotation maps the reference
frame to the tomogram's and whose translation t moves the particle on: its position is location + t. Some programs
repeat the location in t; a t that does so in every point of a file is not added. A project is laid out as
`ExperimentRuns/{run}/Picks/{user}_{session}_{object}.json`. Users, sessions and objects are written there without
underscores, which divide the name; the folder bears the run's name as it is. Schema: https://copick.github.io/copick/.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import columns
from robpicker_jax.annotations.format import Format, StandIn
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import write_text

PICKER = {"user_id": "robpicker", "session_id": "0"}
"""User and session of picks that a model or another picker made."""

REVIEWER = {"user_id": "review", "session_id": "1"}
"""User and session of lists that a person's review left; the page of a review writes the same."""

_REPEATED_ANGSTROM = 1e-3  # a translation that differs from the location by less repeats it


@dataclass(frozen=True)
class _Picks:
    """One picks file: what it says it holds, and the particles.

    Attributes:
        path: the file.
        run: name of the run, "" where neither file nor folder says it.
        object: name of the object.
        user: who made the picks, or the program.
        session: the session in which they were made.
        content: the file's JSON.
    """

    path: Path
    run: str
    object: str
    user: str
    session: str
    content: dict[str, Any]

    @property
    def source(self) -> str:
        """User and session, as files name them."""
        return f"{self.user}_{self.session}"


def read(
    path: Path,
    *,
    voxel_size_angstrom: float | None = None,
    class_labels: Mapping[str, int] | None = None,
    user: str | None = None,
    session: str | None = None,
    object: str | None = None,
) -> Particles:
    """Read a copick picks file, or the picks of a copick project or run folder.

    Args:
        path: the JSON file or the folder.
        voxel_size_angstrom: voxel size of the tomogram; by default the `voxel_spacing` that the file states.
        class_labels: label of each object name.
        user: take the picks of this user alone.
        session: take the picks of this session alone.
        object: take the picks of this object alone.

    Raises:
        InputError: not copick's schema, no voxel size, a folder without picks (of this user, session and object), or
            picks of one object in one run by several users or in several sessions, which are not to be added up.
    """
    files = [path]
    if path.is_dir():
        files = sorted(path.glob("**/Picks/*.json")) or sorted(path.glob("*.json"))
        if not files:
            raise InputError("no copick picks (Picks/*.json) in this folder", where=path)
    wanted = {"user": user, "session": session, "object": object}
    found = [_opened(file) for file in files]
    chosen = [picks for picks in found if _is_wanted(picks, wanted)]
    if not chosen:
        asked = ", ".join(f"{name} {value!r}" for name, value in wanted.items() if value is not None)
        there = sorted({f"{picks.object} of {picks.source}" for picks in found})
        raise InputError(f"no picks of {asked}", where=path, fix=f"it holds {_listed(there)}")
    _check_one_source(chosen, path)
    return Particles.concatenate([_particles(picks, voxel_size_angstrom, class_labels or {}) for picks in chosen])


def _is_wanted(picks: _Picks, wanted: Mapping[str, str | None]) -> bool:
    """Whether user, session and object are those asked for, by their name or as file names spell it."""
    return all(
        value is None or value == getattr(picks, name) or _plain(value) == _plain(getattr(picks, name))
        for name, value in wanted.items()
    )


def _check_one_source(found: Sequence[_Picks], path: Path) -> None:
    """Refuse to add up what several users, or several sessions, picked of one object in one run."""
    sources: dict[tuple[str, str], list[_Picks]] = {}
    for picks in found:
        sources.setdefault((picks.run, picks.object), []).append(picks)
    for (run, name), several in sources.items():
        if len(several) > 1:
            counts = sorted(f"user {p.user!r} session {p.session!r} ({len(p.content['points'])})" for p in several)
            raise InputError(
                f"{len(several)} lists of {name or 'picks'} in run {run or path.name}: {_listed(counts)}",
                where=path,
                fix="choose by the options user, session and object",
            )


def _listed(entries: Sequence[str], most: int = 6) -> str:
    return ", ".join(entries[:most]) + (f" and {len(entries) - most} more" if len(entries) > most else "")


def _opened(path: Path) -> _Picks:
    """A picks file and what it holds; what it does not say comes from its name and its folder."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"not readable as JSON ({error})", where=path) from None
    points = content.get("points") if isinstance(content, dict) else None
    if not isinstance(points, list):
        raise InputError("not copick picks: no list of points", where=path)
    if content.get("unit", "angstrom") != "angstrom":
        raise InputError(f"unit is {content.get('unit')!r}, not 'angstrom'", where=path)
    user, _, rest = path.stem.partition("_")
    session, _, name = rest.partition("_")
    in_project = path.parent.name == "Picks"
    named = (user, session, name) if in_project else ("", "", "")

    def said(key: str, otherwise: str) -> str:
        value = content.get(key)
        return otherwise if value is None or value == "" else str(value)

    return _Picks(
        path=path,
        run=said("run_name", path.parent.parent.name if in_project else ""),
        object=said("pickable_object_name", named[2]),
        user=said("user_id", named[0]),
        session=said("session_id", named[1]),
        content=content,
    )


def _particles(picks: _Picks, voxel_size: float | None, class_labels: Mapping[str, int]) -> Particles:
    path, content, points = picks.path, picks.content, picks.content["points"]
    if not points:
        return Particles.empty()
    spacing = voxel_size or _number(content.get("voxel_spacing"))
    if not 0 < spacing < np.inf:
        raise InputError("copick's locations are in Å", where=path, fix="give the voxel size")
    locations = np.array([_location(point, i, path) for i, point in enumerate(points)])
    matrices = np.array([_matrix(point, i, path) for i, point in enumerate(points)])
    rotations, shifts = matrices[:, :3, :3], np.nan_to_num(matrices[:, :3, 3])
    if np.allclose(shifts, locations, rtol=0, atol=_REPEATED_ANGSTROM):
        shifts = np.zeros_like(shifts)
    if not content.get("trust_orientation", True):
        rotations = np.full_like(rotations, np.nan)
    scores = np.array([_number(point.get("score")) for point in points])
    scores[~np.isfinite(scores)] = np.nan
    extra = {}
    if any(point.get("instance_id") for point in points):
        extra["instance_id"] = columns.typed([str(point.get("instance_id") or 0) for point in points])
    return Particles(
        (locations + shifts) / spacing,
        np.full(len(points), class_labels.get(picks.object, 0)),
        rotations=None if np.isnan(rotations).all() else rotations,
        scores=None if np.isnan(scores).all() else scores,
        class_names=np.full(len(points), picks.object) if picks.object else None,
        tomograms=np.full(len(points), picks.run) if picks.run else None,
        extra=extra,
    )


def _location(point: Any, i: int, path: Path) -> list[float]:
    location = point.get("location") if isinstance(point, dict) else None
    values = [_number(location.get(axis)) for axis in "xyz"] if isinstance(location, dict) else [np.nan]
    if not np.isfinite(values).all():
        raise InputError(f"point {i + 1}: no location with numbers x, y, z", where=path)
    return values


def _matrix(point: dict[str, Any], i: int, path: Path) -> np.ndarray:
    """The point's 4 × 4 matrix, NaN where it has none."""
    given = point.get("transformation_")
    if given is None:
        return np.full((4, 4), np.nan)
    try:
        matrix = np.array(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        matrix = np.zeros(())
    rotation = matrix[:3, :3] if matrix.shape == (4, 4) and np.isfinite(matrix).all() else np.zeros((3, 3))
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
        raise InputError(f"point {i + 1}: transformation_ is not a 4 x 4 matrix with a rotation in it", where=path)
    return matrix


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
    user_id: str = PICKER["user_id"],
    session_id: str = PICKER["session_id"],
) -> None:
    """Write copick picks: one file where `path` ends in `.json`, else a project folder, a file per run and object.

    Particles without a class name get `class{label}`; those without a tomogram go to run `tomogram`. In a project that
    exists, the files are added to its runs; other picks stay.

    Raises:
        InputError: the voxel size is not given, a single file would hold several objects or runs, or a run's name
            cannot be a folder's.
    """
    voxel_size = columns.required_voxel_size(voxel_size_angstrom, "copick", path)
    for target, (name, run, chosen) in _targets(path, particles, user_id, session_id).items():
        content = _content(chosen, name, run or None, voxel_size, user_id, session_id)
        write_text(target, json.dumps(content, indent=2) + "\n")


def files(
    path: Path, particles: Particles, *, user_id: str = PICKER["user_id"], session_id: str = PICKER["session_id"]
) -> list[Path]:
    """The files that `write` would write.

    Raises:
        InputError: as `write`.
    """
    return list(_targets(path, particles, user_id, session_id))


def _targets(path: Path, particles: Particles, user: str, session: str) -> dict[Path, tuple[str, str, Particles]]:
    """Object, run and particles of each file."""
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
    found: dict[Path, tuple[str, str, Particles]] = {}
    for name, run in groups:
        file = f"{_plain(user)}_{_plain(session)}_{_plain(name) or 'particle'}.json"
        target = path if single else path / "ExperimentRuns" / _run_folder(run, path) / "Picks" / file
        if target in found:
            other = found[target][0]
            raise InputError(
                f"objects {other!r} and {name!r} would have one file, {file}", where=path, fix="rename one"
            )
        found[target] = (name, run, particles.select((objects == name) & (runs == run)))
    return found


def _run_folder(run: str, path: Path) -> str:
    """The folder of a run, which bears the run's name as it is: copick finds the run by it."""
    if not run:
        return "tomogram"
    if run in (".", "..") or any(c in "/\\" or ord(c) < 32 for c in run):
        raise InputError(f"run {run!r} cannot be a folder's name", where=path, fix="give the tomograms plain names")
    return run


def _plain(name: str) -> str:
    """A user, session or object fit for copick's file names, which underscores divide."""
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
    stands_in=(
        StandIn("rotations", "the identity (with trust_orientation false for the whole list)"),
        StandIn("scores", "1"),
    ),
    files=files,
    options={
        "user": "copick's user whose picks are read",
        "session": "copick's session whose picks are read",
        "object": "copick's object whose picks are read",
        "user_id": "copick's user of the picks that are written",
        "session_id": "copick's session of the picks that are written",
    },
)
