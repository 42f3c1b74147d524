"""A review as the sequence of its edits: whatever shows it folds them in the same way, and undoing drops the last.

The page of `reporting` folds them by the same rules in its script (`static/viewer/review.js`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.reviewing.items import ReviewList
from robpicker_jax.system.errors import InputError

Action = Literal["accept", "reject", "undecide", "reclass", "move", "add"]
State = Literal["undecided", "accepted", "rejected"]
ACTIONS: tuple[Action, ...] = get_args(Action)

Position = tuple[float, float, float]


@dataclass(frozen=True)
class Edit:
    """One decision.

    Attributes:
        do: "accept" (it is a particle as it stands), "reject", "undecide" (no decision after all), "reclass", "move"
            (both accept it as well) or "add".
        item: index of the particle; those that were added follow the given ones, in their order. None of "add".
        label: class label, of "reclass" and "add".
        at: x y z in voxels, of "move" and "add".
    """

    do: Action
    item: int | None = None
    label: int | None = None
    at: Position | None = None


@dataclass(frozen=True)
class Item:
    """A particle under review.

    Attributes:
        label: its class label as it is now.
        at: its position as it is now, x y z in voxels.
        state: what was decided.
        added: whether the review added it.
    """

    label: int
    at: Position
    state: State = "undecided"
    added: bool = False


def folded(given: ReviewList, edits: Iterable[Edit]) -> list[Item]:
    """The particles after the edits, the given ones first.

    Raises:
        InputError: an edit of a particle that is not there, or without the class or position that it needs.
    """
    particles = given.particles
    items = [
        Item(label, (x, y, z))
        for label, (x, y, z) in zip(particles.labels.tolist(), particles.positions_vox.tolist(), strict=True)
    ]
    for number, edit in enumerate(edits, start=1):
        _apply(edit, items, given, f"edit {number} of {given.name}")
    return items


def _apply(edit: Edit, items: list[Item], given: ReviewList, where: str) -> None:
    """Change the list of particles by an edit; where that makes no sense, nothing has changed."""
    if edit.do == "add":
        items.append(Item(_label(edit, given, where), _position(edit, where), "accepted", added=True))
        return
    if edit.item is None or not 0 <= edit.item < len(items):
        raise InputError(f"there is no particle {edit.item}", where=where, fix="use the list that was reviewed")
    item = items[edit.item]
    if edit.do == "reclass":
        item = replace(item, label=_label(edit, given, where), state="accepted")
    elif edit.do == "move":
        item = replace(item, at=_position(edit, where), state="accepted")
    else:
        item = replace(item, state=_STATES[edit.do])
    items[edit.item] = item


_STATES: Mapping[Action, State] = {"accept": "accepted", "reject": "rejected", "undecide": "undecided"}


def _label(edit: Edit, given: ReviewList, where: str) -> int:
    if edit.label is None or not 1 <= edit.label <= len(given.class_names):
        raise InputError(f"{edit.do} needs a class", where=where, fix=f"one of {', '.join(given.class_names)}")
    return edit.label


def _position(edit: Edit, where: str) -> Position:
    if edit.at is None or not np.isfinite(edit.at).all():
        raise InputError(f"{edit.do} needs a position x, y, z", where=where)
    return edit.at


class Review:
    """A review in the making: its edits, and those that were undone.

    Attributes:
        given: what is reviewed.
        edits: what was decided, in order.
        undone: what was undone and can be done again, the last undone last.
    """

    def __init__(self, given: ReviewList, edits: Iterable[Edit] = ()) -> None:
        self.given = given
        self.edits: list[Edit] = list(edits)
        self.undone: list[Edit] = []
        self._items = folded(given, self.edits)

    @property
    def items(self) -> tuple[Item, ...]:
        """The particles as they are now, the given ones first."""
        return tuple(self._items)

    def do(self, edit: Edit) -> None:
        """Make an edit; what was undone before can no longer be done again.

        Raises:
            InputError: an edit that makes no sense (see `folded`); nothing has changed then.
        """
        _apply(edit, self._items, self.given, f"edit {len(self.edits) + 1} of {self.given.name}")
        self.edits.append(edit)
        self.undone.clear()

    def suggest(self, item: int) -> None:
        """Do what the audit suggests for a row: remove a false one, reclass, move, or accept a missing one.

        Raises:
            InputError: not the row of an audit.
        """
        suggestions = self.given.suggestions
        if suggestions is None or not 0 <= item < len(suggestions):
            raise InputError(f"nothing is suggested for particle {item}", where=self.given.name)
        entry = suggestions[item]
        self.do(
            {
                "false": Edit("reject", item),
                "wrong_class": Edit("reclass", item, label=entry.label),
                "displaced": Edit("move", item, at=entry.at),
                "missing": Edit("accept", item),
            }[entry.kind]
        )

    def undo(self) -> Edit | None:
        """Undo the last edit; None where there is none."""
        return self._step(self.edits, self.undone)

    def redo(self) -> Edit | None:
        """Do again what was undone last; None where there is none."""
        return self._step(self.undone, self.edits)

    def _step(self, source: list[Edit], target: list[Edit]) -> Edit | None:
        if not source:
            return None
        target.append(source.pop())
        self._items = folded(self.given, self.edits)
        return target[-1]

    def corrected(self, min_scores: Mapping[str, float] | None = None, *, accepted_only: bool = False) -> Particles:
        """The list that the decisions leave: what was accepted or added, and undecided particles that stay.

        All columns of the given particles are kept, but for what an audit wrote about them; those that were added have a
        class, a position and the tomogram.

        Args:
            min_scores: smallest score of undecided picks, by class; a class without one keeps all.
            accepted_only: leave undecided particles out.
        """
        given, items = self.given, self._items
        n = len(given.particles)
        undecided = np.zeros(n, bool) if accepted_only else given.stays(min_scores or {})
        kept = [
            index
            for index, item in enumerate(items[:n])
            if item.state == "accepted" or (item.state == "undecided" and undecided[index])
        ]
        chosen = given.plain.select(kept).with_(
            positions_vox=np.array([items[index].at for index in kept]).reshape(-1, 3),
            labels=np.array([items[index].label for index in kept], np.int32),
        )
        names = chosen.class_names
        if names is not None:
            changed = np.array([items[index].label != given.particles.labels[index] for index in kept], bool)
            own = np.asarray(["", *given.class_names], np.str_)
            known = np.where(chosen.labels < len(own), chosen.labels, 0)
            chosen = chosen.with_(class_names=np.where(changed, own[known], names))
        added = [item for item in items[n:] if item.state == "accepted"]
        if not added:
            return chosen
        labels = np.array([item.label for item in added], np.int32)
        tomograms = given.particles.tomograms
        new = Particles(
            np.array([item.at for item in added]),
            labels,
            class_names=None if names is None and n else np.asarray(given.class_names, np.str_)[labels - 1],
            tomograms=None if tomograms is None and n else np.full(len(added), _tomogram(given)),
        )
        return Particles.concatenate([chosen, new])


def _tomogram(given: ReviewList) -> str:
    """What the list itself calls the tomogram."""
    names = given.particles.tomograms
    return given.name if names is None or not len(names) else str(names[0])
