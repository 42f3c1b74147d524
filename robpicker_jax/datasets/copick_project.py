"""copick projects as data sets: runs are tomograms, objects are species, picks are lists; opened by the copick library.

A project is named by its configuration, `copick_config.json`. Which runs are trained on, which voxel spacing and type of
tomogram they take, and whose picks count, stands in the section `data.copick`. Tomograms and picks are read from where
the library says they lie, by the same readers as everywhere else, so they have to lie in a file system of this machine.
"""

from __future__ import annotations

import fnmatch
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robpicker_jax.annotations.copick_json import PICKER, REVIEWER
from robpicker_jax.config import CopickConfig
from robpicker_jax.datasets.discovery import SPLITS, TomogramFiles
from robpicker_jax.system.errors import InputError


def is_project(path: str | Path) -> bool:
    """Whether a file is the configuration of a copick project."""
    path = Path(path)
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "pickable_objects" in content


def open_project(path: str | Path) -> Any:
    """The project's root, as the copick library gives it.

    Raises:
        InputError: the library is not installed, or cannot open the project.
    """
    with _logging_as_it_was():
        try:
            import copick
        except ImportError:
            fix = "pip install 'robpicker-jax[copick]'"
            raise InputError("a copick project needs the package copick", where=path, fix=fix) from None
        try:
            return copick.from_file(str(path))
        except Exception as error:  # whatever the library raises, the project is at fault
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"cannot be opened by the copick library ({reason[:160]})", where=path) from None


@contextmanager
def _logging_as_it_was() -> Iterator[None]:
    """Undo what the library does to the root logger, which would print the remarks of every other library too.

    Handlers are taken off before, since the library closes those that it finds, and a closed file takes no more lines.
    """
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers.clear()
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def project_tomograms(
    path: str | Path, section: CopickConfig, *, picks: bool = True, only: Sequence[str] = ()
) -> dict[str, list[TomogramFiles]]:
    """The tomograms of a project by split, each with the picks of its objects as lists by class.

    Runs that no split names are of `test`.

    Args:
        path: the project's configuration.
        section: which runs, tomograms and picks to take.
        picks: whether picks are looked for.
        only: runs that are taken, by name or by patterns such as "TS_0*"; none: all.

    Raises:
        InputError: a run that does not exist or is in two splits, a pattern that fits no run, no or several tomograms that
            fit in one run, a run of train, meta or val that the chosen users did not pick although others did, or picks of
            several users or sessions between which nobody chose.
    """
    project = open_project(path)
    runs = {run.name: run for run in project.runs}
    split_of: dict[str, str] = {}
    for split in SPLITS:
        for name in getattr(section, split):
            if name not in runs:
                listed = ", ".join(sorted(runs)[:6]) or "none"
                raise InputError(f"data.copick.{split}: no run {name!r}", where=path, fix=f"its runs: {listed}")
            if split_of.setdefault(name, split) != split:
                raise InputError(f"data.copick: run {name!r} is in {split_of[name]} and {split}", where=path)
    for pattern in only:
        if not any(_is_meant(name, [pattern]) for name in runs):
            listed = ", ".join(sorted(runs)[:6]) or "none"
            raise InputError(f"no run {pattern!r}", where=path, fix=f"its runs: {listed}")
    found: dict[str, list[TomogramFiles]] = {split: [] for split in SPLITS}
    for name, run in sorted(runs.items()):
        if only and not _is_meant(name, only):
            continue
        if section.test and name not in split_of and not only:
            continue
        split = split_of.get(name, "test")
        volume = _volume(run, section, path)
        if volume is None and name not in split_of and name not in only:
            continue  # a run without a tomogram of this kind, which nobody asked for
        if volume is None:
            raise InputError(f"run {name!r} has no tomogram {_wanted(section)}", where=path, fix=_SPACING)
        lists = _lists(run, section, path) if picks else ()
        if picks and not lists and split != "test":
            _refuse_unpicked(run, split, section, path)
        found[split].append(TomogramFiles(name, split, volume, class_lists=lists))
    return found


def _is_meant(name: str, patterns: Sequence[str]) -> bool:
    """Whether a run is named, or matches one of the patterns."""
    return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


_SPACING = "set data.copick.tomo_type and data.copick.voxel_spacing_angstrom"


def _wanted(section: CopickConfig) -> str:
    size = "" if section.voxel_spacing_angstrom is None else f" at {section.voxel_spacing_angstrom:g} Å"
    return f"of type {section.tomo_type!r}{size}"


def _volume(run: Any, section: CopickConfig, path: str | Path) -> Path | None:
    """The one tomogram of a run that fits; None where there is none."""
    wanted = section.voxel_spacing_angstrom
    spacings = [s for s in run.voxel_spacings if wanted is None or abs(s.voxel_size - wanted) < 1e-3 * wanted]
    fitting = [tomogram for spacing in spacings for tomogram in spacing.get_tomograms(section.tomo_type)]
    if not fitting:
        return None
    if len({tomogram.voxel_spacing.voxel_size for tomogram in fitting}) > 1:
        sizes = ", ".join(f"{tomogram.voxel_spacing.voxel_size:g}" for tomogram in fitting)
        raise InputError(f"run {run.name!r} has tomograms at {sizes} Å", where=path, fix=_SPACING)
    tomogram = fitting[0]
    return _local(tomogram.static_path if tomogram.read_only else tomogram.overlay_path, path)


def project_lists(path: str | Path, section: CopickConfig) -> dict[str, tuple[tuple[str, Path], ...]]:
    """(object, picks) of each run that the chosen users picked, by run; the project need not hold its tomogram.

    Raises:
        InputError: as `project_tomograms`, of picks.
    """
    runs = sorted(open_project(path).runs, key=lambda run: str(run.name))
    found = {str(run.name): _lists(run, section, path) for run in runs}
    return {name: lists for name, lists in found.items() if lists}


def _lists(run: Any, section: CopickConfig, path: str | Path) -> tuple[tuple[str, Path], ...]:
    """(object, picks) of a run, by the first of the chosen users who picked it."""
    for preferred in section.prefer:
        user, _, session = preferred.partition("/")
        if found := _lists_of(run, user, session or None, path):
            return found
    return _lists_of(run, section.user, section.session, path)


def _refuse_unpicked(run: Any, split: str, section: CopickConfig, path: str | Path) -> None:
    """Refuse a run that is to be trained or judged by, and that others picked than those who were chosen."""
    others = sorted({(str(picks.user_id), str(picks.session_id)) for picks in run.picks})
    if not others:
        return  # whoever needs its particles says what is missing
    chosen = [*section.prefer, *([section.user] if section.user else [])]
    asked = f" by {' or '.join(chosen)}" if chosen else ""
    asked += f" in session {section.session}" if section.session else ""
    listed = ", ".join(f"{user}/{session}" for user, session in others)
    reviewed = (REVIEWER["user_id"], REVIEWER["session_id"])
    people = [other for other in others if other != (PICKER["user_id"], PICKER["session_id"])] or others
    user, session = reviewed if reviewed in others else people[0]
    raise InputError(
        f"data.copick.{split}: run {run.name!r} has no picks{asked}; it has those of {listed}",
        where=path,
        fix=f"say whose count first, such as data.copick.prefer: [{user}/{session}], or name the run in no split",
    )


def _lists_of(run: Any, user: str | None, session: str | None, path: str | Path) -> tuple[tuple[str, Path], ...]:
    """(object, picks) of a run by one user and session, or by the only ones."""
    chosen: dict[str, list[Any]] = {}
    for picks in run.get_picks(user_id=user, session_id=session):
        chosen.setdefault(picks.pickable_object_name, []).append(picks)
    for name, several in chosen.items():
        if len(several) > 1:
            sources = ", ".join(f"user {picks.user_id} session {picks.session_id}" for picks in several)
            raise InputError(
                f"run {run.name!r} has several picks of {name!r}: {sources}",
                where=path,
                fix="choose one with data.copick.user and data.copick.session, or say with data.copick.prefer whose go first",
            )
    return tuple((name, _local(picks.path, path)) for name, (picks,) in sorted(chosen.items()))


def _local(location: str, path: str | Path) -> Path:
    found = Path(location)
    if not found.exists():
        raise InputError(
            f"{location} does not lie in a file system of this machine", where=path, fix="copy the project here first"
        )
    return found


def local_overlay(project: Any, path: str | Path) -> Path:
    """The folder of the project's overlay, where new picks go.

    Raises:
        InputError: it does not lie in a file system of this machine.
    """
    return _local(str(project.root_overlay), path)


def results_folder(path: Path) -> Path:
    """Where a command that writes to `--out PATH` keeps its results and records: a project's overlay, else the folder.

    Raises:
        InputError: a project that cannot be opened, or whose overlay does not lie in a file system of this machine.
    """
    return local_overlay(open_project(path), path) if is_project(path) else path


def object_names(project: Any) -> Sequence[str]:
    """Names of the project's objects that are particles."""
    return [entry.name for entry in project.config.pickable_objects if entry.is_particle]
