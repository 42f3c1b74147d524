"""Candidates that a limit of picking dropped: all of them counted by class and limit, the best ones kept for the viewer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path

import numpy as np

from robpicker_jax.annotations import Particles, read_annotations
from robpicker_jax.annotations.names import NameRule
from robpicker_jax.datasets.copick_project import results_folder
from robpicker_jax.datasets.pairing import DEFAULT_RULE
from robpicker_jax.picking.rejection import REASONS
from robpicker_jax.reporting.style import class_colours, colour_of
from robpicker_jax.system.errors import InputError

FOLDER = "rejected"
"""Where `pick --rejected` puts the lists, beside those of the picks."""
COLUMN = "rejected_by"
MOST_SHOWN = 300
"""Candidates of each limit that a tomogram keeps for the viewer."""

Counts = Mapping[str, Mapping[str, int]]
"""Class → limit → number of candidates; limits that dropped none may be missing."""


@dataclass(frozen=True, eq=False)
class Rejected:
    """What limits dropped of one tomogram.

    Attributes:
        counts: how many of each class each limit dropped.
        shown: the best of each limit, at most `MOST_SHOWN`, with the limit in the column `rejected_by`.
    """

    counts: Counts
    shown: Particles

    def __post_init__(self) -> None:
        if COLUMN not in self.shown.extra:
            raise ValueError(f"the candidates lack the column {COLUMN}")

    @property
    def totals(self) -> dict[str, int]:
        """How many candidates each limit dropped, in the order in which the limits apply."""
        return totals([self.counts])


def rejected_of(dropped: Particles, class_names: Sequence[str]) -> Rejected:
    """The account of a tomogram's dropped candidates.

    Args:
        dropped: by falling score, with the limit in the column `rejected_by`, as `pick_judged` gives them.
        class_names: name of class 1, 2, ….
    """
    known = (dropped.labels >= 1) & (dropped.labels <= len(class_names))
    names = np.array(["unknown class", *class_names])[np.where(known, dropped.labels, 0)]
    counts: dict[str, dict[str, int]] = {name: {} for name in class_names} | counts_of(dropped.with_(class_names=names))
    reasons = _reasons(dropped)
    order = np.arange(len(dropped)) if dropped.scores is None else np.argsort(-dropped.scores, kind="stable")
    best = [order[reasons[order] == reason][:MOST_SHOWN] for reason in _in_order(reasons.tolist())]
    kept = np.concatenate(best) if best else np.zeros(0, np.intp)
    return Rejected(counts, dropped.select(kept).with_(extra={COLUMN: reasons[kept]}))


def counts_of(dropped: Particles) -> dict[str, dict[str, int]]:
    """How many candidates of each class each limit dropped; classes without names are called by their labels."""
    reasons, names = _reasons(dropped), dropped.class_names
    of_class = np.array([f"class {label}" for label in dropped.labels]) if names is None else names
    counts = {}
    for name in dict.fromkeys(of_class.tolist()):
        found, numbers = np.unique(reasons[of_class == name], return_counts=True)
        counts[name] = dict(zip(found.tolist(), numbers.tolist(), strict=True))
    return counts


def read_rejected(path: Path, class_names: Sequence[str]) -> Particles:
    """The dropped candidates of one tomogram as `pick --rejected` wrote them, in voxels.

    Raises:
        InputError: the file cannot be read, or does not say which limit dropped its candidates.
    """
    labels = {name: label for label, name in enumerate(class_names, start=1)}
    found = read_annotations(path, class_labels=labels, allow_empty=True)
    if len(found) and COLUMN not in found.extra:
        raise InputError(f"no column {COLUMN}", where=path, fix="write it again with pick --rejected")
    return found


def rejected_beside(
    picks: Path, tomogram: str, class_names: Sequence[str], rule: NameRule = DEFAULT_RULE
) -> Rejected | None:
    """What limits dropped of a tomogram, where `pick --rejected` wrote it beside the picks; None where it did not.

    Args:
        picks: the folder of the lists, the tomogram's list, or the configuration of a copick project.
        tomogram: its name.
        class_names: name of class 1, 2, ….
        rule: which names mean the same tomogram.

    Raises:
        InputError: as `read_rejected`.
    """
    folder = _folder(picks) / FOLDER
    path = folder / f"{tomogram}.csv"
    if not path.is_file():
        files = {other.stem: other for other in sorted(folder.glob("*.csv"))}
        matching = rule.matching(tomogram, files)
        if not matching:
            return None
        path = files[matching[0]]
    return rejected_of(read_rejected(path, class_names), class_names)


@lru_cache
def _folder(picks: Path) -> Path:
    """The folder that `pick` wrote to: of a copick project its overlay."""
    folder = results_folder(picks)
    return folder if folder.is_dir() else folder.parent


def totals(counts: Iterable[Counts]) -> dict[str, int]:
    """How many candidates each limit dropped, over all classes, in the order in which the limits apply."""
    found: dict[str, int] = {}
    for by_class in counts:
        for by_reason in by_class.values():
            for reason, number in by_reason.items():
                found[reason] = found.get(reason, 0) + number
    return {reason: found[reason] for reason in _in_order(found)}


def by_class(counts: Iterable[Counts]) -> dict[str, dict[str, int]]:
    """The sum over tomograms: class → limit → number of candidates."""
    found: dict[str, dict[str, int]] = {}
    for entry in counts:
        for name, by_reason in entry.items():
            own = found.setdefault(name, {})
            for reason, number in by_reason.items():
                own[reason] = own.get(reason, 0) + number
    return found


def rejected_table(
    rows: Counts,
    *,
    first: str = "class",
    picks: Mapping[str, int] | None = None,
    identity: str = "rejected",
    legend: bool = True,
) -> str:
    """Table of dropped candidates: a row for each class or tomogram, a column for each limit, and what the limits mean.

    Args:
        rows: name → limit → number of candidates.
        first: heading of the first column; classes have their colour before them.
        picks: how many picks were kept, by name of the row.
        identity: the table's id on the page.
        legend: whether a sentence below it says what the limits mean.
    """
    reasons = list(totals([rows]))
    if not reasons:
        return '<p class="soft">No limit dropped a candidate.</p>'
    colours = class_colours(list(rows)) if first == "class" else {}
    head = "".join(f"<th>{escape(text)}</th>" for text in [first, *(["kept"] if picks is not None else []), *reasons])
    body = ""
    for name, own in rows.items():
        swatch = f'<span class="swatch" style="background:{colour_of(colours, name)}"></span>' if colours else ""
        numbers = [*([picks.get(name, 0)] if picks is not None else []), *(own.get(reason, 0) for reason in reasons)]
        body += f"<tr><td>{swatch}{escape(name)}</td>" + "".join(f"<td>{number:,}</td>" for number in numbers) + "</tr>"
    meant = "; ".join(f"{reason}: {REASONS[reason]}" for reason in reasons if reason in REASONS)
    note = f"Candidates by the first limit that dropped them. {meant[:1].upper()}{meant[1:]}."
    table = f'<table id="{identity}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    below = f'<p class="soft">{escape(note)}</p>' if legend else ""
    return f'<div class="scroll">{table}</div>{below}'


def _reasons(dropped: Particles) -> np.ndarray:
    """The limit of each candidate; a list without any candidate may lack the column."""
    return dropped.extra.get(COLUMN, np.zeros(len(dropped), "<U1")).astype(np.str_)


def _in_order(reasons: Iterable[str]) -> list[str]:
    """Distinct limits, in the order in which they apply."""
    known = list(REASONS)
    return sorted(set(reasons), key=lambda reason: (known.index(reason) if reason in known else len(known), reason))
