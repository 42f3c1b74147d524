"""What limits dropped in a batch of `pick --rejected`, for its page: by class, and tomogram by tomogram."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from robpicker_jax.picking.finished import entries
from robpicker_jax.reporting.rejected import FOLDER, Counts, by_class, counts_of, read_rejected, rejected_table, totals
from robpicker_jax.system.errors import InputError


@dataclass(frozen=True)
class BatchRejected:
    """Dropped candidates of a batch.

    Attributes:
        counts: tomogram → class → limit → number of candidates.
        unread: tomogram → why its list of dropped candidates cannot be read.
    """

    counts: Mapping[str, Counts] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)


def batch_rejected(folder: Path) -> BatchRejected:
    """The dropped candidates of the finished tomograms of a batch of `pick`, one list read at a time.

    Args:
        folder: where the command wrote to; a batch without `--rejected` gives an empty account.
    """
    counts: dict[str, Counts] = {}
    unread: dict[str, str] = {}
    for entry in entries(folder, "pick"):
        for path in (file for file in entry.files if file.parent.name == FOLDER):
            try:
                counts[entry.name] = counts_of(read_rejected(path, ()))
            except InputError as error:
                unread[entry.name] = str(error)
    return BatchRejected(counts, unread)


def rejected_section(rejected: BatchRejected, picks: Mapping[str, Mapping[str, int]]) -> str:
    """The section's HTML; "" for a batch without lists of dropped candidates.

    Args:
        rejected: the account.
        picks: tomogram → class → number of picks that were kept.
    """
    if not rejected.counts and not rejected.unread:
        return ""
    unread = "".join(
        f'<p class="absent">Not counted: {escape(name)}: {escape(why)}</p>' for name, why in rejected.unread.items()
    )
    of_class: dict[str, int] = {}
    for name in rejected.counts:
        for species, number in picks.get(name, {}).items():
            of_class[species] = of_class.get(species, 0) + number
    classes = by_class(rejected.counts.values())
    classes = {name: classes.get(name, {}) for name in dict.fromkeys([*of_class, *classes])}
    table = rejected_table(classes, picks=of_class)
    if not any(classes.values()):
        return table + unread
    tomograms = {name: totals([own]) for name, own in rejected.counts.items()}
    numbers = {name: sum(picks.get(name, {}).values()) for name in tomograms}
    each = rejected_table(tomograms, first="tomogram", picks=numbers, identity="rejected-by-tomogram", legend=False)
    return f"{table}<details><summary>Tomogram by tomogram</summary>{each}</details>{unread}"
