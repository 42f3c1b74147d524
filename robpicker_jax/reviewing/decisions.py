"""The file of a review: the edits of each tomogram, and which list they are of. The page, napari and `review` share it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robpicker_jax.reviewing.edits import ACTIONS, Edit, Review
from robpicker_jax.reviewing.items import ReviewList, fingerprint
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import read_json_object, write_text

VERSION = 1
_FIX = "use a file of decisions that the report's page, napari or `review` has saved"


@dataclass(frozen=True)
class TomogramDecisions:
    """The decisions on one tomogram's list.

    Attributes:
        name: the tomogram.
        list: fingerprint of the list (`items.fingerprint`).
        edits: the edits in their order.
        min_scores: smallest score of undecided picks, by class.
        voxel_size_angstrom: of the tomogram, with which the list was read; None where it was not known.
        shape_zyx: of the tomogram.
    """

    name: str
    list: str
    edits: Sequence[Edit]
    min_scores: Mapping[str, float] = field(default_factory=dict)
    voxel_size_angstrom: float | None = None
    shape_zyx: tuple[int, int, int] | None = None

    def review_of(self, given: ReviewList) -> Review:
        """The review that these decisions make of a list.

        Raises:
            InputError: they were made on another list.
        """
        if fingerprint(given.particles) != self.list:
            raise InputError(
                "the decisions were made on another list of this tomogram",
                where=self.name,
                fix="give the picks that were reviewed, unchanged",
            )
        return Review(given, self.edits)


@dataclass(frozen=True)
class Decisions:
    """The decisions on several tomograms.

    Attributes:
        run: what was reviewed, for people.
        class_names: the classes that the file names.
        tomograms: the decisions by tomogram.
    """

    run: str
    class_names: Sequence[str]
    tomograms: Mapping[str, TomogramDecisions]


def write_decisions(path: Path, run: str, reviews: Sequence[tuple[Review, Mapping[str, float]]]) -> None:
    """Write reviews, each with the smallest scores that it was made with."""
    names = list(dict.fromkeys(name for review, _ in reviews for name in review.given.class_names))
    content = {
        "review": VERSION,
        "run": run,
        "classes": names,
        "tomograms": [
            {
                "name": review.given.name,
                "list": fingerprint(review.given.particles),
                "voxel_size_angstrom": review.given.voxel_size_angstrom,
                "shape_zyx": review.given.shape_zyx,
                "min_scores": dict(min_scores),
                "edits": [_as_json(edit, review.given.class_names) for edit in review.edits],
            }
            for review, min_scores in reviews
        ],
    }
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_decisions(path: Path, class_names: Sequence[str] | None = None) -> Decisions:
    """Read a file of decisions.

    Args:
        path: the file.
        class_names: name of class 1, 2, … of the lists; by default those that the file names.

    Raises:
        InputError: damaged, of a newer version, or a class that is not among `class_names`.
    """
    content = read_json_object(path)
    if content.get("review") != VERSION:
        raise InputError(f"not decisions of version {VERSION}", where=path, fix=_FIX)
    try:
        classes = [str(name) for name in content["classes"]]
        names = list(classes if class_names is None else class_names)
        tomograms = [_tomogram(entry, names, path) for entry in content["tomograms"]]
        return Decisions(str(content["run"]), names, {entry.name: entry for entry in tomograms})
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"damaged: not a review's decisions ({error!r})", where=path, fix=_FIX) from None


def _tomogram(entry: Mapping[str, Any], names: Sequence[str], path: Path) -> TomogramDecisions:
    edits = [_edit(edit, names, path) for edit in entry["edits"]]
    least = {str(name): float(value) for name, value in entry.get("min_scores", {}).items()}
    size, shape = entry.get("voxel_size_angstrom"), entry.get("shape_zyx")
    if shape is not None:
        z, y, x = map(int, shape)
    return TomogramDecisions(
        str(entry["name"]),
        str(entry["list"]),
        edits,
        least,
        None if size is None else float(size),
        None if shape is None else (z, y, x),
    )


def _edit(entry: Mapping[str, Any], names: Sequence[str], path: Path) -> Edit:
    do, name, at = entry["do"], entry.get("class"), entry.get("at")
    if do not in ACTIONS:
        raise InputError(f"unknown edit {do!r}", where=path, fix=f"known: {', '.join(ACTIONS)}")
    if name is not None and name not in names:
        raise InputError(f"class {name!r} is not among the species", where=path, fix=f"known: {', '.join(names)}")
    x, y, z = (None, None, None) if at is None else map(float, at)
    return Edit(
        do,
        None if entry.get("item") is None else int(entry["item"]),
        None if name is None else list(names).index(name) + 1,
        None if x is None or y is None or z is None else (x, y, z),
    )


def _as_json(edit: Edit, names: Sequence[str]) -> dict[str, Any]:
    found = {"do": edit.do, "item": edit.item, "class": None if edit.label is None else names[edit.label - 1]}
    return {key: value for key, value in {**found, "at": edit.at}.items() if value is not None}
