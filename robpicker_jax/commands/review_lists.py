"""Decisions of a review carried out, and the lists that they leave written, for the command and for notebooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import FORMATS, Particles, write_annotations
from robpicker_jax.annotations.copick_json import REVIEWER
from robpicker_jax.datasets.copick_project import is_project, object_names, open_project
from robpicker_jax.datasets.pairing import letters
from robpicker_jax.picking.copick_files import CopickFiles
from robpicker_jax.picking.pick_files import PickTarget
from robpicker_jax.reviewing import ReviewList, read_decisions
from robpicker_jax.reviewing.reading import ReviewedTomogram
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.outputs import check_outputs

Done = tuple[ReviewList, Particles]
"""A list that was reviewed, and the one that the decisions leave."""

DEFAULT_FORMAT = "xml"


def carried_out(
    decisions: Sequence[Path],
    list_of: Callable[[ReviewedTomogram, Sequence[str]], ReviewList],
    *,
    voxel_size_angstrom: float | None = None,
    accepted_only: bool = False,
) -> list[Done]:
    """Carry decisions out on the lists that they were made on.

    Args:
        decisions: files of decisions.
        list_of: a tomogram and the names of the classes → the list that was reviewed.
        voxel_size_angstrom: by default that with which each list was reviewed.
        accepted_only: leave out what nobody decided on.

    Raises:
        InputError: two reviews of one tomogram, no decision at all, or a list that has changed since.
    """
    done: list[Done] = []
    for path in decisions:
        found = read_decisions(path)
        for entry in found.tomograms.values():
            if any(given.name == entry.name for given, _ in done):
                raise InputError(f"a second review of tomogram {entry.name}", where=path, fix="keep one of them")
            size = voxel_size_angstrom or entry.voxel_size_angstrom
            given = list_of(ReviewedTomogram(entry.name, size, entry.shape_zyx), found.class_names)
            review = entry.review_of(given)
            done.append((given, review.corrected(entry.min_scores, accepted_only=accepted_only)))
    if not done:
        raise InputError("no decision in it", where=decisions[0], fix="review a tomogram, and save the decisions")
    return done


def write_lists(
    out: Path,
    done: Sequence[Done],
    fmt: str | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    inputs: Sequence[Path | None] = (),
    overwrite: bool = False,
) -> list[Path]:
    """Write the list of each tomogram; the paths, one for each.

    Args:
        out: a folder, or the `copick_config.json` of a project, into whose overlay the lists then go.
        done: the lists.
        fmt: their format; None: XML, and of a project copick's.
        options: options of the format. copick's user and session are `REVIEWER`'s, unless they say otherwise.
        inputs: what the lists were made from, which is not replaced.
        overwrite: replace earlier lists.

    Raises:
        InputError: an unknown format or option, a list that exists, or one that the format or the project cannot hold.
    """
    if is_project(out):
        if fmt not in (None, "copick"):
            raise InputError("a copick project takes copick's picks alone", where="--out", fix="leave the format out")
        return _into_project(out, done, {**REVIEWER, **(options or {})}, overwrite)
    name = fmt or DEFAULT_FORMAT
    if name not in FORMATS:
        raise InputError(f"unknown format {name!r}", where="--format", fix=f"one of {', '.join(FORMATS)}")
    chosen = {**(REVIEWER if name == "copick" else {}), **(options or {})}
    paths = [out / FORMATS[name].file_name(given.name) for given, _ in done]
    check_outputs(paths, inputs=inputs, overwrite=overwrite)
    for path, (given, corrected) in zip(paths, done, strict=True):
        write_annotations(
            path,
            corrected,
            fmt=name,
            voxel_size_angstrom=given.voxel_size_angstrom,
            shape_zyx=given.shape_zyx,
            **chosen,
        )
    return paths


def _into_project(config: Path, done: Sequence[Done], options: dict[str, Any], overwrite: bool) -> list[Path]:
    """Write the lists as picks of their runs, each object's file also where nothing of it is left.

    Classes that the project has no object for, such as further species of a model, are left out where no particle has them.
    """
    known = {letters(name) for name in object_names(open_project(config))}
    writing: list[tuple[CopickFiles, PickTarget, list[Path], Particles]] = []
    for given, corrected in done:
        if given.voxel_size_angstrom is None:
            raise InputError("copick's positions are in Å, and the voxel size is not known", where=given.name)
        if not all(1 <= label <= len(given.class_names) for label in corrected.labels.tolist()):
            raise InputError("some of its particles are of an unknown class", where=given.name, fix="reclass them")
        used = set(corrected.labels.tolist())
        kept = {
            label: name
            for label, name in enumerate(given.class_names, start=1)
            if letters(name) in known or label in used
        }
        names = list(kept.values())
        files = CopickFiles.into(config, names, options)
        target = PickTarget(given.name, given.shape_zyx or (1, 1, 1), given.voxel_size_angstrom)
        files.check([target])
        labels = np.searchsorted(list(kept), corrected.labels) + 1  # the files count the kept classes alone
        writing.append((files, target, files.outputs(target, names), corrected.with_(labels=labels)))
    check_outputs([path for *_, outputs, _ in writing for path in outputs], overwrite=overwrite)
    return [files.write(target, corrected, outputs)[0].parent for files, target, outputs, corrected in writing]
