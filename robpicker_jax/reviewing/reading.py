"""The lists that are reviewed, from disk: lists of picks in any format, those of a copick project, or an audit's table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import Particles, read_annotations
from robpicker_jax.annotations.copick_json import PICKER
from robpicker_jax.annotations.names import NameRule
from robpicker_jax.config import CopickConfig
from robpicker_jax.datasets.copick_project import is_project, project_lists
from robpicker_jax.datasets.lists import read_lists
from robpicker_jax.datasets.pairing import DEFAULT_RULE, letters
from robpicker_jax.reviewing.items import ReviewList, is_audit
from robpicker_jax.system.errors import InputError

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class ReviewedTomogram:
    """A tomogram whose list is reviewed.

    Attributes:
        name: its name.
        voxel_size_angstrom: None where it is not known.
        shape_zyx: None where it is not known.
    """

    name: str
    voxel_size_angstrom: float | None = None
    shape_zyx: Shape | None = None


def review_lists(
    path: Path,
    tomograms: Sequence[ReviewedTomogram],
    class_names: Sequence[str],
    *,
    options: Mapping[str, Any] | None = None,
    fmt: str | None = None,
    rule: NameRule = DEFAULT_RULE,
) -> list[ReviewList]:
    """The list of each tomogram.

    Args:
        path: a list, a folder of lists, a copick project, or an audit's table `audit.csv`. Of a project, the picks of
            `pick` are taken; the options `user` and `session` choose others.
        tomograms: the tomograms.
        class_names: name of class 1, 2, ….
        options: how the lists are read, as `data.annotation_options` has it.
        fmt: their format; by default suffix and content decide.
        rule: which names mean the same tomogram.

    Raises:
        InputError: no list of a tomogram, or whatever is wrong with a list.
    """
    read = _reader(path, class_names, options, fmt, rule)
    found = []
    for tomogram, given in zip(tomograms, _given(read, path, tomograms, class_names, rule), strict=True):
        if given is None:
            lists = read(tomogram.voxel_size_angstrom, tomogram.shape_zyx)
            there = ", ".join(list(lists)[:4]) + (" …" if len(lists) > 4 else "")
            raise InputError(
                f"no list of tomogram {tomogram.name}",
                where=path,
                fix=f"call it {tomogram.name}.xml; there are {there}",
            )
        found.append(given)
    return found


def lists_that_are(
    path: Path,
    tomograms: Sequence[ReviewedTomogram],
    class_names: Sequence[str],
    *,
    options: Mapping[str, Any] | None = None,
    fmt: str | None = None,
    rule: NameRule = DEFAULT_RULE,
) -> list[ReviewList | None]:
    """The list of each tomogram, None where it has none; arguments as for `review_lists`.

    Raises:
        InputError: whatever is wrong with a list.
    """
    return _given(_reader(path, class_names, options, fmt, rule), path, tomograms, class_names, rule)


Read = Callable[[float | None, Shape | None], dict[str, Particles]]
"""Voxel size and shape of a tomogram → all lists as read with these, by tomogram."""


def _given(
    read: Read, path: Path, tomograms: Sequence[ReviewedTomogram], class_names: Sequence[str], rule: NameRule
) -> list[ReviewList | None]:
    found: list[ReviewList | None] = []
    for tomogram in tomograms:
        size, shape = tomogram.voxel_size_angstrom, tomogram.shape_zyx
        lists = read(size, shape)
        matching = rule.matching(tomogram.name, lists)
        if not matching and len(lists) == len(tomograms) == 1 and not is_project(path):
            matching = list(lists)  # one list for one tomogram needs no name
        particles = lists[matching[0]] if matching else None
        if particles is None:
            found.append(None)
        elif is_audit(particles):
            found.append(ReviewList.of_audit(tomogram.name, particles, class_names, size, shape))
        else:
            found.append(ReviewList(tomogram.name, particles, class_names, None, size, shape))
    return found


def _reader(
    path: Path, class_names: Sequence[str], options: Mapping[str, Any] | None, fmt: str | None, rule: NameRule
) -> Read:
    @lru_cache
    def read(voxel_size: float | None, shape: Shape | None) -> dict[str, Particles]:
        if is_project(path):
            return _of_project(path, class_names, options or {}, voxel_size)
        return read_lists(
            path,
            fmt=fmt,
            voxel_size_angstrom=voxel_size,
            shape_zyx=shape,
            class_names=class_names,
            allow_empty=True,
            options=options,
            rule=rule,
            truth=False,
        )

    return read


def _of_project(
    path: Path, class_names: Sequence[str], options: Mapping[str, Any], voxel_size: float | None
) -> dict[str, Particles]:
    """The picks of a copick project by run, of the objects that are among the classes."""
    further = {name: value for name, value in options.items() if name not in ("user", "session")}
    if "user" in options:
        user, session = str(options["user"]), options.get("session")
    else:
        user, session = PICKER["user_id"], options.get("session", PICKER["session_id"])
    section = CopickConfig(user=user, session=None if session is None else str(session))
    labels = {letters(name): label for label, name in enumerate(class_names, start=1)}
    found = {}
    for run, lists in project_lists(path, section).items():
        parts = []
        for name, file in lists:
            if letters(name) not in labels:
                continue
            label = labels[letters(name)]
            part = read_annotations(file, fmt="copick", voxel_size_angstrom=voxel_size, allow_empty=True, **further)
            names = np.full(len(part), class_names[label - 1])
            parts.append(part.with_(labels=np.full(len(part), label), class_names=names))
        if parts:
            found[run] = Particles.concatenate(parts)
    if not found:
        what = f"no picks by {user}" + ("" if session is None else f" in session {session}")
        fix = "pick into it (pick --out copick_config.json), or say whose picks with --picks-option user=NAME"
        raise InputError(what, where=path, fix=fix)
    return found
